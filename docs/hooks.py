"""What the site adds to the Markdown files: formulas as MathML, the pages of `explain`, references."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.structure.files import File

from resnet_cert.cli import cli
from resnet_cert.commands.explain import PAGES, TOPICS
from resnet_cert.spec import spec_schema

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
IN_REPOSITORY = r"\[([^]]+)\]\((?:\.\./){%d}[^)]*\)"
"""A link to what is in the repository and not on the site, from a page in so many folders."""

WORDS = {
    "number": "a number",
    "integer": "an integer",
    "string": "a text",
    "boolean": "true or false",
    "object": "a mapping",
}


def on_config(config: Any) -> Any:
    """The pages of `resnet-cert explain` follow that of the theory in the navigation."""
    [theory] = [entry["Theory"] for entry in config.nav if isinstance(entry, dict) and "Theory" in entry]
    theory += [f"explain/{topic}.md" for topic in TOPICS]
    return config


def on_files(files: Any, config: Any) -> Any:
    """The pages of `resnet-cert explain` are pages of the site."""
    for topic in TOPICS:
        text = (PAGES / f"{topic}.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"explain/{topic}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    markdown = markdown.replace("](../resnet_cert/theory/explanations/", "](explain/")
    depth = page.file.src_uri.count("/") + 1
    markdown = re.sub(IN_REPOSITORY % depth, r"\1", markdown)
    generated = {"<!-- spec -->": _spec, "<!-- commands -->": _commands}
    for mark, lines in generated.items():
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    return FORMULA.sub(_formula, content)


def _formula(found: re.Match[str]) -> str:
    """A formula of LaTeX as MathML, which browsers draw by themselves."""
    latex = html.unescape(found[2]).strip().removeprefix("\\(").removesuffix("\\)")
    latex = latex.removeprefix("\\[").removesuffix("\\]")
    block = found[1] == "div"
    drawn = convert(latex, display="block" if block else "inline")
    return f'<div class="formula">{drawn}</div>' if block else drawn


def _spec() -> Iterator[str]:
    """Every entry of a spec and every form of it, from the models that read it."""
    schema = spec_schema()
    for name, entry in schema["properties"].items():
        yield f"## {name}\n"
        required = "Required" if name in schema["required"] else "Optional"
        yield f"{required}. {_described(entry)}\n"
        for form in _forms(entry):
            yield from _form(form, schema["$defs"])


def _forms(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return entry.get("oneOf") or entry.get("anyOf") or [entry]


def _described(entry: dict[str, Any]) -> str:
    words = entry.get("description", "")
    if "default" in entry:
        words += f" (default `{json.dumps(entry['default'], ensure_ascii=False)}`)"
    return words.replace("|", "\\|").replace("{", "&#123;").strip()


def _form(form: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """A form as a table of its entries; nested mappings become tables of their own."""
    form = _resolved(form, known)
    if "properties" not in form:
        yield f"- {_kind(form, known)}\n"
        return
    yield f"**{form.get('title', 'a mapping')}**: {_described(form)}\n"
    yield "| entry | value | |\n|---|---|---|"
    nested = []
    for name, entry in form["properties"].items():
        star = "" if name in form.get("required", ()) else " (optional)"
        yield f"| `{name}`{star} | {_kind(entry, known)} | {_described(entry)} |"
        inner = _resolved(entry.get("items", entry), known)
        if "properties" in inner:
            nested.append(inner)
    yield ""
    for inner in nested:
        yield from _form(inner, known)


def _resolved(form: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return {**known[form["$ref"].rpartition("/")[2]], **form} if "$ref" in form else form


def _kind(entry: dict[str, Any], known: dict[str, Any]) -> str:
    entry = _resolved(entry, known)
    if "const" in entry:
        return f"`{json.dumps(entry['const'])}`"
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    choices = entry.get("oneOf") or entry.get("anyOf")
    if choices:
        return ", or ".join(dict.fromkeys(_kind(choice, known) for choice in choices))
    if entry.get("type") == "array":
        return f"a list of {_kind(entry.get('items', {}), known)}"
    if "properties" in entry:
        return f"a mapping: {entry.get('title', '')}".rstrip(": ")
    kinds = entry.get("type", [])
    words = [WORDS.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " or ".join(words) or "a value"


def _commands() -> Iterator[str]:
    """The help of every command, as the program prints it."""
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=f"resnet-cert {name}", terminal_width=98)
        yield f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"
