"""Definition 1: every branch of every verdict, and reasons that are true as they are printed."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from resnet_cert.decide.definition1 import (
    Stationarity,
    corollary1_verdict,
    curvature_verdict,
    definition1,
    gradient_verdict,
    threshold,
)
from resnet_cert.numerics.enclosure import UNKNOWN, Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.theory.theorems import smallest_epsilon

CERTIFIED, REFUTED, UNDECIDED = Verdict.CERTIFIED, Verdict.REFUTED, Verdict.UNDECIDED
exact = Enclosure.exact


def between(lower: float, upper: float) -> Enclosure:
    return Enclosure((lower + upper) / 2, lower, upper)


above_half, below_half = math.nextafter(0.5, 1.0), math.nextafter(0.5, 0.0)


@pytest.mark.parametrize(
    ("norm", "verdict"),
    [
        (exact(0.5), CERTIFIED),
        (exact(above_half), REFUTED),
        (between(0.0, 0.5), CERTIFIED),
        (between(0.0, above_half), UNDECIDED),
        (between(0.5, 1.0), UNDECIDED),
        (between(above_half, 1.0), REFUTED),
        (Enclosure(math.nan, above_half, math.inf), REFUTED),
        (UNKNOWN, UNDECIDED),
    ],
)
def test_the_gradient_is_compared_with_epsilon(norm: Enclosure, verdict: Verdict) -> None:
    assert gradient_verdict(norm, 0.5) is verdict


@pytest.mark.parametrize(
    ("lambda_min", "limit", "verdict"),
    [
        (exact(-0.5), exact(0.5), CERTIFIED),
        (exact(-above_half), exact(0.5), REFUTED),
        (between(-0.5, 1.0), exact(0.5), CERTIFIED),
        (between(-above_half, 1.0), exact(0.5), UNDECIDED),
        (between(-1.0, -0.5), exact(0.5), UNDECIDED),
        (between(-1.0, -above_half), exact(0.5), REFUTED),
        (exact(-0.5), between(below_half, above_half), UNDECIDED),
        (exact(-below_half), between(below_half, above_half), CERTIFIED),
        (exact(-0.6), between(below_half, above_half), REFUTED),
        (exact(0.0), exact(0.0), CERTIFIED),
        (exact(-5e-324), exact(0.0), REFUTED),
        (between(-5e-324, 0.0), exact(0.0), UNDECIDED),
        (exact(0.0), None, CERTIFIED),
        (exact(-5e-324), None, UNDECIDED),
        (exact(-1e300), None, UNDECIDED),
        (UNKNOWN, exact(0.5), UNDECIDED),
        (UNKNOWN, None, UNDECIDED),
    ],
)
def test_the_curvature_is_compared_with_the_threshold(
    lambda_min: Enclosure, limit: Enclosure | None, verdict: Verdict
) -> None:
    assert curvature_verdict(lambda_min, limit) is verdict


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (exact(0.0), CERTIFIED),
        (between(-1.0, 0.0), CERTIFIED),
        (between(-1.0, 5e-324), UNDECIDED),
        (between(0.0, 1.0), UNDECIDED),
        (exact(5e-324), REFUTED),
        (UNKNOWN, UNDECIDED),
    ],
)
def test_corollary_1_is_about_the_sign_of_the_gap(gap: Enclosure, verdict: Verdict) -> None:
    assert corollary1_verdict(gap) is verdict


def test_the_threshold_is_the_root_enclosed() -> None:
    rng = np.random.default_rng(0)
    for reach in (1, 150, 300):
        for mu2, eps in 10.0 ** rng.uniform(-reach, reach, (50, 2)):
            limit = threshold(mu2, eps)
            assert limit is not None
            assert Fraction(limit.lower) ** 2 <= Fraction(mu2) * Fraction(eps) <= Fraction(limit.upper) ** 2
            assert limit.upper <= limit.lower * (1 + 1e-15)


def test_the_threshold_is_zero_at_epsilon_zero_for_every_mu2_and_unknown_without_mu2() -> None:
    assert threshold(None, 0.0) == threshold(3.0, 0.0) == threshold(0.0, 2.0) == exact(0.0)
    assert threshold(4.0, 0.25) == exact(1.0)
    assert threshold(None, 0.1) is None


@pytest.mark.parametrize(
    ("mu2", "eps"), [(1.0, -0.1), (1.0, math.nan), (1.0, math.inf), (-1.0, 0.1), (math.nan, 0.1)]
)
def test_a_negative_or_infinite_constant_is_refused(mu2: float, eps: float) -> None:
    with pytest.raises(ValueError, match="expected a finite"):
        definition1(exact(0.0), exact(0.0), eps, mu2)


GRADIENTS = {CERTIFIED: exact(0.1), REFUTED: exact(0.3), UNDECIDED: between(0.1, 0.3)}
CURVATURES = {CERTIFIED: exact(-0.1), REFUTED: exact(-0.6), UNDECIDED: between(-0.6, -0.1)}


@pytest.mark.parametrize("gradient", Verdict)
@pytest.mark.parametrize("curvature", Verdict)
def test_both_conditions_make_the_verdict_and_the_decisive_ones_its_reasons(
    gradient: Verdict, curvature: Verdict
) -> None:
    found = definition1(GRADIENTS[gradient], CURVATURES[curvature], 0.25, 1.0)
    parts = (gradient, curvature)
    assert (found.gradient, found.curvature) == parts
    expected = REFUTED if REFUTED in parts else UNDECIDED if UNDECIDED in parts else CERTIFIED
    assert found.verdict is expected
    assert found.threshold == exact(0.5)
    begins = [name for name, part in zip(("gradient", "lambda_min"), parts, strict=True) if part is expected]
    assert [reason.split()[0] for reason in found.reasons] == begins


def test_a_loss_of_which_nothing_is_enclosed_has_no_scale_that_helps() -> None:
    unknown = Enclosure(0.0, 0.0, math.inf), Enclosure(0.0, -math.inf, 0.0)
    found = definition1(*unknown, 0.5, 1.0, opaque=True)
    assert found.reasons == tuple(
        f"{what} is not enclosed: nothing of the loss is" for what in ("gradient norm", "lambda_min")
    )


NOT_ENCLOSED = "is not enclosed: its numerical error is unbounded; bring the data to a scale near 1"


@pytest.mark.parametrize(
    ("gradient", "lambda_min", "eps", "mu2", "reasons"),
    [
        (
            (5.551115123125783e-17,) * 2,
            (-0.0123456, 0.0),
            0.2,
            1.0,
            (
                "gradient norm ≤ 5.56e-17 is at most epsilon = 0.2",
                "lambda_min ≥ -0.0124 is at least -sqrt(mu2 epsilon) ≤ -0.447",
            ),
        ),
        (
            (0.3, 0.3),
            (-1.0, -0.6),
            0.25,
            1.0,
            (
                "gradient norm ≥ 0.3 exceeds epsilon = 0.25",
                "lambda_min ≤ -0.6 lies below -sqrt(mu2 epsilon) = -0.5",
            ),
        ),
        (
            (0.0, 0.0),
            (-1.0, -0.44721366),
            0.2,
            1.0,
            ("lambda_min ≤ -0.44721366 lies below -sqrt(mu2 epsilon) ≥ -0.4472135955",),
        ),
        ((0.0, 0.0), (-0.1, -0.1), 0.0, None, ("lambda_min ≤ -0.1 lies below -sqrt(mu2 epsilon) = 0",)),
        (
            (0.125, 0.5),
            (0.0, 0.0),
            0.25,
            1.0,
            (
                "gradient norm in [0.125, 0.5] is not separated from epsilon = 0.25: "
                "the numerical error 0.375 is larger than the margin 0.0625; it passes from epsilon = 0.5 on",
            ),
        ),
        (
            (0.0, 0.0),
            (-0.75, -0.25),
            0.25,
            1.0,
            (
                "lambda_min in [-0.75, -0.25] is not separated from -sqrt(mu2 epsilon) = -0.5: "
                "the numerical error 0.5 is larger than the margin 0; it passes from epsilon = 0.563 on",
            ),
        ),
        (
            (0.0, 0.0),
            (-0.1, -0.1),
            0.3,
            None,
            (
                "lambda_min ≥ -0.1 may be negative and mu2 is not known: "
                "give lipschitz.mu2 (one of at least 0.0334 passes)",
            ),
        ),
        (
            (0.0, 0.0),
            (0.125, 0.25),
            0.5,
            None,
            ("gradient norm ≤ 0 is at most epsilon = 0.5", "lambda_min ≥ 0.125 is at least 0, for every mu2"),
        ),
        (
            (0.0, math.inf),
            (-math.inf, 0.0),
            0.5,
            1.0,
            (
                f"gradient norm {NOT_ENCLOSED}",
                f"lambda_min {NOT_ENCLOSED}",
            ),
        ),
    ],
)
def test_the_reasons_in_words(
    gradient: tuple[float, float],
    lambda_min: tuple[float, float],
    eps: float,
    mu2: float | None,
    reasons: tuple[str, ...],
) -> None:
    assert definition1(between(*gradient), between(*lambda_min), eps, mu2).reasons == reasons


def test_where_no_epsilon_or_no_mu2_can_help_the_next_step_says_so() -> None:
    hidden = between(-1e-16, 0.0)
    (without,) = definition1(exact(0.0), hidden, 0.0, None).reasons
    assert without.endswith("a positive epsilon together with lipschitz.mu2 makes room for the error")
    (flat,) = definition1(exact(0.0), hidden, 0.1, 0.0).reasons
    assert flat.endswith("no epsilon makes room for the error, because mu2 = 0")


NUMBER = r"(-?[0-9.]+(?:e[+-]?\d+)?)"
CLAIMS = (
    (rf"gradient norm ≤ {NUMBER} is at most epsilon = {NUMBER}", lambda x, y: x <= y),
    (rf"gradient norm ≥ {NUMBER} exceeds epsilon = {NUMBER}", lambda x, y: x > y),
    (rf"lambda_min ≥ {NUMBER} is at least -sqrt\(mu2 epsilon\) [≤=] {NUMBER}", lambda x, y: x >= y),
    (rf"lambda_min ≤ {NUMBER} lies below -sqrt\(mu2 epsilon\) [≥=] {NUMBER}", lambda x, y: x < y),
)


def near_threshold(rng: np.random.Generator) -> tuple[Enclosure, Enclosure, float, float]:
    """A gradient norm and a λ_min whose enclosures lie within 1e-16 .. 1 of ε and −√(μ2 ε), relatively."""
    eps, mu2 = (float(c) for c in 10.0 ** rng.uniform(-6, 2, 2))

    def around(center: float) -> Enclosure:
        off, width = 10.0 ** rng.uniform(-17, 0, 2) * center
        low = center + off * rng.choice([-1.0, 0.0, 1.0])
        return between(low, low + width * rng.choice([0.0, 1.0]))

    return around(eps), -around(math.sqrt(mu2 * eps)), eps, mu2


def test_what_the_reasons_say_is_true_and_follows_as_printed() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(800):
        gradient, lambda_min, eps, mu2 = near_threshold(rng)
        found = definition1(gradient, lambda_min, eps, mu2)
        if found.verdict is UNDECIDED:
            continue
        for reason in found.reasons:
            (claim,) = [i for i, (pattern, _) in enumerate(CLAIMS) if re.fullmatch(pattern, reason)]
            match = re.fullmatch(CLAIMS[claim][0], reason)
            assert match
            left, right = match.groups()
            assert CLAIMS[claim][1](Decimal(left), Decimal(right)), reason
            limit = found.threshold
            assert limit
            x, y = float(left), float(right)
            assert (
                x >= gradient.upper and y == eps,
                x <= gradient.lower and y == eps,
                x <= lambda_min.lower and y >= -limit.lower,
                x >= lambda_min.upper and y <= -limit.upper,
            )[claim], reason
            seen.add(claim)
    assert seen == {0, 1, 2, 3}


def passes(found: Stationarity, condition: str) -> bool:
    return {"gradient": found.gradient, "lambda_min": found.curvature}[condition] is CERTIFIED


def test_the_next_step_of_an_undecided_point_does_decide_it() -> None:
    rng = np.random.default_rng(2)
    followed, points = 0, []
    for _ in range(400):
        gradient, lambda_min, eps, mu2 = near_threshold(rng)
        points.append((gradient, lambda_min, eps, mu2))
    points += [(exact(0.0), between(-m, 0.0), 1e-9, 1.0) for m in np.arange(0.01, 1.0, 0.01)]  # m² is short
    for gradient, lambda_min, eps, mu2 in points:
        for reason in definition1(gradient, lambda_min, eps, mu2).reasons:
            step = re.search(rf"it passes from epsilon = {NUMBER} on", reason)
            if step:
                followed += 1
                assert passes(definition1(gradient, lambda_min, float(step[1]), mu2), reason.split()[0])
        for reason in definition1(exact(0.0), lambda_min, eps, None).reasons:
            step = re.search(rf"one of at least {NUMBER} passes", reason)
            assert step
            assert passes(definition1(exact(0.0), lambda_min, eps, float(step[1])), "lambda_min")
    assert followed > 50


def test_the_verdict_agrees_with_the_smallest_epsilon() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        gradient, lambda_min, _, mu2 = near_threshold(rng)
        least = smallest_epsilon(gradient, (-lambda_min).positive_part(), mu2)
        assert least is not None
        assert definition1(gradient, lambda_min, least.upper * (1 + 1e-15), mu2).verdict is CERTIFIED
        assert definition1(gradient, lambda_min, least.lower * (1 - 1e-15), mu2).verdict is not CERTIFIED


def test_an_exact_number_is_decided_as_exact_arithmetic_decides_it() -> None:
    rng = np.random.default_rng(4)
    for _ in range(500):
        eps, mu2 = (float(c) for c in 10.0 ** rng.uniform(-6, 2, 2))
        g = eps * (1 + rng.integers(-2, 3) * 2.0**-52)
        m = math.sqrt(mu2 * eps) * (1 + rng.integers(-4, 5) * 2.0**-52)
        truth = g <= eps and Fraction(m) ** 2 <= Fraction(mu2) * Fraction(eps)
        verdict = definition1(exact(g), exact(-m), eps, mu2).verdict
        assert verdict is UNDECIDED or (verdict is CERTIFIED) == truth
