"""Every built-in loss against its definition in 50 digits: values, derivatives, suprema, targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from flint import arb, ctx, fmpq
from mpmath import mp, mpf

from resnet_cert.decide import ball
from resnet_cert.numerics.enclosure import INFLATION, TINY, U
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.outcomes import RequestError
from resnet_cert.problem import losses
from resnet_cert.problem.losses import ELEMENTARY, LOSSES, BuiltinLoss, named_loss

Array = np.ndarray


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(50):
        yield


# --- The definitions ------------------------------------------------------------------------------------


def _squared(p: mpf, y: mpf) -> tuple[mpf, mpf, mpf]:
    return (p - y) ** 2 / 2, p - y, mpf(1)


def _logistic(p: mpf, y: mpf) -> tuple[mpf, mpf, mpf]:
    e = mp.exp(-abs(p))  # log1p and the fractions below never cancel
    rising, falling = mp.log1p(e) + max(p, 0), mp.log1p(e) + max(-p, 0)  # log(1 + e^p), log(1 + e^−p)
    sigmoid = 1 / (1 + e) if y * p < 0 else e / (1 + e)  # 1/(1 + e^{yp})
    return (falling if y > 0 else rising), -y * sigmoid, e / (1 + e) ** 2


def _pseudo_huber(p: mpf, y: mpf) -> tuple[mpf, mpf, mpf]:
    r = p - y
    s = mp.sqrt(1 + r * r)
    return r * r / (1 + s), r / s, 1 / s**3  # s − 1 = r²/(1 + s)


def _poisson(p: mpf, y: mpf) -> tuple[mpf, mpf, mpf]:
    return mp.exp(p) - y * p, mp.exp(p) - y, mp.exp(p)


TRUTH: dict[str, Callable[[mpf, mpf], tuple[mpf, mpf, mpf]]] = {
    "squared": _squared,
    "logistic": _logistic,
    "pseudo_huber": _pseudo_huber,
    "poisson": _poisson,
}
KINDS = list(TRUTH)


def targets(kind: str, rng: np.random.Generator, n: int) -> Array:
    if kind == "logistic":
        return rng.choice([-1.0, 1.0], n)
    if kind == "poisson":
        return rng.poisson(2.0, n) * rng.choice([0.0, 1.0, 0.3, 100.0], n)
    return rng.normal(size=n) * 10.0 ** rng.choice([-300, -8, 0, 3], n)


def predictions(kind: str, rng: np.random.Generator, n: int) -> Array:
    """Moderate ones of both signs, and those where an exponential or a square ends or begins to matter."""
    edges = [0.0, -0.0, 1e-300, -1e-300, 1e-16, 5e-324, 36.7, -36.7, 700.0, -700.0, -745.2, -800.0, -1e3]
    edges += [] if kind == "poisson" else [745.2, 800.0, 1e3]
    edges += [1e8, -1e15, 1e200, -1e200] if kind == "pseudo_huber" else []
    edges += [1e8, -1e15, 1e100, -1e150] if kind == "squared" else []
    moderate = rng.normal(size=n) * 10.0 ** rng.uniform(-3, 2, n)
    return np.concatenate([edges, edges, moderate])


def test_every_loss_has_its_definition_here():
    assert set(TRUTH) == set(LOSSES)


# --- ℓ, ℓ', ℓ'' and their errors --------------------------------------------------------------------------


def misses(loss: BuiltinLoss, p: Array, delta: float, y: Array) -> int:
    """At how many places ℓ, ℓ' or ℓ'' at some p' with |p' − p| ≤ δ is farther off than its bound says."""
    at = loss.derivatives(p, np.full_like(p, delta), y)
    scale, exact_delta, missed = mpf(loss.scale), mpf(delta), 0
    for i, (pi, yi) in enumerate(zip(p, y, strict=True)):
        for share in (-1, mpf("-0.37"), 0, mpf("0.81"), 1) if delta else (0,):
            truth = TRUTH[loss.kind](mpf(pi) + share * exact_delta, mpf(yi))
            bounds = ((at.value, at.value_error), (at.first, at.first_error), (at.second, at.second_error))
            for exact, (value, error) in zip(truth, bounds, strict=True):
                # The bounds are made of sums and products of nonnegative floats, whose user inflates them.
                allowed = mpf(float(error[i])) * INFLATION
                missed += not abs(scale * exact - mpf(float(value[i]))) <= allowed
    return missed


@pytest.mark.parametrize("delta", [0.0, 1e-16, 1e-3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_for_every_prediction_within_its_error_is_enclosed(kind, delta):
    rng = np.random.default_rng(1)
    p = predictions(kind, rng, 60)
    assert not misses(BuiltinLoss(kind), p, delta, targets(kind, rng, len(p)))


@pytest.mark.parametrize(("kind", "p", "y"), [("logistic", 800.0, 1.0), ("poisson", -800.0, 0.0)])
def test_what_underflows_grows_with_the_error_of_the_prediction(kind, p, y):
    assert not misses(BuiltinLoss(kind), np.array([p]), 100.0, np.array([y]))


@pytest.mark.parametrize(("kind", "p"), [("pseudo_huber", 1e200), ("logistic", 800.0), ("poisson", 800.0)])
def test_where_too_little_is_known_the_errors_are_infinite_and_never_nan(kind, p):
    at = BuiltinLoss(kind).derivatives(np.array([p]), np.array([800.0]), np.array([1.0]))
    assert not np.isnan(np.stack(at)[1::2]).any()


@pytest.mark.parametrize("scale", [1.0 / 3.0, 2.0, 1e-7, 1e5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_loss_is_enclosed(kind, scale):
    rng = np.random.default_rng(2)
    p = predictions(kind, rng, 20)
    assert not misses(BuiltinLoss(kind, scale), p, 1e-12, targets(kind, rng, len(p)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_error_of_the_prediction_the_bounds_are_a_few_roundings(kind):
    rng = np.random.default_rng(3)
    p = rng.normal(size=200) * 10.0
    y = targets(kind, rng, 200)
    at = BuiltinLoss(kind).derivatives(p, np.zeros(200), y)
    floor = 64 * ELEMENTARY * (np.exp(p) + np.abs(y * p)) if kind == "poisson" else 0.0  # e^p − y cancels
    parts = ((at.value, at.value_error), (at.first, at.first_error), (at.second, at.second_error))
    for value, error in parts:
        assert np.all(error <= 4 * ELEMENTARY * np.abs(value) + floor + 2 * U * np.abs(p - y) + 3 * TINY)


@pytest.mark.parametrize("kind", KINDS)
def test_elementary_functions_of_ball_arithmetic_enclose_the_truth_too(kind):
    rng = np.random.default_rng(10)
    p = predictions(kind, rng, 20)
    loss = BuiltinLoss(kind, functions=ball.elementary())
    assert not misses(loss, p, 1e-3, targets(kind, rng, len(p)))


@pytest.mark.parametrize("kind", KINDS)
def test_in_balls_the_formulas_are_the_definitions(kind):
    rng = np.random.default_rng(11)
    p = predictions(kind, rng, 40)
    with ctx.workprec(300):
        for pi, yi in zip(p, targets(kind, rng, len(p)), strict=True):
            balls = BuiltinLoss(kind, 0.75).ball(arb(pi), arb(yi), arb)
            for ours, exact in zip(balls, TRUTH[kind](mpf(pi), mpf(yi)), strict=True):
                exact = mpf(0.75) * exact
                assert abs(mpf(ours.mid().str(60, radius=False)) - exact) <= mpf("1e-40") * abs(exact)


def test_of_the_squared_loss_the_formulas_hold_in_rationals():
    p, y = fmpq(1, 3), fmpq(-2, 7)
    assert BuiltinLoss("squared").ball(p, y, lambda _: fmpq(1)) == ((p - y) ** 2 / 2, p - y, 1)


def test_without_the_budget_for_elementary_functions_the_truth_is_missed(monkeypatch):
    rng = np.random.default_rng(4)
    p = rng.normal(size=300) * 10.0
    y = targets("poisson", rng, 300)
    assert not misses(BuiltinLoss("poisson"), p, 0.0, y)
    monkeypatch.setattr(losses, "ELEMENTARY", 0.0)
    monkeypatch.setattr(losses, "U", 0.0)
    assert misses(BuiltinLoss("poisson"), p, 0.0, y)


@pytest.mark.parametrize("kind", KINDS)
def test_autodiff_of_the_value_agrees_with_the_formulas(kind):
    rng = np.random.default_rng(5)
    loss, p = BuiltinLoss(kind, 1.5), rng.uniform(-12.0, 12.0, 200)
    y = targets(kind, rng, 200)
    y = np.clip(y, -100.0, 100.0)
    at = loss.derivatives(p, np.zeros_like(p), y)

    def value(pi, yi):
        return loss.value(pi, yi)

    first = jax.grad(value)
    for function, expected in ((value, at.value), (first, at.first), (jax.grad(first), at.second)):
        got = np.asarray(jax.jit(jax.vmap(function))(jnp.asarray(p), jnp.asarray(y)))
        assert got.dtype == np.float64
        assert np.all(np.abs(got - expected) <= 1e-10 * (1.0 + np.abs(expected)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_derivative_is_nonnegative_and_the_value_convex(kind):
    rng = np.random.default_rng(6)
    loss, (p, q) = BuiltinLoss(kind), rng.normal(size=(2, 300)) * 20.0
    y = targets(kind, rng, 300)
    y = np.clip(y, -100.0, 100.0)
    assert np.all(loss.derivatives(p, np.zeros_like(p), y).second >= 0.0)
    ends, middle = loss.value(p, y) + loss.value(q, y), 2.0 * loss.value((p + q) / 2.0, y)
    assert np.all(middle <= ends + 1e-13 * (1.0 + np.abs(ends)))


@pytest.mark.parametrize("kind", KINDS)
def test_nonnegative_says_whether_the_loss_ever_is_negative(kind):
    rng = np.random.default_rng(7)
    p = rng.normal(size=500) * 5.0
    values = BuiltinLoss(kind).derivatives(p, np.zeros_like(p), targets(kind, rng, 500)).value
    assert BuiltinLoss(kind).nonnegative == bool(np.all(values >= 0.0))


# --- Suprema --------------------------------------------------------------------------------------------


def _magnitudes(kind: str, p: Array, y: float) -> tuple[Array, Array, Array]:
    """|ℓ'|, |ℓ''|, |ℓ'''| in float64, from the definitions: good to 1e-14."""
    if kind == "squared":
        return np.abs(p - y), np.ones_like(p), np.zeros_like(p)
    if kind == "logistic":
        sigmoid = 0.5 * (1.0 - np.tanh(y * p / 2.0))
        curved = sigmoid * (1.0 - sigmoid)
        return sigmoid, curved, curved * np.abs(np.tanh(p / 2.0))
    if kind == "pseudo_huber":
        r = p - y
        return np.abs(r) / np.sqrt(1 + r * r), (1 + r * r) ** -1.5, 3.0 * np.abs(r) * (1 + r * r) ** -2.5
    return np.abs(np.exp(p) - y), np.exp(p), np.exp(p)


def densely_maximised(kind: str, reach: float, y: float) -> list[float]:
    """max over |p| ≤ reach of the three magnitudes: a grid, and a finer one around its best point."""
    largest = []
    for i in range(3):
        p = np.linspace(-reach, reach, 4001)
        for step in (reach / 2000.0, reach / 1e6):
            best = float(p[np.argmax(_magnitudes(kind, p, y)[i])])
            p = np.clip(np.linspace(best - step, best + step, 2001), -reach, reach)
        largest.append(float(np.max(_magnitudes(kind, p, y)[i])))
    return largest


@pytest.mark.parametrize("kind", KINDS)
def test_suprema_are_upper_bounds_and_tight(kind):
    rng = np.random.default_rng(8)
    reach = np.concatenate([[0.0, 1e-8, 0.5, 1.0, 1.3, 2.0, 30.0], 10.0 ** rng.uniform(-2, 1.0, 40)])
    y = targets(kind, rng, len(reach))
    y = np.clip(y, -10.0, 10.0)
    suprema = np.stack(BuiltinLoss(kind).suprema(reach, y), axis=1)
    for R, yi, bounds in zip(reach, y, suprema, strict=True):
        paid = np.zeros(3)
        if kind == "poisson":
            paid[0] = 4.0 * ELEMENTARY * (math.exp(R) + yi)  # for the cancellation in e^R − y
        for bound, largest, extra in zip(bounds, densely_maximised(kind, R, float(yi)), paid, strict=True):
            assert largest <= bound * (1.0 + 2.0**-40)
            assert bound <= largest * (1.0 + 1e-9) + extra + 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_the_third_supremum_is_that_of_the_third_derivative(kind):
    rng = np.random.default_rng(9)
    loss, reach = BuiltinLoss(kind), np.full(50, 3.0)
    y = targets(kind, rng, 50)
    y = np.clip(y, -10.0, 10.0)
    third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(lambda p, y: loss.value(p, y))))))
    p = rng.uniform(-3.0, 3.0, 50)
    assert np.all(np.abs(third(p, y)) <= loss.suprema(reach, y)[2] * (1.0 + 1e-12))


def test_suprema_scale_with_the_loss():
    reach, y = np.array([0.3, 2.0, 5.0]), np.array([1.0, -1.0, 1.0])
    for kind in ("squared", "logistic", "pseudo_huber"):
        plain, scaled = BuiltinLoss(kind).suprema(reach, y), BuiltinLoss(kind, 2.5).suprema(reach, y)
        assert np.array_equal(np.stack(scaled), 2.5 * np.stack(plain))


# --- What a loss says about its targets -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_flat_side_is_where_the_loss_stays_bounded(kind):
    y = {"logistic": [-1.0, 1.0], "poisson": [0.0, 0.5, 3.0]}.get(kind, [-2.0, 0.0, 1.5])
    for yi, side in zip(y, BuiltinLoss(kind).flat_side(np.array(y)), strict=True):
        bounded = [s for s in (-1, 1) if abs(TRUTH[kind](mpf(s * 10**5), mpf(yi))[0]) < 1]
        assert bounded == ([] if side == 0.0 else [side])


@pytest.mark.parametrize(
    ("kind", "allowed", "refused", "expected"),
    [
        ("squared", [0.0, -1e300, 5e-324], [math.nan, math.inf, -math.inf], "a finite target"),
        ("pseudo_huber", [0.0, -1e300], [math.nan, math.inf], "a finite target"),
        ("logistic", [1.0, -1.0], [0.0, 2.0, math.nan, 1.0 + 2**-52, math.inf], "a label −1 or 1"),
        ("poisson", [0.0, 0.5, 7.0, -0.0], [-1e-300, math.inf, math.nan], "a target y ≥ 0"),
    ],
)
def test_the_first_target_that_is_not_allowed_is_named(kind, allowed, refused, expected):
    loss = BuiltinLoss(kind)
    assert loss.target_fault(np.array(allowed)) is None
    for wrong in refused:
        y = np.array([*allowed, wrong, wrong])
        message = f"expected {expected} for the {kind} loss, got {wrong!r}"
        assert loss.target_fault(y) == (len(allowed), message)


def test_a_loss_is_named_with_its_scale():
    assert named_loss("squared").name == "squared"
    assert named_loss("logistic", 0.25).name == "0.25·logistic"
    assert named_loss("poisson", 2.0) == BuiltinLoss("poisson", 2.0)


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match=r"expected one of the losses squared, logistic, .*got 'hinge'"):
        named_loss("hinge")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale):
    with pytest.raises(RequestError, match="expected a positive finite scale"):
        named_loss("squared", scale)
