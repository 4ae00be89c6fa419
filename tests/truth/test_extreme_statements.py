"""What is said at extreme scales beside the report's verdict, against balls of 4,000 bits.

The problems are those of `test_extremes`: certificates and the verifier, μ0, μ1, μ2, min F_lin and the
break-even radius, Theorems 1 and 2, the forms of Theorem 3, the constants of Theorem 4, and landscapes.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import heads
import numpy as np
import pytest
from flint import arb, ctx
from heads import LOSSES, Head, balls
from linear_heads import minimum
from oracle_algebra import Vector, dot, is_positive_semidefinite, norm, root, shifted
from oracle_theorems import theorem3 as exact_theorem3
from reports import leave_out_crosscheck
from stages import holds
from test_extremes import BITS, MOST, SHAPES, Truth, drawn, holds_curvature, problem_of

from resnet_cert import RequestError, check
from resnet_cert.certificate.decision import decide
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.theorem4 import theorem4_constants
from resnet_cert.moments.domain import domain_radius
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.radius import Radius
from resnet_cert.outcomes import Verdict
from resnet_cert.results import BoundConstants
from resnet_cert.search.landscape import landscape
from resnet_cert.search.sgd import sgd
from resnet_cert.theory.bound import theorem3

sys.path.append(str(Path(__file__).parents[1] / "unit" / "certificate"))
import forger

FEW = 16


@pytest.fixture(autouse=True)
def _precision(monkeypatch, pytestconfig):
    monkeypatch.setattr(heads, "BITS", BITS)
    if not pytestconfig.getoption("--long"):
        leave_out_crosscheck(monkeypatch)
    with ctx.workprec(BITS):
        yield


def problem(seed: int) -> tuple[Head, float | None]:
    """A shape for each loss, so that what is compiled for the report serves here too."""
    at = seed % len(LOSSES)
    return drawn(seed, LOSSES[at], SHAPES[at])


# --- Certificates -------------------------------------------------------------------------------------------


def verified(seed: int, folder: Path) -> None:
    """A certificate says what its report does; the opposite is never accepted."""
    head, limit = problem(seed)
    truth, rng = Truth(head.truth, limit), np.random.default_rng([seed, 8])
    epsilon = 10.0 ** rng.uniform(-320.0, 10.0)
    if rng.random() < 0.7 and truth.slope is not None and truth.slope < MOST / 1e6:
        epsilon = float(truth.slope.mid()) * float(rng.choice([1.0 + 1e-12, 2.0, 0.5, 1e5]))
    mu2 = 10.0 ** rng.uniform(-300.0, 200.0) if rng.random() < 0.3 else None
    report = check(problem_of(head, limit, epsilon=epsilon, mu2=mu2), break_even=bool(seed % 8 == 7))
    report.certificate(folder / "c.json")
    found = decide(folder / "c.json")
    assert found.verdict is report.verdict, (seed, found.reasons)
    if report.verdict is Verdict.UNDECIDED:
        return
    document = json.loads((folder / "c.json").read_text())
    other = "CERTIFIED" if report.verdict is Verdict.REFUTED else "REFUTED"
    document["claim"]["verdict"] = other
    (folder / "c.json").write_text(json.dumps(forger.sealed(document)))
    assert decide(folder / "c.json").verdict is None, seed


def test_certificates_are_accepted_and_their_opposites_are_not(tmp_path: Path) -> None:
    for seed in (0, 1, 2, 3, 7):
        verified(seed, tmp_path)


@pytest.mark.long
def test_certificates_are_accepted_and_their_opposites_are_not_for_long(tmp_path: Path, seeds) -> None:
    for seed in seeds(10_000):
        verified(seed, tmp_path)


# --- Lipschitz constants ------------------------------------------------------------------------------------


def bounded(seed: int) -> None:
    """‖∇F‖ ≤ μ0, −μ1 I ⪯ ∇²F ⪯ μ1 I and ‖∇²F(z) − ∇²F(z')‖ ≤ μ2‖z − z'‖ at points of the domain."""
    head, rng = problem(seed)[0], np.random.default_rng([seed, 9])
    at = problem_of(replace(head, l2=0.0), None)
    b = domain_radius(at)
    if not b < MOST:
        return
    found = observe(at, b).lipschitz
    assert found is not None
    one, two = (_inside(head, b, rng).truth for _ in range(2))
    assert not norm(one.gradient) > _arb(found.mu0), seed
    H = one.hessian
    assert _between(H, _arb(found.mu1)) is not False, seed
    apart = norm([x - y for x, y in zip(one.parameters, two.parameters, strict=True)])
    change = [[x - y for x, y in zip(*rows, strict=True)] for rows in zip(H, two.hessian, strict=True)]
    assert _between(change, _arb(found.mu2) * apart) is not False, seed


def _inside(head: Head, b: float, rng: np.random.Generator) -> Head:
    """The head at another point, with ‖W‖ and ‖V‖ from b/2 to b."""

    def drawn_matrix(shape: tuple[int, ...]) -> Any:
        M = rng.normal(size=shape)
        return M * (b / float(np.linalg.norm(M)) * rng.uniform(0.5, 0.999))

    W = drawn_matrix(head.head.shape)
    c = None if head.c is None else W[:, -1]
    return replace(head, W=W if c is None else W[:, :-1], c=c, V=drawn_matrix(head.V.shape), l2=0.0)


def _arb(x: float) -> arb:
    return arb(x) if math.isfinite(x) else arb("inf")


def _between(H: list[Vector], size: arb) -> bool | None:
    """−size·I ⪯ H ⪯ size·I?"""
    if not size.is_finite():
        return None
    sides = [is_positive_semidefinite(shifted(M, size)) for M in (H, [[-e for e in row] for row in H])]
    return False if False in sides else None if None in sides else True


def test_lipschitz_constants_hold_at_any_scale() -> None:
    for seed in range(2 * FEW):
        bounded(seed)


@pytest.mark.long
def test_lipschitz_constants_hold_at_any_scale_for_long(seeds) -> None:
    for seed in seeds(20_000):
        bounded(seed)


# --- The best linear predictor ------------------------------------------------------------------------------


def compared(seed: int) -> None:
    """min F_lin and the break-even radius hold what duality proves at 4,000 bits."""
    head, rng = problem(seed)[0], np.random.default_rng([seed, 10])
    head = replace(head, l2=0.0)
    r = float(10.0 ** rng.uniform(-20.0, 20.0)) if rng.random() < 0.5 else 1.0
    truth = head.truth
    at = problem_of(head, None, r=r)
    report = check(at, break_even=bool(seed % 2))
    ours, even = report.objective.F_lin_min, report.objective.break_even_radius
    for _ in range(3):  # no predictor in the ball is better
        W = rng.normal(size=head.head.shape)
        W *= r / float(np.linalg.norm(W)) * rng.uniform(0.0, 0.999)
        value = truth.linear(balls(W))[0]
        assert not value < arb(ours.lower), seed
        if even is not None and value <= truth.F:
            assert not arb(even.lower) > norm(balls(W.ravel())), seed
    # By convexity F_lin(W) − ⟨g, W⟩ − r‖g‖ is below the minimum for any W: for the one that is found as well.
    W = best_linear_predictor(at, r, 1.0).found.W
    if np.isfinite(W).all() and norm(balls(W.ravel())) <= arb(r):
        value, g, _ = truth.linear(balls(W))
        assert not value < arb(ours.lower), seed
        assert not value - dot(g, balls(W.ravel())) - arb(r) * norm(g) > _arb(ours.upper), seed
    if len(head.W) == 1 and head.head.shape[1] <= 2 and head.loss in ("squared", "pseudo_huber"):
        found = minimum(truth, r).value
        assert not found > arb(ours.upper), seed
        assert not found < arb(ours.lower), seed


def test_the_best_linear_predictor_holds_at_any_scale() -> None:
    for seed in range(FEW // 4):
        compared(seed)


@pytest.mark.long
def test_the_best_linear_predictor_holds_at_any_scale_for_long(seeds) -> None:
    for seed in seeds(10_000):
        compared(seed)


# --- Theorems 1 and 2 ---------------------------------------------------------------------------------------


def concluded(seed: int) -> None:
    """‖∇F‖ is at least what Theorem 1 says, at W = 0 Theorem 2 holds, and neither is denied."""
    head, rng = problem(seed)[0], np.random.default_rng([seed, 14])
    r = float(10.0 ** rng.uniform(-20.0, 20.0)) if rng.random() < 0.5 else None
    head = replace(head, l2=0.0)
    first = check(problem_of(head, None, r=r), break_even=False).theorem1
    assert first.holds is not False, seed
    size = head.truth.norm
    for bound in (first.lower_bound, first.lower_bound_refined):
        assert bound is None or not size < arb(bound.lower), seed
    origin = replace(head, W=np.zeros_like(head.W), c=None if head.c is None else np.zeros_like(head.c))
    truth = Truth(origin.truth, None)
    second = check(problem_of(origin, None, r=r), break_even=False).theorem2
    assert second.holds is not False, seed
    if second.gradient_norm is not None and truth.slope is not None:
        assert holds(second.gradient_norm, truth.slope), seed
    assert second.lambda_min is None or holds_curvature(second.lambda_min, truth), seed
    if second.left is not None and second.right is not None:
        assert not second.left.upper < second.right.lower, seed


def test_theorems_1_and_2_hold_at_any_scale() -> None:
    for seed in range(FEW // 4):
        concluded(seed)


@pytest.mark.long
def test_theorems_1_and_2_hold_at_any_scale_for_long(seeds) -> None:
    for seed in seeds(10_000):
        concluded(seed)


# --- Theorems 3 and 4 ---------------------------------------------------------------------------------------


def stated(seed: int) -> None:
    """All forms of Theorem 3, for constants of any scale."""
    rng = np.random.default_rng([seed, 11])
    epsilon, *numbers = (10.0 ** rng.uniform(-300.0, 80.0, 6)).tolist()
    if rng.random() < 0.5:
        epsilon, *numbers = (10.0 ** rng.uniform(-320.0, -100.0, 6)).tolist()
    d = int(rng.integers(1, 3))
    row = theorem3(BoundConstants(*numbers, d=d), epsilon)
    exact = exact_theorem3(epsilon, *numbers, d=d)
    for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
        assert not getattr(exact, name) > _arb(getattr(row, name)), (seed, name)
    least = min(row.threshold_form, row.refined_form)
    assert row.bound.upper == least
    assert not arb(row.bound.lower) > exact.threshold_form.max(exact.refined_form), seed


def test_theorem_3_is_rounded_up_at_any_scale() -> None:
    for seed in range(4 * FEW):
        stated(seed)


@pytest.mark.long
def test_theorem_3_is_rounded_up_at_any_scale_for_long(seeds) -> None:
    for seed in seeds(20_000):
        stated(seed)


def descended(seed: int) -> None:
    """Theorem 4's l and r hold at points of the ball."""
    head, rng = replace(problem(seed)[0], l2=0.0), np.random.default_rng([seed, 12])
    b = float(10.0 ** rng.uniform(-100.0, 150.0))
    at = problem_of(head, None)
    (chunk,) = at.chunks()
    f_norm = Radius.row_norms(chunk.f).upper
    try:
        found = theorem4_constants(at.loss, chunk.x, chunk.y, chunk.omega, f_norm, b)
    except RequestError:  # it overflows, and is refused
        return
    rows = [[*x, *f] for x, f in zip(balls(head.inputs), balls(head.f), strict=True)]
    z = rng.normal(size=(head.q, len(rows[0])))
    for size in (0.0, 0.999):
        place = z * (b / float(np.linalg.norm(z)) * size)
        for row, (value, slope, _) in zip(rows, head.truth.at(rows, balls(place)), strict=True):
            assert not norm(slope) * norm(row) > arb(found.l), seed
            assert not abs(value) > arb(found.r), seed


def test_theorem_4_is_rounded_up_at_any_scale() -> None:
    for seed in range(2 * FEW):
        descended(seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_descent_says_nothing_wrong_at_any_scale(seeds) -> None:
    """Its numbers are finite, η is D/(l√T); or it is refused by name."""
    for seed in seeds(5_000):
        descended(seed)
        head = replace(problem(seed)[0], l2=0.0)
        radius = float(10.0 ** np.random.default_rng([seed, 13]).uniform(-100.0, 150.0))
        try:
            found = sgd(problem_of(head, None), 5, radius=radius).report
        except RequestError:
            continue
        assert math.isfinite(found.average_objective), seed
        assert not math.isnan(found.bound), seed
        if found.constants.l:
            reached = arb(found.constants.D) / (arb(found.constants.l) * root(arb(5)))
            assert abs(arb(found.eta) - reached) <= reached * arb(2) ** -48 + arb(2) ** -1072, seed


# --- Landscapes ---------------------------------------------------------------------------------------------


def listed(seed: int) -> None:
    """F of each point that is listed where it is exact."""
    loss = LOSSES[seed % 3]
    shape = {"n": 1 + seed % 3, "d1": 1, "k": 1, "q": 1, "d2": 0, "bias": 0}
    head, limit = drawn(seed, loss, shape)
    for point in landscape(problem_of(head, limit, epsilon=1.0)).critical_points:
        F = replace(head, W=point.point.W, V=point.point.V).truth.F
        assert point.within > 0.0 or holds(point.F, F), seed


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_landscapes_list_nothing_wrong_at_any_scale() -> None:
    for seed in (0, 4):  # with a constraint
        listed(seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_landscapes_list_nothing_wrong_at_any_scale_for_long(seeds) -> None:
    for seed in seeds(2_000):
        listed(seed)
