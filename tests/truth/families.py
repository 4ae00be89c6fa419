"""Random problems with a seed, over the corners where a checker of stationary points could go wrong.

Every family is a function of a NumPy generator, listed in `FAMILIES`; `random_sample(seed)` draws a family
and then a problem.  `margin` puts ε and μ2 within 1e−13 to 1e−1 of a point's own thresholds, on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt
from flint import arb, ctx
from oracle import Sample, Truth

if TYPE_CHECKING:
    from resnet_cert import Problem

Array = npt.NDArray[np.float64]
Generator = np.random.Generator
Maker = Callable[[Generator], Sample]

LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")


def gaussian(
    rng: Generator,
    *,
    n: int | None = None,
    d: int | None = None,
    k: int | None = None,
    losses: tuple[str, ...] = LOSSES,
) -> Sample:
    """Normal x, f, w, V in small dimensions, with any loss."""
    n = int(rng.integers(1, 13)) if n is None else n
    d = int(rng.integers(1, 5)) if d is None else d
    k = int(rng.integers(1, 5)) if k is None else k
    loss = str(rng.choice(losses))
    y = rng.normal(size=n)
    if loss == "logistic":
        y = rng.choice([-1.0, 1.0], n)
    if loss == "poisson":
        y = rng.poisson(1.5, n).astype(np.float64)
    return Sample(
        x=rng.normal(size=(n, d)),
        y=y,
        f=rng.normal(size=(n, k)),
        w=rng.normal(size=d),
        V=rng.normal(size=(d, k)),
        loss=loss,
    )


def one_sample(rng: Generator) -> Sample:
    """n = 1."""
    return gaussian(rng, n=1)


def one_input(rng: Generator) -> Sample:
    """d = 1: no direction is orthogonal to w."""
    return gaussian(rng, d=1)


def one_feature(rng: Generator) -> Sample:
    """k = 1."""
    return gaussian(rng, k=1)


def zero_w(rng: Generator) -> Sample:
    """w = 0."""
    sample = gaussian(rng)
    return replace(sample, w=np.zeros_like(sample.w))


def zero_V(rng: Generator) -> Sample:
    """V = 0: the network is the linear predictor."""
    sample = gaussian(rng)
    return replace(sample, V=np.zeros_like(sample.V))


def zero_point(rng: Generator) -> Sample:
    """w = 0 and V = 0."""
    sample = gaussian(rng)
    return replace(sample, w=np.zeros_like(sample.w), V=np.zeros_like(sample.V))


def no_inputs(rng: Generator) -> Sample:
    """x = 0: all that the network sees is f, and w* = 0."""
    sample = gaussian(rng)
    return replace(sample, x=np.zeros_like(sample.x))


def no_features(rng: Generator) -> Sample:
    """f = 0."""
    sample = gaussian(rng)
    return replace(sample, f=np.zeros_like(sample.f))


def cancelling_features(rng: Generator) -> Sample:
    """a = E[ℓ'f] = 0 exactly: every sample comes with f and with −f, at w = 0 or V = 0."""
    half = gaussian(rng, n=int(rng.integers(1, 7)))
    sample = replace(
        half,
        x=np.concatenate([half.x, half.x]),
        y=np.concatenate([half.y, half.y]),
        f=np.concatenate([half.f, -half.f]),
    )
    if rng.random() < 0.5:
        return replace(sample, w=np.zeros_like(sample.w))
    return replace(sample, V=np.zeros_like(sample.V))


def duplicated_rows(rng: Generator) -> Sample:
    """Few distinct samples, each several times."""
    sample = gaussian(rng, n=12)
    rows = rng.integers(0, 3, 12)
    return replace(sample, x=sample.x[rows], f=sample.f[rows], y=sample.y[rows])


def rank_deficient(rng: Generator) -> Sample:
    """Columns of x that are exactly dependent: copies, multiples by powers of two, zeros."""
    sample = gaussian(rng, d=int(rng.integers(2, 5)))
    x = sample.x.copy()
    x[:, -1] = x[:, 0] * rng.choice([0.0, 1.0, -2.0])
    return replace(sample, x=x)


def nearly_rank_deficient(rng: Generator) -> Sample:
    """Two columns of x that differ by about 1e−3 to 1e−12."""
    sample = gaussian(rng, n=12, d=int(rng.integers(2, 5)))
    x = sample.x.copy()
    x[:, -1] = x[:, 0] + 10.0 ** rng.uniform(-12, -3) * rng.normal(size=12)
    return replace(sample, x=x)


def separable(rng: Generator) -> Sample:
    """Labels that a hyperplane through the origin separates: F_lin has no minimiser."""
    sample = gaussian(rng, losses=("logistic",))
    return replace(sample, y=np.where(sample.x @ rng.normal(size=sample.x.shape[1]) > 0.0, 1.0, -1.0))


def silent_poisson(rng: Generator) -> Sample:
    """Poisson counts that are mostly 0, often without a minimiser of F_lin."""
    sample = gaussian(rng, losses=("poisson",))
    return replace(sample, y=np.where(rng.random(len(sample.y)) < 0.8, 0.0, sample.y))


def extreme_scales(rng: Generator) -> Sample:
    """x as large as 1e100 or as small as 1e−100, f by its own scale, w and V making up for both."""
    sample = gaussian(rng)
    x_scale = 10.0 ** rng.choice([-100, -60, -20, 20, 60, 100])
    f_scale = 10.0 ** rng.choice([-50, -10, 0, 10, 50])
    return replace(
        sample,
        x=sample.x * x_scale,
        f=sample.f * f_scale,
        w=sample.w / x_scale,
        V=sample.V * (x_scale / f_scale),
    )


def uneven_columns(rng: Generator) -> Sample:
    """Columns of x and f with scales from 1e−6 to 1e6, w and V making up for them or not."""
    sample = gaussian(rng)
    d, k = sample.V.shape
    x_scale, f_scale = 10.0 ** rng.uniform(-6, 6, d), 10.0 ** rng.uniform(-6, 6, k)
    scaled = replace(sample, x=sample.x * x_scale, f=sample.f * f_scale, w=sample.w / x_scale)
    if rng.random() < 0.5 or sample.loss == "poisson":
        return replace(scaled, V=sample.V * x_scale[:, None] / f_scale)
    return scaled


def tiny_w(rng: Generator) -> Sample:
    """‖w‖ about 1e−8 or 1e−150."""
    sample = gaussian(rng)
    return replace(sample, w=sample.w * rng.choice([1e-8, 1e-150]))


def large_predictions(rng: Generator) -> Sample:
    """|p| up to about 1e4 (500 for e^p): exponentials that vanish or nearly overflow."""
    sample = gaussian(rng)
    wanted = rng.uniform(50.0, 500.0) if sample.loss == "poisson" else 10.0 ** rng.uniform(1, 4)
    p = (sample.x + sample.f @ sample.V.T) @ sample.w
    return replace(sample, w=sample.w * (wanted / np.max(np.abs(p))))


def interpolating(rng: Generator) -> Sample:
    """Small integers with y = wᵀ(x + Vf) exactly: F = 0, ∇F = 0, and ∇²F ⪰ 0 with many zeros."""
    sample = gaussian(rng, losses=("squared",))
    x, f, w, V = (np.rint(3.0 * part) for part in (sample.x, sample.f, sample.w, sample.V))
    return replace(sample, x=x, f=f, w=w, V=V, y=(x + f @ V.T) @ w)


def near_minimum(rng: Generator) -> Sample:
    """The least-squares fit on (x, f), rounded, off by 1e−16 to 1e−2: λ_min just below many exact zeros."""
    sample = gaussian(rng, n=12, d=int(rng.integers(2, 5)), k=int(rng.integers(2, 5)), losses=("squared",))
    return _fitted(sample, y_noise=10.0 ** rng.uniform(-16, -2) * rng.normal(size=12))


def strict_minimum(rng: Generator) -> Sample:
    """d = 1, the least-squares fit on (x, f), rounded: λ_min > 0."""
    return _fitted(gaussian(rng, n=12, d=1, losses=("squared",)), y_noise=np.zeros(12))


def _fitted(sample: Sample, y_noise: Array) -> Sample:
    """E[ℓ'x] ≈ 0 and E[ℓ'f] ≈ 0, by w and Vᵀw from least squares; y moved by `y_noise` afterwards."""
    d = sample.x.shape[1]
    solution = np.linalg.lstsq(np.hstack([sample.x, sample.f]), sample.y, rcond=None)[0]
    w, z = solution[:d], solution[d:]
    return replace(sample, w=w, V=np.outer(w, z) / (w @ w), y=sample.y + y_noise)


def saddle(rng: Generator) -> Sample:
    """w = 0 and V with E[ℓ'(x + Vf)] ≈ 0: ∇F ≈ 0, and λ_min = (β − √(β² + 4‖a‖²))/2 down to −1e−12."""
    sample = gaussian(rng, losses=("squared", "logistic", "pseudo_huber"))
    f = sample.f * 10.0 ** rng.uniform(-6, 0)
    w = np.zeros_like(sample.w)
    slope = {
        "squared": -sample.y,
        "logistic": -sample.y / 2.0,
        "pseudo_huber": -sample.y / np.sqrt(1.0 + sample.y**2),
    }[sample.loss]
    g, a = slope @ sample.x, slope @ f
    return replace(sample, f=f, w=w, V=-np.outer(g, a) / (a @ a))


def weighted(rng: Generator) -> Sample:
    """Probabilities from 1e−12 to 1."""
    sample = gaussian(rng)
    weights = 10.0 ** rng.uniform(-12, 0, len(sample.y))
    return replace(sample, probabilities=weights / weights.sum())


def scaled_loss(rng: Generator) -> Sample:
    """A loss times a factor."""
    return replace(gaussian(rng), scale=float(rng.choice([2.0, 0.25, 1.0 / 3.0, 1e3, 1e-5])))


BENIGN: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        gaussian,
        one_sample,
        one_input,
        one_feature,
        zero_w,
        zero_V,
        zero_point,
        duplicated_rows,
        scaled_loss,
        strict_minimum,
    )
}
"""Families of moderate numbers, for which enclosures must be narrow."""

FAMILIES: dict[str, Maker] = BENIGN | {
    maker.__name__: maker
    for maker in (
        no_inputs,
        no_features,
        cancelling_features,
        rank_deficient,
        nearly_rank_deficient,
        separable,
        silent_poisson,
        extreme_scales,
        uneven_columns,
        tiny_w,
        large_predictions,
        interpolating,
        near_minimum,
        saddle,
        weighted,
    )
}


def make(family: str, seed: int) -> Sample:
    """The problem number `seed` of one family."""
    rng = np.random.default_rng([crc32(family.encode()), seed])
    return replace(FAMILIES[family](rng), description=f"{family}, seed {seed}")


def random_sample(seed: int) -> Sample:
    """A problem of a random family."""
    return make(str(np.random.default_rng(seed).choice(list(FAMILIES))), seed)


def margin(truth: Truth, rng: Generator) -> tuple[float, float]:
    """(ε, μ2) with ‖∇F‖ or −λ_min within a relative 1e−13 to 1e−1 of its threshold, above it or below.

    Where one of them is zero, or the numbers leave float64, ε and μ2 are plain random numbers.
    """
    off = 1.0 + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-13, -1)
    plain = (10.0 ** rng.uniform(-6, 0), 10.0 ** rng.uniform(-3, 3))
    with ctx.workprec(truth.bits):
        if rng.random() < 0.5:
            epsilon = float(truth.norm.mid() * off)
            mu2 = float(truth.m.mid() ** 2 / arb(epsilon)) * 10.0 ** rng.uniform(0, 3) if epsilon else 0.0
        else:
            epsilon = float(truth.norm.mid()) * 10.0 ** rng.uniform(0, 2) or plain[0]
            mu2 = float((truth.m.mid() * off) ** 2 / arb(epsilon))
    if 1e-300 < epsilon < 1e300 and 1e-300 < mu2 < 1e300:
        return epsilon, mu2
    return plain


def to_problem(sample: Sample, **options: float | None) -> Problem:
    """The package's problem; options: epsilon, b, r, mu0, mu1, mu2 of `Problem.from_arrays`."""
    from resnet_cert.problem.losses import named_loss
    from resnet_cert.problem.problem import Problem

    return Problem.from_arrays(
        x=sample.x,
        y=sample.y,
        f=sample.f,
        w=sample.w,
        V=sample.V,
        loss=named_loss(sample.loss, sample.scale),
        probabilities=sample.probabilities,
        name=sample.description,
        **options,
    )
