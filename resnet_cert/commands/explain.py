"""The command `explain`: the theory, one topic at a time, from the pages in `explanations/`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from resnet_cert.commands.common import style, write
from resnet_cert.program import Strict

PAGES = Path(__file__).resolve().parent.parent / "explanations"
TOPICS = (
    "setting",
    "sopsp",
    "theorem1",
    "theorem2",
    "corollary1",
    "theorem3",
    "theorem4",
    "refined",
    "gap-bounds",
    "augmented",
    "vector",
    "regularized",
    "hessian",
    "lipschitz",
    "verdict",
    "certificate",
)
"""The pages in the order in which they are best read."""


@click.command(cls=Strict)
@click.argument("topic", required=False, metavar="[TOPIC]")
def explain(topic: str | None) -> None:
    """Explain a theorem, a definition or a number of the report.  Without TOPIC: list the topics."""
    if topic is None:
        write("".join(f"{name:<13}{title(name)}\n" for name in TOPICS), None)
        return
    if topic not in TOPICS:
        from resnet_cert.spec.faults import suggestion

        raise click.UsageError(f"unknown topic {topic!r}{suggestion(topic, TOPICS)}")
    write(rendered(page(topic), style(None, 0).color), None)


def page(topic: str) -> str:
    """The text on a topic, in Markdown."""
    return (PAGES / f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """What the topic is about, on one line: the heading of its page."""
    return page(topic).partition("\n")[0].removeprefix("# ")


def rendered(markdown: str, color: bool) -> str:
    """A page for the terminal: headings and **strong** words bold, indented formulas untouched."""

    def bold(words: str) -> str:
        return click.style(words, bold=True) if color else words

    blocks = []
    for block in markdown.split("\n\n"):
        if block.startswith("#"):
            block = bold(block.lstrip("# "))
        elif not block.startswith("    "):
            block = re.sub(r"\*\*(.+?)\*\*", lambda strong: bold(strong[1]), block, flags=re.DOTALL)
            block = block.replace(r"\*", "*")
        blocks.append(block)
    return "\n\n".join(blocks)
