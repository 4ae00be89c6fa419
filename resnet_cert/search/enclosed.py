"""The objective over boxes of a plane of (W, V): ∇G and ∇²G enclosed, for `krawczyk`.

On a plane z(σ) = z_0 + s·z_1 + t·z_2, σ = (s, t), every prediction is a polynomial c·φ(σ) of six monomials
φ = (1, s, t, s², st, t²), and so is ‖(W, V)‖² = size·φ(σ).  Over the box σ ± ρ a polynomial is enclosed by
its Taylor expansion at σ, which is exact, and with the slopes ℓ', ℓ'' over the range of the predictions

    ∇_j G = E[ℓ' ∂_j p] + l2 ∂_j(size·φ),   ∇²_jl G = E[ℓ'' ∂_j p ∂_l p + ℓ' ∂²_jl p] + l2 ∂²_jl(size·φ).

A sample with several outputs is as many samples where the loss is a sum over them; softmax is not:
∇²ℓ = Y(diag(s) − ssᵀ).  Of the squared loss seven numbers a sample are too many where n is large:
E ω(c·φ − y)² = ‖Rψ‖², ψ = (φ, −1), with the triangular factor R of at most 7 rows, which float64 knows up to
a remainder |ψᵀ(M − RᵀR)ψ'|, and that is enclosed as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resnet_cert.numerics.balls import QUIET, Balls, stacked
from resnet_cert.numerics.krawczyk import Enclosed
from resnet_cert.numerics.radius import FLOOR, Array, U, gamma
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.problem.ranges import Slopes, exponential, separable_slopes, softmax_shares

MONOMIALS = 6
COMPRESSED = 12
"""More samples of the squared loss than these are compressed to seven."""


@dataclass(frozen=True)
class Samples:
    """Predictions and losses on a plane.

    coefficients: (N, 6), or (n, q, 6) where outputs are coupled;  y: (N,) or (n, q);  weight: (N,) or (n,),
    of sum about 1, with the factors of the loss.  slopes: of a loss that is a sum; None for softmax.
    remainder: ‖M − RᵀR‖ of compressed samples.  rates: what grows or vanishes with the exponential of the
    predictions: the coefficients of q, of which `RateGradient` divides the slopes; None for other losses.
    """

    coefficients: Balls
    y: Array
    weight: Balls
    slopes: Callable[[Balls, Array], Slopes] | None
    remainder: float = 0.0
    rates: Balls | None = None


@QUIET
def samples(loss: Loss, coefficients: Balls, y: Array, omega: Array | None, weight: Array) -> Samples:
    """Args:
        coefficients: (n, q, 6);  y: (n, q);  omega: (n, q) or None;  weight: (n,) > 0.

    Raises:
        RequestError: nothing is proven of this loss.
    """
    n, q, _ = coefficients.center.shape
    scale = loss.scale if isinstance(loss, BuiltinLoss) else 1.0
    share = shares(weight).times(scale)
    if isinstance(loss, BuiltinLoss) and loss.kind == "softmax":
        # The loss depends on differences alone; of those to the largest target's prediction no slope is
        # 1 − s ≈ 0.
        own = np.argmax(y, axis=1)
        target = coefficients[np.arange(n), own][:, None]
        others = np.arange(q) != own[:, None]
        return Samples((coefficients - target).times(others[:, :, None]), y, share, None)
    slopes = separable_slopes(loss)
    if slopes is None:
        raise RequestError(
            f"expected a loss whose derivatives have proven bounds, got {loss.name}", id="unfit-part"
        )
    each = Balls(np.repeat(share.center, q), np.repeat(share.radius, q))
    if omega is not None:
        each = each.times(omega.ravel())
    flat = Balls(coefficients.center.reshape(n * q, MONOMIALS), coefficients.radius.reshape(n * q, MONOMIALS))
    rates = _rates(loss, flat, y.ravel())
    whole = Samples(flat, y.ravel(), each, slopes, rates=rates)
    squared = isinstance(loss, BuiltinLoss) and loss.kind in ("squared", "weighted_squared")
    return _compressed(whole) if squared and n * q > COMPRESSED else whole


def _rates(loss: Loss, coefficients: Balls, y: Array) -> Balls | None:
    """Those of q = p where ℓ' = e^p − y; of q = ∓p where ℓ' = ∓σ(∓p)."""
    if isinstance(loss, BuiltinLoss) and loss.kind == "poisson":
        return coefficients
    if isinstance(loss, BuiltinLoss) and loss.kind == "logistic" and np.isin(y, (0.0, 1.0)).all():
        return coefficients.times(1.0 - 2.0 * y[:, None])
    return None


def shares(weight: Array) -> Balls:
    """π/Σπ."""
    total = float(np.sum(weight))
    share = weight / total
    return Balls(share, (gamma(len(weight) + 4) + 4.0 * U) * share + FLOOR)


def _compressed(whole: Samples) -> Samples:
    """Seven samples of the squared loss with the same mean, but for a remainder."""
    psi = np.concatenate([whole.coefficients.center, -whole.y[:, None]], axis=1)
    spread = np.concatenate([whole.coefficients.radius, np.zeros((len(psi), 1))], axis=1)
    root = np.sqrt(whole.weight.center)[:, None]
    R = np.asarray(np.linalg.qr(root * psi, mode="r"))
    few = gamma(len(psi) + 8)
    M = (psi * whole.weight.center[:, None]).T @ psi
    sizes = np.abs(psi) + spread
    weight = (whole.weight.center * few + whole.weight.radius)[:, None]
    uncertain = (sizes * weight).T @ sizes + 2.0 * (spread * whole.weight.center[:, None]).T @ sizes
    rounding = gamma(16) * (np.abs(R).T @ np.abs(R) + np.abs(M))
    remainder = np.abs(M - R.T @ R) + rounding + uncertain * (1.0 + few)
    return Samples(
        Balls.exact(R[:, :MONOMIALS]),
        -R[:, MONOMIALS],
        Balls.exact(np.ones(len(R))),
        whole.slopes,
        float(np.sqrt(np.sum(remainder**2))) * (1.0 + 2.0**-40) + FLOOR,
    )


@dataclass(frozen=True)
class PlaneGradient:
    """∇G = 0 on the plane: a `krawczyk.System`.

    size: (6,) coefficients of ‖(W, V)‖².
    """

    samples: Samples
    size: Balls
    l2: float

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        at, _ = self._derivatives(center, np.zeros_like(reach), second=False)
        over, hessian = self._derivatives(center, reach)
        assert hessian is not None
        return Enclosed(at, over, hessian)

    def derivatives(self, center: Array, reach: Array) -> tuple[Balls, Balls]:
        """∇G (B, 2) and ∇²G (B, 2, 2) anywhere in the boxes."""
        gradient, hessian = self._derivatives(center, reach)
        assert hessian is not None
        return gradient, hessian

    def _derivatives(self, center: Array, reach: Array, *, second: bool = True) -> tuple[Balls, Balls | None]:
        data = self.samples
        p, moved, bent = polynomials(data.coefficients, center, reach)
        _, slope, curve = self.norm_squared(center, reach)
        if data.slopes is None:
            gradient, hessian = _softmax_sums(data, p, moved, bent)
        else:
            gradient, hessian = _sums(data, p, moved, bent, second)
        if data.remainder:
            gradient, hessian = _remainder(data.remainder, center, reach, gradient, hessian)
        gradient = gradient + slope.times(self.l2)
        return gradient, None if hessian is None else hessian + curve.times(self.l2)

    def norm_squared(self, center: Array, reach: Array) -> tuple[Balls, Balls, Balls]:
        """‖(W, V)‖² (B,) over boxes, its gradient (B, 2) and its Hessian (B, 2, 2)."""
        size = Balls(self.size.center[None], self.size.radius[None])
        value, moved, bent = polynomials(size, center, reach)
        gradient = stacked([part[:, 0] for part in moved])
        ss, st, tt = (
            Balls(np.broadcast_to(part.center, len(center)), np.broadcast_to(part.radius, len(center)))
            for part in bent
        )
        return value[:, 0], gradient, stacked([stacked([ss, st]), stacked([st, tt])], axis=1)


def polynomials(
    coefficients: Balls, center: Array, reach: Array
) -> tuple[Balls, tuple[Balls, Balls], tuple[Balls, Balls, Balls]]:
    """c·φ over boxes (B, ...), its derivatives in s and t, and ss, st, tt (...) for coefficients (..., 6)."""
    C = np.moveaxis(coefficients.center, -1, 0)
    shape = C.shape[1:]
    flat = C.reshape(MONOMIALS, -1)
    spread = np.moveaxis(coefficients.radius, -1, 0).reshape(MONOMIALS, -1)
    spread = (spread + gamma(12) * np.abs(flat)) * (1.0 + 32.0 * U)
    s, t = center[:, 0], center[:, 1]
    zero, one = np.zeros_like(s), np.ones_like(s)

    def valued(monomials: list[Array]) -> tuple[Array, Array]:
        phi = np.stack(monomials, axis=1)
        return phi @ flat, np.abs(phi) @ spread

    value, value_error = valued([one, s, t, s * s, s * t, t * t])
    by_s, s_error = valued([zero, one, zero, 2.0 * s, t, zero])
    by_t, t_error = valued([zero, zero, one, zero, s, 2.0 * t])
    ss, st, tt = 2.0 * flat[3], flat[4], 2.0 * flat[5]
    ss_error, st_error, tt_error = 2.0 * spread[3], spread[4], 2.0 * spread[5]
    a, b = reach[:, :1], reach[:, 1:]
    large_ss, large_st, large_tt = np.abs(ss) + ss_error, np.abs(st) + st_error, np.abs(tt) + tt_error
    reach_s = s_error + large_ss * a + large_st * b
    reach_t = t_error + large_st * a + large_tt * b
    within = (np.abs(by_s) + s_error) * a + (np.abs(by_t) + t_error) * b
    within = within + value_error + 0.5 * large_ss * a * a + large_st * a * b + 0.5 * large_tt * b * b

    def shaped(x: Array, radius: Array) -> Balls:
        lead = x.shape[:-1]
        return Balls(x.reshape(lead + shape), (radius * (1.0 + 64.0 * U) + FLOOR).reshape(lead + shape))

    return (
        shaped(value, within),
        (shaped(by_s, reach_s), shaped(by_t, reach_t)),
        (shaped(ss, ss_error), shaped(st, st_error), shaped(tt, tt_error)),
    )


def _sums(
    data: Samples, p: Balls, moved: tuple[Balls, Balls], bent: tuple[Balls, Balls, Balls], second: bool
) -> tuple[Balls, Balls | None]:
    assert data.slopes is not None
    first, curvature = data.slopes(p, data.y)
    gradient = stacked([(first * part).weighted(data.weight) for part in moved])
    if not second:
        return gradient, None
    by_s, by_t = moved
    along = curvature * by_s
    ss = along * by_s + first * bent[0]
    st = along * by_t + first * bent[1]
    tt = curvature * by_t.square() + first * bent[2]
    return gradient, _symmetric([part.weighted(data.weight) for part in (ss, st, tt)])


def _symmetric(parts: list[Balls]) -> Balls:
    ss, st, tt = parts
    return stacked([stacked([ss, st]), stacked([st, tt])], axis=1)


def _softmax_sums(
    data: Samples, p: Balls, moved: tuple[Balls, Balls], bent: tuple[Balls, Balls, Balls]
) -> tuple[Balls, Balls]:
    """With Y = Σ y: E[(Ys − y)·∂p] and E[Y(Σ_j s_j ∂p_j ∂p_j − (Σ_j s_j ∂p_j)²) + (Ys − y)·∂²p]."""
    s = softmax_shares(p)
    mass = Balls(data.y.sum(axis=-1), gamma(data.y.shape[-1] + 2) * data.y.sum(axis=-1))
    Ys = Balls(mass.center[:, None], mass.radius[:, None]) * s
    first = Ys - Balls.exact(data.y)
    gradient = stacked([(first * part).sum().weighted(data.weight) for part in moved])
    means = [(s * part).sum() for part in moved]
    parts = []
    for (i, j), curve in zip(((0, 0), (0, 1), (1, 1)), bent, strict=True):
        both = moved[i].square() if i == j else moved[i] * moved[j]
        middle = means[i].square() if i == j else means[i] * means[j]
        spread = mass * ((s * both).sum() - middle)
        parts.append((spread + (first * curve).sum()).weighted(data.weight))
    return gradient, _symmetric(parts)


def _remainder(
    remainder: float, center: Array, reach: Array, gradient: Balls, hessian: Balls | None
) -> tuple[Balls, Balls | None]:
    """½ψᵀEψ with ‖E‖ ≤ remainder adds ψᵀE∂_jψ and ∂_lψᵀE∂_jψ + ψᵀE∂²_jlψ."""
    s, t = (np.abs(center) + reach).T
    psi = 1.0 + s + t + s * s + s * t + t * t + 1.0
    moved = np.stack([1.0 + 2.0 * s + t, 1.0 + s + 2.0 * t], axis=1)
    gradient = gradient.widened(remainder * psi[:, None] * moved * (1.0 + 2.0**-40))
    if hessian is None:
        return gradient, None
    both = moved[:, :, None] * moved[:, None, :] + 2.0 * psi[:, None, None]
    return gradient, hessian.widened(remainder * both * (1.0 + 2.0**-40))


@dataclass(frozen=True)
class PredictionGradient(PlaneGradient):
    """∇p where there is one sample with one output: ∇F = ℓ'(p) ∇p is 0 there, and on the curve ℓ'(p) = 0."""

    def _derivatives(self, center: Array, reach: Array, *, second: bool = True) -> tuple[Balls, Balls]:
        _, moved, bent = polynomials(self.samples.coefficients, center, reach)
        whole = len(center)
        ss, st, tt = (
            Balls(np.broadcast_to(part.center, whole), np.broadcast_to(part.radius, whole)) for part in bent
        )
        return stacked([part[:, 0] for part in moved]), _symmetric([ss, st, tt])


@dataclass(frozen=True)
class RateGradient(PlaneGradient):
    """The gradient with the poisson or the logistic loss, divided by one rate: the same zeros and directions.

    Rates that overflow or underflow, or that vary by factors over a box, do so together: their ratios do not.
    With the poisson loss h = e^{q_0}, q = p, and r = e^q/h; with the logistic one q = p for y = 0 and −p for
    y = 1, so that ℓ'(p) ∂p = σ(q) ∂q, h = σ(q_0) and r = σ(q)/h.  For each box q_0 is the largest q at its
    centre.  With ∂ log h = λ_0 ∂q_0, λ = 1 or σ(−q), and y' = y/h (0 for the logistic loss)

        g = E[(r − y') ∂q] + (l2/h) ∂N,  N = ‖(W, V)‖²,
        ∂_j g = E[(r (λ ∂_j q − λ_0 ∂_j q_0) + y' λ_0 ∂_j q_0) ∂q + (r − y') ∂_j∂q]
                + (l2/h) (∂_j∂N − λ_0 ∂_j q_0 ∂N).

    ∂_j g_i is not symmetric.
    """

    def _derivatives(self, center: Array, reach: Array, *, second: bool = True) -> tuple[Balls, Balls]:
        rates = self.samples.rates
        assert rates is not None
        q, _, _ = polynomials(rates, center, np.zeros_like(center))
        largest = np.argmax(q.center, axis=1)
        gradient, hessian = (Balls(np.zeros(s), np.zeros(s)) for s in ((len(center), 2), (len(center), 2, 2)))
        for first in np.unique(largest):
            boxes = np.flatnonzero(largest == first)
            for all_, some in zip(
                (gradient, hessian), self._divided(rates, first, center[boxes], reach[boxes]), strict=True
            ):
                all_.center[boxes], all_.radius[boxes] = some.center, some.radius
        return gradient, hessian

    def _divided(self, rates: Balls, first: int, center: Array, reach: Array) -> tuple[Balls, Balls]:
        """By the rate of this sample."""
        data, at = self.samples, slice(first, first + 1)
        q, moved, bent = polynomials(rates, center, reach)
        apart, moved_apart, _ = polynomials(rates - rates[at], center, reach)
        ratio, inverse = exponential(apart), exponential(-q[:, at])
        own = [part[:, at] for part in moved]
        grown = list(moved_apart)
        if rates is data.coefficients:
            seen = inverse.times(data.y)
            slope = ratio - seen
            changes = [ratio * grown[j] + seen * own[j] for j in (0, 1)]
        else:  # σ(q)/σ(q_0) = e^{q − q_0} σ(−q)/σ(−q_0)
            assert data.slopes is not None
            share = data.slopes(-q, np.zeros_like(data.y)).first
            slope = ratio * share * share[:, at].reciprocal()
            inverse = inverse + Balls.exact(np.ones_like(inverse.center))
            own = [share[:, at] * part for part in own]
            changes = [slope * (share * moved[j] - own[j]) for j in (0, 1)]
        _, n, M = self.norm_squared(center, reach)
        decay = inverse.times(self.l2) if self.l2 else Balls.exact(np.zeros_like(inverse.center))
        second = ((bent[0], bent[1]), (bent[1], bent[2]))
        gradient, rows = [], []
        for i in (0, 1):
            gradient.append((slope * moved[i]).weighted(data.weight) + n[:, i] * decay[:, 0])
            row = []
            for j in (0, 1):
                sum_ = (changes[j] * moved[i] + slope * second[i][j]).weighted(data.weight)
                row.append(sum_ + (M[:, i, j] - n[:, i] * own[j][:, 0]) * decay[:, 0])
            rows.append(stacked(row))
        return stacked(gradient), stacked(rows, axis=1)


def across_spheres(gradient: PlaneGradient, center: Array, reach: Array) -> tuple[Balls, Balls]:
    """∇G × ∇N (B,) over boxes, and its gradient (B, 2)."""
    _, n, M = gradient.norm_squared(center, reach)
    g, H = gradient.derivatives(center, reach)
    across = g[:, 0] * n[:, 1] - g[:, 1] * n[:, 0]
    rows = [
        H[:, 0, j] * n[:, 1] + g[:, 0] * M[:, 1, j] - H[:, 1, j] * n[:, 0] - g[:, 1] * M[:, 0, j]
        for j in (0, 1)
    ]
    return across, stacked(rows)


@dataclass(frozen=True)
class OneSampleGradient:
    """Where there is one prediction: the same zeros where ∇p ≠ 0, in a form that a tiny l2 does not spoil.

    ∇G = ℓ'(p)∇p + l2 ∇N = 0 is ∇p × ∇N = 0, which does not depend on l2, and ⟨e, ∇G⟩ = 0, e here ∇p at the
    centre: where ∇N = c∇p, ⟨e, ∇G⟩ = (ℓ'(p) + l2 c)⟨e, ∇p⟩.
    """

    gradient: PlaneGradient

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        prediction = PredictionGradient(self.gradient.samples, self.gradient.size, 0.0)
        at, _ = across_spheres(prediction, center, np.zeros_like(reach))
        over, jacobian = across_spheres(prediction, center, reach)
        inner, (moved, _) = self.gradient(center, reach), prediction.derivatives(center, reach)
        e = moved.center
        along = inner.jacobian.times(e[:, :, None]).sum(axis=1)
        may_vanish = ~moved.times(e).sum().has_no_zero
        return Enclosed(
            stacked([at, inner.at.times(e).sum()]),
            stacked([over, inner.over.times(e).sum()]),
            stacked([jacobian, along.widened(np.where(may_vanish, np.inf, 0.0)[:, None])], axis=1),
        )


@dataclass(frozen=True)
class OnSphere:
    """Where a level of ‖(W, V)‖² touches one of G: N = norm² and ∇G × ∇N = 0, a `krawczyk.System`.

    These are the points of the sphere that are critical on it; the multiplier is μ = −2⟨∇G, ∇N⟩/‖∇N‖².
    """

    gradient: PlaneGradient
    norm: float

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        at, _ = self._equations(center, np.zeros_like(reach))
        over, jacobian = self._equations(center, reach)
        return Enclosed(at, over, jacobian)

    def _equations(self, center: Array, reach: Array) -> tuple[Balls, Balls]:
        N, n, _ = self.gradient.norm_squared(center, reach)
        across, rows = across_spheres(self.gradient, center, reach)
        on = N - Balls.exact(self.norm).square()
        return stacked([on, across]), stacked([n, rows], axis=1)

    def multiplier(self, center: Array, reach: Array) -> Balls:
        """μ (B,)."""
        _, n, _ = self.gradient.norm_squared(center, reach)
        g, _ = self.gradient.derivatives(center, reach)
        slope = g[:, 0] * n[:, 0] + g[:, 1] * n[:, 1]
        return slope.times(-2.0) * (n[:, 0].square() + n[:, 1].square()).reciprocal()

    def curvature(self, center: Array, reach: Array) -> Balls:
        """That of G + (μ/2)N along the sphere (B,)."""
        _, n, M = self.gradient.norm_squared(center, reach)
        _, H = self.gradient.derivatives(center, reach)
        half = self.multiplier(center, reach).times(0.5)
        L = H + Balls(half.center[:, None, None], half.radius[:, None, None]) * M
        x, y = -n[:, 1], n[:, 0]
        form = L[:, 0, 0] * x.square() + L[:, 1, 1] * y.square() + (L[:, 0, 1] * x * y).times(2.0)
        return form * (x.square() + y.square()).reciprocal()


@dataclass(frozen=True)
class InFeatures:
    """For d = k = 1 the same zeros where w ≠ 0, in a form that a tiny l2 does not spoil.

    With b = v/w, ∇_v G = 0 and then ∇_w G = 0 are E[ℓ' (x, f)] + 2·l2·((1 − b²)w, b) = 0.  Its rows are
    turned to the eigenvectors of E[(x, f)(x, f)ᵀ]: along a direction in which the data do not vary, the first
    term is 0 and what remains does not depend on l2.  Without this, minima on the curve w·v = const are apart
    in the gradient by l2 alone.

    rows: (2, 2) orthonormal.  p = wx + wv·f, so that x and f are the coefficients of s and st.
    """

    samples: Samples
    rows: Array
    l2: float

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        at, _ = self._equations(center, np.zeros_like(reach))
        over, jacobian = self._equations(center, reach)
        return Enclosed(at, over, jacobian)

    def _equations(self, center: Array, reach: Array) -> tuple[Balls, Balls]:
        data = self.samples
        assert data.slopes is not None
        p, moved, _ = polynomials(data.coefficients, center, reach)
        first, second = data.slopes(p, data.y)
        x, f = data.coefficients[..., 1], data.coefficients[..., 4]
        w, v = Balls(center[:, 0], reach[:, 0]), Balls(center[:, 1], reach[:, 1])
        inverse = w.reciprocal()
        b = v * inverse
        one = Balls.exact(np.ones(len(center)))
        # (1 − b²)w = w − v·b and b, and their derivatives in w and v
        parts = (w - v * b, b)
        by_w, by_v = (one + b.square(), -(b * inverse)), (b.times(-2.0), inverse)
        values, jacobians = [], []
        for row in self.rows:
            zeta = x.times(row[0]) + f.times(row[1])
            values.append((first * zeta).weighted(data.weight) + self._row(row, parts))
            curved = second * zeta
            jacobians.append(
                stacked(
                    [
                        (curved * part).weighted(data.weight) + self._row(row, more)
                        for part, more in zip(moved, (by_w, by_v), strict=True)
                    ]
                )
            )
        value, jacobian = stacked(values), stacked(jacobians, axis=1)
        if data.remainder:
            s, t = (np.abs(center) + reach).T
            value = value.widened((data.remainder * 4.0 * (2.0 + s + s * t))[:, None])
            jacobian = jacobian.widened((data.remainder * 4.0 * (2.0 + s + t))[:, None, None])
        return value, jacobian

    def _row(self, row: Array, parts: tuple[Balls, Balls]) -> Balls:
        return (parts[0].times(row[0]) + parts[1].times(row[1])).times(2.0 * self.l2)
