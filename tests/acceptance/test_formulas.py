"""Every number of a report comes out by hand, at any point, from the formulas of the pages as printed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reports import leave_out_crosscheck

from resnet_cert import Problem, bound, check, sgd
from resnet_cert.check import examine
from resnet_cert.problem.problem import Support
from resnet_cert.results import Report
from resnet_cert.search.witness import descent, find_witness
from tests.formulas import LOSSES, Hand, evaluated, printed, sigmoid


def long(*case: Any) -> Any:
    """A case of the long runs: another loss or shape is another compilation."""
    return pytest.param(*case, marks=pytest.mark.long)


HEADS = [("squared", 1), ("squared", 3), long("logistic", 1), long("pseudo_huber", 1), long("softmax", 3)]


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def problem_of(
    loss: str = "squared", q: int = 1, d: int = 4, k: int = 3, seed: int = 0, bias: bool = False, **more: Any
) -> Problem:
    """Random data, of unequal weight, and a random point away from every critical one."""
    rng = np.random.default_rng([seed, q, d, k])
    n = 24
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    p = x @ rng.normal(size=(d, q)) + f[:, :1] + rng.normal(size=(n, q))
    y: Any = p
    if loss == "softmax":
        y = np.argmax(p + 6.0 * rng.normal(size=p.shape), axis=1)
    elif loss == "logistic":
        y = np.where(p[:, 0] + 2.0 * rng.normal(size=n) > 0.0, 1.0, -1.0)
    W, V, c = rng.normal(size=(q, d)), rng.normal(size=(d, k)), rng.normal(size=q)
    pi = rng.uniform(0.5, 1.5, size=n)
    given = {"probabilities": pi / pi.sum(), "c": c if bias else None, "epsilon": 1e3, "W": W, "V": V}
    return Problem.from_arrays(x=x, y=y, f=f, loss=loss, **given | more)


def span_of(problem: Problem) -> np.ndarray:
    """N of the topic `vector`: for softmax an orthonormal basis of the vectors of sum 0, else I."""
    if problem.loss.name != "softmax":
        return np.eye(problem.q)
    return np.linalg.svd(np.ones((1, problem.q)))[2][1:].T


def seen(problem: Problem, report: Report | None = None, **more: Any) -> dict[str, Any]:
    """What the pages speak of at the problem's point, W* the best linear predictor among it."""
    hand = Hand.of(problem)
    star = hand.best()
    block, N = star[:, : problem.d1], span_of(problem)
    gap = hand.F() - hand.F_lin(star)
    values: dict[str, Any] = {
        "W*": N.T @ star, "W": N.T @ problem.W, "A_f": N.T @ hand.A_f, "gap": gap, "w*": star.T,
        "W*V": N.T @ block @ problem.V, "W_1": N.T @ hand.W_1, "d": problem.d1, "k": problem.k,
        "g_W": N.T @ hand.g, "q": N.shape[1],
    }  # fmt: skip
    values["σ"] = np.linalg.svd(values["W_1"])[1][-1]
    values["rank"] = min(N.shape[1], problem.d1, problem.k)
    if report is not None:
        constants = report.constants
        values |= {
            "ε": report.epsilon, "b": constants.b, "r": constants.r, "μ0": constants.mu0,
            "μ1": constants.mu1, "μ2": constants.mu2, "m0": math.sqrt(constants.mu2 * report.epsilon),
            "ρ": min(N.shape[1], problem.k), "C": 1.0 if problem.d1 > N.shape[1] else 1.0 + math.sqrt(2.0),
        }  # fmt: skip
    return hand.names(**values | more)


def by_hand(topic: str, begins: str, names: dict[str, Any], which: int = 0, before: str = "") -> float:
    """The number behind `begins` on a page; before: what of the formula stands before that."""
    return evaluated(before + printed(topic, begins, which), names)


def same(reported: Any, value: float, rel: float = 1e-8) -> None:
    at = reported.value if hasattr(reported, "value") else reported
    assert at == pytest.approx(value, rel=rel, abs=1e-12)


# --- The point itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "q"), HEADS)
@pytest.mark.parametrize("bias", [False, long(True)])
def test_definition_1(loss: str, q: int, bias: bool):
    problem = problem_of(loss, q, bias=bias, epsilon=0.01)
    report, hand = check(problem), Hand.of(problem)
    names = seen(problem, report)
    same(report.objective.F, hand.F())
    same(report.objective.F_lin_min, hand.least())
    same(report.objective.gap, names["gap"])
    same(report.objective.norm_w_star, np.linalg.norm(hand.best()))
    same(report.gradient.norm, np.linalg.norm(hand.gradient))
    same(report.hessian.lambda_min, hand.lambda_min)
    same(report.hessian.threshold, by_hand("sopsp", "`hessian.threshold` = ", names))
    same(report.smallest_epsilon, by_hand("sopsp", "ε ≥ ε* = ", names))


@pytest.mark.parametrize("loss", ["squared", long("logistic"), long("pseudo_huber")])
def test_the_derivatives_of_the_setting(loss: str):
    problem = problem_of(loss)
    names, hand, report = seen(problem), Hand.of(problem), check(problem)
    square = by_hand("setting", "‖∇F‖² = ", names)
    same(report.gradient.norm, math.sqrt(square))
    same(report.gradient.norm_w, np.linalg.norm(names["g_w"]))
    for weight, sample in names["samples"]:
        assert weight > 0.0
        q = names["w*"].T @ sample["x"]
        step = hand.loss.value(q, sample["y"]) - hand.loss.value(sample["p"], sample["y"])
        sample["D(w*ᵀx, p)"] = step - sample["ℓ′"] * (q - sample["p"])
    names["D(w*ᵀx, p)"] = None
    same(report.objective.gap, by_hand("setting", "F − F_lin(w*) =", names))


# --- Theorems 1 and 2, and the measured bounds ------------------------------------------------------------


def test_theorem_1():
    problem = problem_of()
    report, names = check(problem), seen(problem)
    names["D"] = math.sqrt(by_hand("theorem1", "D² =", names))
    names["D_refined"] = math.sqrt(by_hand("theorem1", "D_refined² =", names))
    same(report.theorem1.lower_bound, by_hand("theorem1", "‖∇F‖ ≥", names))
    same(report.theorem1.lower_bound_refined, names["gap"] / names["D_refined"])


@pytest.mark.parametrize(("loss", "q"), [("squared", 3), long("squared", 4), long("softmax", 4)])
def test_theorem_1_of_several_outputs(loss: str, q: int):
    problem = problem_of(loss, q)
    report, names = check(problem), seen(problem)
    same(report.theorem1.lower_bound, names["gap"] / by_hand("vector", "the lower bound with ", names))
    same(report.theorem1.lower_bound_refined, by_hand("vector", "‖∇F‖ ≥", names))


@pytest.mark.parametrize(("loss", "q"), HEADS)
@pytest.mark.parametrize("at_origin", [True, False])
def test_theorem_2(loss: str, q: int, at_origin: bool):
    problem = problem_of(loss, q)
    if at_origin:
        problem = replace(problem, point=replace(problem.point, W=np.zeros_like(problem.W)))
    report = check(problem)
    origin = Hand(problem, np.zeros_like(problem.W), problem.V)
    star = origin.best()
    names = seen(problem) | origin.names() | {"F(0, V, θ)": origin.F(), "w*": star.T, "W*": star}
    topic = "theorem2" if q == 1 else "vector"
    same(report.theorem2.left, by_hand(topic, "    ‖∇F‖ +", names, before="‖∇F‖ +"))
    same(report.theorem2.right, by_hand(topic, "θ) − F_lin", names, before="(F(0, V, θ) − F_lin"))
    same(report.theorem2.gradient_norm, np.linalg.norm(origin.gradient))
    same(report.theorem2.lambda_min, origin.lambda_min)
    if q == 1:
        names["β"] = np.linalg.eigvalsh(names["A"])[0]
        same(report.theorem2.lambda_min, by_hand("theorem2", "    λ_min = ", names))


def local_names(problem: Problem, names: dict[str, Any]) -> dict[str, Any]:
    """What the local lemma speaks of: η, called β where W_1e = 0, and else κ."""
    hand = Hand.of(problem)
    X, _, Yt = np.linalg.svd(hand.A_f)
    u, t = X[:, :1], Yt[:1].T
    _, sizes, Zt = np.linalg.svd(names["W_1"])
    kernel = Zt[np.concatenate([sizes, np.zeros(len(Zt) - len(sizes))]) <= 1e-12]
    e = Zt[-1:].T
    if len(kernel):
        M = hand.mean(lambda s: (u.T @ s["∇²ℓ"] @ u) * s["h"][: problem.d1] @ s["h"][: problem.d1].T)
        e = kernel.T @ np.linalg.eigh(kernel @ M @ kernel.T)[1][:, :1]
    samples = [
        (weight, s | {"tᵀf": t.T @ s["f"], "eᵀh": e.T @ s["h"][: problem.d1]})
        for weight, s in names["samples"]
    ]
    known = names | {"samples": samples, "u": u, "tᵀf": None, "eᵀh": None, "(We)": hand.W_1 @ e}
    known["β"] = known["η"] = by_hand("vector", "β = min{", known)
    known["κ"] = by_hand("vector", "κ = ", known)
    return known


@pytest.mark.parametrize("d", [long(1), long(2), 4])
@pytest.mark.parametrize("origin", [False, True])
def test_the_measured_bounds_of_one_output(d: int, origin: bool):
    problem = problem_of("squared" if d == 4 else "logistic", d=d)
    if origin:
        problem = replace(problem, point=replace(problem.point, W=np.zeros_like(problem.W)))
    report, names = check(problem), seen(problem)
    same(report.gap_bounds.linear_functional, by_hand("gap-bounds", "gap ≤", names))
    same(report.gap_bounds.first_order, by_hand("gap-bounds", "    ≤ ", names))
    names = local_names(problem, names)
    names["(a bound of ‖a‖)"] = by_hand("refined", "‖a‖ ≤", names, 0 if d > 1 else 1)
    if not origin:
        by_gradient = np.linalg.norm(names["w"]) * np.linalg.norm(names["a"]) / np.linalg.norm(names["w"])
        names["(a bound of ‖a‖)"] = min(names["(a bound of ‖a‖)"], by_gradient)
    same(report.gap_bounds.local, by_hand("gap-bounds", "≤ ", names, 1))


@pytest.mark.parametrize(
    ("loss", "q", "d"), [("squared", 3, 4), long("squared", 4, 4), long("softmax", 4, 3)]
)
def test_the_measured_bounds_of_several_outputs(loss: str, q: int, d: int):
    problem = problem_of(loss, q, d=d)
    report, names = check(problem), seen(problem)
    same(report.gap_bounds.linear_functional, by_hand("vector", "F − F_lin(W*) ≤", names))
    same(report.gap_bounds.first_order, by_hand("vector", "gap_bounds.first_order = ", names))
    names = local_names(problem, names)
    by_curvature = by_hand("vector", "the least of the bound by curvature, ", names | {"η": None})
    by_gradient = by_hand("vector", "and for σ > 0 of ", names)
    names["(a bound of ‖A_f‖_2)"] = min(by_curvature, by_gradient)
    same(report.gap_bounds.local, by_hand("vector", "gap_bounds.local = ", names))


# --- Theorem 3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "q", "d", "k", "bias"),
    [
        ("squared", 1, 4, 3, False), long("logistic", 1, 1, 2, False), long("squared", 1, 3, 2, True),
        ("squared", 3, 4, 3, False), long("squared", 3, 3, 2, True), long("softmax", 3, 4, 3, False),
    ],
)  # fmt: skip
def test_theorem_3(loss: str, q: int, d: int, k: int, bias: bool):
    claims = {"mu0": 40.0, "mu1": 30.0, "mu2": 20.0}
    problem = problem_of(loss, q, d=d, k=k, bias=bias, epsilon=100.0, **claims)
    report = check(problem, break_even=True)
    third, names = report.theorem3, seen(problem, report)
    if q > 1:
        names["b"] = max(report.constants.b, float(np.linalg.norm(problem.W)))
    scalar = q == 1 and not bias
    same(third.refined_form, by_hand("theorem3", "    (b + r)ε + ", names, 0 if q == 1 else 1, "(b + r)ε + "))
    eps = 100.0 + 100.0**0.25
    begins = "    b + r + br + μ0 +"
    same(third.polynomial_form, eps * by_hand("theorem3", begins, names, 0 if scalar else 1, begins))
    begins = "b + r + C·br" if q == 1 else "b + r + √ρ·C·br"
    same(third.refined_polynomial_form, eps * by_hand("theorem3", begins, names, 0, begins))
    assert third.threshold is not None
    assert third.threshold_form is not None
    names["t"] = third.threshold
    S, B = by_hand("theorem3", "S(t) = ", names, 0 if scalar else 1), by_hand("theorem3", "B(t) = ", names)
    same(third.threshold_form, S if third.threshold == names["b"] else B)
    same(min(S, B), S)
    assert third.bound is not None
    same(third.bound, min(third.threshold_form, third.refined_form or math.inf))
    same(third.F_upper, Hand.of(problem).least() + third.bound.value)
    if third.augmented is not None:
        names |= {"r": third.augmented.r, "s": third.augmented.s, "E[ℓ(Ux + Zf)]": 0.0}
        same(third.augmented.bound, by_hand("theorem3", "F ≤ E[ℓ(Ux + Zf)] +", names))
        best = Hand.of(problem).best(features=True)
        same(third.augmented.r, np.linalg.norm(best[:, : problem.d]), 1e-5)
        same(third.augmented.s, np.linalg.norm(best[:, problem.d :]), 1e-5)
        same(
            third.augmented.upper.value - third.augmented.bound.value,
            Hand.of(problem).least(features=True),
            1e-6,
        )


@pytest.mark.parametrize("scalar", [True, False])
def test_the_threshold_is_where_both_cases_meet(scalar: bool):
    shape: dict[str, Any] = {"q": 1, "d": 3} if scalar else {"q": 2, "d": 3, "k": 5}
    [row] = bound(1e-5, b=2.0, r=1.5, mu0=3.0, mu1=2.0, mu2=4.0, **shape).rows
    names: dict[str, Any] = {
        "b": 2.0, "r": 1.5, "μ0": 3.0, "μ1": 2.0, "μ2": 4.0, "ε": 1e-5, "m0": math.sqrt(4e-5),
        "t": row.threshold, "ρ": 1.0 if scalar else 2.0,
    }  # fmt: skip
    same(row.threshold_form, by_hand("theorem3", "S(t) = ", names, 0 if scalar else 1))
    same(row.threshold_form, by_hand("theorem3", "B(t) = ", names))


# --- Other predictors -------------------------------------------------------------------------------------


def test_the_augmented_comparator():
    problem = problem_of()
    report, hand = check(problem, augmented=True), Hand.of(problem)
    about, best, names = report.augmented, hand.best(features=True), seen(problem)
    assert about is not None
    names |= {"u": best[:, : problem.d].T, "z": best[:, problem.d :].T}
    names["E[ℓ(uᵀx + zᵀf)]"] = hand.least(features=True)
    same(about.minimum, hand.least(features=True))
    same(about.r, 1.01 * np.linalg.norm(best), 1e-6)
    same(about.linear_functional, by_hand("augmented", "F − E[ℓ(uᵀx + zᵀf)] ≤", names), 1e-6)
    same(about.lower_bound, by_hand("augmented", "‖∇F‖ ≥", names), 1e-6)


@pytest.mark.parametrize(("loss", "q"), HEADS)
def test_how_large_a_linear_predictor_must_be_and_what_is_left_to_gain(loss: str, q: int):
    """On the path of minimisers of F_lin + (λ/2)‖W‖_F², at the λ where F_lin is F."""
    problem = problem_of(loss, q)
    half = problem.W * 0.02 + 0.9 * Hand.of(problem).best()  # somewhat worse than the best linear predictor
    problem = replace(problem, point=replace(problem.point, W=half, V=0.01 * problem.V))
    report, hand = check(problem, break_even=True), Hand.of(problem)
    F, low, high = hand.F(), 1e-12, 1e3
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if hand.F_lin(hand.best(decay=middle / 2.0)) < F else (low, middle)
    W = hand.best(decay=low / 2.0)
    radius, names = report.objective.break_even_radius, hand.names(λ=low, δ=0.0, W=W)
    assert radius is not None
    same(radius, float(np.linalg.norm(W)), 1e-6)
    square = by_hand("break-even", "as long as ρ² < ", names)
    same(radius, math.sqrt(square), 1e-6)
    same(report.objective.block_gap, F - hand.least(features=True), 1e-6)
    same(report.constants.r, by_hand("break-even", "the spec's r, or ", {"W*": hand.best()}), 1e-6)


def test_readouts_of_other_layers():
    rng = np.random.default_rng(5)
    problem = problem_of("squared", 2, compare={"before": rng.normal(size=(24, 2))})
    report, hand = check(problem), Hand.of(problem)
    [other] = report.comparators
    rows = [np.asarray(problem.comparators["before"][i : i + 1]).T for i in range(24)]
    readout = [(pi, x, f, y) for (pi, _, f, y), x in zip(hand.rows, rows, strict=True)]
    there = Hand(problem, np.zeros((2, 2)), problem.V)
    there.__dict__["rows"] = readout
    same(other.F_lin_min, there.least())
    same(other.gap, hand.F() - there.least())
    same(other.radius, by_hand("break-even", "the spec's r, or ", {"W*": there.best()}))


# --- Constants --------------------------------------------------------------------------------------------


def suprema(loss: str, P: float, y: float) -> tuple[float, float, float]:
    """Of |ℓ′|, |ℓ″|, |ℓ‴| over |p| ≤ P, on a fine grid."""
    one, p, target = LOSSES[loss], np.linspace(-P, P, 20_001)[:, None], np.array([[y]])
    if loss == "squared":
        return P + abs(y), 1.0, 0.0
    second = {
        "logistic": lambda p: sigmoid(p) * sigmoid(-p), "pseudo_huber": lambda p: (1.0 + (p - y) ** 2) ** -1.5
    }[loss](p)  # fmt: skip
    largest = (float(np.max(np.abs(of))) for of in (one.first(p, target), second, one.third(p, target)))
    return next(largest), next(largest), next(largest)


def of_outputs(loss: str, P: float, y: np.ndarray) -> dict[str, float]:
    if loss == "softmax":
        names = {"Y": float(y.sum()), "q": len(y), "P": P, "exp": np.exp}
        return {name: by_hand("lipschitz", f"{name} = Y", names, before="Y") for name in ("L1", "L2", "L3")}
    first, second, third = zip(*(suprema(loss, P, float(part)) for part in y[:, 0]), strict=True)
    together = P + float(np.linalg.norm(y)) if loss == "squared" else math.hypot(*first)
    return {"L1": together, "L2": max(second), "L3": max(third)}


@pytest.mark.parametrize(
    ("loss", "q", "size"),
    [
        ("squared", 1, 1.0), ("squared", 3, 1.0), long("logistic", 1, 0.3), long("pseudo_huber", 1, 0.1),
        long("softmax", 3, 0.1),
    ],
)  # fmt: skip
def test_lipschitz_constants(loss: str, q: int, size: float):
    problem = problem_of(loss, q, bias=q == 3)
    at = problem.point
    problem = replace(problem, point=replace(at, W=size * at.W, V=size * at.V))
    constants, hand = check(problem).constants, Hand.of(problem)
    same(constants.b, by_hand("lipschitz", "By default b = ", hand.names(w=problem.W)))
    names = hand.names(b=constants.b, L1=None, L2=None, L3=None, J=None)
    names["κ²"] = by_hand("lipschitz", "κ² = ", names)
    names["κ"] = math.sqrt(names["κ²"])
    samples = []
    for weight, sample in hand.samples:
        P = by_hand("lipschitz", "over |p| ≤ ", names | sample)
        J = math.sqrt(by_hand("lipschitz", "J² = ", names | sample))
        samples.append((weight, sample | of_outputs(loss, P, sample["y"]) | {"J": J}))
    names["samples"] = samples
    for i, mu in enumerate((constants.mu0, constants.mu1, constants.mu2)):
        both = by_hand("lipschitz", f"μ{i} = ", names), by_hand("lipschitz", f"μ{i} ≤", names)
        same(mu, min(both), 1e-5)
        assert constants.form[f"mu{i}"] == ("per-sample" if both[0] <= both[1] else "matrix")


@pytest.mark.parametrize(
    ("loss", "q", "d"),
    [long("squared", 1, 4), ("squared", 2, 5), long("softmax", 3, 4), long("logistic", 1, 3)],
)
def test_the_hessian(loss: str, q: int, d: int):
    problem = problem_of(loss, q, d=d, k=6)
    report, hand = check(problem), Hand.of(problem)
    names = seen(problem, report) | {"d1": d, "ρ": np.linalg.matrix_rank(problem.W)}
    names["rank(A_f)"] = np.linalg.matrix_rank(hand.A_f)
    rows = by_hand(
        "hessian", "as many rows as\n\n    ", names | {"q": q, "ρ": np.linalg.matrix_rank(problem.W)}
    )
    eigenvalues = np.linalg.eigvalsh(hand.hessian)
    assert report.hessian.zero_multiplicity == int(np.sum(np.abs(eigenvalues) < 1e-10))
    if loss != "softmax":  # whose W counts up to multiples of 1cᵀ
        assert report.hessian.zero_multiplicity == hand.hessian.shape[0] - rows
    least = by_hand("hessian", "λ_min(∇²F) ≥", names)
    assert report.hessian.lambda_min.lower >= least - 1e-9
    z = [(pi, np.concatenate([s["h"], s["f"]]), s) for pi, s in hand.samples]
    if loss == "squared":
        Q = sum(pi * zz @ zz.T for pi, zz, _ in z)
    else:
        Q = sum(pi * np.kron(s["∇²ℓ"], zz @ zz.T) for pi, zz, s in z)
    names |= {"Q": Q, "A_f": hand.A_f, "W_1": hand.W_1}
    names["size"] = by_hand("hessian", "size = ", names)
    same(report.hessian.informative_below, by_hand("hessian", "`informative_below` = ", names), 1e-6)


# --- Decay, a constraint, and what a refuted point comes with ---------------------------------------------


def regularized_names(problem: Problem, report: Report) -> dict[str, Any]:
    """The names of the topic `regularized`, z what is decayed and L the Lagrangian."""
    hand, l2, about = Hand.of(problem), problem.objective.l2, report.regularized
    assert about is not None
    V, W, mask = problem.V, problem.W, problem.decayed
    z = np.concatenate([(W * mask).ravel(), V.ravel()])[:, None]
    slope = hand.gradient + 2.0 * l2 * z
    names = hand.names(**{"∇G": slope, "z": z, "l2": l2})
    mu = by_hand("regularized", "multiplier μ = ", names) if about.active else 0.0
    names |= {"μ": mu, "∇L": slope + max(0.0, mu) * z}
    names["ρ"] = by_hand("regularized", "Put ρ = ", names)
    if about.active:
        same(about.multiplier, mu)
    constants = report.constants
    names |= {
        "b": max(constants.b, float(np.linalg.norm(W))), "r": constants.r, "μ1": constants.mu1,
        "μ2": constants.mu2, "ε": report.epsilon, "m": min(problem.q, problem.k), "A": hand.A_f,
        "g": hand.g + 2.0 * l2 * W * mask,
    }  # fmt: skip
    return names


def against(names: dict[str, Any], problem: Problem, star: np.ndarray) -> dict[str, Any]:
    block = star[:, : problem.d1]
    X = np.linalg.pinv(problem.W[:, : problem.d1]) @ block @ problem.V
    return names | {"W*": star, "W*V": block @ problem.V, "X": X}


@pytest.mark.parametrize(
    ("loss", "q", "bias"), [("squared", 1, False), ("squared", 2, True), long("logistic", 1, True)]
)
def test_weight_decay(loss: str, q: int, bias: bool):
    problem = problem_of(loss, q, bias=bias, l2=0.3)
    report, hand = check(problem), Hand.of(problem)
    about, names = report.regularized, regularized_names(problem, report)
    assert about is not None
    assert about.theorem3 is not None
    same(about.objective, hand.F() + by_hand("regularized", "G = F + ", names | {"W": problem.W}))
    same(report.gradient.norm, np.linalg.norm(names["∇G"]))
    same(report.hessian.lambda_min, hand.lambda_min + 0.6)
    same(about.objective_lin_min, hand.least(0.3))
    right = by_hand("regularized", "F − F_lin(W*) ≤", against(names, problem, hand.best()))
    same(about.proposition_R, right)
    decayed = against(names, problem, hand.best(0.3))
    sides = [by_hand("regularized", "G − G_lin(W*) ≤", decayed, which) for which in (0, 1)]
    same(about.gap_bound, min(sides))
    names["κ"] = by_hand("regularized", "κ = ", names)
    same(about.theorem3.bound, by_hand("regularized", "‖W*‖_F ≤ r} +", names))


@pytest.mark.long
def test_weight_decay_with_as_many_inputs_as_outputs():
    problem = problem_of("squared", 2, d=2, l2=0.3, epsilon=50.0)
    report = check(problem)
    about, names = report.regularized, regularized_names(problem, report)
    assert about is not None
    assert about.theorem3 is not None
    names["κ"] = by_hand("regularized", "κ = ", names)
    roots = []
    for s in np.geomspace(1e-2, 1e2, 1001):
        values = names | {"s": s}
        roots.append(by_hand("regularized", "is the least over s of\n\n    ", values))
    added = by_hand("regularized", "‖W*‖_F ≤ r} +", names | {"κ": 0.0})
    rank = math.sqrt(names["m"]) * names["b"] * names["r"]
    same(about.theorem3.bound, added + rank * min(roots), 1e-3)


def test_a_bias_that_is_not_decayed():
    problem = problem_of("squared", 2, bias=True, l2=0.3, decay_bias=False)
    report, hand = check(problem), Hand.of(problem)
    about, names = report.regularized, regularized_names(problem, report)
    assert about is not None
    mask = problem.decayed
    W, star = problem.W, hand.best()
    same(about.objective, hand.F() + 0.3 * (np.sum((W * mask) ** 2) + np.sum(problem.V**2)))
    same(report.gradient.norm, np.linalg.norm(names["∇G"]))
    here = against(names, problem, star)
    apart = np.linalg.norm(W - star)
    here |= {"W": W * mask, "W*": star * mask, "‖W − W*‖_F²": apart**2}
    same(about.proposition_R, by_hand("regularized", "F − F_lin(W*) ≤", here))


@pytest.mark.parametrize("q", [1, long(2)])
@pytest.mark.parametrize("held", [False, True])
def test_a_constraint(q: int, held: bool):
    """On the boundary: μ, ∇L, λ_min along the sphere for μ > 0, and Proposition R with ρ = max(0, μ)."""
    start = problem_of("squared", q)
    W = 0.3 * Hand.of(start).best() if held else start.W
    V = 0.01 * start.V if held else start.V
    norm = math.hypot(np.linalg.norm(W), np.linalg.norm(V))
    objective = replace(start.objective, norm=norm)
    problem = replace(start, point=replace(start.point, W=W, V=V), objective=objective)
    report, hand = check(problem), Hand.of(problem)
    about, names = report.regularized, regularized_names(problem, report)
    assert about is not None
    assert about.active
    assert (names["μ"] > 0.0) == held
    same(report.gradient.norm, np.linalg.norm(names["∇L"]))
    curvature = hand.hessian + max(0.0, names["μ"]) * np.eye(len(hand.hessian))
    if held:
        basis = np.linalg.svd(names["z"].T)[2][1:]
        curvature = basis @ curvature @ basis.T
    same(report.hessian.lambda_min, np.linalg.eigvalsh(curvature)[0])
    same(about.proposition_R, by_hand("regularized", "F − F_lin(W*) ≤", against(names, problem, hand.best())))


def test_how_far_it_falls_along_the_witness():
    examination = examine(replace(problem_of(), epsilon=1e-3))
    found, witness = descent(examination), find_witness(examination)
    assert found is not None
    assert not isinstance(witness, str)
    there = witness.lower_point
    assert there is not None
    hand = Hand.of(examination.problem)
    same(found.decrease, hand.F() - hand.F(there.W, there.V), 1e-6)
    same(found.distance, math.hypot(np.linalg.norm(there.W - hand.W), np.linalg.norm(there.V - hand.V)))


# --- SGD and the distribution -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "q"), [("squared", 1), long("logistic", 1), ("squared", 3), long("softmax", 3)]
)
def test_theorem_4(loss: str, q: int):
    problem = problem_of(loss, q, probabilities=None)
    run, hand = sgd(problem, 50, radius=2.0, delta=0.1).report, Hand.of(problem)
    l, r = 0.0, 0.0
    for _, sample in hand.samples:
        size = float(np.linalg.norm(sample["z"]))
        P, y, zero = 2.0 * size, sample["y"], np.zeros((q, 1))
        if q == 1:
            ends = [np.array([[P]]), np.array([[-P]])]
            s = max(float(np.linalg.norm(hand.loss.first(p, y))) for p in ends)
            r = max(r, *(hand.loss.value(p, y) for p in ends))
        else:
            s = of_outputs(loss, P, y)["L1"]
            r = max(
                r,
                by_hand(
                    "theorem4",
                    "(with several outputs ",
                    {"ℓ(0)": hand.loss.value(zero, y), "s": s, "P": P},
                    1,
                ),
            )
        l = max(l, by_hand("theorem4", "l is the largest\n\n    ", {"s": s, "‖(x, f)‖": size}))
    same(run.constants.l, l, 1e-6)
    same(run.constants.r, r, 1e-6)
    assert run.constants.D == run.constants.b == 2.0
    names = {
        "min F_lin(u)": run.F_lin_min, "D": 2.0, "l": l, "T": 50.0, "δ": 0.1, "R": min(r, 2.0 * l),
        "ln": np.log,
    }  # fmt: skip
    same(run.bound, by_hand("theorem4", "F(z_t, θ_t) ≤ min F_lin(u)", names, before="min F_lin(u)"), 1e-6)
    same(run.eta, by_hand("theorem4", "η = ", names), 1e-6)


@pytest.mark.parametrize("bias", [long(False), True])
def test_the_distribution(bias: bool):
    rng = np.random.default_rng(3)
    n = 400
    x, f = np.clip(rng.normal(size=(n, 2)), -2, 2), np.clip(rng.normal(size=(n, 2)), -2, 2)
    y = np.where(x[:, 0] + f[:, 0] + rng.normal(size=n) > 0.0, 1.0, -1.0)
    c = [0.1] if bias else None
    problem = Problem.from_arrays(
        x=x, y=y, f=f, w=[0.5, 0.1], V=0.3 * np.eye(2), c=c, loss="logistic", epsilon=1.0, b=1.0, r=2.0
    )
    support = Support(confidence=0.95, x=3.0, f=3.0, y=1.0)
    about = check(problem, population=support).population
    assert about is not None
    hand, half = Hand.of(problem), n // 2
    first, rest = Hand(problem, hand.W, hand.V), Hand(problem, hand.W, hand.V)
    first.__dict__["rows"] = [(1.0 / half, *row[1:]) for row in hand.rows[:half]]
    rest.__dict__["rows"] = [(1.0 / half, *row[1:]) for row in hand.rows[half:]]
    u, far = first.best(), math.hypot(3.0, 1.0) if bias else 3.0
    names: dict[str, Any] = {
        "W": hand.W, "û": u, "x̂": far, "f̂": 3.0, "V": hand.V, "‖W − û‖_F": np.linalg.norm(hand.W - u),
        "‖W_1V‖_F": np.linalg.norm(hand.W_1 @ hand.V), "slope": lambda P: float(sigmoid(np.array(P)).item()),
        "ln": np.log, "δ": 0.05 / 6.0, "m": float(half), "confidence": 0.95,
    }  # fmt: skip
    same(names["δ"], by_hand("population", "so δ = ", names))
    names["P"] = by_hand("population", "and P = ", names)
    w = names["w"] = by_hand("population", "    w = ", names)
    D = np.array(
        [rest.loss.value(rest.W @ rest.h(x, f), y) - rest.loss.value(u @ x, y) for _, x, f, y in rest.rows]
    )
    names |= {"D̄": D.mean(), "V̂": D.var(ddof=1)}
    bernstein = by_hand("population", "D̄ + ", names, before="D̄ + ")
    X = (D / w + 1.0) / 2.0
    i = np.arange(1, half + 1)
    M = (0.5 + np.cumsum(X)) / (i + 1)
    v = np.concatenate([[0.25], (0.25 + np.cumsum((X - M) ** 2)) / (i + 1)])
    bets = np.array([by_hand("population", "λ_i = ", names | {"v_{i−1}": at}) for at in v[:-1]])
    low, high = 0.0, 1.0
    for _ in range(60):
        t = 0.5 * (low + high)
        low, high = (low, t) if np.sum(np.log1p(bets * (t - X))) >= -math.log(names["δ"]) else (t, high)
    mean = min(bernstein, (2.0 * high - 1.0) * w)
    slope = np.linalg.norm(sum(rest.loss.first(u @ x, y) @ x.T for _, x, _, y in rest.rows) / half)

    def deviation(begins: str, m: int) -> float:
        B = by_hand("population", begins, names)
        return by_hand("population", "    (B/√m)", names | {"B": B, "m": float(m)}, before="(B/√m)")

    same(
        about.gap_upper,
        mean + (2.0 + float(np.linalg.norm(u))) * (slope + deviation("B of g = ", half)),
        1e-6,
    )
    G = float(np.linalg.norm(hand.gradient)) + deviation("B of ∇F = ", n)
    A = float(np.linalg.norm(hand.A_f)) + deviation("B of A_f = ", n)
    same(about.gradient_norm_upper, G, 1e-6)
    same(about.A_f_norm_upper, A, 1e-6)
    P = 1.0 * (far + 3.0)
    J = math.hypot(far + 3.0, 3.0)
    third = of_outputs("logistic", P, np.array([[1.0]]))
    mu2 = by_hand("population", "and μ2 is ", {"f̂": 3.0, "J": J} | third)
    same(
        about.smallest_epsilon,
        by_hand("population", "smallest_epsilon = ", {"‖∇F‖": G, "‖A_f‖": A, "μ2": mu2}),
        1e-5,
    )
