"""The verifier accepts what is true and follows, and rejects everything else."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from certificates import (
    Arrays,
    Document,
    certificate,
    certified,
    dense_hessian,
    refuted_by_curvature,
    refuted_by_gradient,
    sealed,
    with_arrays,
    write,
)
from flint import arb, ctx, fmpq
from oracle import Sample, Truth

from resnet_cert.certificate import decision, proofs
from resnet_cert.certificate.decision import Verification, verify
from resnet_cert.outcomes import RequestError, Verdict

LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")
SHAPES = ((7, 3, 2), (6, 1, 3), (5, 2, 1), (1, 1, 1), (1, 4, 3))


def sample(
    loss: str, shape: tuple[int, int, int] = (7, 3, 2), *, seed: int = 0, at_zero: bool = False
) -> Sample:
    n, d, k = shape
    rng = np.random.default_rng([seed, n, d, k])
    y = rng.choice([-1.0, 1.0], n) if loss == "logistic" else rng.poisson(2.0, n) + 0.5
    return Sample(
        x=rng.normal(size=(n, d)),
        y=y,
        f=rng.normal(size=(n, k)),
        w=np.zeros(d) if at_zero else rng.normal(size=d),
        V=rng.normal(size=(d, k)),
        loss=loss,
        scale=1.75,
        probabilities=rng.uniform(0.5, 2.0, n) if seed % 2 else None,
    )


def verified(folder: Path, document: Document | str, arrays: Arrays) -> Verification:
    return verify(write(folder, document, arrays))


def assert_rejected(found: Verification) -> None:
    assert (found.accepted, found.verdict, found.exit_code) == (False, None, 30)
    assert found.reasons


# What is true and follows is accepted, with its verdict.


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_zero", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_true_certificates_are_accepted(
    tmp_path: Path, loss: str, shape: tuple[int, int, int], at_zero: bool, seed: int
) -> None:
    at = sample(loss, shape, at_zero=at_zero, seed=seed)
    assert verified(tmp_path, *certified(at)).verdict is Verdict.CERTIFIED
    assert verified(tmp_path, *refuted_by_gradient(at)).verdict is Verdict.REFUTED
    if Truth(at).m > 0:
        assert verified(tmp_path, *refuted_by_curvature(at)).verdict is Verdict.REFUTED


def test_an_accepted_certificate_has_its_verdicts_exit_code_and_document(tmp_path: Path) -> None:
    for make, code, word in ((certified, 0, "CERTIFIED"), (refuted_by_gradient, 10, "REFUTED")):
        found = verified(tmp_path, *make(sample("logistic")))
        assert found.exit_code == code
        assert found.document() == {
            "schema": "resnet-cert/verify/1",
            "accepted": True,
            "verdict": word,
            "reasons": list(found.reasons),
        }


def test_an_undecided_certificate_stays_undecided(tmp_path: Path) -> None:
    found = verified(tmp_path, *certificate(sample("squared"), verdict="UNDECIDED", epsilon=1.0))
    assert (found.accepted, found.exit_code) == (True, 20)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("at_zero", [False, True])
@pytest.mark.parametrize("mu2", [1e-4, 1e4])
def test_verdicts_turn_at_the_smallest_epsilon(
    tmp_path: Path, loss: str, shape: tuple[int, int, int], at_zero: bool, mu2: float
) -> None:
    """A small μ2 makes curvature the bottleneck, a large one the gradient."""
    at = sample(loss, shape, at_zero=at_zero)
    assert verified(tmp_path, *certified(at, slack=1.0 + 1e-13, mu2=mu2)).verdict is Verdict.CERTIFIED
    assert_rejected(verified(tmp_path, *certified(at, slack=1.0 - 1e-13, mu2=mu2)))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_direction_proves_no_more_than_its_rayleigh_quotient(tmp_path: Path, loss: str) -> None:
    at = sample(loss)
    truth = Truth(at)
    direction = np.random.default_rng(3).normal(size=at.w.size + at.V.size)
    direction *= np.sign(direction @ dense_hessian(truth) @ direction) * -1.0  # the sign changes nothing
    quotient = rayleigh_quotient(truth, direction)
    for factor, accepted in ((1 + 1e-14, True), (1 - 1e-14, False)):
        upper = quotient * (factor if quotient > 0 else 2 - factor)
        claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, upper=upper, direction=direction)
        assert verified(tmp_path, *claim).accepted is accepted


def rayleigh_quotient(truth: Truth, direction: npt.NDArray[np.float64]) -> float:
    with ctx.workprec(256):
        v = [arb(entry) for entry in direction.tolist()]
        bent = sum(
            (
                u * h * v_j
                for u, row in zip(v, truth.hessian, strict=True)
                for h, v_j in zip(row, v, strict=True)
            ),
            arb(0),
        )
        return float((bent / sum((u * u for u in v), arb(0))).mid())


def test_a_direction_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    document, arrays = refuted_by_curvature(sample("squared"))
    for parts in (("dw",), ("dV",), ("dw", "dV")):
        fewer = {name: array for name, array in arrays.items() if name not in parts}
        assert_rejected(verified(tmp_path, with_arrays(document, fewer), fewer))


def test_no_direction_proves_nothing(tmp_path: Path) -> None:
    at = sample("squared")
    nothing = np.zeros(at.w.size + at.V.size)
    claim = certificate(at, verdict="REFUTED", epsilon=1e-3, upper=-100.0, direction=nothing)
    assert_rejected(verified(tmp_path, *claim))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("b", [0.02, 0.25, 1.0, 3.0])
def test_a_computed_mu2_is_at_least_its_formula(tmp_path: Path, loss: str, b: float) -> None:
    at = sample(loss, seed=1)
    at = replace(at, w=at.w * 0.2 * b / np.linalg.norm(at.w), V=at.V * 0.9 * b / np.linalg.norm(at.V, 2))
    if loss == "pseudo_huber":
        # Some predictions are within 1/2 of their targets, some beyond it, for every b.
        at = replace(at, y=at.y * np.where(np.arange(len(at.y)) % 2, 0.1, 1.0))
    mu2 = mu2_by_formula(at, b)
    for factor, accepted in ((1 + 1e-6, True), (1 - 1e-6, False)):  # the grid is that fine
        claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, mu2=mu2 * factor, source="computed", b=b)
        assert verified(tmp_path, *claim).accepted is accepted
    claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, mu2=mu2 * 0.5, source="given", b=b)
    assert verified(tmp_path, *claim).accepted


def mu2_by_formula(at: Sample, b: float) -> float:
    """E[L3 J³ + 3 L2 J‖f‖] with the suprema of |ℓ''|, |ℓ'''| looked up on a fine grid of p."""
    norm_x, norm_f = np.linalg.norm(at.x, axis=1), np.linalg.norm(at.f, axis=1)
    J = np.hypot(norm_x + b * norm_f, b * norm_f)
    terms = []
    for y, reach, J_i, norm_f_i in zip(at.y, b * (norm_x + b * norm_f), J, norm_f, strict=True):
        p = np.linspace(-reach, reach, 200_001)
        second, third = {
            "squared": lambda p, y: (np.ones_like(p), np.zeros_like(p)),
            "logistic": lambda p, y: (s := 1 / (1 + np.exp(p)), (s * (1 - s), s * (1 - s) * (1 - 2 * s)))[1],
            "pseudo_huber": lambda p, y: (
                (1 + (p - y) ** 2) ** -1.5,
                3 * (p - y) * (1 + (p - y) ** 2) ** -2.5,
            ),
            "poisson": lambda p, y: (np.exp(p), np.exp(p)),
        }[at.loss](p, y)
        terms.append(np.max(np.abs(third)) * J_i**3 + 3 * np.max(second) * J_i * norm_f_i)
    return at.scale * float(np.average(terms, weights=at.probabilities))


@pytest.mark.parametrize("part", ["w", "V"])
def test_the_point_lies_in_the_domain(tmp_path: Path, part: str) -> None:
    at = sample("squared")
    small = replace(at, w=at.w / np.linalg.norm(at.w) / 2, V=at.V / np.linalg.norm(at.V, 2) / 2)
    arrays = {"w": small.w, "V": small.V}
    at = replace(small, **{part: arrays[part] * 2.0})
    for b, accepted in ((1.0 + 1e-13, True), (1.0 - 1e-13, False)):
        claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, b=b)
        assert verified(tmp_path, *claim).accepted is accepted


def test_the_domain_is_open(tmp_path: Path) -> None:
    one, half = np.ones((1, 1)), np.full(1, 0.5)
    for w, V in ((half, one), (np.ones(1), one / 2)):
        at = Sample(x=one, y=half, f=one, w=w, V=V)
        assert_rejected(verified(tmp_path, *certificate(at, verdict="UNDECIDED", epsilon=1.0, b=1.0)))


# Equalities, which no precision decides.


def test_an_exact_stationary_point_is_certified_at_epsilon_zero(tmp_path: Path) -> None:
    """Six samples, so that a mean is not a float, that a linear predictor fits exactly."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (6, 2)) / 8.0
    w, V = np.array([0.375, -1.25]), np.array([[0.5], [0.1]])
    at = Sample(x=x, y=x @ w, f=np.zeros((6, 1)), w=w, V=V)
    assert (
        verified(
            tmp_path,
            *certificate(at, verdict="CERTIFIED", epsilon=0.0, mu2=None, source="missing", lower=0.0),
        ).verdict
        is Verdict.CERTIFIED
    )
    f = rng.integers(-9, 9, (6, 1)) / 8.0
    for y_change, verdict in ((0.0, Verdict.CERTIFIED), (2.0**-40, None)):
        h = x + f @ np.array([[0.5, 0.25]])
        at = Sample(x=x, y=h @ w + y_change * np.eye(6)[0], f=f, w=w, V=np.array([[0.5], [0.25]]))
        claim = certificate(at, verdict="CERTIFIED", epsilon=0.0, lower=0.0)
        assert verified(tmp_path, *claim).verdict is verdict


def test_the_verdict_is_decided_whatever_bounds_are_claimed(tmp_path: Path) -> None:
    x = np.array([[0.5], [0.25]])
    fitted = Sample(x=x, y=x[:, 0], f=np.ones((2, 1)), w=np.ones(1), V=np.zeros((1, 1)))
    one = np.ones((1, 1))
    saddle = Sample(x=one, y=np.ones(1), f=0.5 * one, w=np.zeros(1), V=-2.0 * one)
    for at, verdict in ((fitted, Verdict.CERTIFIED), (saddle, None)):
        for lower in (None, -1.0):
            claim = certificate(at, verdict="CERTIFIED", epsilon=0.0, lower=lower)
            assert verified(tmp_path, *claim).verdict is verdict


def test_thresholds_between_two_floats_decide(tmp_path: Path) -> None:
    """λ_min = −1/2 against √(μ2 ε) = √((1 ± 2^-50)(1 ∓ 2^-50)/4), which rounds to 1/2, and against 1/2."""
    one = np.ones((1, 1))
    at = Sample(x=one, y=np.ones(1), f=0.5 * one, w=np.zeros(1), V=-2.0 * one)
    direction = np.array([1.0, 1.0])
    for mu2, epsilon, stationary in (
        (2.0, 0.125, True),
        (2.0 * (1 + 2.0**-50), 0.125 * (1 - 2.0**-50), False),
        (2.0 * (1 + 2.0**-50), 0.125 * (1 - 2.0**-50 + 2.0**-53), True),
    ):
        claim = certificate(at, verdict="CERTIFIED", epsilon=epsilon, mu2=mu2)
        assert verified(tmp_path, *claim).verdict is (Verdict.CERTIFIED if stationary else None)
        claim = certificate(at, verdict="REFUTED", epsilon=epsilon, mu2=mu2, direction=direction)
        assert verified(tmp_path, *claim).verdict is (None if stationary else Verdict.REFUTED)


def test_a_threshold_that_is_not_rational_is_not_rounded_to_one(tmp_path: Path) -> None:
    """λ_min = −3/4 against √(1/2)."""
    x = np.full((1, 1), 0.75)
    at = Sample(x=x, y=np.ones(1), f=x, w=np.zeros(1), V=-np.ones((1, 1)))
    for mu2, verdict in ((0.5, None), (0.5625, Verdict.CERTIFIED), (1.0, Verdict.CERTIFIED)):
        claim = certificate(at, verdict="CERTIFIED", epsilon=1.0, mu2=mu2)
        assert verified(tmp_path, *claim).verdict is verdict


def test_without_mu2_only_a_semidefinite_hessian_certifies(tmp_path: Path) -> None:
    missing = {"mu2": None, "source": "missing"}
    x = np.array([[0.5], [0.25]])
    fitted = Sample(x=x, y=x[:, 0], f=np.ones((2, 1)), w=np.ones(1), V=np.zeros((1, 1)))
    claim = certificate(fitted, verdict="CERTIFIED", epsilon=1.0, **missing)
    assert verified(tmp_path, *claim).verdict is Verdict.CERTIFIED
    one = np.ones((1, 1))
    saddle = Sample(x=one, y=np.ones(1), f=2.0**-20 * one, w=np.zeros(1), V=-(2.0**20) * one)
    assert_rejected(verified(tmp_path, *certificate(saddle, verdict="CERTIFIED", epsilon=1.0, **missing)))


def test_curvature_refutes_a_point_without_gradient(tmp_path: Path) -> None:
    """Shamir 2018, Example 1: (0, −1/ε) with f = εx; at ε = 0 the threshold is 0 whatever μ2 is."""
    one = np.ones((1, 1))
    at = Sample(x=one, y=np.ones(1), f=0.5 * one, w=np.zeros(1), V=-2.0 * one)
    direction = np.array([1.0, 1.0])  # curvature (0 − 2·0.5·1·1)/2 = −0.5
    for upper, verdict in ((-0.5, Verdict.REFUTED), (0.0, Verdict.REFUTED), (-0.50000001, None)):
        claim = certificate(
            at, verdict="REFUTED", epsilon=0.0, mu2=None, source="missing", upper=upper, direction=direction
        )
        assert verified(tmp_path, *claim).verdict is verdict
    claim = certificate(
        at, verdict="REFUTED", epsilon=1e-9, mu2=None, source="missing", upper=-0.5, direction=direction
    )
    assert_rejected(verified(tmp_path, *claim))


def test_a_gradient_of_norm_epsilon_is_certified(tmp_path: Path) -> None:
    """∇F = (−3/3, −4/3·...) has rational norm 5/8: three equal samples at V = 0, f = 0."""
    at = Sample(
        x=np.tile([[0.375, 0.5]], (3, 1)), y=np.ones(3), f=np.zeros((3, 1)), w=np.zeros(2), V=np.zeros((2, 1))
    )
    for epsilon, verdict in ((0.625, Verdict.CERTIFIED), (math.nextafter(0.625, 0.0), None)):
        claim = certificate(at, verdict="CERTIFIED", epsilon=epsilon, lower=0.0)
        assert verified(tmp_path, *claim).verdict is verdict
    assert_rejected(verified(tmp_path, *certificate(at, verdict="REFUTED", epsilon=0.625)))


def test_a_singular_hessian_is_semidefinite(tmp_path: Path) -> None:
    """d = k = 1: det ∇²F = h²·w²f² − (whf + rf)² is 0 at r = −2wh, where the gradient is not."""
    x, w = np.full((3, 1), 0.6875), np.array([1.25])
    exact = Sample(x=x, y=3 * x @ w, f=np.full((3, 1), 0.75), w=w, V=np.zeros((1, 1)))
    bent = replace(exact, y=exact.y + 2.0**-30)
    for at, verdict in ((exact, Verdict.CERTIFIED), (bent, None)):
        claim = certificate(at, verdict="CERTIFIED", epsilon=8.0, mu2=0.0, lower=0.0)
        assert verified(tmp_path, *claim).verdict is verdict


def test_a_definite_hessian_has_its_smallest_eigenvalue_bounded_away_from_zero(tmp_path: Path) -> None:
    """d = 1, fitted exactly: λ_min > 0 and an upper half of it is a proof of the same kind."""
    rng = np.random.default_rng(5)
    x, f = rng.normal(size=(6, 1)), rng.normal(size=(6, 2))
    w, V = np.array([1.5]), np.array([[0.5, -0.25]])
    at = Sample(x=x, y=((x + f @ V.T) @ w), f=f, w=w, V=V)
    lambda_min = float(Truth(at).lambda_min.mid())
    assert lambda_min > 0.01
    for factor, accepted in ((1 - 1e-13, True), (1 + 1e-13, False)):
        claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, lower=lambda_min * factor)
        assert verified(tmp_path, *claim).accepted is accepted


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("w", [[1.5, 0.5], [0.0, 0.0]])
def test_no_hessian_but_of_one_input_is_definite(tmp_path: Path, noise: float, w: list[float]) -> None:
    """The directions (0, dV) with dV ⊥ w have curvature 0, however close the fit."""
    rng = np.random.default_rng(5)
    x, f = rng.integers(-9, 9, (8, 2)) / 8.0, rng.integers(-9, 9, (8, 1)) / 8.0
    V = np.array([[0.5], [-0.25]])
    at = Sample(x=x, y=(x + f @ V.T) @ w + noise * rng.normal(size=8), f=f, w=np.array(w), V=V)
    for lower, accepted in ((2.0**-60, False), (0.0, noise == 0.0)):
        claim = certificate(at, verdict="UNDECIDED", epsilon=1.0, lower=lower)
        assert verified(tmp_path, *claim).accepted is accepted


def test_precision_rises_as_far_as_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions that cancel from 1e60 to 1 leave no bit of 128."""
    at = sample("logistic", (4, 2, 1))
    x = at.x + 1e60 * np.ones((4, 2))
    x[:, 1] = x[:, 0]
    at = replace(at, x=x, w=np.array([1.0, -1.0]), V=np.zeros((2, 1)))
    claim = certified(at)
    assert verified(tmp_path, *claim).verdict is Verdict.CERTIFIED
    monkeypatch.setattr(decision, "PRECISIONS", (128,))
    assert_rejected(verified(tmp_path, *claim))


def test_tiny_losses_keep_their_digits(tmp_path: Path) -> None:
    """log(1 + e^{−700}) is 1e-304, far below the last of 1024 bits of 700."""
    one = np.ones((1, 1))
    for y, p in ((1.0, 700.0), (-1.0, -700.0), (1.0, -700.0)):
        at = Sample(x=p * one, y=np.array([y]), f=one, w=np.ones(1), V=0.0 * one, loss="logistic")
        assert verified(tmp_path, *certified(at)).verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("size", [1, 5, 64, 65, 120])
@pytest.mark.parametrize("gap", [1e-8, 1e-2])
def test_semidefinite_decides_at_the_edge(size: int, gap: float) -> None:
    """Against a matrix of known spectrum: the tridiagonal (−1, 2, −1) has λ_min = 4 sin²(π/(2m + 2)).

    Diagonally scaled over 12 decades, which keeps the sign of the form.
    """
    with ctx.workprec(192):
        smallest = 4 * (arb.pi() / (2 * size + 2)).sin() ** 2
        scale = [arb(10) ** (12 * i // size - 6) for i in range(size)]
        for shift, expected in ((smallest * (1 - gap), True), (smallest * (1 + gap), False)):
            S = [
                [
                    ((2 - shift) if i == j else arb(-(abs(i - j) == 1))) * scale[i] * scale[j]
                    for j in range(size)
                ]
                for i in range(size)
            ]
            assert proofs.semidefinite(S) is expected
            assert proofs.semidefinite(S, strictly=True) is expected


@pytest.mark.parametrize("size", [65, 300])
def test_a_large_matrix_that_a_float_factor_cannot_prove_is_not_proven_by_it(size: int) -> None:
    """Indefinite beyond double precision: 1 − 1e-30 against 1."""
    with ctx.workprec(256):
        S = [[arb(1) if i == j else arb(0) for j in range(size)] for i in range(size)]
        S[size - 1][0] = S[0][size - 1] = 1 + arb(10) ** -30
        assert not proofs.semidefinite(S)
        S[size - 1][0] = S[0][size - 1] = 1 - arb(10) ** -30
        assert proofs.semidefinite(S) is (size <= proofs.ELIMINATED_AT_MOST)


@pytest.mark.parametrize("number", [arb, fmpq])
def test_a_zero_pivot_needs_a_zero_column(number: Any) -> None:
    for S, semidefinite, definite in (
        ([[0, 0], [0, 0]], True, False),
        ([[0, 0], [0, 1]], True, False),
        ([[1, 1], [1, 1]], True, False),
        ([[0, 1], [1, 1]], False, False),
        ([[0, -1], [-1, 0]], False, False),
        ([[-1, 0], [0, 1]], False, False),
        ([[2, 1], [1, 1]], True, True),
    ):
        rows = [[number(entry) for entry in row] for row in S]
        assert proofs.semidefinite(rows) is semidefinite
        assert proofs.semidefinite(rows, strictly=True) is definite


def test_a_matrix_too_large_to_be_eliminated_is_proven_by_its_float_factor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = proofs.ELIMINATED_AT_MOST + 1
    S = [[arb(2) if i == j else arb(1) for j in range(size)] for i in range(size)]
    assert proofs.semidefinite(S)
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: np.eye(len(matrix)))
    assert not proofs.semidefinite(S)  # a factor that lies proves nothing
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: np.eye(len(matrix)) * math.nan)
    assert not proofs.semidefinite(S)


# Faults.


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    else:
        yield at


def entries(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document but the top."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from entries(value[key], (*at, key))


def get(document: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        document = document[key]
    return document


def changed(document: Document, at: tuple[Any, ...], value: Any) -> Document:
    mutant = copy.deepcopy(document)
    get(mutant, at[:-1])[at[-1]] = value
    return mutant


def is_real(leaf: Any) -> bool:
    return isinstance(leaf, str) and leaf.lstrip("-").startswith("0x")


def is_canonical_real(leaf: Any) -> bool:
    """As `float.hex` writes a finite number."""
    try:
        return math.isfinite(float.fromhex(leaf)) and float.fromhex(leaf).hex() == leaf
    except (TypeError, ValueError, OverflowError):
        return False


def other_reals(leaf: str) -> list[str]:
    number = float.fromhex(leaf)
    others = [
        -number,
        math.nextafter(number, math.inf),
        math.nextafter(number, -math.inf),
        number * 2,
        number / 2,
    ]
    return [other.hex() for other in others if other.hex() != leaf]


def other_values(leaf: Any) -> list[Any]:
    """Other values of the same leaf, and values of other types."""
    others: list[Any] = [None, True, 1, 1.5, "", "0x1.0p+0", [], {}, [leaf], {"lower": leaf}]
    if is_real(leaf):
        others += [
            *other_reals(leaf),
            float.fromhex(leaf),
            leaf.upper(),
            " " + leaf,
            leaf + "0",
            "nan",
            "inf",
            "-inf",
        ]
        others += ["0x1p0", "1.0", "0x1.0p+2000", leaf.replace("0x", ""), leaf.replace("p", "0p")]
    elif isinstance(leaf, str):
        others += [leaf + "x", leaf[:-1], leaf.swapcase(), leaf[::-1], "\ud800", "a\0b"]
    elif isinstance(leaf, int):
        others += [leaf + 1, leaf - 1, -leaf, float(leaf), str(leaf), 10**4299]
    return [other for other in others if json.dumps(other) != json.dumps(leaf)]


MAKERS = {"certified": certified, "gradient": refuted_by_gradient, "curvature": refuted_by_curvature}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_changed_leaf_is_rejected(tmp_path: Path, make: Any) -> None:
    document, arrays = make(sample("logistic"))
    path = write(tmp_path, document, arrays)
    assert verify(path).accepted
    for at in leaves(document):
        for other in other_values(get(document, at)):
            path.write_text(json.dumps(changed(document, at, other)))
            assert_rejected(verify(path))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_removed_or_added_or_doubled_entry_is_rejected_even_if_sealed(tmp_path: Path, make: Any) -> None:
    document, arrays = make(sample("logistic"))
    for at in entries(document):
        if isinstance(at[-1], str):
            mutant = copy.deepcopy(document)
            value = get(mutant, at[:-1]).pop(at[-1])
            if at != ("sha256",):
                assert_rejected(verified(tmp_path, sealed(mutant), arrays))
            mutant = changed(document, (*at[:-1], at[-1] + "_"), value)
            assert_rejected(verified(tmp_path, sealed(mutant), arrays))
            key = f"{json.dumps(at[-1])}: "
            doubled = json.dumps(document).replace(key, f"{key}{json.dumps(value)}, {key}", 1)
            assert_rejected(verified(tmp_path, doubled, arrays))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_forged_leaf_is_rejected_unless_the_certificate_stays_true(
    tmp_path: Path, make: Any, loss: str
) -> None:
    """The hash over the document is renewed after each change.  What is accepted then is still true."""
    at = sample(loss)
    document, arrays = make(at)
    harmless = [("producer",), ("assumptions", 0), ("reasons", 0)]
    accepted = 0
    for place in leaves({key: value for key, value in document.items() if key != "sha256"}):
        leaf = get(document, place)
        for other in other_values(leaf):
            if place in harmless and isinstance(other, str):
                continue
            mutant = changed(document, place, other)
            found = verified(tmp_path, sealed(mutant), arrays)
            if is_real(leaf) and (is_canonical_real(other) or (other is None and place[0] == "bounds")):
                assert found.accepted is holds(mutant, at), (place, leaf, other, found)
                accepted += found.accepted
            else:
                assert not found.accepted, (place, leaf, other)
    assert accepted > 3  # 2ε for ε, a wider interval: true, and accepted


def holds(document: Document, at: Sample) -> bool:
    """Whether everything in a well-formed certificate is true, and its verdict follows, by the oracle."""
    claim, bounds = document["claim"], document["bounds"]
    end = {
        (name, side): None if text is None else float.fromhex(text)
        for name, sides in bounds.items()
        for side, text in sides.items()
    }
    epsilon, b, scale = (
        float.fromhex(text) for text in (claim["epsilon"], claim["b"], claim["loss"]["scale"])
    )
    mu2 = claim["mu2"]["value"]
    if mu2 is None or min(epsilon, b, scale, float.fromhex(mu2)) < 0.0:
        return False
    truth, mu2 = Truth(replace(at, scale=scale)), float.fromhex(mu2)
    if scale <= 0.0 or max(np.linalg.norm(at.w), np.linalg.norm(at.V, 2)) >= b:
        return False
    for name, true in (("F", truth.F), ("gradient_norm", truth.norm)):
        lower, upper = end[name, "lower"], end[name, "upper"]
        if not ((lower is None or true >= lower) and (upper is None or true <= upper)):
            return False
    lower, upper = end["lambda_min", "lower"], end["lambda_min", "upper"]
    if lower is not None and not truth.curvature_at_least(-arb(lower)):
        return False
    if claim["verdict"] == "CERTIFIED":
        return truth.is_stationary(epsilon, mu2) is True
    directed = document["inputs"]["dw"] is not None
    along = math.inf
    if directed:
        along = rayleigh_quotient(truth, np.linalg.eigh(dense_hessian(truth))[1][:, 0])
    if upper is not None and not along <= upper:
        return False
    return truth.gradient_at_most(epsilon) is False or along < -math.sqrt(mu2 * epsilon)


def test_another_verdict_is_rejected_unless_it_claims_nothing(tmp_path: Path) -> None:
    for make in MAKERS.values():
        document, arrays = make(sample("pseudo_huber"))
        for verdict in ("CERTIFIED", "REFUTED", "UNDECIDED"):
            found = verified(tmp_path, sealed(changed(document, ("claim", "verdict"), verdict)), arrays)
            follows = verdict in ("UNDECIDED", document["claim"]["verdict"])
            assert found.verdict is (Verdict(verdict) if follows else None)


def test_a_truncated_certificate_is_rejected(tmp_path: Path) -> None:
    document, arrays = certified(sample("squared", (1, 1, 1)))
    path = write(tmp_path, document, arrays)
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        assert_rejected(verify(path))


@pytest.mark.parametrize("place", [("format",), ("reasons",), ("claim", "epsilon"), ("inputs",), ("sha256",)])
def test_a_deep_tree_in_a_certificate_is_rejected(tmp_path: Path, place: tuple[str, ...]) -> None:
    document, arrays = certified(sample("squared"))
    text = json.dumps(changed(document, place, "HERE"))
    for depth in range(900, 1100):
        assert_rejected(verified(tmp_path, text.replace('"HERE"', "[" * depth + "]" * depth), arrays))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"1e400",
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b'"\\ud800"',
    ],
)
def test_what_is_no_certificate_is_rejected(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(raw)
    assert_rejected(verify(path))


def test_a_number_that_is_not_finite_is_rejected(tmp_path: Path) -> None:
    at = sample("squared")
    document, arrays = certified(at)
    for name in ("x", "y", "f", "w", "V"):
        for value in (math.nan, math.inf, -math.inf):
            bad = {**arrays, name: np.where(np.arange(arrays[name].size) == 0, value, arrays[name].ravel())}
            bad[name] = bad[name].reshape(arrays[name].shape)
            assert_rejected(verified(tmp_path, with_arrays(document, bad), bad))


# Other inputs.


def test_every_bit_of_the_data_is_bound(tmp_path: Path) -> None:
    document, arrays = refuted_by_curvature(sample("squared", seed=1))
    path = write(tmp_path, document, arrays)
    data = tmp_path / "certificate.data"
    raw = data.read_bytes()
    for position in range(0, len(raw), 3):
        data.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        assert_rejected(verify(path))
    for other in (raw[:-1], raw + b"\0", raw[:-8], raw + bytes(8), b""):
        data.write_bytes(other)
        assert_rejected(verify(path))
    data.unlink()
    assert_rejected(verify(path))
    data.mkdir()
    assert_rejected(verify(path))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_another_models_proof_is_rejected_even_if_sealed(tmp_path: Path, loss: str, make: Any) -> None:
    here, there = sample(loss), sample(loss, seed=2)
    document, arrays = make(here)
    other_document, other_arrays = make(there)
    assert_rejected(verified(tmp_path, document, other_arrays))
    assert_rejected(verified(tmp_path, with_arrays(document, other_arrays), other_arrays))
    for part in ("x", "y", "f", "w", "V"):
        mixed = {**arrays, part: other_arrays[part]}
        if not np.array_equal(arrays[part], other_arrays[part]):
            assert_rejected(verified(tmp_path, with_arrays(document, mixed), mixed))
    for part in ("claim", "bounds"):
        forged = sealed({**document, part: other_document[part]})
        if part == "bounds" or forged["claim"] != document["claim"]:
            assert verified(tmp_path, forged, arrays).accepted is (part == "claim" and holds(forged, here))


def test_targets_and_probabilities_that_no_problem_has_are_rejected(tmp_path: Path) -> None:
    """However true the rest is: the certificates are made for these numbers."""
    for loss, name, value in (
        ("logistic", "y", 0.5),
        ("poisson", "y", -1.0),
        ("squared", "probabilities", 0.0),
        ("squared", "probabilities", -0.125),
    ):
        at = sample(loss, seed=1)
        assert verified(tmp_path, *certificate(at, verdict="UNDECIDED", epsilon=1.0)).accepted
        getattr(at, name)[2] = value
        found = verified(tmp_path, *certificate(at, verdict="UNDECIDED", epsilon=1.0))
        assert_rejected(found)
        assert found.reasons[0].startswith(f"inputs.{name}")


# The way to an answer.


def test_a_missing_certificate_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        verify(tmp_path / "none.json")
    with pytest.raises(RequestError, match="cannot read"):
        verify(tmp_path)


def test_what_is_too_large_is_undecided_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, arrays = certified(sample("squared"))
    monkeypatch.setattr(decision, "WORK_LIMIT", 7 * 25 - 1)
    found = verified(tmp_path, document, arrays)
    assert (found.accepted, found.verdict, found.exit_code) == (True, Verdict.UNDECIDED, 20)
    assert "175" in found.reasons[-1]
    assert_rejected(verified(tmp_path, sealed(changed(document, ("inputs", "x"), "0" * 64)), arrays))


def test_an_exception_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, *certified(sample("squared")))
    for module, name in (
        (decision, "read_certificate"),
        (decision, "read_data"),
        (decision, "bind"),
        (decision, "evaluate"),
        (decision, "encloses"),
        (decision, "encloses_root"),
        (decision, "inside"),
        (decision, "curvature_at_least"),
        (proofs, "semidefinite"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *arguments, **options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                verify(path)


def test_the_verifier_shares_no_mathematics_with_the_producer(tmp_path: Path) -> None:
    path = write(tmp_path, *certified(sample("logistic")))
    script = (
        "import sys; from resnet_cert.certificate.decision import verify\n"
        f"assert verify({str(path)!r}).accepted\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('resnet_cert.', 'jax'))))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name for name in run.stdout.split() if not name.startswith("resnet_cert.certificate")}
    assert loaded == {"resnet_cert.outcomes"}
