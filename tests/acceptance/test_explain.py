"""The pages of the theory: the command, the docs and Markdown show the same text, whose numbers are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from markdown_it.token import Token

from resnet_cert import Problem, check
from resnet_cert.cli import cli
from resnet_cert.commands.explain import PAGES, TOPICS, WORDS, page, rendered, title
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


# --- the formulas of the pages, as they are printed -------------------------------------------------------


def formula(topic: str, begins: str, which: int = 0) -> str:
    """What stands behind `begins` on a page, as Python on the names of `by_hand`."""
    lines = [line for line in page(topic).splitlines() if line.startswith("    ")]
    parts = [part for line in lines for part in re.split(r" {3,}", line.strip())]
    right = [part.removeprefix(begins) for part in parts if part.startswith(begins)][which].rstrip(".,")
    right = right.replace("min{G_lin(W*) : ‖W*‖_F ≤ r} +", "").replace("−", "-").replace("·", "*")
    right = re.sub(r"([wW])\*", r"\1s", right)
    right = re.sub(r"ᵀ(\w+)(?: (\w)\b)?", lambda m: ".T @ " + " @ ".join(filter(None, m.groups())), right)
    right = right.replace("WsV", "Ws @ V").replace("∇", "grad_")
    right = re.sub(r"‖([^‖]+)‖_F²", r"fro(\1)**2", right)
    right = re.sub(r"‖([^‖]+)‖²", r"norm(\1)**2", right)
    right = re.sub(r"‖([^‖]+)‖", r"norm(\1)", right)
    right = re.sub(r"⟨([^,⟩]+), ([^⟩]+)⟩", r"inner(\1, \2)", right)
    right = re.sub(r"√(\w+)", r"√(\1)", right).replace("√", "sqrt")
    return re.sub(r"(?<=[)\d])(?=norm)|(?<=\*\*2)(?=\()", "*", right)  # products without a sign


def by_hand(problem: Problem, report: Report) -> dict[str, Any]:
    """What the formulas speak of, for ℓ = ½‖p − y‖², by plain NumPy."""
    data, W, V, l2 = problem.distribution, problem.W, problem.V, problem.objective.l2
    x, y = np.asarray(data.x[:]), np.asarray(data.y[:]).reshape(problem.n, -1)
    f = np.asarray(problem.features.rows(slice(0, len(x)), x, len(x)))
    n, h = len(x), x + f @ V.T
    residual = h @ W.T - y

    def F_lin(U: np.ndarray) -> float:
        return 0.5 * float(np.sum((x @ np.atleast_2d(U).T - y) ** 2)) / n

    of_W, A = residual.T @ h / n, residual.T @ f / n
    grad_F = np.concatenate([of_W.ravel(), (W.T @ A).ravel()])
    grad_G = grad_F + 2 * l2 * np.concatenate([W.ravel(), V.ravel()])
    F, constants = 0.5 * float(np.sum(residual**2)) / n, report.constants
    return {
        "W": W, "V": V, "A": A, "F": F, "F_lin": F_lin, "l2": l2, "ρ": 2 * l2, "g": of_W + 2 * l2 * W,
        "grad_F": grad_F, "grad_G": grad_G, "grad_L": grad_G, "w": W[0], "a": A[0], "g_w": of_W[0],
        "b": constants.b, "r": constants.r, "μ1": constants.mu1, "μ2": constants.mu2, "ε": report.epsilon,
        "m": min(problem.q, problem.k), "sqrt": np.sqrt, "inner": lambda a, b: np.sum(a * b),
        "norm": lambda a: np.linalg.norm(a, 2), "fro": np.linalg.norm,
        "best": lambda decay: np.linalg.solve(x.T @ x / n + 2 * decay * np.eye(x.shape[1]), x.T @ y / n).T,
    }  # fmt: skip


def value_of(topic: str, begins: str, names: dict[str, Any], which: int = 0) -> float:
    return float(eval(formula(topic, begins, which), names))


def away_from_critical_points(q: int, l2: float) -> Problem:
    rng = np.random.default_rng(q)
    x, f = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    y = x @ rng.normal(size=(4, q)) + f[:, :1] + 0.3 * rng.normal(size=(30, q))
    W, V = rng.normal(size=(q, 4)), rng.normal(size=(4, 3))
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss="squared", l2=l2, epsilon=1e3)


@pytest.mark.parametrize("q", [1, 2])
def test_the_numbers_of_weight_decay_come_from_the_formulas_as_printed(q: int):
    problem = away_from_critical_points(q, l2=0.3)
    report = check(problem)
    about, names = report.regularized, by_hand(problem, report)
    assert about is not None
    assert about.theorem3 is not None

    def against(W_star: np.ndarray) -> dict[str, Any]:
        return {**names, "Ws": W_star, "X": np.linalg.pinv(problem.W) @ W_star @ problem.V}

    right = value_of("regularized", "F − F_lin(W*) ≤", against(names["best"](0.0)))
    assert about.proposition_R is not None
    assert about.proposition_R.value == pytest.approx(right, rel=1e-9)
    decayed = against(names["best"](0.3))
    sides = [value_of("regularized", "G − G_lin(W*) ≤", decayed, which) for which in (0, 1)]
    assert about.gap_bound is not None
    assert about.gap_bound.value == pytest.approx(min(sides), rel=1e-9)
    names["κ"] = names["sqrt"](names["μ2"] * names["ε"]) + 2 * 0.3
    right = value_of("regularized", "G ≤", names)
    assert about.theorem3.bound is not None
    assert about.theorem3.bound.value == pytest.approx(right, rel=1e-9)


def test_theorem_1_and_the_measured_bounds_come_from_the_formulas_as_printed():
    problem = away_from_critical_points(1, l2=0.0)
    report = check(problem)
    names = by_hand(problem, report)
    names["ws"] = names["best"](0.0)[0]
    names["D"] = value_of("theorem1", "D² =", names) ** 0.5
    first, measured = report.theorem1, report.gap_bounds
    assert first.lower_bound is not None
    assert first.lower_bound.value == pytest.approx(value_of("theorem1", "‖∇F‖ ≥", names), rel=1e-9)
    functional = value_of("gap-bounds", "gap ≤", names)
    assert measured.linear_functional.value == pytest.approx(functional, rel=1e-9)
    assert measured.first_order.value == pytest.approx(value_of("gap-bounds", "≤ ", names), rel=1e-9)
