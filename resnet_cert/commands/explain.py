"""The command `explain`: the theory, one topic at a time, from the pages in `explanations/`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import click

from resnet_cert.commands.common import style, write
from resnet_cert.commands.program import Strict

PAGES = Path(__file__).resolve().parent.parent / "theory" / "explanations"
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
    "break-even",
    "vector",
    "deep",
    "regularized",
    "hessian",
    "lipschitz",
    "verdict",
    "population",
    "certificate",
)
"""The pages in the order in which they are best read."""
WORDS = {
    "definition-1": "sopsp",
    "eps": "sopsp",
    "epsilon": "sopsp",
    "gradient": "setting",
    "threshold": "sopsp",
    "margin": "sopsp",
    "smallest-epsilon": "sopsp",
    "proposition-r": "regularized",
    "weight-decay": "regularized",
    "multiplier": "regularized",
    "witness": "verdict",
    "enclosure": "verdict",
    "gap": "setting",
    "best-linear": "setting",
    "left-to-gain": "augmented",
    "linear-functional": "gap-bounds",
    "first-order-bound": "gap-bounds",
    "local-second-order-bound": "gap-bounds",
    "cost-of-decay": "regularized",
    "boundary": "regularized",
    "vacuous": "hessian",
    "curvature": "hessian",
    "domain": "lipschitz",
    "head": "vector",
    "bias": "vector",
    "f-lin": "setting",
    "r": "break-even",
    "b": "lipschitz",
    "mu0": "lipschitz",
    "mu1": "lipschitz",
    "mu2": "lipschitz",
    "lambda-min": "hessian",
    "bypass": "vector",
    "softmax": "vector",
    "block-gap": "augmented",
}
"""What a report speaks of by another name, and the page that says what it is."""
LIST_INDENT = 13
FORMULA = "    "
"""How a formula begins."""


def _completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in (*TOPICS, *WORDS) if name.startswith(incomplete)]


@click.command(cls=Strict)
@click.argument("words", nargs=-1, metavar="[TOPIC]", shell_complete=_completed)
def explain(words: tuple[str, ...]) -> None:
    """Explain a theorem, a definition or a number of the report.  Without TOPIC: list the topics."""
    screen = style(None, 0)
    if not words:
        listing = (f"{name:<{LIST_INDENT}}{title(name)}" for name in TOPICS)
        write("".join(_wrapped(line, screen.width, LIST_INDENT) + "\n" for line in listing), None)
        return
    topic = known(" ".join(words))
    if topic is None:
        from resnet_cert.spec.faults import nearest, suggestion

        asked = " ".join(words)
        there = [*TOPICS, *WORDS] if nearest(asked, WORDS) else TOPICS
        raise click.UsageError(f"unknown topic {asked!r}{suggestion(asked, there)}")
    write(rendered(page(topic), screen.color, screen.width), None)


def known(asked: str) -> str | None:
    """The topic of that name, or of that word of a report: "Proposition R", "mu2", "Theorem 3"."""
    name = asked.lower().replace(" ", "-").replace("_", "-").replace("theorem-", "theorem")
    name = {"λ-min": "lambda-min", "ε": "eps", "corollary-1": "corollary1"}.get(name, name).replace("μ", "mu")
    return name if name in TOPICS else WORDS.get(name)


def page(topic: str) -> str:
    """The text on a topic, in Markdown."""
    return (PAGES / f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """What the topic is about, on one line: the heading of its page."""
    return page(topic).partition("\n")[0].removeprefix("# ")


def rendered(markdown: str, color: bool, width: int) -> str:
    """A page for the terminal: headings and **strong** words bold; reflowed where it is too wide."""

    def bold(words: str) -> str:
        return click.style(words, bold=True) if color else words

    blocks = []
    for block in markdown.rstrip().split("\n\n"):
        if max(map(len, block.splitlines())) > width:
            block = _formulas(block, width) if block.startswith(FORMULA) else _prose(block, width)
        if block.startswith("#"):
            block = bold(block.lstrip("# "))
        elif not block.startswith(FORMULA):
            block = re.sub(r"\*\*(.+?)\*\*", lambda strong: bold(strong[1]), block, flags=re.DOTALL)
            block = block.replace(r"\*", "*")
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def _wrapped(line: str, width: int, indent: int) -> str:
    """The line in lines of at most `width` columns, all but the first one indented."""
    return textwrap.fill(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _prose(block: str, width: int) -> str:
    """A paragraph, or a list whose items begin with `- `."""
    items = re.split(r"\n(?=- )", block)
    return "\n".join(_wrapped(" ".join(item.split()), width, 2 * item.startswith("- ")) for item in items)


def _formulas(block: str, width: int) -> str:
    """Formulas, broken where several stand side by side, and where one is still too wide."""
    lines = []
    for line in block.splitlines():
        if len(line) <= width:
            lines.append(line)
            continue
        for side in re.split(r"(?<=\S) {3,}", line):
            lines.append(_wrapped(FORMULA + side.strip(), width, 2 * len(FORMULA)))
    return "\n".join(lines)
