"""The pages of the theory: the command, the docs and Markdown show the same text, whose numbers are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from markdown_it.token import Token

from resnet_cert import Problem, check
from resnet_cert.cli import cli
from resnet_cert.commands.explain import PAGES, TOPICS, WORDS, known, page, rendered, title
from resnet_cert.problem.problem import Support
from resnet_cert.report.page import page as page_of
from resnet_cert.results import Report

DOCS = PAGES.parents[2] / "docs"
REPORT = (PAGES.parent.parent / "results.py").read_text(encoding="utf-8")


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def inline_text(tokens: list[Token]) -> str:
    """What a reader of the rendered Markdown sees, inline code in its quotes."""
    text = ""
    for token in tokens:
        if token.type == "inline":
            text += inline_text(token.children or []) + "\n"
        elif token.type == "code_inline":
            text += f"`{token.content}`"
        elif token.type in ("softbreak", "hardbreak"):
            text += "\n"
        elif token.type in ("text", "code_block", "text_special"):
            text += token.content
        elif token.type == "list_item_open":
            text += "- "
    return text


def test_every_page_is_a_topic_and_is_listed_by_its_heading():
    assert sorted(TOPICS) == sorted(path.stem for path in PAGES.iterdir())
    listed = explain()
    assert listed.exit_code == 0
    assert [line.split(maxsplit=1) for line in listed.stdout.splitlines()] == [
        [topic, title(topic)] for topic in TOPICS
    ]


def test_the_docs_lead_to_every_page_under_the_same_name():
    index = (DOCS / "theory.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.*?)\]\((.*?)\) \| (.*) \|$", index, re.MULTILINE)
    assert [(topic, heading) for topic, _, heading in rows] == [(topic, title(topic)) for topic in TOPICS]
    assert [(DOCS / link).resolve() for _, link, _ in rows] == [PAGES / f"{topic}.md" for topic in TOPICS]


@pytest.mark.parametrize("topic", TOPICS)
def test_the_terminal_shows_what_markdown_shows(topic: str):
    shown = explain(topic)
    assert shown.exit_code == 0
    assert shown.stdout.split() == inline_text(MarkdownIt().parse(page(topic))).split()
    assert shown.stdout.startswith(f"{title(topic)}\n")
    assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_narrow_terminal_shows_the_same_words_unbroken(topic: str, width: int):
    narrow, wide = (rendered(page(topic), color=False, width=w) for w in (width, 100))
    assert narrow.split() == wide.split()
    assert max(map(len, narrow.splitlines())) <= width
    assert narrow.endswith("\n")
    assert wide == rendered(page(topic), color=False, width=98)  # as in the page itself
    for line in wide.splitlines():  # a formula that fits stays as it is
        assert not line.startswith("    ") or len(line) > width or line in narrow.splitlines()


@pytest.mark.parametrize("topic", TOPICS)
def test_colour_adds_nothing_but_escapes(topic: str):
    colored, plain = (rendered(page(topic), color=color, width=100) for color in (True, False))
    assert colored != plain
    assert re.sub(r"\x1b\[\d*m", "", colored) == plain == explain(topic).stdout


@pytest.mark.parametrize("topic", TOPICS)
def test_every_page_has_its_source_and_names_only_what_there_is(topic: str):
    text = page(topic)
    assert "\n## Source\n" in text
    for other in re.findall(r"topics? `([\w-]+)`", text):
        assert other in TOPICS
    for path in re.findall(r"docs/\w+\.md", text):
        assert (DOCS.parent / path).is_file()
    for part, field in re.findall(r"`(\w+)\.(\w+)`", text):
        assert part == "theorems" or (part in Report.__dataclass_fields__ and f"    {field}: " in REPORT)
    for option in re.findall(r"`(--[\w-]+)", text):
        commands = cli.commands.values()
        assert any(option in parameter.opts for command in commands for parameter in command.params), option
    for name in re.findall(r"resnet-cert (\w+)", text):
        assert name in cli.commands


@pytest.mark.parametrize(
    ("topic", "message"), [("theorem5", "'theorem"), ("sopps", "'sopsp'"), ("?", "expected one of setting")]
)
def test_an_unknown_topic_is_refused_with_the_nearest_one(topic: str, message: str):
    refused = explain(topic)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert message in refused.stderr


# --- the numbers in the pages -----------------------------------------------------------------------------


def test_the_example_that_the_exponent_is_sharp():
    delta = 0.25
    y, z = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    f = (z - delta * y)[:, None]
    report = check(Problem.from_arrays(x=delta * y[:, None], y=y, f=f, w=[0.0], V=[[1.0]], r=1.0))
    assert report.gradient.norm.upper < 1e-14
    assert report.hessian.lambda_min.value == pytest.approx((1 - (1 + 4 * delta**2) ** 0.5) / 2, abs=1e-14)
    F_lin_at_1 = np.mean((delta * y - y) ** 2) / 2
    assert report.objective.F.value - F_lin_at_1 == pytest.approx(delta - delta**2 / 2, abs=1e-14)


def test_the_spurious_minimum_of_the_regularised_example():
    w, V = -0.98280626, -1.60268225
    G = lambda w, V: (w * (1 + V) - 1) ** 2 + (w * w + V * V) / 4  # noqa: E731
    slope = (2 * (w * (1 + V) - 1) * (1 + V) + w / 2, 2 * (w * (1 + V) - 1) * w + V / 2)
    assert np.linalg.norm(slope) < 1e-7
    curvature = 2 * (2 * w * (1 + V) - 1)
    hessian = [[2 * (1 + V) ** 2 + 0.5, curvature], [curvature, 2 * w * w + 0.5]]
    assert np.linalg.eigvalsh(hessian)[0] > 0
    assert f"{G(w, V):.4f}" == "1.0498"
    assert f"{(w * (1 + V) - 1) ** 2:.4f}" == "0.1662"
    assert G(0.8, 0.0) == pytest.approx(0.2)
    for number in ("-0.98280626", "-1.60268225", "1.0498…", "0.1662…", "G = 0.2"):
        assert number.replace("-", "−") in page("regularized")


def test_the_counterexample_for_fewer_inputs_than_outputs():
    x, f = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
    y, weights = np.array([[1.0, 0.0], [0.0, 0.5]]), np.array([[1.0, 3.0], [3.0, 1.0]])

    def F(at: np.ndarray) -> float:
        p = (x + at[2] * f)[:, None] * at[None, :2]
        return float(np.sum(weights * (p - y) ** 2) / 4)

    point, steps = np.array([0.0, 0.5, 1.0]), np.eye(3) * 1e-4
    gradient = [(F(point + e) - F(point - e)) / 2e-4 for e in steps]
    assert np.allclose(gradient, 0.0, atol=1e-7)
    hessian = [
        [(F(point + e + g) - F(point + e - g) - F(point - e + g) + F(point - e - g)) / 4e-8 for g in steps]
        for e in steps
    ]
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert np.allclose(eigenvalues, [0.14158384, 0.64353531, 1.71488085], atol=1e-6)
    for value in (0.1415, 0.6435, 1.7148):
        assert f"{value}…" in page("vector")
    assert F(point) == pytest.approx(1 / 4)
    assert F(np.array([1.0, 0.0, 0.0])) == pytest.approx(1 / 16)


def test_the_pages_come_with_the_package():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    [package] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert PAGES.is_relative_to(Path(__file__).parents[2] / package)


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        (["Proposition", "R"], "regularized"),
        (["witness"], "verdict"),
        (["r"], "break-even"),
        (["b"], "lipschitz"),
        (["μ2"], "lipschitz"),
        (["lambda_min"], "hessian"),
        (["λ_min"], "hessian"),
        (["Theorem", "3"], "theorem3"),
        (["Corollary 1"], "corollary1"),
        (["smallest_epsilon"], "sopsp"),
    ],
)
def test_the_words_of_a_report_lead_to_the_page_that_explains_them(words: list[str], topic: str):
    assert explain(*words).stdout == explain(topic).stdout


def test_every_word_leads_to_a_page_that_uses_it():
    for word, topic in WORDS.items():
        assert topic in TOPICS
        assert word not in TOPICS


# --- the words of a report --------------------------------------------------------------------------------


def reports() -> Iterator[Report]:
    """With one output and several, a bias, decay, a constraint, other inputs, and the distribution."""
    rng = np.random.default_rng(0)
    x, f = rng.uniform(-1.0, 1.0, size=(30, 3)), rng.uniform(-1.0, 1.0, size=(30, 2))
    y, W, V = rng.uniform(-1.0, 1.0, size=(30, 2)), rng.normal(size=(2, 3)), rng.normal(size=(3, 2))

    def problem(q: int, **more: Any) -> Problem:
        return Problem.from_arrays(x=x, y=y[:, :q], f=f, W=W[:q], V=V, epsilon=50.0, **more)

    yield check(problem(1, compare={"pixels": f}), augmented=True)
    yield check(problem(1, c=[0.5], norm=9.0), population=Support(0.9, x=2.0, f=2.0, y=1.0))
    yield check(problem(2, c=[0.1, 0.2], l2=0.1))


def words_of(document: Any) -> Iterator[str]:
    for key, part in document.items() if isinstance(document, dict) else ():
        yield key
        yield from words_of(part)


def test_explain_knows_every_word_of_a_report():
    unknown = set()
    for report in reports():
        said = page_of(report)
        rows = [*said.facts, *said.conditions.rows, *said.theorems.rows, *said.details]
        document = report.to_dict()
        del document["spec"], document["versions"], document["constants"]["source"]
        names = [str(row[0]) for row in rows] + list(words_of(document))
        unknown |= {name for name in names if known(name) is None}
    assert unknown == set()
