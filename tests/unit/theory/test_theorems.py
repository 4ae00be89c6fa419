"""Every theorem against its formula in high precision, and against problems that try to break it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from mpmath import mp, mpf
from selections import first

from resnet_cert.compare.theorem4 import theorem4_constants, theorem4_terms
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.losses import named_loss
from resnet_cert.results import SgdConstants
from resnet_cert.theory import theorems

pytestmark = pytest.mark.drift

SLACK = 1e-12
ROUNDING = 1e-9
"""Of a ratio: a gap is a difference, and 1e-3 of its terms at least."""
Array = np.ndarray
exact = Enclosure.exact


@pytest.fixture(autouse=True)
def digits() -> Iterator[None]:
    """Enough for β − √(β² + 4‖a‖²) at ‖a‖ = 1e-120, β = 1e120."""
    with mp.workdps(600):
        yield


# --- Against the formulas -------------------------------------------------------------------------------


def per_unit(gap: mpf, *squares: mpf) -> mpf:
    return gap / mp.sqrt(sum(squares))


def theorem2_left(gradient_norm: mpf, magnitude: mpf, norm_V: mpf, norm_A: mpf) -> mpf:
    return gradient_norm + mp.sqrt(3) * norm_V * mp.sqrt(magnitude * norm_A + magnitude**2)


FORMULAS = {
    "theorem1": (
        theorems.theorem1,
        lambda g, w, s, V, sigma: per_unit(g, 2 * w**2, s**2 * (2 + V**2 / sigma**2)),
    ),
    "theorem1_refined": (theorems.theorem1_refined, lambda g, D, X: per_unit(g, D**2, X**2)),
    "lambda_min_at_origin": (theorems.lambda_min_at_origin, lambda b, a: (b - mp.sqrt(b**2 + 4 * a**2)) / 2),
    "theorem2 left": (
        lambda g, m, V, A: theorems.theorem2(exact(1.0), exact(1.0), g, -m, V, A, rank=3)[0],
        theorem2_left,
    ),
    "theorem2 right": (lambda g, s: theorems.theorem2(g, s, *[exact(1.0)] * 4)[1], lambda g, s: g / s),
    "local_lemma": (theorems.local_lemma, lambda m, b: mp.sqrt(m**2 + m * b)),
    "local_lemma_any": (
        theorems.local_lemma_any,
        lambda m, e, k: mp.sqrt((e + m) * (k + m)) + mp.sqrt(e * k),
    ),
    "local_lemma_gradient": (theorems.local_lemma_gradient, lambda g, sigma: g / sigma),
    "decayed_gap": (theorems.decayed_gap, lambda c, x, V, D: x + c * (V**2 - D**2)),
    "decayed_gap_by_gradient": (
        theorems.decayed_gap_by_gradient,
        lambda c, V, D, XV, g, W, X: c * (V**2 - D**2 - 2 * XV) + g * mp.sqrt(W**2 + X**2),
    ),
    "proposition_R": (
        theorems.proposition_R,
        lambda rho, x, y, g, W, X: g * mp.sqrt(W**2 + X**2) - rho * (x + y),
    ),
    "gap_linear_functional": (theorems.gap_linear_functional, lambda x, y: x + y),
    "gap_linear_functional_on_ball": (
        lambda x, y: theorems.gap_linear_functional_on_ball(x, y, 3.0),
        lambda x, y: x + 3 * y,
    ),
    "gap_first_order": (theorems.gap_first_order, lambda D, g, q, a: D * g + q * a),
    "smallest_epsilon": (
        lambda g, m: theorems.smallest_epsilon(g, m, 0.7),
        lambda g, m: max(g, m**2 / mpf(0.7)),
    ),
    "hypot": (theorems.hypot, lambda x, y, z: mp.sqrt(x**2 + y**2 + z**2)),
}


def arity(formula: Callable[..., mpf]) -> int:
    return formula.__code__.co_argcount


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("reach", [2, 30, 120])
def test_the_result_holds_the_exact_value_and_is_narrow(name: str, reach: int) -> None:
    function, formula = FORMULAS[name]
    rng = np.random.default_rng([reach, *name.encode()])
    for _ in range(40):
        arguments = 10.0 ** rng.uniform(-reach, reach, arity(formula))
        truth, enclosed = formula(*map(mpf, arguments)), function(*map(exact, arguments))
        assert mpf(enclosed.lower) <= truth <= mpf(enclosed.upper)
        cancels = name in ("decayed_gap", "decayed_gap_by_gradient", "proposition_R")
        if abs(truth) < 1e300 and not cancels:
            assert mpf(enclosed.upper) - mpf(enclosed.lower) <= SLACK * abs(truth) + 5e-324
            assert enclosed.lower <= enclosed.value <= enclosed.upper


@pytest.mark.parametrize("name", FORMULAS)
def test_wide_arguments_give_a_result_that_holds_every_value_within(name: str) -> None:
    function, formula = FORMULAS[name]
    rng = np.random.default_rng([*name.encode()])
    for _ in range(60):
        ends = np.sort(10.0 ** rng.uniform(-2, 2, (2, arity(formula))), axis=0)
        if name in ("gap_linear_functional", "theorem1", "theorem2 right"):
            ends[:, 0] -= 10.0  # the gap may have either sign
        enclosed = function(*(Enclosure(low, low, high) for low, high in ends.T))
        for share in (0.0, 1.0, *rng.uniform(size=(4, ends.shape[1]))):
            inside = np.clip(ends[0] + share * (ends[1] - ends[0]), *ends)
            truth = formula(*map(mpf, inside))
            assert mpf(enclosed.lower) <= truth <= mpf(enclosed.upper)


def test_a_negative_gap_gives_a_negative_lower_bound() -> None:
    bound = theorems.theorem1(exact(-2.0), exact(1.0), exact(1.0), exact(0.0), exact(0.0))
    assert (bound.lower, bound.upper) == (-1.0, -1.0)


def test_theorem_1_does_not_speak_of_a_head_without_full_row_rank() -> None:
    with pytest.raises(ValueError, match="full row rank"):
        theorems.theorem1(*[exact(1.0)] * 4, exact(0.0))


def test_without_full_row_rank_the_gradient_bounds_no_A_f() -> None:
    assert theorems.local_lemma_gradient(exact(1.0), Enclosure(0.0, 0.0, 1.0)).upper == math.inf


def test_at_the_comparator_itself_the_refined_bound_is_zero() -> None:
    for gap in (exact(-1.0), Enclosure(0.0, -1e-16, 1e-16)):
        assert theorems.theorem1_refined(gap, exact(0.0), exact(0.0)) == exact(0.0)


@pytest.mark.parametrize(
    ("gap", "lower", "upper"), [((1.0, 2.0), 4.0, math.inf), ((-2.0, -1.0), -math.inf, 0.0)]
)
def test_a_denominator_that_may_vanish_leaves_what_is_proven(
    gap: tuple[float, float], lower: float, upper: float
) -> None:
    bound = theorems.theorem1_refined(Enclosure(gap[0], *gap), Enclosure(0.0, 0.0, 0.25), exact(0.0))
    assert (bound.lower, bound.upper) == (lower, upper)


def test_theorem_2_has_right_side_zero_for_w_star_zero() -> None:
    left, right = theorems.theorem2(Enclosure(0.0, -1e-17, 1e-17), exact(0.0), *[exact(0.5)] * 4)
    assert right == exact(0.0)
    assert left == exact(0.5)  # λ_min ≤ 0 always: a positive one bounds nothing more


def test_the_smallest_eigenvalue_at_the_origin_at_its_ends() -> None:
    at = theorems.lambda_min_at_origin
    assert at(exact(1.0), exact(0.0)) == exact(0.0)
    assert at(exact(0.0), exact(0.0)) == exact(0.0)
    assert at(exact(0.0), exact(3.0)).lower == at(exact(0.0), exact(3.0)).upper == -3.0
    assert at(Enclosure(0.0, -1e-9, 0.0), exact(3.0)).lower == -3.0  # A is positive semidefinite
    assert at(exact(1e300), exact(1e-300)).upper <= 0.0
    unknown = at(exact(1.0), Enclosure(1.0, 1.0, math.inf))
    assert (unknown.lower, unknown.upper) == (-math.inf, at(exact(1.0), exact(1.0)).upper)
    assert at(Enclosure(1.0, 1.0, math.inf), exact(1.0)).upper == 0.0


# --- Theorem 3, its four forms ----------------------------------------------------------------------------


def B(t: mpf, eps: float, b: float, r: float) -> mpf:
    return eps * mp.sqrt((mpf(b) + r) ** 2 + (mpf(b) * r / t) ** 2)


def S(t: mpf, eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float) -> mpf:
    m = mp.sqrt(mpf(mu2) * eps) + mu2 * t
    return mu0 * t + r * (eps + mu1 * t) + mpf(r) * b * mp.sqrt(m * (mu1 + m))


def crossing(eps: float, b: float, r: float, *mu: float) -> tuple[mpf, mpf]:
    """(value, t*), by bisection to 40 digits."""
    low, high = mpf(0), mpf(b)
    if S(high, eps, b, r, *mu) <= B(high, eps, b, r):
        return S(high, eps, b, r, *mu), high
    while high > low * (1 + mpf(10) ** -40):
        middle = mp.sqrt(low * high) if low else high * mpf(2) ** -40
        if S(middle, eps, b, r, *mu) <= B(middle, eps, b, r):
            low = middle
        else:
            high = middle
    return S(high, eps, b, r, *mu), high


def constants(rng: np.random.Generator, reach: float) -> list[float]:
    return [float(c) for c in 10.0 ** rng.uniform(-reach, reach, 5)]


@pytest.mark.parametrize("reach", [1, 6])
def test_the_threshold_form_is_the_common_value_of_its_two_cases(reach: int, longer: int) -> None:
    rng = np.random.default_rng(reach)
    seen = set()
    for _ in range(8 * longer):
        b, r, *mu = constants(rng, reach)
        eps = float(10.0 ** rng.uniform(-15, 2 + 2 * reach))
        value, t = crossing(eps, b, r, *mu)
        form = theorems.threshold_form(eps, b, r, *mu)
        assert mpf(form.bound.lower) <= value <= mpf(form.bound.upper)
        assert form.bound.upper - form.bound.lower <= SLACK * form.bound.upper
        assert abs(form.t - t) <= SLACK * t
        seen.add(form.t == b)
    assert seen == {True, False}


@pytest.mark.parametrize("share", first(2, [1e-6, 0.999, 0.3]))
def test_a_wrong_threshold_makes_the_bound_loose_and_never_false(
    share: float, longer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theorems, "last_float", lambda holds, high: share * high)
    rng = np.random.default_rng(8)
    for _ in range(6 * longer):
        b, r, *mu = constants(rng, 1)
        eps = float(10.0 ** rng.uniform(-5, 3))
        form = theorems.threshold_form(eps, b, r, *mu)
        assert mpf(form.bound.lower) <= crossing(eps, b, r, *mu)[0] <= mpf(form.bound.upper)


@pytest.mark.parametrize("reach", [1, 6])
def test_the_closed_forms_hold_their_exact_values(reach: int) -> None:
    rng = np.random.default_rng(reach)
    for spare, rank in ((False, 1), (True, 1), (True, 3), (False, 2)):
        C = mp.sqrt(mpf(rank)) * (mpf(1) if spare else 1 + mp.sqrt(mpf(2)))
        for _ in range(15):
            b, r, mu0, mu1, mu2 = constants(rng, reach)
            eps = float(10.0 ** rng.uniform(-15, 1))
            B_, R, M0, M1, M2, E = map(mpf, (b, r, mu0, mu1, mu2, eps))
            m0, both = mp.sqrt(M2 * E), E + mp.sqrt(mp.sqrt(E))
            for form, truth in (
                (
                    theorems.refined_form(eps, b, r, mu1, mu2, spare=spare, rank=rank),
                    (B_ + R) * E + C * B_ * R * mp.sqrt(m0**2 + M1 * m0),
                ),
                (
                    theorems.refined_form(eps, b, r, mu1, mu2, spare=spare, rank=rank, s=mu0),
                    (B_ + R) * E + C * (B_ * R + M0) * mp.sqrt(m0**2 + M1 * m0),
                ),
                (
                    theorems.refined_polynomial_form(eps, b, r, mu1, mu2, spare=spare, rank=rank),
                    both * (B_ + R + C * B_ * R * (mpf(3) / 4 + M1 / 2 + 3 * M2 / 4)),
                ),
                (
                    theorems.polynomial_form(eps, b, r, mu0, mu1, mu2),
                    both * (B_ + R + B_ * R + M0 + R * M1 + R * B_ * (mpf(3) / 4 + M1 / 2 + 9 * M2 / 4)),
                ),
                (
                    theorems.polynomial_form(eps, b, r, mu0, mu1, mu2, rank=rank, whole=False),
                    both
                    * (
                        B_
                        + R
                        + B_ * R
                        + M0
                        + (B_ + R) * M1
                        + mp.sqrt(mpf(rank)) * R * B_ * (mpf(3) / 4 + M1 / 2 + 9 * M2 / 4)
                    ),
                ),
            ):
                assert mpf(form.lower) <= truth <= mpf(form.upper)
                assert form.upper - form.lower <= SLACK * form.upper


@pytest.mark.parametrize("spare", [True, False])
def test_with_decay_the_form_is_that_of_the_best_split(spare: bool) -> None:
    rng = np.random.default_rng(4)
    for _ in range(6):
        b, r, norm_V, mu1, mu2 = constants(rng, 1)
        eps, l2, rank = float(10.0 ** rng.uniform(-6, 0)), float(10.0 ** rng.uniform(-6, 0)), 2
        B_, R, V_, M1, M2, E, C = map(mpf, (b, r, norm_V, mu1, mu2, eps, l2))
        mu = mp.sqrt(M2 * E) + 2 * C

        def rises(s: mpf, mu: mpf = mu, M1: mpf = M1, M2: mpf = M2) -> mpf:
            return mp.sqrt((M1 + mu) * (M2 * s + mu)) + mp.sqrt(M1 * M2 * s)

        curved = mp.sqrt(mu * (M1 + mu))
        if not spare:
            slope = E + 2 * C * V_
            low, high = mpf(10) ** -80, mpf(b)
            for _ in range(400):
                middle = mp.sqrt(low * high)
                low, high = (middle, high) if rises(middle) <= slope / middle else (low, middle)
            curved = max(rises(high), slope / high)
        truth = (B_ + R) * E + C * V_**2 + mp.sqrt(mpf(rank)) * B_ * R * curved
        form = theorems.decayed_form(eps, b, r, mu1, mu2, l2, exact(norm_V), spare=spare, rank=rank)
        assert mpf(form.lower) <= truth * (1 + mpf(10) ** -12)
        assert mpf(form.upper) >= truth * (1 - mpf(10) ** -12)
        assert form.upper - form.lower <= 1e-9 * form.upper
    none = theorems.decayed_form(0.0, 1.0, 1.0, 1.0, 1.0, 0.0, exact(0.0), spare=spare)
    assert none.upper < 1e-150


def test_a_polynomial_form_is_never_below_its_sharp_form() -> None:
    rng = np.random.default_rng(0)
    closest = 0.0
    for _ in range(150):
        b, r, *mu = constants(rng, 1.5)
        eps = float(10.0 ** rng.uniform(-8, 2))
        sharp = theorems.threshold_form(eps, b, r, *mu).bound.value
        closest = max(closest, sharp / theorems.polynomial_form(eps, b, r, *mu).upper)
        for shape in ({"spare": False, "rank": 1}, {"spare": True, "rank": 3}):
            refined = theorems.refined_form(eps, b, r, *mu[1:], **shape)
            assert refined.upper <= theorems.refined_polynomial_form(eps, b, r, *mu[1:], **shape).lower
        several = theorems.threshold_form(eps, b, r, *mu, rank=3, whole=False).bound.value
        assert several <= theorems.polynomial_form(eps, b, r, *mu, rank=3, whole=False).upper
    assert 0.3 < closest <= 1.0


def test_every_form_increases_with_every_argument() -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        arguments = [float(10.0 ** rng.uniform(-8, 1)), *constants(rng, 1)]
        for i in range(6):
            larger = [*arguments]
            larger[i] *= 1.5
            for form in (lambda *c: theorems.threshold_form(*c).bound, theorems.polynomial_form):
                assert form(*arguments).lower <= form(*larger).upper
            for form in (theorems.refined_form, theorems.refined_polynomial_form):
                without_mu0, larger_too = (c[:3] + c[4:] for c in (arguments, larger))
                assert form(*without_mu0, spare=True).lower <= form(*larger_too, spare=True).upper
                assert form(*without_mu0, spare=True).upper <= form(*without_mu0, spare=False).lower


@pytest.mark.parametrize(
    ("arguments", "bound", "t"),
    [
        ((0.0, 1.0, 1.0, 1.0, 1.0, 1.0), 0.0, 0.0),  # a 0-SOPSP beats every linear predictor
        ((0.0, 2.0, 1.0, 0.0, 0.0, 0.0), 0.0, 2.0),  # F constant
        ((0.5, 2.0, 0.0, 0.0, 1.0, 1.0), 0.0, 2.0),
        ((0.5, 2.0, 0.0, 0.25, 1.0, 1.0), 0.5, 2.0),  # r = 0: min(ε, μ0)·b
        ((0.5, 2.0, 0.0, 4.0, 1.0, 1.0), 1.0, 0.25),
        ((0.5, 2.0, 3.0, 0.0, 0.0, 0.0), 1.5, 2.0),  # F linear: the comparator's r·ε
        ((5e-324, 1.0, 1.0, 1.0, 1.0, 1.0), 1.4909e-81, 3.3139e-243),
        ((1e300, 1.0, 1.0, 1.0, 1.0, 1.0), 1e300, 1.0),
    ],
)
def test_the_threshold_form_at_its_corners(arguments: tuple[float, ...], bound: float, t: float) -> None:
    form = theorems.threshold_form(*arguments)
    assert form.bound.lower <= form.bound.upper
    assert (form.bound.lower, form.bound.upper, form.t) == pytest.approx((bound, bound, t), rel=1e-3, abs=0)


def test_numbers_whose_squares_overflow_are_still_bounded() -> None:
    form = theorems.threshold_form(1.0, 1e200, 1e100, 1.0, 1.0, 1.0)
    assert mpf(form.bound.lower) <= crossing(1.0, 1e200, 1e100, 1.0, 1.0, 1.0)[0] <= mpf(form.bound.upper)
    assert theorems.threshold_form(1.0, 1e200, 1e200, 1.0, 1.0, 1.0).bound.upper == math.inf


@pytest.mark.parametrize("end", [1e-300, 0.1, 1.0, 1e300])
def test_last_float_finds_the_last_float(end: float) -> None:
    assert theorems.last_float(lambda x: x <= end, 1.7e308) == end
    assert theorems.last_float(lambda x: x < end, end) == math.nextafter(end, 0.0)
    assert theorems.last_float(lambda x: True, end) == end
    assert theorems.last_float(lambda x: False, end) == math.ulp(0.0)


@pytest.mark.parametrize(
    ("m", "mu2", "ends"),
    [
        (exact(0.5), 0.5, (0.5, 0.5)),
        (exact(0.0), 0.0, (0.25, 0.25)),
        (Enclosure(0.0, 0.0, 1e-16), 0.0, (0.25, math.inf)),
        (exact(1e-16), 0.0, None),
        (exact(0.0), None, None),
        (exact(1e-200), 1e-320, (0.25, 0.25)),
    ],
)
def test_the_smallest_epsilon_at_its_corners(
    m: Enclosure, mu2: float | None, ends: tuple[float, float] | None
) -> None:
    found = theorems.smallest_epsilon(exact(0.25), m, mu2)
    assert (None if found is None else (found.lower, found.upper)) == ends


# --- Against problems: everything below is computed from p = wᵀx + wᵀVf by the chain rule -----------------


@dataclass(frozen=True)
class Tiny:
    """n samples with equal weights: x (n, d), y (n,), f (n, k), a point w (d,), V (d, k) and a comparator,
    linear in x, or with z_star (k,) in (x, f); rho (1,): the regulariser of Proposition R."""

    x: Array
    y: Array
    f: Array
    w: Array
    V: Array
    w_star: Array
    z_star: Array
    rho: Array
    logistic: bool

    @property
    def d(self) -> int:
        return len(self.w)

    def loss(self, p: Array) -> tuple[Array, Array, Array]:
        """ℓ, ℓ', ℓ'' at p."""
        if not self.logistic:
            return (p - self.y) ** 2 / 2, p - self.y, np.ones_like(p)
        y = np.where(self.y < 0, -1.0, 1.0)
        sigma = np.exp(-np.logaddexp(0, y * p))
        return np.logaddexp(0, -y * p), -y * sigma, sigma * (1 - sigma)

    @property
    def predictions(self) -> Array:
        return self.x @ self.w + self.f @ self.V.T @ self.w

    @property
    def gap(self) -> float:
        return float(np.mean(self.loss(self.predictions)[0] - self.loss(self.x @ self.w_star)[0]))

    @property
    def scale(self) -> float:
        """The size of the numbers whose difference the gap is."""
        return float(np.mean(self.loss(self.predictions)[0] + self.loss(self.x @ self.w_star)[0]))

    def jacobian(self) -> Array:
        """(n, d + dk): ∂p/∂(w, V)."""
        h = self.x + self.f @ self.V.T
        return np.hstack([h, np.einsum("j,ik->ijk", self.w, self.f).reshape(len(h), -1)])

    @property
    def gradient(self) -> Array:
        return self.loss(self.predictions)[1] @ self.jacobian() / len(self.x)

    @property
    def a(self) -> Array:
        return self.loss(self.predictions)[1] @ self.f / len(self.x)

    @property
    def hessian(self) -> Array:
        """(d + dk, d + dk): E[ℓ'' JᵀJ] + E[ℓ' ∇²p], ∂²p/∂w_j∂V_jl = f_l."""
        J, d, n = self.jacobian(), self.d, len(self.x)
        H = J.T @ (self.loss(self.predictions)[2][:, None] * J) / n
        cross = np.kron(np.eye(d), self.a)
        H[:d, d:] += cross
        H[d:, :d] += cross.T
        return H

    @property
    def lambda_min(self) -> float:
        return float(np.linalg.eigvalsh(self.hessian)[0])

    def lipschitz(self, b: float) -> tuple[float, float, float]:
        """μ0, μ1, μ2 on ‖w‖, ‖V‖ ≤ b from ∂p = uᵀh + wᵀUf and ∂²p = 2uᵀUf, |uᵀUf| ≤ ‖f‖/2."""
        x, f = np.linalg.norm(self.x, axis=1), np.linalg.norm(self.f, axis=1)
        J = np.sqrt((x + b * f) ** 2 + (b * f) ** 2)
        if self.logistic:
            L1, L2, L3 = 1.0, 0.25, 1 / (6 * math.sqrt(3))
        else:
            L1, L2, L3 = b * (x + b * f) + np.abs(self.y), 1.0, 0.0
        mu0, mu1, mu2 = L1 * J, L2 * J**2 + L1 * f, L3 * J**3 + 3 * L2 * J * f
        return float(np.mean(mu0)), float(np.mean(mu1)), float(np.mean(mu2))


def norm(v: Array) -> float:
    return float(np.linalg.norm(v, 2))


def draw(
    rng: np.random.Generator, d: int, *, logistic: bool, at_origin: bool = False, samples: int | None = None
) -> Tiny:
    n, k = rng.integers(1, 4, 2)
    n = samples or n
    w = np.zeros(d) if at_origin else rng.normal(size=d)
    return Tiny(
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        rng.normal(size=(n, k)),
        w,
        rng.normal(size=(d, k)),
        rng.normal(size=d),
        rng.normal(size=k),
        rng.normal(size=1),
        logistic,
    )


def theorem1(problem: Tiny) -> float:
    lengths = norm(problem.w), norm(problem.w_star), norm(problem.V), norm(problem.w)
    bound = theorems.theorem1(exact(problem.gap), *map(exact, lengths))
    return bound.value / norm(problem.gradient)


def theorem1_refined(problem: Tiny) -> float:
    X = norm(problem.V.T @ problem.w_star) / norm(problem.w)
    lengths = norm(problem.w - problem.w_star), X
    bound = theorems.theorem1_refined(exact(problem.gap), *map(exact, lengths))
    return bound.value / norm(problem.gradient)


def theorem1_augmented(problem: Tiny) -> float:
    """Against w*ᵀx + z*ᵀf."""
    q = problem.x @ problem.w_star + problem.f @ problem.z_star
    gap = float(np.mean(problem.loss(problem.predictions)[0] - problem.loss(q)[0]))
    turned = problem.V.T @ problem.w_star - problem.z_star
    lengths = norm(problem.w - problem.w_star), norm(turned) / norm(problem.w)
    bound = theorems.theorem1_refined(exact(gap), *map(exact, lengths))
    return bound.value / norm(problem.gradient) if gap > 1e-3 * problem.scale else 0.0


def theorem2(problem: Tiny) -> float:
    H = problem.hessian
    sizes = norm(problem.w_star), norm(problem.gradient), problem.lambda_min, norm(problem.V)
    left, right = theorems.theorem2(
        exact(problem.gap), *map(exact, (*sizes, norm(H[: problem.d, : problem.d])))
    )
    return right.value / left.value


def curvatures(problem: Tiny) -> tuple[float, ...]:
    """m = max(0, −λ_min), and β; for d = 1: m, ∂²F/∂w² and tᵀ(∂²F/∂V²)t, t = a/‖a‖."""
    H, d = problem.hessian, problem.d
    m = max(0.0, -problem.lambda_min)
    if d == 1:
        t = np.concatenate([[0.0], problem.a / norm(problem.a)])
        return m, max(H[0, 0], 0.0), max(float(t @ H @ t), 0.0)
    across = np.linalg.svd(problem.w[None])[2][1:] if problem.w.any() else np.eye(d)
    return m, max(float(np.linalg.eigvalsh(across @ H[:d, :d] @ across.T)[0]), 0.0)


def local_lemma(problem: Tiny) -> float:
    if norm(problem.a) < 1e-3:
        return 0.0
    lemma = theorems.local_lemma_any if problem.d == 1 else theorems.local_lemma
    return norm(problem.a) / lemma(*map(exact, curvatures(problem))).value


def linear_functional(problem: Tiny) -> float:
    g_w, star = problem.gradient[: problem.d], problem.w_star
    parts = float((problem.w - star) @ g_w), float(star @ problem.V @ problem.a)
    return problem.gap / theorems.gap_linear_functional(*map(exact, parts)).value


def linear_functional_on_ball(problem: Tiny) -> float:
    g_w = problem.gradient[: problem.d]
    parts = float(problem.w @ g_w), norm(g_w - problem.V @ problem.a)
    bound = theorems.gap_linear_functional_on_ball(*map(exact, parts), norm(problem.w_star))
    return problem.gap / bound.value


def first_order(problem: Tiny, norm_a: Enclosure | None = None) -> float:
    lengths = norm(problem.w - problem.w_star), norm(problem.gradient[: problem.d])
    turned = norm(problem.V.T @ problem.w_star)
    bound = theorems.gap_first_order(*map(exact, (*lengths, turned)), norm_a or exact(norm(problem.a)))
    return problem.gap / bound.value


def local_bound(problem: Tiny) -> float:
    """The same with the local lemma's bound of ‖a‖."""
    lemma = theorems.local_lemma_any if problem.d == 1 else theorems.local_lemma
    return first_order(problem, lemma(*map(exact, curvatures(problem)))) if norm(problem.a) > 1e-3 else 0.0


def proposition_R(problem: Tiny) -> float:
    w, V, star, rho = problem.w, problem.V, problem.w_star, abs(float(problem.rho[0]))
    residual = problem.gradient + rho * np.concatenate([w, V.ravel()])
    products = float((w - star) @ w), float((V.T @ star) @ (V.T @ w)) / norm(w) ** 2
    sizes = norm(residual), norm(w - star), norm(V.T @ star) / norm(w)
    return problem.gap / theorems.proposition_R(exact(rho), *map(exact, (*products, *sizes))).value


def theorem3(form: Callable[..., Enclosure]) -> Callable[[Tiny], float]:
    """At the smallest ε for which the point is an ε-SOPSP."""

    def ratio(problem: Tiny) -> float:
        b, r = 1.01 * max(norm(problem.w), norm(problem.V)), norm(problem.w_star)
        if b == 0.0:
            return 0.0
        mu, m = problem.lipschitz(b), max(0.0, -problem.lambda_min)
        eps = theorems.smallest_epsilon(exact(norm(problem.gradient)), exact(m), mu[2])
        assert eps is not None
        return problem.gap / form(eps.upper, b, r, *mu, problem.d).value

    return ratio


def threshold_form(eps: float, b: float, r: float, *others: float) -> Enclosure:
    return theorems.threshold_form(eps, b, r, *others[:3]).bound


def refined_form(eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float, d: int) -> Enclosure:
    return theorems.refined_form(eps, b, r, mu1, mu2, spare=d > 1)


# Theorem 4: the samples are a stream, of which θ makes anything; M1 is the unit ball, the comparator in it


def online_gradient_descent(problem: Tiny, order: Array) -> tuple[Array, SgdConstants]:
    """(runs, T, d + k): the z_t of runs that meet the samples in the orders (runs, T)."""
    g = np.hstack([problem.x, problem.f])
    loss = named_loss("logistic" if problem.logistic else "squared")
    y = np.where(problem.y < 0, 0.0, 1.0) if problem.logistic else problem.y
    constants = theorem4_constants(loss, problem.x, y[:, None], None, np.linalg.norm(problem.f, axis=1), 1.0)
    eta = constants.D / (constants.l * math.sqrt(order.shape[1]))
    z, visited = np.zeros((len(order), g.shape[1])), []
    for i in order.T:
        visited.append(z)
        p = np.einsum("rj,rj->r", z, g[i])
        z = z - eta * sampled(problem, i).loss(p)[1][:, None] * g[i]
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1.0)
    return np.stack(visited, axis=1), constants


def sampled(problem: Tiny, i: Array) -> Tiny:
    return replace(problem, x=problem.x[i], y=problem.y[i], f=problem.f[i])


def compared(problem: Tiny) -> Tiny:
    """With the comparator projected onto the ball."""
    return replace(problem, w_star=problem.w_star / max(norm(problem.w_star), 1.0))


def regret(problem: Tiny) -> float:
    """Of one run that meets every sample once."""
    problem, order = compared(problem), np.arange(len(problem.x))
    [visited], constants = online_gradient_descent(problem, order[None])
    p = np.sum(np.hstack([problem.x, problem.f]) * visited, axis=1)
    losses = problem.loss(p)[0] - problem.loss(problem.x @ problem.w_star)[0]
    return float(np.mean(losses)) / theorem4_terms(constants, len(order), 0.5)[0]


def sampling(problem: Tiny) -> float:
    """Of all runs of 5 steps on 3 samples, all of one probability, the j-th worst, which δ ≥ j/243 allows."""
    problem = compared(sampled(problem, np.arange(3)))
    order = np.array(list(product(range(3), repeat=5)))
    visited, constants = online_gradient_descent(problem, order)
    p = visited @ np.hstack([problem.x, problem.f]).T
    linear = np.mean(problem.loss(problem.x @ problem.w_star)[0])
    excess = np.sort(np.mean(problem.loss(p)[0], axis=(1, 2)) - linear)[::-1]
    bounds = [sum(theorem4_terms(constants, 5, (j + 1) / len(order))) for j in range(len(order))]
    return float(np.max(excess / np.array(bounds)))


# The search


@dataclass(frozen=True)
class Inequality:
    """ratio: the smaller side over the larger one, at most 1.  reached: what the search has to come to, to be
    worth anything; 1 is not reached where constants are worst cases."""

    ratio: Callable[[Tiny], float]
    reached: float
    dimensions: tuple[int, ...] = (1, 2, 3)
    at_origin: bool = False
    needs_gap: bool = True
    samples: int | None = None


INEQUALITIES = {
    "Theorem 1": Inequality(theorem1, 0.7),
    "Theorem 2": Inequality(theorem2, 0.99, at_origin=True),
    "Theorem 3 at w = 0, refined form": Inequality(theorem3(refined_form), 0.05, at_origin=True),
    "Theorem 3, threshold form": Inequality(theorem3(threshold_form), 0.05),
    "Theorem 1, refined": Inequality(theorem1_refined, 0.99),
    "Theorem 1 against (x, f)": Inequality(theorem1_augmented, 0.99, needs_gap=False),
    "Theorem 2, refined": Inequality(first_order, 0.99, at_origin=True),
    "Theorem 3 at w = 0, threshold form": Inequality(theorem3(threshold_form), 0.05, at_origin=True),
    "Theorem 3, refined form": Inequality(theorem3(refined_form), 0.05),
    "Theorem 4, regret": Inequality(regret, 0.5, needs_gap=False, samples=6),
    "Theorem 4, probability": Inequality(sampling, 0.1, needs_gap=False, samples=3),
    "Proposition R": Inequality(proposition_R, 0.99),
    "local lemma, d = 1": Inequality(local_lemma, 0.99, dimensions=(1,), needs_gap=False),
    "local lemma, d > 1": Inequality(local_lemma, 0.99, dimensions=(2, 3), needs_gap=False),
    "gap, linear functional": Inequality(linear_functional, 0.99),
    "gap, linear functional on a ball": Inequality(linear_functional_on_ball, 0.99),
    "gap, first order": Inequality(first_order, 0.99),
    "gap, local": Inequality(local_bound, 0.5),
}


def climb(inequality: Inequality, start: Tiny, steps: int, rng: np.random.Generator) -> float:
    """The largest ratio on a random walk uphill; none may pass 1."""

    def ratio(problem: Tiny) -> float:
        if inequality.needs_gap and problem.gap < 1e-3 * problem.scale:
            return 0.0
        return inequality.ratio(problem)

    problem, reached, size = start, ratio(start), 1.0
    for _ in range(steps):
        moved = replace(
            problem,
            **{
                name: array + size * rng.normal(size=array.shape)
                for name, array in vars(problem).items()
                if name != "logistic" and array.any()  # a point at w = 0 stays there
            },
        )
        value = ratio(moved)
        assert value <= 1.0 + ROUNDING, moved
        if value > reached:
            problem, reached = moved, value
        else:
            size = max(size * 0.97, 1e-7)
    return reached


def search(inequality: Inequality, seed: str, longer: int = 1) -> float:
    """The largest ratio over several starts."""
    rng, largest = np.random.default_rng([*seed.encode()]), 0.0
    for i in range(4 * longer):
        d = inequality.dimensions[i % len(inequality.dimensions)]
        start = draw(rng, d, logistic=bool(i % 2), at_origin=inequality.at_origin, samples=inequality.samples)
        largest = max(largest, climb(inequality, start, 250 * longer, rng))
    return largest


@pytest.mark.parametrize("name", first(3, INEQUALITIES))
def test_no_problem_breaks_the_inequality_and_some_come_close(
    name: str, longer: int, record_ratio: Callable[[str, float], None]
) -> None:
    largest = search(INEQUALITIES[name], name, longer)
    record_ratio(name, largest)
    assert INEQUALITIES[name].reached < largest


@pytest.mark.parametrize("name", ["Theorem 1, refined", "Theorem 2", "Theorem 4, regret", "Proposition R"])
def test_the_search_finds_violations_of_what_is_false(name: str) -> None:
    true = INEQUALITIES[name]
    false = replace(true, ratio=lambda problem: true.ratio(problem) / true.reached)
    with pytest.raises(AssertionError):
        search(false, name)


def test_the_smallest_eigenvalue_at_the_origin_is_that_of_the_dense_hessian() -> None:
    for problem in tiny_problems(3, 60, at_origin=True):
        H, d = problem.hessian, problem.d
        beta = max(float(np.linalg.eigvalsh(H[:d, :d])[0]), 0.0)
        found = theorems.lambda_min_at_origin(exact(beta), exact(norm(problem.a))).value
        assert found == pytest.approx(np.linalg.eigvalsh(H)[0], rel=1e-9, abs=1e-9)


def tiny_problems(seed: int, number: int, *, at_origin: bool = False) -> Iterator[Tiny]:
    rng = np.random.default_rng(seed)
    return (draw(rng, 1 + i % 3, logistic=bool(i % 2), at_origin=at_origin) for i in range(number))


def test_the_measured_bounds_of_the_gap_are_in_order() -> None:
    for problem in (*tiny_problems(6, 100), *tiny_problems(7, 50, at_origin=True)):
        d, a, star = problem.d, problem.a, problem.w_star
        g_w = problem.gradient[:d]
        functional = theorems.gap_linear_functional(
            exact(float((problem.w - star) @ g_w)), exact(float(star @ problem.V @ a))
        )
        first_order = theorems.gap_first_order(
            *map(exact, (norm(problem.w - star), norm(g_w), norm(problem.V.T @ star), norm(a)))
        )
        ball = theorems.gap_linear_functional_on_ball(
            exact(float(problem.w @ g_w)), exact(norm(g_w - problem.V @ a)), norm(star)
        )
        assert problem.gap <= functional.value + SLACK
        assert functional.value <= min(first_order.value, ball.value) + SLACK


# --- The exponent 1/4 is sharp ----------------------------------------------------------------------------


def sharp(a: float) -> Tiny:
    """y, z independent signs, x = a·y, f = −a·y + z, ½(p − y)², at w = 0, V = 1, against w* = 1."""
    y, z = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    one = np.ones(1)
    f = -a * y + z
    return Tiny((a * y)[:, None], y, f[:, None], 0 * one, one[:, None], one, one, one, logistic=False)


@pytest.mark.parametrize("a", [0.5, 0.1, 1e-2, 1e-3])
def test_on_the_sharp_family_theorem_2_holds_up_to_the_factor_1_minus_half_a(a: float) -> None:
    problem = sharp(a)
    magnitude = (math.sqrt(1 + 4 * a * a) - 1) / 2
    assert norm(problem.gradient) == pytest.approx(0.0, abs=1e-15)
    assert problem.gap == pytest.approx(a - a * a / 2, rel=1e-9)
    assert -theorems.lambda_min_at_origin(exact(1.0), exact(a)).value == pytest.approx(magnitude, rel=1e-9)
    assert -problem.lambda_min == pytest.approx(magnitude, abs=1e-14)
    left, right = theorems.theorem2(exact(problem.gap), *map(exact, (1.0, 0.0, -magnitude, 1.0, 1.0)))
    assert right.value / left.value == pytest.approx(1 - a / 2, rel=1e-6)


def test_on_the_sharp_family_gap_and_bound_both_go_like_the_fourth_root_of_epsilon() -> None:
    logs = []
    for a in (1e-2, 1e-3, 1e-4):
        problem = sharp(a)
        mu = problem.lipschitz(1.01)
        m = -theorems.lambda_min_at_origin(exact(1.0), exact(a)).value
        eps = theorems.smallest_epsilon(exact(0.0), exact(m), mu[2])
        assert eps is not None
        bounds = (
            theorems.threshold_form(eps.upper, 1.01, 1.0, *mu).bound.value,
            theorems.refined_form(eps.upper, 1.01, 1.0, *mu[1:], spare=False).value,
        )
        assert problem.gap <= min(bounds)
        logs.append(np.log([eps.value, problem.gap, *bounds]))
    slopes = (logs[2] - logs[1])[1:] / (logs[2] - logs[1])[0]
    assert slopes == pytest.approx([0.25] * 3, abs=2e-3)
