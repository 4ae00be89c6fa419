"""The command `explain`: the theory, one topic at a time, from the pages in `explanations/`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import click

from resnet_cert.commands.common import always_quiet, style, write
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
    word: topic
    for topic, words in {
        "setting": "data problem spec name n d k x y f loss point parameters objective f-lin f-lin-min "
        "best-linear gap gradient gradient-norm norm-w norm-v norm-w-star ‖w*‖ attained falls-at-rim "
        "assumption-1 assumption1 everywhere",
        "sopsp": "definition-1 eps epsilon threshold margin smallest-epsilon smallest-ε-for-both",
        "theorem1": "theorem-1 lower-bound lower-bound-refined",
        "theorem2": "theorem-2 left right",
        "corollary1": "corollary-1 hypothesis landscape critical-points critical-sets kind saddle minimum "
        "flat-valley complete proven",
        "theorem3": "theorem-3 bound bound(ε) f-upper threshold-form polynomials polynomial-form form "
        "refined-polynomial-form",
        "theorem4": "theorem-4 sgd eta η delta δ average-objective best-objective curve",
        "refined": "refined-form local-lemma",
        "gap-bounds": "linear-functional first-order-bound local-second-order-bound first-order local",
        "augmented": "s left-to-gain block-gap (x,-f) on-(x,-f)",
        "break-even": "r radius break-even-radius infinite profile norm-w-frobenius",
        "vector": "head outputs bias bypass softmax",
        "deep": "comparators compare chain",
        "regularized": "proposition-r weight-decay regularizer constraint multiplier μ boundary judged l g "
        "l2 norm norm-point active cost-of-decay best-at-v-=-0 objective-lin-min gap-bound g-upper spurious "
        "spurious-minimum on-rim",
        "hessian": "lambda-min λ-min curvature method zero-multiplicity vacuous informative-below crosscheck "
        "by-autodiff curvature-along-witness a-f",
        "lipschitz": "b domain constants source mu0 mu1 mu2",
        "verdict": "witness descent enclosure value lower upper reasons certified refuted undecided expect "
        "holds applies reason versions total seconds status range",
        "population": "confidence rigor gap-upper gradient-norm-upper a-f-norm-upper better-than-linear",
        "certificate": "verify sha256",
    }.items()
    for word in words.split()
}
"""What a report speaks of by another name, and the page that says what it is."""
STATEMENTS = (
    (r"F ≤ min F_lin on .*|on .*", "deep"),
    (r".*\(x, f\).*|.*min Φ.*", "augmented"),
    (r".*Proposition R|G .*", "regularized"),
    (r"[123]  .*", "theorem{0[0]}"),
    (r"F ≤ min F_lin", "corollary1"),
    (r"gap ≤ .*", "gap-bounds"),
    (r"‖∇[FGL]‖ ≤ ε|λ_min ≥ .*", "sopsp"),
    (r"‖.*\*.*‖(_F)?|point .*", "setting"),
)
"""Rows of a report that are statements, and the pages behind them."""
LIST_INDENT = 13
FORMULA = "    "
"""How a formula begins."""


def _completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in (*TOPICS, *WORDS) if name.startswith(incomplete)]


@click.command(cls=Strict)
@click.argument("words", nargs=-1, metavar="[TOPIC]", shell_complete=_completed)
@always_quiet
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
    """The topic of that name, or of these words of a report: "mu2", "Proposition R", "F ≤ min F_lin"."""
    name = asked.lower().replace(" ", "-").replace("_", "-")
    plain = re.sub(r"^(theorem|corollary)-", r"\1", name.replace("μ", "mu").replace("ε*", "smallest-epsilon"))
    for word in (name, plain):
        if word in TOPICS or word in WORDS:
            return word if word in TOPICS else WORDS[word]
    for pattern, topic in STATEMENTS:
        if re.fullmatch(pattern, asked):
            return topic.format(asked)
    return WORDS.get(plain.replace("ε", "eps"))


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
