"""The theorems for W ∈ R^{q×d}, where they carry over: first order, second order, and where d < q ends them.

Setting: h = x + Vf, p = Wh ∈ R^q, F(W,V,θ) = E[ℓ(p; y)], F_lin(W) = E[ℓ(Wx; y)], g_W = E[∇ℓ hᵀ] (q, d),
A_f = E[∇ℓ fᵀ] (q, k).  Convexity of ℓ gives for every W*, with D_ℓ(s, p) = ℓ(s) − ℓ(p) − ∇ℓ(p)·(s − p) ≥ 0,

    gap = F(W,V,θ) − F_lin(W*) = ⟨W − W*, g_W⟩ + ⟨W*V, A_f⟩ − E[D_ℓ(W*x, p)],

and ∇F = (g_W, WᵀA_f).  ‖·‖ is the spectral norm of a matrix, ‖·‖_F Frobenius', ‖·‖_* the nuclear one.

Second order.  For unit vectors e ∈ R^d, u ∈ R^q, t ∈ R^k the directions (u eᵀ, 0) and (0, −e tᵀ) are
orthonormal, and on them ∇²F is [[β, −(c + uᵀA_f t)], [·, κ]] with

    β = E[(eᵀh)² uᵀ∇²ℓ u],   κ = E[(tᵀf)² (We)ᵀ∇²ℓ (We)],   c² ≤ βκ.

With m = max(0, −λ_min(∇²F)) on its diagonal it is positive semidefinite, so

    uᵀA_f t ≤ √((β + m)(κ + m)) + √(βκ),

the formula of `theorems.local_lemma_scalar`, of which q = d = 1 is a case.  Where We = 0, as it is for some e
if d > q, κ = 0 and the right side is √(m² + mβ).  With the top singular vectors u, t of A_f it bounds ‖A_f‖.

Corollary 1 holds for d ≥ q: every 0-SOPSP has F ≤ inf F_lin.  For g_W = 0, and A_f = 0: if W has full row
rank, because WᵀA_f = 0; if not, because there is an e with We = 0, and m = 0.  For d < q it is false, even
for strict local minima.
"""

from __future__ import annotations

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.theory.theorems import ZERO, hypot, local_lemma, per_unit


def theorem1(
    gap: Enclosure, norm_W: Enclosure, norm_W_star: Enclosure, norm_V: Enclosure, sigma: Enclosure
) -> Enclosure:
    """A lower bound of ‖∇F‖ at a W of full row rank:

        ‖∇F‖ ≥ (F − F_lin(W*)) / √(2‖W‖_F² + ‖W*‖_F²(2 + ‖V‖²/σ²))        for every W*.

    It follows from `theorem1_refined` by ‖W⁺W*V‖_F ≤ ‖W*‖_F‖V‖/σ; for q = 1, where σ = ‖w‖, it is Theorem 1.

    Args:
        norm_W, norm_W_star: Frobenius norms.
        sigma: the smallest singular value σ > 0 of W, of q; anything if V = 0.
    Source: Shamir 2018, Theorem 1.
    """
    turned = norm_W_star * (norm_V / sigma) if norm_V.upper > 0.0 else ZERO
    return per_unit(gap, hypot(norm_W, norm_W, norm_W_star, norm_W_star, turned))


def theorem1_refined(gap: Enclosure, distance: Enclosure, norm_X: Enclosure) -> Enclosure:
    """A lower bound of ‖∇F‖ wherever WX = W*V has a solution X, as it has for W of full row rank:

        ‖∇F‖ ≥ (F − F_lin(W*)) / √(‖W − W*‖_F² + ‖X‖_F²),   X = W⁺W*V the least one.

    Proof: ⟨W*V, A_f⟩ = ⟨X, WᵀA_f⟩, so gap ≤ ⟨(W − W*, X), ∇F⟩.

    Args:
        distance: ‖W − W*‖_F.
        norm_X: ‖W⁺W*V‖_F.
    """
    return per_unit(gap, hypot(distance, norm_X))


def theorem2(
    gap: Enclosure,
    norm_W_star: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
    norm_V: Enclosure,
    norm_A: Enclosure,
    rank: int,
) -> tuple[Enclosure, Enclosure]:
    """Both sides (left, right), left ≥ right, at (0, V, θ), where λ_min ≤ 0:

        ‖∇F‖ + √rank·‖V‖√(|λ_min|·‖∂²F/∂W²‖ + λ_min²) ≥ (F(0,V,θ) − F_lin(W*))/‖W*‖_F     for every W* ≠ 0.

    Proof: at W = 0 every e is in the kernel, so ‖A_f‖ ≤ √(λ_min² + |λ_min|β) with β ≤ ‖∂²F/∂W²‖, and
    gap ≤ ‖W*‖_F‖g_W‖_F + ‖W*V‖_*‖A_f‖ with ‖W*V‖_* ≤ √rank·‖W*‖_F‖V‖.  For q = 1 it is Theorem 2.

    Args:
        gap, gradient_norm, lambda_min, norm_A: F − F_lin(W*), ‖∇F‖, λ_min(∇²F), ‖∂²F/∂W²‖ at (0, V, θ).
        rank: min(q, d, k), of W*V at most.
    Source: Shamir 2018, Theorem 2.
    """
    curved = norm_V * local_lemma((-lambda_min).positive_part(), norm_A)
    return gradient_norm + Enclosure.exact(float(rank)).sqrt() * curved, per_unit(gap, norm_W_star)
