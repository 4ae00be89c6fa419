"""Both sides of every theorem, the measured gap bounds and the Lipschitz constants, in high precision.

As in the theory, ∇ℓ ∈ span(N), N with orthonormal columns: NᵀW and NᵀA_f stand for W and A_f (softmax).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx
from heads import BITS, Head, HeadTruth, balls, rationals
from linear_heads import Minimum
from oracle_algebra import (
    Matrix,
    Vector,
    dot,
    kernel,
    largest_eigenvalue,
    matrix_product,
    mean_free,
    mid,
    norm,
    orthonormal,
    root,
    singular_values,
    smallest_eigenvalue,
    spectral_norm,
)

from resnet_cert.results import BoundConstants


@dataclass(frozen=True)
class GapBounds:
    """Upper bounds of F − F_lin(W*), from what is measured at (W, V)."""

    linear_functional: arb  # ⟨W − W*, g_W⟩ + ⟨W_1*V, A_f⟩
    linear_functional_ball: arb  # E[∇ℓ·p] + r‖E[∇ℓ xᵀ]‖_F
    first_order: arb  # ‖W − W*‖_F‖g_W‖_F + the lesser of ‖W_1*V‖_F‖A_f‖_F and ‖W_1*V‖_*‖A_f‖


@dataclass(frozen=True)
class Theorem3:
    """The explicit forms of Theorem 3 at one ε; `threshold` is t* in a bracket of relative width 2^−200."""

    threshold_form: arb
    threshold: arb
    polynomial_form: arb
    refined_form: arb
    refined_polynomial_form: arb


def gap(truth: HeadTruth, minimum: Minimum) -> arb:
    """F − min F_lin."""
    with ctx.workprec(truth.bits):
        return truth.F - minimum.value


def on_span(truth: HeadTruth, M: Matrix) -> Matrix:
    """NᵀM."""
    q = truth.q
    return matrix_product(mean_free(q), M) if truth.head.loss == "softmax" and q > 1 else M


def theorem1(truth: HeadTruth, minimum: Minimum) -> tuple[arb, arb] | None:
    """(F − F_lin(W*)) / √(2‖W‖_F² + ‖W*‖_F²(2 + ‖V‖²/σ²)), and over √(‖W − W*‖_F² + ‖W_1⁺W_1*V‖_F²).

    None where W_1 is not known to have full row rank, for V ≠ 0.
    """
    with ctx.workprec(truth.bits):
        W, _, apart, turned = _seen(truth, minimum)
        stretch, X2 = arb(0), arb(0)
        if truth.head.V.any():
            W_1 = [row[: truth.d1] for row in W]
            gram = [[dot(u, v) for v in W_1] for u in W_1]
            sigma2 = smallest_eigenvalue(gram)
            if len(W_1) > truth.d1 or not sigma2 > 0:
                return None
            stretch = _norm_V(truth) ** 2 / sigma2
            lifted = arb_mat(gram).solve(arb_mat(turned)).tolist()  # ‖W_1⁺T‖_F² = ⟨T, (W_1W_1ᵀ)⁻¹T⟩
            X2 = dot(_flat(turned), _flat(lifted))
        paper = root(2 * norm(_flat(W)) ** 2 + minimum.norm**2 * (2 + stretch))
        here = gap(truth, minimum)
        return here / paper, here / root(norm(apart) ** 2 + X2)


def theorem2(truth: HeadTruth, minimum: Minimum) -> tuple[arb, arb]:
    """At (0, V): ‖∇F‖ + √rank·‖V‖√(|λ_min|‖∂²F/∂W²‖ + λ_min²), and (F − F_lin(W*))/‖W*‖_F (0 where W* = 0).

    rank: the least of q, d1, k.
    """
    zero = truth.at_zero
    with ctx.workprec(truth.bits):
        magnitude, size = abs(zero.lambda_min), truth.q * truth.d
        of_W = largest_eigenvalue([row[:size] for row in zero.hessian[:size]])
        rank = min(len(on_span(truth, zero.A_f)), truth.d1, truth.k)
        left = zero.norm + arb(rank).sqrt() * _norm_V(truth) * root(magnitude * of_W + magnitude**2)
        if all(entry == 0 for row in minimum.W for entry in row):
            return left, arb(0)
        return left, (zero.F - minimum.value) / minimum.norm


def gap_bounds(truth: HeadTruth, minimum: Minimum, r: float) -> GapBounds:
    """The measured bounds of the gap at this point."""
    with ctx.workprec(truth.bits):
        _, A_f, apart, turned = _seen(truth, minimum)
        W, g = truth.parameters[: truth.q * truth.d], _flat(truth.g_W)
        moved = norm(apart) * norm(g)
        frobenius = norm(_flat(turned)) * norm(_flat(A_f))
        nuclear = sum(singular_values(turned), arb(0)) * singular_values(A_f)[0]
        star = _flat(minimum.W)
        return GapBounds(
            linear_functional=dot([w - s for w, s in zip(W, star, strict=True)], g)
            + dot(_flat(turned), _flat(A_f)),
            linear_functional_ball=dot(W, g) + arb(r) * norm(_flat(truth.mean_slope(truth.inputs))),
            first_order=moved + frobenius.min(nuclear),
        )


def local_lemma(truth: HeadTruth) -> tuple[arb, arb]:
    """uᵀA_f v, u and v about the top singular vectors of A_f, and what the curvature says about it.

    √(m² + mη) where some e has W_1e = 0, for the one of least η = E[(eᵀh)² uᵀ∇²ℓu]; else √((η+m)(κ+m)) +
    √(ηκ), κ = E[(vᵀf)² (W_1e)ᵀ∇²ℓ(W_1e)], for e about the least right singular vector of W_1.
    """
    with ctx.workprec(truth.bits):
        A_f = np.array([[float(entry) for entry in row] for row in truth.A_f])
        U, _, Yt = np.linalg.svd(A_f, full_matrices=True)
        u, v = (_unit(balls(a)) for a in (U[:, 0], Yt[0]))
        size = dot(u, [dot(row, v) for row in truth.A_f])
        m, W_1, d1 = truth.m, truth.head.W[:, : truth.d1], truth.d1
        along = [[ua if j == i else arb(0) for ua in u for j in range(truth.d)] for i in range(d1)]
        H = [row[: truth.q * truth.d] for row in truth.hessian[: truth.q * truth.d]]
        of_e = [[dot(s, [dot(row, t) for row in H]) for t in along] for s in along]
        free = orthonormal(kernel(rationals(W_1), d1))
        if free:
            columns = list(zip(*free, strict=True))
            eta = smallest_eigenvalue(matrix_product(columns, matrix_product(of_e, columns)))
            return size, root(m**2 + m * eta)
        e = _unit(balls(np.linalg.svd(W_1)[2][-1]))
        eta = dot(e, [dot(row, e) for row in of_e])
        turn = [arb(0)] * (truth.q * truth.d) + [ej * vl for ej in e for vl in v]
        kappa = dot(turn, [dot(row, turn) for row in truth.hessian])
        return size, root((eta + m) * (kappa + m)) + root(eta * kappa)


def theorem3(
    epsilon: float,
    b: float,
    r: float,
    mu0: float,
    mu1: float,
    mu2: float,
    *,
    d: int = 2,
    span: int = 1,
    k: int = 1,
    whole: bool = True,
) -> Theorem3:
    """The explicit forms of Theorem 3 for finite constants; at ε = 0, where B vanishes, t* is 0.

    span: dimension of the span of ∇ℓ.  whole: W is the one row w_1, so that the move ends at w = 0.
    """
    with ctx.workprec(BITS):
        eps, B, R, M0, M1, M2 = (arb(value) for value in (epsilon, b, r, mu0, mu1, mu2))
        m0, product = root(M2 * eps), arb(min(span, k)).sqrt() * B * R
        far = R if whole else B + R

        def gradient_side(t: arb) -> arb:
            return eps * root((B + R) ** 2 + (B * R / t) ** 2)

        def curvature_side(t: arb) -> arb:
            return M0 * t + far * (eps + M1 * t) + product * root((m0 + M2 * t) * (M1 + m0 + M2 * t))

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
        stretched = product if d > span else product * (1 + arb(2).sqrt())
        powers = eps + root(root(eps))
        curved = arb(3) / 4 + M1 / 2
        return Theorem3(
            threshold_form=threshold_form,
            threshold=threshold,
            polynomial_form=powers * (B + R + B * R + M0 + far * M1 + product * (curved + 9 * M2 / 4)),
            refined_form=(B + R) * eps + stretched * root(M2 * eps + M1 * m0),
            refined_polynomial_form=powers * (B + R + stretched * (curved + 3 * M2 / 4)),
        )


def theorem3_of(c: BoundConstants, epsilon: float) -> Theorem3:
    """The same for the numbers of a report."""
    shape = {"d": c.d, "span": c.span, "k": c.k, "whole": c.whole}
    return theorem3(epsilon, c.b, c.r, c.mu0, c.mu1, c.mu2, **shape)


def suprema(loss: str, P: arb, y: float) -> tuple[arb, arb, arb]:
    """Of |ℓ'|, |ℓ''|, |ℓ'''| of one output over |p| ≤ P; y as the formulas take it."""
    target, one = arb(y), arb(1)
    match loss:
        case "squared" | "weighted_squared":
            return P + abs(target), one, arb(0)
        case "poisson":
            return (P.exp() - target).max(target - (-P).exp()), P.exp(), P.exp()
        case "logistic":
            e = (-P.min((2 + arb(3).sqrt()).log())).exp()
            return 1 / (1 + (-P).exp()) - target.min(1 - target), one / 4, (1 - e) * e / (1 + e) ** 3
        case _:
            far, near = P + abs(target), (abs(target) - P).max(arb(0))
            at = (one / 2).max(near).min(far)
            third = 3 * at / (1 + at * at).sqrt() ** 5
            return far / (1 + far * far).sqrt(), 1 / (1 + near * near).sqrt() ** 3, third


def lipschitz(head: Head, b: float) -> tuple[list[arb], list[arb]]:
    """μ0, μ1, μ2 on ‖W‖, ‖V‖ ≤ b for one output, by single samples and by matrices.

    λ_max in floats, where it is good to 1e-12.
    """
    truth, radius, sample, rows = head.truth, arb(b), [arb(0)] * 3, []
    factors = head.scale * (np.ones(truth.n) if head.omega is None else head.omega[:, 0])
    for c, x, f, y, factor in zip(
        truth.weights, truth.inputs, balls(head.f), head.y[:, 0], balls(factors), strict=True
    ):
        x_norm, f_norm = norm(x), norm(f)
        h = x_norm + radius * f_norm
        J = (h * h + (radius * f_norm) * (radius * f_norm)).sqrt()
        L1, L2, L3 = (factor * L for L in suprema(head.loss, radius * h, y))
        terms = (L1 * J, L2 * J * J + L1 * f_norm, L3 * J * J * J + 3 * L2 * J * f_norm)
        sample = [mu + c * term for mu, term in zip(sample, terms, strict=True)]
        rows.append((c, x + f, f_norm, L1, L2, L3 * J))
    return sample, _matrix_forms(rows, radius, head.f.shape[1])


def _matrix_forms(rows: list, b: arb, k: int) -> list[arb]:
    def largest(weights: Vector, vectors: list[Vector]) -> arb:
        m = len(vectors[0])
        G = matrix_product([[c * e for e in z] for c, z in zip(weights, vectors, strict=True)], vectors)
        size = sum((G[i][i] for i in range(m)), arb(0))
        if not size > 0:
            return arb(0)
        scaled = np.array([[float((e / size).mid()) for e in row] for row in G])
        return size * arb(float(np.linalg.eigvalsh(scaled)[-1]))

    c, z, f_norm, L1, L2, L3J = (list(part) for part in zip(*rows, strict=True))
    f = [row[len(row) - k :] for row in z]
    kappa2 = arb("0.5") + b * b + (arb("0.25") + b**4).sqrt()
    slope = sum((p * L * L for p, L in zip(c, L1, strict=True)), arb(0)).sqrt()
    crossed = sum((p * L * t for p, L, t in zip(c, L1, f_norm, strict=True)), arb(0))
    bent = [p * L for p, L in zip(c, L2, strict=True)]
    mu2 = kappa2 * largest([p * L for p, L in zip(c, L3J, strict=True)], z)
    return [
        kappa2.sqrt() * slope * largest(c, z).sqrt(),
        kappa2 * largest(bent, z) + crossed.min(slope * largest(c, f).sqrt()),
        mu2 + 3 * kappa2.sqrt() * largest(bent, z).sqrt() * largest(bent, f).sqrt(),
    ]


def _seen(truth: HeadTruth, minimum: Minimum) -> tuple[Matrix, Matrix, Vector, Matrix]:
    """NᵀW, NᵀA_f, the entries of Nᵀ(W − W*), and NᵀW_1*V."""
    W, star = balls(truth.head.head), on_span(truth, minimum.W)
    whole = on_span(truth, W)
    apart = [w - s for w, s in zip(_flat(whole), _flat(star), strict=True)]
    columns = list(zip(*balls(truth.head.V), strict=True))
    turned = [[dot(row[: truth.d1], column) for column in columns] for row in star]
    return whole, on_span(truth, truth.A_f), apart, turned


def _flat(M: Matrix) -> Vector:
    return [entry for row in M for entry in row]


def _norm_V(truth: HeadTruth) -> arb:
    return spectral_norm(balls(truth.head.V))


def _unit(v: Vector) -> Vector:
    length = norm(v)
    return [entry / length for entry in v]
