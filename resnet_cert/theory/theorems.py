"""The theorems of Shamir, "Are ResNets Provably Better than Linear Predictors?" (NeurIPS 2018), as functions.

Setting: h = x + Vf with f = f_θ(x), p = wᵀh, F(w,V,θ) = E[ℓ(p; y)] and F_lin(w) = E[ℓ(wᵀx; y)]; ℓ is convex
and twice differentiable in p, θ is fixed, ∇ and ∇² are those of (w, V).  Throughout

    gap = F(w,V,θ) − F_lin(w*),   g_w = E[ℓ' h],   a = E[ℓ' f],   A = ∂²F/∂w² = E[ℓ'' h hᵀ],
    m = max(0, −λ_min(∇²F)),      ‖∇F‖² = ‖g_w‖² + ‖w‖²‖a‖²,

and everything below follows from one identity, with D_ℓ(q, p) = ℓ(q) − ℓ(p) − ℓ'(p)(q − p) ≥ 0 by convexity:

    gap = (w − w*)ᵀg_w + w*ᵀV a − E[D_ℓ(w*ᵀx, p)].

‖V‖ is the spectral norm; a larger one, such as Frobenius', leaves every statement true.  Numbers go in and
come out as `Enclosure`s: the result holds the exact value for all exact arguments within theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, overload

from resnet_cert.numerics.enclosure import Enclosure, maximum

Number = TypeVar("Number", float, Enclosure)

ZERO = Enclosure.exact(0.0)


# --- Theorem 1: w ≠ 0 ------------------------------------------------------------------------------------


def theorem1(gap: Enclosure, norm_w: Enclosure, norm_w_star: Enclosure, norm_V: Enclosure) -> Enclosure:
    """A lower bound of ‖∇F‖ at w ≠ 0:

        ‖∇F‖ ≥ (F − F_lin(w*)) / √(2‖w‖² + ‖w*‖²(2 + ‖V‖²/‖w‖²))        for every w*.

    A negative gap gives a negative bound.  It follows from `theorem1_refined` by
    ‖w − w*‖² ≤ 2‖w‖² + 2‖w*‖² and ‖Vᵀw*‖ ≤ ‖V‖‖w*‖.

    Raises:
        ValueError: w = 0.
    Source: Shamir 2018, Theorem 1.
    """
    _expect_nonzero(norm_w)
    turned = norm_w_star * (norm_V / norm_w)
    return per_unit(gap, hypot(norm_w, norm_w, norm_w_star, norm_w_star, turned))


def theorem1_refined(
    gap: Enclosure, distance: Enclosure, norm_Vt_w_star: Enclosure, norm_w: Enclosure
) -> Enclosure:
    """A lower bound of ‖∇F‖ at w ≠ 0, never below that of `theorem1` where gap ≥ 0:

        ‖∇F‖ ≥ (F − F_lin(w*)) / √(‖w − w*‖² + ‖Vᵀw*‖²/‖w‖²)        for every w*.

    Proof: w*ᵀVa is the inner product of w (w*ᵀV)/‖w‖² with ∂F/∂V = w aᵀ.  So the identity says
    gap ≤ ⟨(w − w*, w (w*ᵀV)/‖w‖²), ∇F⟩, and the root is the norm of the first factor.  Where it is 0, that is
    w = w* and Vᵀw* = 0, the gap is at most 0 and so is the bound: 0.

    Args:
        distance: ‖w − w*‖.
        norm_Vt_w_star: ‖Vᵀw*‖; for a gap to a predictor uᵀx + zᵀf, ‖Vᵀu − z‖ with u in place of w*.
    Raises:
        ValueError: w = 0.
    Source: the proof of Shamir 2018, Theorem 1, before its last inequality.
    """
    _expect_nonzero(norm_w)
    return per_unit(gap, hypot(distance, norm_Vt_w_star / norm_w))


# --- Theorem 2: w = 0 ------------------------------------------------------------------------------------


def lambda_min_at_origin(beta: Enclosure, norm_a: Enclosure) -> Enclosure:
    """λ_min(∇²F(0, V)) = (β − √(β² + 4‖a‖²))/2 ≤ 0 with β = λ_min(A) ≥ 0.

    At w = 0 the Hessian in the direction (u, U) is uᵀAu + 2uᵀUa: each eigenvalue α of A gives the two
    eigenvalues of [[α, ‖a‖], [‖a‖, 0]], and the rest are 0.  The value increases in β, decreases in ‖a‖, and
    is evaluated as −2‖a‖²/(β + √(β² + 4‖a‖²)), where nothing cancels.
    Source: the proof of Shamir 2018, Theorem 2.
    """
    lowest = _smaller_root(max(beta.lower, 0.0), norm_a.upper).lower
    highest = _smaller_root(max(beta.upper, 0.0), max(norm_a.lower, 0.0)).upper
    return Enclosure(_smaller_root(max(beta.value, 0.0), abs(norm_a.value)).value, lowest, highest)


def _smaller_root(beta: float, norm_a: float) -> Enclosure:
    """The smaller eigenvalue of [[β, ‖a‖], [‖a‖, 0]] for exact β, ‖a‖ ≥ 0, finite or not known."""
    if norm_a == 0.0:
        return ZERO
    if not math.isfinite(beta + norm_a):
        return Enclosure(math.nan, -math.inf, 0.0)
    exact_beta, twice_a = Enclosure.exact(beta), Enclosure.exact(norm_a) * 2.0
    return -(twice_a * (norm_a / (exact_beta + hypot(exact_beta, twice_a))))


def theorem2(
    gap: Enclosure,
    norm_w_star: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
    norm_V: Enclosure,
    norm_A: Enclosure,
) -> tuple[Enclosure, Enclosure]:
    """Both sides (left, right), left ≥ right, at (0, V, θ), where λ_min ≤ 0:

        ‖∇F‖ + ‖V‖√(|λ_min|·‖∂²F/∂w²‖ + λ_min²) ≥ (F(0,V,θ) − F_lin(w*))/‖w*‖        for every w* ≠ 0.

    For w* = 0 the gap is 0, and the right side is taken as 0.  Proof: at w = 0 the identity gives
    gap ≤ ‖w*‖‖g_w‖ + ‖Vᵀw*‖‖a‖, where ‖g_w‖ = ‖∇F‖, and `lambda_min_at_origin` solved for ‖a‖ reads
    ‖a‖² = |λ_min|β + λ_min² with β = λ_min(A) ≤ ‖A‖.

    Args:
        gap, gradient_norm, lambda_min, norm_A: F − F_lin(w*), ‖∇F‖, λ_min(∇²F) and ‖∂²F/∂w²‖ at (0, V, θ).
    Source: Shamir 2018, Theorem 2.
    """
    left = gradient_norm + norm_V * local_lemma((-lambda_min).positive_part(), norm_A)
    return left, per_unit(gap, norm_w_star)


# --- The local lemma: the curvature at a point bounds ‖a‖ there ------------------------------------------


def local_lemma(m: Enclosure, beta: Enclosure) -> Enclosure:
    """An upper bound of ‖a‖ at any (w, V) for d ≥ 2; the proof of Theorem 2 is its case w = 0:

        ‖a‖ ≤ √(m² + mβ),   β = min{eᵀAe : ‖e‖ = 1, e ⊥ w} ≤ ‖∂²F/∂w²‖.

    Proof: let e attain β and t = a/‖a‖.  On the orthonormal directions (e, 0), (0, −e tᵀ) the Hessian is
    [[β, −‖a‖], [−‖a‖, 0]], whose smaller eigenvalue (β − √(β² + 4‖a‖²))/2 is at least −m.
    """
    return sqrt(m) * sqrt(m + beta.positive_part())


def local_lemma_scalar(m: Enclosure, eta: Enclosure, kappa: Enclosure) -> Enclosure:
    """An upper bound of ‖a‖ at any (w, V) for d = 1, where no e ⊥ w is left:

        ‖a‖ ≤ √((η + m)(κ + m)) + √(ηκ),   η = ∂²F/∂w²,  κ = tᵀ(∂²F/∂V²)t,  t = a/‖a‖.

    Proof: on the directions (1, 0), (0, t) the Hessian is [[η, c + ‖a‖], [·, κ]], c = w E[ℓ'' h fᵀ]t.  With m
    on its diagonal it is positive semidefinite, so (c + ‖a‖)² ≤ (η + m)(κ + m); by Cauchy–Schwarz c² ≤ ηκ.
    Any larger κ will do, such as ‖∂²F/∂V²‖.
    """
    eta, kappa = eta.positive_part(), kappa.positive_part()
    return sqrt(eta + m) * sqrt(kappa + m) + sqrt(eta) * sqrt(kappa)


# --- Measured bounds of the gap: no Lipschitz constant in them --------------------------------------------


def gap_linear_functional(displacement_dot_g_w: Enclosure, w_star_V_a: Enclosure) -> Enclosure:
    """gap ≤ (w − w*)ᵀg_w + w*ᵀV a: the identity without its last term, which is never positive.

    For the gap to a predictor uᵀx + zᵀf it is (w − u)ᵀg_w + (Vᵀu − z)ᵀa.
    """
    return displacement_dot_g_w + w_star_V_a


def gap_linear_functional_on_ball(w_dot_g_w: Enclosure, norm_lx: Enclosure, r: float) -> Enclosure:
    """F − min_{‖w*‖≤r} F_lin(w*) ≤ E[ℓ' p] + r‖E[ℓ' x]‖: the largest `gap_linear_functional` over the ball.

    Args:
        w_dot_g_w: E[ℓ' p] = wᵀg_w.
        norm_lx: ‖E[ℓ' x]‖ = ‖g_w − V a‖.
    """
    return w_dot_g_w + norm_lx * r


def gap_first_order(
    distance: Enclosure, norm_g_w: Enclosure, norm_Vt_w_star: Enclosure, norm_a: Enclosure
) -> Enclosure:
    """gap ≤ ‖w − w*‖‖g_w‖ + ‖Vᵀw*‖‖a‖: `gap_linear_functional` by Cauchy–Schwarz.

    With `local_lemma` (d ≥ 2) or `local_lemma_scalar` (d = 1) in place of ‖a‖ it is the local bound, which
    like the theorems speaks of gradient and curvature alone.
    """
    return distance * norm_g_w + norm_Vt_w_star * norm_a


def proposition_R(
    rho: Enclosure,
    norm_w: Enclosure,
    w_star_dot_w: Enclosure,
    Vt_w_star_dot_Vt_w: Enclosure,
    residual: Enclosure,
    distance: Enclosure,
    norm_Vt_w_star: Enclosure,
) -> Enclosure:
    """gap ≤ −ρ‖w‖² + ρ(w*ᵀw − (Vᵀw*)ᵀ(Vᵀw)/‖w‖²) + ‖∇L‖√(‖w − w*‖² + ‖Vᵀw*‖²/‖w‖²), L = F + (ρ/2)‖(w, V)‖².

    For all w ≠ 0, ρ and w*.  Proof: put g_w = −ρw + r_w and w aᵀ = −ρV + r_V, where (r_w, r_V) = ∇L, into
    `gap_linear_functional`, with a = (w aᵀ)ᵀw/‖w‖²; the terms in r are an inner product with ∇L, as in
    `theorem1_refined`.  At a critical point of L with ρ > 0, V = −w aᵀ/ρ, and the bound without
    E[D_ℓ(w*ᵀx, p)] reads

        gap = −ρ‖w‖² + ρ(w*ᵀw)(1 − ‖V‖_F²/‖w‖²) − E[D_ℓ(w*ᵀx, p)]:

    positive only where regularisation holds the point away from w*, or where w*ᵀw < 0.

    Args:
        rho: ρ ≥ 0, twice the coefficient of a regulariser ‖w‖² + ‖V‖_F², or the multiplier of a ball.
        residual: ‖∇L‖.
        distance, norm_Vt_w_star: ‖w − w*‖, ‖Vᵀw*‖.
    Raises:
        ValueError: w = 0.
    """
    _expect_nonzero(norm_w)
    turned = Vt_w_star_dot_Vt_w / norm_w.square()
    at_critical_points = rho * (w_star_dot_w - turned - norm_w.square())
    return at_critical_points + residual * hypot(distance, norm_Vt_w_star / norm_w)


# --- Theorem 3: every ε-SOPSP on a bounded domain ---------------------------------------------------------
#
# On W: ‖w‖, ‖V‖ < b; F, ∇F, ∇²F are μ0-, μ1-, μ2-Lipschitz in (w, V); (0,V,θ) ∈ W with (w,V,θ) ∈ W, and
# ‖∇²F(0,V,θ)‖ ≤ μ1.  Each form below bounds F − min_{‖w*‖≤r} F_lin(w*) at every ε-SOPSP on W.  Plain floats
# are taken as exact.


class ThresholdForm(NamedTuple):
    """The bound, and the t of ‖w‖ where its two cases meet."""

    bound: Enclosure
    t: float


def B(t: Number, eps: Number, b: Number, r: Number) -> Number:
    """Theorem 1 where ‖w‖ ≥ t:  gap ≤ B(t) = ε√((b + r)² + b²r²/t²).  Decreases in t."""
    return eps * hypot(b + r, b * r / t)


def S(t: Number, eps: Number, b: Number, r: Number, mu0: Number, mu1: Number, mu2: Number) -> Number:
    """Theorem 2 at (0, V, θ) where ‖w‖ < t, with m0 = √(μ2 ε).  Increases in t.

        gap ≤ S(t) = μ0 t + r(ε + μ1 t) + r b √((m0 + μ2 t)(μ1 + m0 + μ2 t))

    Moving from w to 0 changes F by at most μ0 t, ∇F by at most μ1 t and λ_min(∇²F) by at most μ2 t.
    """
    m = sqrt(mu2) * sqrt(eps) + mu2 * t
    return mu0 * t + r * (eps + mu1 * t) + r * b * sqrt(m) * sqrt(mu1 + m)


def threshold_form(eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float) -> ThresholdForm:
    """S(b) if S(b) ≤ B(b), and else the common value S(t*) = B(t*) at the unique t* ∈ (0, b).

    As S increases and B decreases, this value lies between S(t) and B(t) for every t ∈ (0, b].  So t* is
    looked for in plain float64, and S and B, enclosed at the t found, prove the bound.  b > 0.
    Source: the proof of Shamir 2018, Theorem 3, with the best threshold.
    """
    exact_eps, exact_b, exact_r, *exact_mu = map(Enclosure.exact, (eps, b, r, mu0, mu1, mu2))

    def sides(t: float) -> tuple[Enclosure, Enclosure]:
        exact_t = Enclosure.exact(t)
        return S(exact_t, exact_eps, exact_b, exact_r, *exact_mu), B(exact_t, exact_eps, exact_b, exact_r)

    below, above = sides(b)
    if below.at_most(above):
        return ThresholdForm(below, b)
    if eps == 0.0:  # B vanishes, and S does so with t
        return ThresholdForm(ZERO, 0.0)
    t = last_float(lambda t: not S(t, eps, b, r, mu0, mu1, mu2) > B(t, eps, b, r), b)
    below, above = sides(t)
    return ThresholdForm(
        Enclosure(below.value, min(below.lower, above.lower), max(below.upper, above.upper)), t
    )


def polynomial_form(eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float) -> Enclosure:
    """(ε + ε^¼)·[b + r + br + μ0 + rμ1 + br(3/4 + μ1/2 + 9μ2/4)].

    It is at least max(S(t), B(t)) at t = √ε.  Proof, besides √ε ≤ ε + ε^¼: there m0 + μ2 t = c√ε with
    c = √μ2 + μ2 ≤ 1/2 + 3μ2/2, and √(c√ε(μ1 + c√ε)) ≤ ε^¼√(cμ1) + c√ε ≤ ε^¼(c + μ1)/2 + c√ε.
    Source: Shamir 2018, Theorem 3, with its polynomial made explicit.
    """
    e_b, e_r, e_mu0, e_mu1, e_mu2 = map(Enclosure.exact, (b, r, mu0, mu1, mu2))
    curved = 0.75 + e_mu1 * 0.5 + e_mu2 * 2.25
    return _eps_and_root(eps) * (e_b + e_r + e_b * e_r + e_mu0 + e_r * e_mu1 + e_b * e_r * curved)


def refined_form(eps: float, b: float, r: float, mu1: float, mu2: float, d: int) -> Enclosure:
    """(b + r)ε + C_d·b·r·√(m0² + μ1 m0) with m0 = √(μ2 ε), C_d = 1 for d ≥ 2 and C_1 = 1 + √2.

    Neither a threshold nor μ0.  Proof: gap ≤ ‖w − w*‖ε + ‖Vᵀw*‖‖a‖ (`gap_first_order`), and
    ‖a‖ ≤ C_d√(m0² + μ1 m0): for d ≥ 2 by `local_lemma` with m ≤ m0, β ≤ μ1.  For d = 1 split at
    |w| = √(ε/μ2): above it ‖a‖ = ‖∂F/∂V‖/|w| ≤ ε/|w| ≤ m0; below it `local_lemma_scalar` with η ≤ μ1 and
    κ ≤ μ2|w| ≤ m0, since ∂²F/∂V² = 0 at w = 0.
    """
    e_eps, e_b, e_r, e_mu1, e_mu2 = map(Enclosure.exact, (eps, b, r, mu1, mu2))
    m0 = sqrt(e_mu2) * sqrt(e_eps)
    return (e_b + e_r) * e_eps + _C(d) * e_b * e_r * sqrt(m0) * sqrt(m0 + e_mu1)


def refined_polynomial_form(eps: float, b: float, r: float, mu1: float, mu2: float, d: int) -> Enclosure:
    """(ε + ε^¼)·[b + r + C_d·b·r(3/4 + μ1/2 + 3μ2/4)], at least `refined_form`.

    Proof: √(m0² + μ1 m0) ≤ m0 + √(μ1 m0) with √μ2 ≤ (1 + μ2)/2 and √(μ1 √μ2) ≤ μ1/2 + (1 + μ2)/4.
    """
    e_b, e_r, e_mu1, e_mu2 = map(Enclosure.exact, (b, r, mu1, mu2))
    curved = 0.75 + e_mu1 * 0.5 + e_mu2 * 0.75
    return _eps_and_root(eps) * (e_b + e_r + _C(d) * e_b * e_r * curved)


def _C(d: int) -> Enclosure:
    return Enclosure.exact(1.0) if d >= 2 else 1.0 + sqrt(Enclosure.exact(2.0))


def _eps_and_root(eps: float) -> Enclosure:
    return eps + sqrt(sqrt(Enclosure.exact(eps)))


def smallest_epsilon(gradient_norm: Enclosure, m: Enclosure, mu2: float | None) -> Enclosure | None:
    """ε* = max(‖∇F‖, m²/μ2): Definition 1 solved for ε; the point is an ε-SOPSP exactly for ε ≥ ε*.

    For μ2 = 0 it is ‖∇F‖ if m = 0, with an unknown upper end where that is not proven.  None where there is
    no such ε (μ2 = 0 < m) and where μ2 is not known (None).
    """
    if mu2 is None or (mu2 == 0.0 and m.lower > 0.0):
        return None
    if mu2 > 0.0:
        return maximum(gradient_norm, m * (m / mu2))
    if m.upper <= 0.0:
        return gradient_norm
    return Enclosure(gradient_norm.value, gradient_norm.lower, math.inf)


def shift_of_critical_point(gradient_norm: Enclosure, curvature: float, mu2: float) -> float | None:
    """δ = 2η/λ, if an exact critical point of the same kind lies within δ of the point; None if not proven.

    It does if 4μ2η ≤ λ² and ∇²F is μ2-Lipschitz within δ, which is left to the caller.

    Args:
        gradient_norm: η = ‖∇F‖.
        curvature: λ, at most the absolute value of every eigenvalue of ∇²F.
    Source: Newton's map contracts there (docs/enclosures.md, Critical points).
    """
    if not curvature > 0.0:
        return None
    lam = Enclosure.exact(curvature)
    contracts = (gradient_norm * 4.0 * mu2).at_most(lam.square())
    return (gradient_norm * 2.0 / lam).upper if contracts else None


# --- Arithmetic -------------------------------------------------------------------------------------------


def _expect_nonzero(norm_w: Enclosure) -> None:
    if norm_w.upper <= 0.0:
        raise ValueError("expected w != 0, got w = 0: Theorem 1 does not speak of it")


def per_unit(gap: Enclosure, length: Enclosure) -> Enclosure:
    """gap/length for a length ≥ 0 that implies gap ≤ 0 where it is 0; the quotient is taken as 0 there."""
    if length.lower > 0.0:
        return gap / length
    if length.upper <= 0.0:
        return ZERO
    least = (gap.lower / Enclosure.exact(length.upper)).lower if gap.lower > 0.0 else -math.inf
    value = gap.value / length.value if length.value > 0.0 else 0.0
    return Enclosure(value, least, math.inf if gap.upper > 0.0 else 0.0)


def hypot(*xs: Number) -> Number:
    """√(x1² + x2² + ...); enclosures are scaled by a power of two, lest squares overflow or underflow."""
    if not isinstance(xs[0], Enclosure):
        return cast(Any, math.hypot(*cast(tuple[float, ...], xs)))
    enclosures = cast(tuple[Enclosure, ...], xs)
    largest = maximum(*map(abs, enclosures)).upper
    scale = 2.0 ** (math.frexp(largest)[1] - 1) if 0.0 < largest < math.inf else 1.0
    return cast(Any, sum(((x / scale).square() for x in enclosures), ZERO).sqrt() * scale)


@overload
def sqrt(x: float) -> float: ...
@overload
def sqrt(x: Enclosure) -> Enclosure: ...
def sqrt(x: float | Enclosure) -> float | Enclosure:
    """√x.  √x·√y is written in place of √(xy) where xy may overflow or underflow."""
    return x.sqrt() if isinstance(x, Enclosure) else math.sqrt(x)


def last_float(holds: Callable[[float], bool], high: float) -> float:
    """The last positive float up to `high` with a property that holds below some number and fails above it.

    The smallest positive float if it holds nowhere.
    """
    if holds(high):
        return high
    low = math.ulp(0.0)
    while True:
        middle = math.sqrt(low) * math.sqrt(high) if high > 4.0 * low else low + (high - low) / 2.0
        if not low < middle < high:
            return low
        if holds(middle):
            low = middle
        else:
            high = middle
