"""The theorems of Shamir, "Are ResNets Provably Better than Linear Predictors?" (NeurIPS 2018), as functions.

Setting: x ∈ R^d goes to the head W ∈ R^{q×d}, its first d1 entries also through the block, f = f_θ(x) ∈ R^k,
V ∈ R^{d1×k}; W_1 (q, d1) is the part of W that meets the block, h = x + (Vf, 0), p = Wh,

    F(W,V,θ) = E[ℓ(p; y)],   F_lin(W) = E[ℓ(Wx; y)],

ℓ convex and twice differentiable in p, θ fixed, ∇ and ∇² those of (W, V).  The paper's own setting is q = 1,
d1 = d, w = Wᵀ.  Throughout

    gap = F(W,V,θ) − F_lin(W*),   g_W = E[∇ℓ hᵀ] (q, d),   A_f = E[∇ℓ fᵀ] (q, k),   m = max(0, −λ_min(∇²F)),

∇F = (g_W, W_1ᵀA_f), and everything below follows from one identity, with
D_ℓ(s, p) = ℓ(s) − ℓ(p) − ∇ℓ(p)·(s − p) ≥ 0 by convexity:

    gap = ⟨W − W*, g_W⟩ + ⟨W_1*V, A_f⟩ − E[D_ℓ(W*x, p)].

The span of the gradients.  Where ∇ℓ ∈ span(N) always, N (q, q') with orthonormal columns, g_W = NNᵀg_W and
A_f = NNᵀA_f, so that NᵀW and NᵀA_f may stand for W and A_f, q' for q, in every statement below: for softmax
N spans 1^⊥ and q' = q − 1.  The caller forms them once; here q' is written q.

‖·‖ is the spectral norm of a matrix, ‖·‖_F Frobenius', ‖·‖_* the nuclear one; for ‖V‖ a larger one, such as
Frobenius', leaves every statement true.  σ = σ_q(W_1) is the least of the q singular values of W_1; for q = 1
it is ‖w_1‖.  Numbers go in and come out as `Enclosure`s: the result holds the exact value for all exact
arguments within theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, overload

from resnet_cert.numerics.enclosure import Enclosure, maximum, minimum

Number = TypeVar("Number", float, Enclosure)

ZERO = Enclosure.exact(0.0)


# --- Theorem 1: W_1 of full row rank ---------------------------------------------------------------------


def theorem1(
    gap: Enclosure, norm_W: Enclosure, norm_W_star: Enclosure, norm_V: Enclosure, sigma: Enclosure
) -> Enclosure:
    """A lower bound of ‖∇F‖ where W_1 has full row rank, for q = 1 where w_1 ≠ 0:

        ‖∇F‖ ≥ (F − F_lin(W*)) / √(2‖W‖_F² + ‖W*‖_F²(2 + ‖V‖²/σ²))        for every W*.

    A negative gap gives a negative bound.  It follows from `theorem1_refined` by
    ‖W − W*‖_F² ≤ 2‖W‖_F² + 2‖W*‖_F² and ‖W_1⁺W_1*V‖_F ≤ ‖W*‖_F‖V‖/σ.

    Args:
        norm_W, norm_W_star: Frobenius norms.
        sigma: σ > 0; anything if V = 0.
    Raises:
        ValueError: σ = 0 and V ≠ 0.
    Source: Shamir 2018, Theorem 1, for q = 1.
    """
    turned = ZERO
    if norm_V.upper > 0.0:
        if sigma.upper <= 0.0:
            raise ValueError("expected W_1 of full row rank, got sigma = 0: Theorem 1 does not speak of it")
        turned = norm_W_star * (norm_V / sigma)
    return per_unit(gap, hypot(norm_W, norm_W, norm_W_star, norm_W_star, turned))


def theorem1_refined(gap: Enclosure, distance: Enclosure, norm_X: Enclosure) -> Enclosure:
    """A lower bound of ‖∇F‖ wherever W_1 X = W_1*V has a solution X, as it has for W_1 of full row rank:

        ‖∇F‖ ≥ (F − F_lin(W*)) / √(‖W − W*‖_F² + ‖X‖_F²),   X = W_1⁺W_1*V the least one,

    never below that of `theorem1` where gap ≥ 0.

    Proof: ⟨W_1*V, A_f⟩ = ⟨X, W_1ᵀA_f⟩, so gap ≤ ⟨(W − W*, X), ∇F⟩.  Where the root is 0 the gap is at most 0
    and so is the bound: 0.

    Args:
        distance: ‖W − W*‖_F.
        norm_X: ‖W_1⁺W_1*V‖_F, for q = 1 ‖Vᵀw_1*‖/‖w_1‖; for a gap to a predictor Ux + Zf, U in place of W*,
            ‖W_1⁺(U_1V − Z)‖_F.
    Source: the proof of Shamir 2018, Theorem 1, before its last inequality.
    """
    return per_unit(gap, hypot(distance, norm_X))


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
    norm_W_star: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
    norm_V: Enclosure,
    norm_A: Enclosure,
    rank: int = 1,
) -> tuple[Enclosure, Enclosure]:
    """Both sides (left, right), left ≥ right, at (0, V, θ), where λ_min ≤ 0:

        ‖∇F‖ + √rank·‖V‖√(|λ_min|·‖∂²F/∂W²‖ + λ_min²) ≥ (F(0,V,θ) − F_lin(W*))/‖W*‖_F     for every W* ≠ 0.

    For W* = 0 the gap is 0, and the right side is taken as 0.  Proof: at W = 0 every e is in the kernel of
    W_1, so ‖A_f‖ ≤ √(λ_min² + |λ_min|η) with η ≤ ‖∂²F/∂W²‖ (`local_lemma`), and the identity gives
    gap ≤ ‖W*‖_F‖g_W‖_F + ‖W_1*V‖_*‖A_f‖ with ‖W_1*V‖_* ≤ √rank·‖W*‖_F‖V‖.

    Args:
        gap, gradient_norm, lambda_min, norm_A: F − F_lin(W*), ‖∇F‖, λ_min(∇²F), ‖∂²F/∂W²‖ at (0, V, θ).
        rank: min(q, d1, k), of W_1*V at most.
    Source: Shamir 2018, Theorem 2, for q = 1.
    """
    curved = norm_V * local_lemma((-lambda_min).positive_part(), norm_A)
    return gradient_norm + Enclosure.exact(float(rank)).sqrt() * curved, per_unit(gap, norm_W_star)


# --- The local lemma: gradient and curvature at a point bound ‖A_f‖ there ---------------------------------
#
# u, v the top left and right singular vectors of A_f, e ∈ R^{d1} any unit vector,
#
#     η = E[(eᵀh_1)² uᵀ∇²ℓ u],   κ = E[(vᵀf)² (W_1e)ᵀ∇²ℓ (W_1e)].
#
# (u eᵀ, 0) and (0, −e vᵀ) are orthonormal, and on them ∇²F is [[η, −c − ‖A_f‖], [·, κ]] with c² ≤ ηκ.  With m
# on its diagonal it is positive semidefinite.


def local_lemma(m: Enclosure, eta: Enclosure) -> Enclosure:
    """(i) An upper bound of ‖A_f‖ where W_1e = 0, as for some e wherever rank W_1 < d1, hence for d1 > q:

        ‖A_f‖ ≤ √(m² + mη),   η ≤ ‖∂²F/∂W²‖.

    Proof: κ = c = 0, and the smaller eigenvalue (η − √(η² + 4‖A_f‖²))/2 of the matrix is at least −m.  The
    proof of Theorem 2 is its case W = 0.
    """
    return sqrt(m) * sqrt(m + eta.positive_part())


def local_lemma_any(m: Enclosure, eta: Enclosure, kappa: Enclosure) -> Enclosure:
    """(ii) An upper bound of ‖A_f‖ for any e, best for the least right singular vector of W_1:

        ‖A_f‖ ≤ √((η + m)(κ + m)) + √(ηκ).

    Proof: (c + ‖A_f‖)² ≤ (η + m)(κ + m), and |c| ≤ √(ηκ).  Any larger η, κ will do.
    """
    eta, kappa = eta.positive_part(), kappa.positive_part()
    return sqrt(eta + m) * sqrt(kappa + m) + sqrt(eta) * sqrt(kappa)


def local_lemma_gradient(norm_gradient_V: Enclosure, sigma: Enclosure) -> Enclosure:
    """(iii) ‖A_f‖_F ≤ ‖∇_V F‖/σ for W_1 of full row rank, for ∇_V F = W_1ᵀA_f; nothing is said for σ = 0."""
    if sigma.lower > 0.0:
        return norm_gradient_V / sigma
    least = (norm_gradient_V / Enclosure.exact(sigma.upper)).lower if sigma.upper > 0.0 else math.inf
    return Enclosure(math.inf, least, math.inf)


# --- Measured bounds of the gap: no Lipschitz constant in them --------------------------------------------


def gap_linear_functional(displacement_dot_g_W: Enclosure, turned_dot_A_f: Enclosure) -> Enclosure:
    """gap ≤ ⟨W − W*, g_W⟩ + ⟨W_1*V, A_f⟩: the identity without its last term, which is never positive.

    For the gap to a predictor Ux + Zf it is ⟨W − U, g_W⟩ + ⟨U_1V − Z, A_f⟩.
    """
    return displacement_dot_g_W + turned_dot_A_f


def gap_linear_functional_on_ball(W_dot_g_W: Enclosure, norm_lx: Enclosure, r: float) -> Enclosure:
    """F − min_{‖W*‖≤r} F_lin(W*) ≤ E[∇ℓ·p] + r‖E[∇ℓ xᵀ]‖_F: the largest `gap_linear_functional` over the
    ball.

    Args:
        W_dot_g_W: E[∇ℓ·p] = ⟨W, g_W⟩.
        norm_lx: ‖E[∇ℓ xᵀ]‖_F = ‖g_W − A_f(EV)ᵀ‖_F.
    """
    return W_dot_g_W + norm_lx * r


def gap_first_order(
    distance: Enclosure, norm_g_W: Enclosure, norm_turned: Enclosure, norm_A_f: Enclosure
) -> Enclosure:
    """gap ≤ ‖W − W*‖_F‖g_W‖_F + ‖W_1*V‖·‖A_f‖', for the Frobenius norms, or ‖·‖_* with ‖·‖' spectral.

    With the least of the three local lemmas in place of ‖A_f‖' it is the local bound, which like the theorems
    speaks of gradient and curvature alone.
    """
    return distance * norm_g_W + norm_turned * norm_A_f


def proposition_R(
    rho: Enclosure,
    displacement_dot_W: Enclosure,
    X_dot_V: Enclosure,
    residual: Enclosure,
    distance: Enclosure,
    norm_X: Enclosure,
) -> Enclosure:
    """gap ≤ −ρ⟨W − W*, W⟩ − ρ⟨X, V⟩ + ‖∇L‖√(‖W − W*‖_F² + ‖X‖_F²), L = F + (ρ/2)‖(W, V)‖², X = W_1⁺W_1*V.

    For W_1 of full row rank, all ρ and W*.  Proof: put g_W = −ρW + R_W and W_1ᵀA_f = −ρV + R_V, where
    (R_W, R_V) = ∇L, into `gap_linear_functional`, with ⟨W_1*V, A_f⟩ = ⟨X, W_1ᵀA_f⟩; the terms in R are an
    inner product with ∇L.  For q = 1 at a critical point of L with ρ > 0, V = −w aᵀ/ρ, and the identity reads

        gap = −ρ‖w‖² + ρ(w*ᵀw)(1 − ‖V‖_F²/‖w‖²) − E[D_ℓ(w*ᵀx, p)]:

    positive only where regularisation holds the point away from w*, or where w*ᵀw < 0.

    Args:
        rho: ρ ≥ 0, twice the coefficient of a regulariser ‖W‖_F² + ‖V‖_F², or the multiplier of a ball.
        displacement_dot_W: ⟨W − W*, W⟩ over the columns that the square counts.
        residual: ‖∇L‖.
        distance, norm_X: ‖W − W*‖_F, ‖X‖_F.
    """
    return residual * hypot(distance, norm_X) - rho * (displacement_dot_W + X_dot_V)


def decayed_gap(
    l2: Enclosure, functional: Enclosure, norm_V: Enclosure, distance_decayed: Enclosure
) -> Enclosure:
    """G − G_lin(W*) ≤ ⟨W − W*, ∇_W G⟩ + ⟨W_1*V, A_f⟩ + l2(‖V‖_F² − ‖W − W*‖_F²), for G = F + l2(‖W‖_F² +
    ‖V‖_F²), G_lin(U) = F_lin(U) + l2‖U‖_F².

    Proof: ‖W‖² − ‖W*‖² = 2⟨W − W*, W⟩ − ‖W − W*‖², ∇_W G = g_W + 2·l2·W, and the identity.

    Args:
        functional: ⟨W − W*, ∇_W G⟩ + ⟨W_1*V, A_f⟩.
        distance_decayed: ‖W − W*‖_F over the columns that the square counts.
    """
    return functional + l2 * (norm_V.square() - distance_decayed.square())


def decayed_gap_by_gradient(
    l2: Enclosure,
    norm_V: Enclosure,
    distance_decayed: Enclosure,
    X_dot_V: Enclosure,
    residual: Enclosure,
    distance: Enclosure,
    norm_X: Enclosure,
) -> Enclosure:
    """G − G_lin(W*) ≤ l2(‖V‖_F² − ‖W − W*‖_F² − 2⟨X, V⟩) + ‖∇G‖√(‖W − W*‖_F² + ‖X‖_F²), X = W_1⁺W_1*V.

    For W_1 of full row rank: ⟨W_1*V, A_f⟩ = ⟨X, ∇_V G⟩ − 2·l2⟨X, V⟩ in `decayed_gap`.  At a critical point
    the last term is 0: what decay has cost there.
    """
    at_critical_points = l2 * (norm_V.square() - distance_decayed.square() - 2.0 * X_dot_V)
    return at_critical_points + residual * hypot(distance, norm_X)


# --- Theorem 3: every ε-SOPSP on a bounded domain ---------------------------------------------------------
#
# ‖W‖_F, ‖V‖ < b; F, ∇F, ∇²F are μ0-, μ1-, μ2-Lipschitz in (W, V) there, and W_1's least singular value may be
# set to 0 within the domain.  Each form below bounds F − min_{‖W*‖_F ≤ r} F_lin(W*) at every ε-SOPSP, for d1
# ≥ q; for d1 < q nothing of the kind is true.  With m0 = √(μ2 ε), ρ = min(q, k), by which ‖·‖_* ≤ √ρ‖·‖_F for
# W_1*V, and C = 1 for d1 > q, 1 + √2 for d1 = q.  Plain floats are taken as exact.


class ThresholdForm(NamedTuple):
    """The bound, and the t of σ where its two cases meet."""

    bound: Enclosure
    t: float


def B(t: Number, eps: Number, b: Number, r: Number) -> Number:
    """Theorem 1 where σ ≥ t:  gap ≤ B(t) = ε√((b + r)² + b²r²/t²).  Decreases in t."""
    return eps * hypot(b + r, b * r / t)


def S(
    t: Number,
    eps: Number,
    b: Number,
    r: Number,
    mu0: Number,
    mu1: Number,
    mu2: Number,
    far: Number,
    root: Number,
) -> Number:
    """Where σ < t:  the same with that singular value set to 0.  Increases in t.

        gap ≤ S(t) = μ0 t + far·(ε + μ1 t) + √ρ·r b √((m0 + μ2 t)(μ1 + m0 + μ2 t)).

    The move changes F by at most μ0 t, ∇F by at most μ1 t and λ_min(∇²F) by at most μ2 t; then `local_lemma`.

    Args:
        far: ‖W − W*‖_F at most, b + r; for q = 1 with d1 = d the move ends at w = 0, and it is r.
        root: √ρ.
    """
    m = sqrt(mu2) * sqrt(eps) + mu2 * t
    return mu0 * t + far * (eps + mu1 * t) + root * r * b * sqrt(m) * sqrt(mu1 + m)


def threshold_form(
    eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float, rank: int = 1, whole: bool = True
) -> ThresholdForm:
    """S(b) if S(b) ≤ B(b), and else the common value S(t*) = B(t*) at the unique t* ∈ (0, b).

    As S increases and B decreases, this value lies between S(t) and B(t) for every t ∈ (0, b].  So t* is
    looked for in plain float64, and S and B, enclosed at the t found, prove the bound.  b > 0.

    Args:
        rank: ρ.  whole: W is the one row w_1 (q = 1, d1 = d).
    Source: the proof of Shamir 2018, Theorem 3, with the best threshold.
    """
    e_eps, e_b, e_r, e_mu0, e_mu1, e_mu2 = map(Enclosure.exact, (eps, b, r, mu0, mu1, mu2))
    far = e_r if whole else e_b + e_r
    root = Enclosure.exact(float(rank)).sqrt()
    rough_far, rough_root = (r if whole else b + r), math.sqrt(rank)

    def sides(t: float) -> tuple[Enclosure, Enclosure]:
        at = Enclosure.exact(t)
        return S(at, e_eps, e_b, e_r, e_mu0, e_mu1, e_mu2, far, root), B(at, e_eps, e_b, e_r)

    def below_at(t: float) -> bool:
        return not S(t, eps, b, r, mu0, mu1, mu2, rough_far, rough_root) > B(t, eps, b, r)

    below, above = sides(b)
    if below.at_most(above):
        return ThresholdForm(below, b)
    if eps == 0.0:  # B vanishes, and S does so with t
        return ThresholdForm(ZERO, 0.0)
    t = last_float(below_at, b)
    below, above = sides(t)
    return ThresholdForm(
        Enclosure(below.value, min(below.lower, above.lower), max(below.upper, above.upper)), t
    )


def polynomial_form(
    eps: float, b: float, r: float, mu0: float, mu1: float, mu2: float, rank: int = 1, whole: bool = True
) -> Enclosure:
    """(ε + ε^¼)·[b + r + br + μ0 + far·μ1 + √ρ·br(3/4 + μ1/2 + 9μ2/4)], far as in `S`.

    It is at least max(S(t), B(t)) at t = √ε.  Proof, besides √ε ≤ ε + ε^¼: there m0 + μ2 t = c√ε with
    c = √μ2 + μ2 ≤ 1/2 + 3μ2/2, and √(c√ε(μ1 + c√ε)) ≤ ε^¼√(cμ1) + c√ε ≤ ε^¼(c + μ1)/2 + c√ε.
    Source: Shamir 2018, Theorem 3, with its polynomial made explicit.
    """
    e_b, e_r, e_mu0, e_mu1, e_mu2 = map(Enclosure.exact, (b, r, mu0, mu1, mu2))
    far, root = (e_r if whole else e_b + e_r), Enclosure.exact(float(rank)).sqrt()
    curved = 0.75 + e_mu1 * 0.5 + e_mu2 * 2.25
    return _eps_and_root(eps) * (e_b + e_r + e_b * e_r + e_mu0 + far * e_mu1 + root * e_b * e_r * curved)


def refined_form(
    eps: float,
    b: float,
    r: float,
    mu1: float,
    mu2: float,
    *,
    spare: bool,
    rank: int = 1,
    s: float | None = None,
) -> Enclosure:
    """Theorem 3': (b + r)ε + √ρ·C·b·r·√(m0² + μ1 m0).  Neither a threshold nor μ0.

    Proof: gap ≤ ‖W − W*‖_Fε + ‖W_1*V‖_*‖A_f‖ (`gap_first_order`), and ‖A_f‖ ≤ C√(m0² + μ1 m0): for d1 > q by
    `local_lemma` with m ≤ m0, η ≤ μ1.  For d1 = q split at σ = √(ε/μ2): above it ‖A_f‖ ≤ ‖∇_V F‖/σ ≤ ε/σ ≤
    m0; below it `local_lemma_any` with η ≤ μ1 and κ ≤ μ2σ ≤ m0, for κ is D²F along (0, e vᵀ), and 0 once σ is
    0.

    Args:
        spare: d1 > q.  rank: ρ.
        s: the same against every predictor Ux + Zf with ‖U‖_F ≤ r, ‖Z‖_F ≤ s, where ‖U_1V − Z‖_F ≤ br + s
            stands for br.
    """
    e_eps, e_b, e_r, e_mu1, e_mu2 = map(Enclosure.exact, (eps, b, r, mu1, mu2))
    m0 = sqrt(e_mu2) * sqrt(e_eps)
    turned = e_b * e_r if s is None else e_b * e_r + s
    return (e_b + e_r) * e_eps + _stretch(spare, rank) * turned * sqrt(m0) * sqrt(m0 + e_mu1)


def refined_polynomial_form(
    eps: float, b: float, r: float, mu1: float, mu2: float, *, spare: bool, rank: int = 1
) -> Enclosure:
    """(ε + ε^¼)·[b + r + √ρ·C·b·r(3/4 + μ1/2 + 3μ2/4)], at least `refined_form`.

    Proof: √(m0² + μ1 m0) ≤ m0 + √(μ1 m0) with √μ2 ≤ (1 + μ2)/2 and √(μ1 √μ2) ≤ μ1/2 + (1 + μ2)/4.
    """
    e_b, e_r, e_mu1, e_mu2 = map(Enclosure.exact, (b, r, mu1, mu2))
    curved = 0.75 + e_mu1 * 0.5 + e_mu2 * 0.75
    return _eps_and_root(eps) * (e_b + e_r + _stretch(spare, rank) * e_b * e_r * curved)


def _stretch(spare: bool, rank: int) -> Enclosure:
    """√ρ·C."""
    root = Enclosure.exact(float(rank)).sqrt()
    return root if spare else root * (1.0 + sqrt(Enclosure.exact(2.0)))


def decayed_form(
    eps: float,
    b: float,
    r: float,
    mu1: float,
    mu2: float,
    l2: float,
    norm_V: Enclosure,
    *,
    spare: bool,
    rank: int = 1,
) -> Enclosure:
    """Theorem 3 with weight decay: at every ε-SOPSP of G = F + l2(‖W‖_F² + ‖V‖_F²), with μ = √(μ2ε) + 2·l2,

        G ≤ G_lin(W*) + (b + r)ε + l2‖V‖_F² + √ρ·b·r·√(μ(μ1 + μ))                         (‖W*‖_F ≤ r, d1 >
        q),

    μ1, μ2 those of F; for d1 = q the last root becomes the least over s of
    max{(ε + 2·l2‖V‖_F)/s, √((μ1 + μ)(μ2s + μ)) + √(μ1μ2s)}.

    Proof: λ_min(∇²F) ≥ −μ, so the local lemma bounds ‖A_f‖: for d1 > q by √(μ² + μμ1); for d1 = q, where σ ≥
    s, by ‖∇_V F‖/σ ≤ (ε + 2·l2‖V‖_F)/s, and where σ < s with κ ≤ μ2s; then `decayed_gap`.  Every s gives a
    bound: the best one is looked for in plain float64.
    """
    e_eps, e_b, e_r, e_mu1, e_mu2, e_l2 = map(Enclosure.exact, (eps, b, r, mu1, mu2, l2))
    mu = sqrt(e_mu2) * sqrt(e_eps) + 2.0 * e_l2
    if spare:
        curved = sqrt(mu) * sqrt(e_mu1 + mu)
    else:
        slope = e_eps + 2.0 * e_l2 * norm_V

        def rises(s: Enclosure) -> Enclosure:
            moved = e_mu2 * s
            return sqrt(e_mu1 + mu) * sqrt(moved + mu) + sqrt(e_mu1) * sqrt(moved)

        def is_low(s: float) -> bool:
            at = Enclosure.exact(s)
            return not rises(at).value > (slope / at).value

        at = Enclosure.exact(last_float(is_low, b))
        sides = rises(at), slope / at  # the least maximum lies between them, for one rises and one falls
        curved = Enclosure(sides[0].value, minimum(*sides).lower, maximum(*sides).upper)
    root = Enclosure.exact(float(rank)).sqrt()
    return (e_b + e_r) * e_eps + e_l2 * norm_V.square() + root * e_b * e_r * curved


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
