"""Both sides of every theorem, the measured gap bounds and the Lipschitz constants, in high precision."""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb, ctx
from oracle import BITS, Truth
from oracle_algebra import (
    complement,
    dot,
    largest,
    largest_eigenvalue,
    mid,
    norm,
    root,
    smallest_eigenvalue,
    spectral_norm,
)
from oracle_linear import Minimum


@dataclass(frozen=True)
class GapBounds:
    """Upper bounds of F − F_lin(w*), from what is measured at (w, V)."""

    linear_functional: arb  # (w − w*)ᵀg_w + w*ᵀVa
    linear_functional_ball: arb  # E[ℓ'p] + r‖E[ℓ'x]‖
    first_order: arb  # ‖w − w*‖‖g_w‖ + ‖Vᵀw*‖‖a‖
    local: arb  # ‖w − w*‖‖g_w‖ + ‖Vᵀw*‖·(the curvature's bound of ‖a‖)


@dataclass(frozen=True)
class Lipschitz:
    """μ0 = E[L1 J], μ1 = E[L2 J² + L1‖f‖], μ2 = E[L3 J³ + 3 L2 J‖f‖] on ‖w‖, ‖V‖ ≤ b."""

    mu0: arb
    mu1: arb
    mu2: arb


@dataclass(frozen=True)
class Theorem3:
    """The explicit forms of Theorem 3 at one ε; `threshold` is t* in a bracket of relative width 2^−200."""

    threshold_form: arb
    threshold: arb
    polynomial_form: arb
    refined_form: arb
    refined_polynomial_form: arb


def gap(truth: Truth, minimum: Minimum) -> arb:
    """F − min F_lin."""
    with ctx.workprec(truth.bits):
        return truth.F - minimum.value


def theorem1(truth: Truth, minimum: Minimum) -> tuple[arb, arb]:
    """(F − F_lin(w*)) / √(2‖w‖² + ‖w*‖²(2 + ‖V‖²/‖w‖²)), and over √(‖w−w*‖² + ‖Vᵀw*‖²/‖w‖²); w ≠ 0."""
    with ctx.workprec(truth.bits):
        star, w2 = minimum.w_star, dot(truth.w, truth.w)
        paper = root(2 * w2 + dot(star, star) * (2 + spectral_norm(truth.V) ** 2 / w2))
        refined = root(_distance(truth, star) ** 2 + norm(_image(truth, star)) ** 2 / w2)
        return gap(truth, minimum) / paper, gap(truth, minimum) / refined


def theorem2(truth: Truth, minimum: Minimum) -> tuple[arb, arb]:
    """At (0, V): ‖∇F‖ + ‖V‖√(|λ_min|‖∂²F/∂w²‖ + λ_min²), and (F − F_lin(w*))/‖w*‖ (0 where w* = 0)."""
    zero = truth.at_zero
    with ctx.workprec(truth.bits):
        magnitude = abs(zero.lambda_min)
        left = zero.norm + spectral_norm(zero.V) * root(magnitude * largest_eigenvalue(zero.A) + magnitude**2)
        if all(entry == 0 for entry in minimum.w_star):
            return left, arb(0)
        return left, (zero.F - minimum.value) / norm(minimum.w_star)


def feature_gradient_bound(truth: Truth) -> arb:
    """What the curvature at (w, V) says about ‖a‖.

    d ≥ 2: √(m² + mβ), β = min{eᵀAe : ‖e‖ = 1, e ⊥ w};  d = 1: √((η+m)(κ+m)) + √(ηκ), η = ∂²F/∂w²,
    κ = tᵀ(∂²F/∂V²)t, t = a/‖a‖ (0 where a = 0).
    """
    with ctx.workprec(truth.bits):
        m = truth.m
        if truth.d > 1:
            return root(m**2 + m * _smallest_across(truth))
        a, length2 = truth.a, dot(truth.a, truth.a)
        if length2 == 0:
            return arb(0)
        eta = truth.A[0][0]
        kappa = truth.w[0] ** 2 * dot(a, [dot(row, a) for row in truth.C]) / length2
        return root((eta + m) * (kappa + m)) + root(eta * kappa)


def gap_bounds(truth: Truth, minimum: Minimum, r: float) -> GapBounds:
    """The measured bounds of the gap at this point."""
    with ctx.workprec(truth.bits):
        star = minimum.w_star
        apart = [wj - sj for wj, sj in zip(truth.w, star, strict=True)]
        image = _image(truth, star)
        slope = [dot(truth.first, column) for column in zip(*truth.x, strict=True)]
        moved = norm(apart) * norm(truth.g_w)
        return GapBounds(
            linear_functional=dot(apart, truth.g_w) + dot(image, truth.a),
            linear_functional_ball=dot(truth.first, truth.p) + arb(r) * norm(slope),
            first_order=moved + norm(image) * norm(truth.a),
            local=moved + norm(image) * feature_gradient_bound(truth),
        )


def suprema(loss: str, reach: arb, y: arb) -> tuple[arb, arb, arb]:
    """sup |ℓ'|, |ℓ''|, |ℓ'''| over |p| ≤ reach at scale 1, from where each is monotone."""
    reach, one = mid(reach), arb(1)
    if loss == "squared":
        return reach + abs(y), one, arb(0)
    if loss == "logistic":  # ℓ'' is even and decreasing in |p|, |ℓ'''| rises up to |p| = log(2 + √3)
        sigmoid = 1 / (1 + (-reach).exp())
        if reach < (2 + arb(3).sqrt()).log():
            return sigmoid, one / 4, sigmoid * (1 - sigmoid) * (2 * sigmoid - 1)
        return sigmoid, one / 4, 1 / (6 * arb(3).sqrt())
    if loss == "pseudo_huber":  # in q = |p − y|: |ℓ'| rises, ℓ'' falls, |ℓ'''| rises up to q = 1/2 only
        nearest, farthest = mid(largest([abs(y) - reach, arb(0)])), mid(abs(y) + reach)
        at = nearest if nearest >= 0.5 else (farthest if farthest <= 0.5 else arb(0.5))
        root_of = [(1 + q * q).sqrt() for q in (nearest, farthest, at)]
        return farthest / root_of[1], 1 / root_of[0] ** 3, 3 * at / root_of[2] ** 5
    if loss == "poisson":
        return largest([abs(reach.exp() - y), abs((-reach).exp() - y)]), reach.exp(), reach.exp()
    raise ValueError(f"expected a loss of the oracle, got {loss!r}")


def lipschitz(truth: Truth, b: float) -> Lipschitz:
    """The Lipschitz constants of F, ∇F, ∇²F on ‖w‖, ‖V‖ ≤ b by the per-sample suprema."""
    with ctx.workprec(truth.bits):
        terms = []
        bound, scale = arb(b), arb(truth.sample.scale)
        for x, f, y in zip(truth.x, truth.f, truth.y, strict=True):
            features = norm(f)
            h = norm(x) + bound * features
            L1, L2, L3 = (scale * L for L in suprema(truth.sample.loss, bound * h, y))
            J = root(h**2 + (bound * features) ** 2)
            terms.append((L1 * J, L2 * J**2 + L1 * features, L3 * J**3 + 3 * L2 * J * features))
        return Lipschitz(*(truth.mean(column) for column in zip(*terms, strict=True)))


def theorem3(epsilon: float, b: float, r: float, mu0: float, mu1: float, mu2: float, d: int) -> Theorem3:
    """The explicit forms of Theorem 3 for finite constants; at ε = 0, where B vanishes, t* is 0."""
    with ctx.workprec(BITS):
        eps, B, R, M0, M1, M2 = (arb(value) for value in (epsilon, b, r, mu0, mu1, mu2))
        m0 = root(M2 * eps)

        def gradient_side(t: arb) -> arb:
            return eps * root((B + R) ** 2 + (B * R / t) ** 2)

        def curvature_side(t: arb) -> arb:
            return M0 * t + R * (eps + M1 * t) + R * B * root((m0 + M2 * t) * (M1 + m0 + M2 * t))

        if not curvature_side(B) > gradient_side(B):
            threshold, threshold_form = B, curvature_side(B)
        elif epsilon == 0.0:
            threshold, threshold_form = arb(0), curvature_side(arb(0))
        else:
            low, high = B / 2, B
            while not gradient_side(low) > curvature_side(low):
                low, high = low / 2, low
            while high - low > high * arb(2) ** -200:
                middle = mid((low + high) / 2)
                if gradient_side(middle) > curvature_side(middle):
                    low = middle
                else:
                    high = middle
            threshold = low.union(high)
            threshold_form = curvature_side(low).union(curvature_side(high))
        C_d = arb(1) if d >= 2 else 1 + arb(2).sqrt()
        powers = eps + root(root(eps))
        product = B * R
        return Theorem3(
            threshold_form=threshold_form,
            threshold=threshold,
            polynomial_form=powers
            * (B + R + product + M0 + R * M1 + product * (arb(3) / 4 + M1 / 2 + 9 * M2 / 4)),
            refined_form=(B + R) * eps + C_d * product * root(M2 * eps + M1 * m0),
            refined_polynomial_form=powers * (B + R + C_d * product * (arb(3) / 4 + M1 / 2 + 3 * M2 / 4)),
        )


def _distance(truth: Truth, star: list[arb]) -> arb:
    """‖w − w*‖."""
    return norm([wj - sj for wj, sj in zip(truth.w, star, strict=True)])


def _image(truth: Truth, star: list[arb]) -> list[arb]:
    """Vᵀw*."""
    return [dot(column, star) for column in zip(*truth.V, strict=True)]


def _smallest_across(truth: Truth) -> arb:
    """min{eᵀAe : ‖e‖ = 1, e ⊥ w}."""
    if not truth.sample.w.any():
        return smallest_eigenvalue(truth.A)
    basis = complement(truth.w)
    image = [[dot(row, e) for row in truth.A] for e in basis]
    return smallest_eigenvalue([[dot(e, Ae) for Ae in image] for e in basis])
