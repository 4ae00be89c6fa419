"""Projected stochastic gradient descent on Ux + Zf_θ(x), for many seeds at once, against Theorem 4.

z = (U, Z) is one matrix (q, d + k), x all that the head reads.  The steps are one compiled loop
(`jax.lax.scan`).  The theorem is about the average of F(z_t, θ_t) over all steps, so F itself is evaluated at
every step, not estimated: from the second moments for the squared loss and frozen θ, else from all samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.theorem4 import (
    largest_features,
    layer_norms,
    require_enclosed,
    theorem4_constants,
    theorem4_terms,
)
from resnet_cert.decide.objective import QUICKLY
from resnet_cert.numerics.jax64 import float64_scope, jax, jnp
from resnet_cert.numerics.radius import Array, Radius
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.problem.networks import NetworkFeatures
from resnet_cert.problem.problem import GivenFeatures, Problem
from resnet_cert.results import Curve, Repeats, Sgd, ShownAsText

Integers = npt.NDArray[np.int64]

DATA_BYTES = 2**32
"""x and f are held in memory, for fresh samples are drawn from all of them; larger data are refused."""
FEW = 1000
"""Steps for which a program is not worth a long compilation."""
BLOCK_ENTRIES = 2**21
"""Iterates are kept for a block of steps: about so many numbers.  As many activations, for F, at a time."""
WORK_ENTRIES = 2**9
"""Multiplications that count as much as an entry of a block: a block takes a second or less."""
EVALUATION_WORK = 2**36
"""Multiplications that values of F may cost, a minute or less; beyond, only every s-th one is evaluated."""
CURVE_POINTS = 1000
MOST_STEPS = 10**12
"""Years of work."""
SMALLEST_RADIUS = 1e-100
"""The squares of smaller numbers underflow, and ‖(w, v)‖ with them."""
ROUNDING = 1e-12
"""Relative to its terms: an average above the bound by less is not above it."""


@dataclass(frozen=True)
class SgdRun(ShownAsText):
    """The report and, for a picture, at the steps `at` (points,), from 1:

    curve: F(z_t, θ_t) of every run (points, runs);  average: over all steps up to there, of every run.
    """

    report: Sgd
    at: Integers
    curve: Array
    average: Array

    def to_dict(self) -> dict[str, Any]:
        """The report as in the JSON document."""
        from resnet_cert.report.json import plain

        return plain(self.report)

    def save(self, path: str | Path) -> None:
        """The JSON document (.json), or the picture (.png, .svg, .pdf)."""
        from resnet_cert.problem.files import write_whole
        from resnet_cert.report import Style, formatter
        from resnet_cert.report.figures import rendered, sgd_figure

        name = str(path)
        if name.endswith(".json"):
            write_whole(name, formatter("json").sgd(self.report, Style()).encode())
        else:
            write_whole(name, rendered(sgd_figure(self), name))

    def __str__(self) -> str:
        """The text of the command `sgd`."""
        from resnet_cert.report import Style, formatter

        return formatter("text").sgd(self.report, Style()).rstrip("\n")


@float64_scope()
@small_algebra_within
def sgd(
    problem: Problem,
    steps: int,
    *,
    delta: float = 0.05,
    radius: float | None = None,
    theta: Literal["frozen", "sgd"] = "frozen",
    seed: int = 0,
    repeat: int = 1,
    watch: Callable[[int], None] = lambda step: None,
) -> SgdRun:
    """Run projected SGD for T = `steps` steps and compare it with Theorem 4.

    Args:
        radius: B of M1; None: the problem's r where it is given, else 1.01·‖argmin F_lin‖_F, or 1 where that
            is 0 or not attained.
        theta: "sgd": θ takes its own gradient step of the same size η on the same sample, projected onto
            M2 = {no layer's ‖(weight, bias)‖_F is larger than at the start}, where ‖f_θ‖ has a bound.
        seed: run i of `repeat` draws from NumPy's PCG64, seeded by child i of SeedSequence(seed).
        watch: called with the number of steps done so far.

    Raises:
        RequestError: a custom loss is not convex or has no proven bounds, l or r overflows, the data do not
            fit into memory, there is a regularizer or a constraint, θ is to move and there is none, or a
            number is out of range.
    """
    require_sound_arithmetic()
    _require_in_range(steps, delta, radius, repeat)
    if not problem.is_plain:
        raise RequestError(
            "Theorem 4 is about F itself on a ball of its own (--radius): expected a problem without "
            "regularizer and constraint; --set regularizer=null and --set constraint=null leave them out",
            id="theorem",
        )
    require_enclosed(problem.loss)
    problem = problem.with_features_held()
    network = _trainable(problem) if theta == "sgd" else None
    data = _held(problem)
    b = _default_radius(problem) if radius is None else radius
    if network is None:
        f_norm = Radius.row_norms(data.f).upper
    else:
        f_norm = largest_features(network, data.x[:, : problem.d1])
    constants = theorem4_constants(problem.loss, data.x, data.y, data.omega, f_norm, b)
    eta = constants.D / (constants.l * math.sqrt(steps)) if constants.l else 0.0
    if not math.isfinite(eta):
        raise RequestError(
            f"expected data of a size that SGD can move by: η = {b:g}/({constants.l:g}·√T) overflows",
            id="unfit-part",
        )
    F_lin_min = best_linear_predictor(problem, b, b).F_min.upper
    bound = F_lin_min + sum(theorem4_terms(constants, steps, delta))

    draws = _Draws(np.cumsum(data.probabilities), steps, seed, repeat)
    if network is None:
        cost = 0 if _is_squared(problem.loss) else problem.n * problem.q * (problem.d + problem.k)
        stride = _stride(steps * repeat * cost)
        values = _frozen(problem.loss, data, b, eta, draws, stride)
    else:
        cost = problem.n * sum(layer.weight.size for layer in network.layers)
        stride = _stride(steps * repeat * cost)
        values = _moving(problem.loss, data, network, problem.d1, b, eta, draws, stride)

    total, best, evaluated = np.zeros(repeat), np.full(repeat, np.inf), 0
    every = -(-steps // (stride * CURVE_POINTS))
    curve: list[Array] = []
    running: list[Array] = []
    for block in values:
        kept = slice(-evaluated % every, None, every)
        steps_so_far = 1.0 + np.arange(evaluated, evaluated + len(block))
        so_far = (total + np.cumsum(block, axis=0)) / steps_so_far[:, None]
        curve.append(block[kept])
        running.append(so_far[kept])
        total += block.sum(axis=0)
        best = np.minimum(best, block.min(axis=0))
        evaluated += len(block)
        watch(min(evaluated * stride, steps))
    average = total / evaluated
    if not np.isfinite(average).all():
        raise RequestError(
            f"expected a smaller radius, got {b:g}: F overflows in float64 on the way", id="unfit-part"
        )
    within = average - bound <= ROUNDING * (np.abs(average) + abs(bound))
    points, average_so_far = np.concatenate(curve), np.concatenate(running)
    at = 1 + stride * every * np.arange(len(points))
    report = Sgd(
        steps=steps,
        delta=delta,
        seed=seed,
        eta=eta,
        constants=constants,
        F_lin_min=F_lin_min,
        average_objective=float(average[0]),
        best_objective=float(best[0]),
        bound=bound,
        holds=bool(within[0]) if evaluated == steps else None,
        theta=theta,
        evaluated=evaluated,
        name=problem.name,
        outputs=problem.q,
        repeats=_repeats(within, delta, complete=evaluated == steps) if repeat > 1 else None,
        curve=Curve(
            tuple(int(t) for t in at),
            tuple(map(float, points[:, 0])),
            tuple(map(float, average_so_far[:, 0])),
        ),
    )
    return SgdRun(report, at, points, average_so_far)


def _repeats(within: npt.NDArray[np.bool_], delta: float, *, complete: bool) -> Repeats:
    """Theorem 4 is about the average over all steps: of a part of them nothing is counted."""
    return Repeats(len(within), float(np.mean(within)) if complete else None, 1.0 - delta)


def _require_in_range(steps: int, delta: float, radius: float | None, repeat: int) -> None:
    wanted = (
        (1 <= steps <= MOST_STEPS, f"an integer from 1 to {MOST_STEPS} for steps", steps),
        (0.0 < delta < 1.0, "a number between 0 and 1 for delta", delta),
        (
            radius is None or SMALLEST_RADIUS <= radius < math.inf,
            f"a finite number >= {SMALLEST_RADIUS:g} for radius",
            radius,
        ),
        (repeat >= 1, "an integer >= 1 for repeat", repeat),
    )
    faults = [Diagnostic(f"expected {what}, got {value!r}") for good, what, value in wanted if not good]
    if faults:
        raise RequestError(faults)


@dataclass(frozen=True)
class _Data:
    """All samples: x (n, d), y (n, q), f (n, k), omega (n, q) or None, and probabilities (n,) of sum 1."""

    x: Array
    y: Array
    f: Array
    omega: Array | None
    probabilities: Array


def _held(problem: Problem) -> _Data:
    size = problem.n * (problem.d + problem.k) * 8
    if size > DATA_BYTES:
        raise RequestError(
            f"expected at most {DATA_BYTES >> 20} MiB of x and f for sgd, got {size >> 20} MiB",
            id="unfit-part",
        )
    chunks = list(problem.chunks())
    weight = np.concatenate([chunk.weights for chunk in chunks])
    x, y, f = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("x", "y", "f"))
    omega = None
    if problem.distribution.omega is not None:
        omega = np.concatenate([chunk.omega for chunk in chunks if chunk.omega is not None])
    return _Data(x, y, f, omega, weight / np.sum(weight))


def _default_radius(problem: Problem) -> float:
    if problem.domain.r is not None:
        return problem.domain.r
    return best_linear_predictor(problem, None, 1.0).r or 1.0


def _stride(work: int) -> int:
    return max(1, -(-work // EVALUATION_WORK))


@dataclass(frozen=True)
class _Draws:
    """The samples of all steps and runs, drawn with replacement.

    By the inverse of the distribution function, one number a draw, so that they do not depend on the blocks.
    """

    cumulated: Array
    steps: int
    seed: int
    repeat: int

    def blocks(self, size: int) -> Iterator[tuple[Integers, int]]:
        """(size, repeat) at a time, and how many steps of them count: the last block is filled up."""
        rngs = [
            np.random.default_rng(child) for child in np.random.SeedSequence(self.seed).spawn(self.repeat)
        ]
        for start in range(0, self.steps, size):
            uniform = np.stack([rng.random(size) for rng in rngs], axis=1)
            picks = np.searchsorted(self.cumulated, uniform * self.cumulated[-1], side="right")
            yield np.minimum(picks, len(self.cumulated) - 1), min(size, self.steps - start)

    def block_steps(self, entries: int, stride: int) -> int:
        """Steps of a block, a multiple of the stride, where a step of a run takes so many entries."""
        wanted = BLOCK_ENTRIES // (entries * self.repeat * stride)
        return max(1, min(wanted, -(-self.steps // stride))) * stride


# θ frozen: the model is linear in z, with the features g = (x, f)


def _frozen(loss: Loss, data: _Data, b: float, eta: float, draws: _Draws, stride: int) -> Iterator[Array]:
    """F(z_t) at every stride-th step, (·, repeat) at a time."""
    g = np.hstack([data.x, data.f])
    run, objective = _frozen_steps(loss, draws.steps <= FEW), _objective(loss, g, data)
    z: Any = np.zeros((draws.repeat, data.y.shape[1], g.shape[1]))
    for picks, count in draws.blocks(draws.block_steps(z[0].size, stride)):
        z, trajectory = run(z, picks, g, data.y, data.omega, eta, b)
        yield objective(np.asarray(trajectory)[:count:stride])


@lru_cache(maxsize=8)
def _frozen_steps(loss: Loss, quickly: bool) -> Any:
    """z (repeat, q, m), picks (steps, repeat) ↦ the next z, and every z_t before its step (steps, repeat, q,
    m)."""
    slope = jax.grad(lambda p, y, omega: loss.value(p, y, omega).sum())

    def run(z: Any, picks: Any, g: Any, y: Any, omega: Any, eta: Any, b: Any) -> Any:
        def step(z: Any, i: Any) -> Any:
            rows = g[i]
            p = (rows[:, None, :] * z).sum(axis=2)
            by = eta * slope(p, y[i], None if omega is None else omega[i])
            moved = z - by[:, :, None] * rows[:, None, :]
            length = jnp.sqrt((moved * moved).sum(axis=(1, 2), keepdims=True))
            return jnp.where(length > b, moved * (b / jnp.where(length > b, length, 1.0)), moved), z

        return jax.lax.scan(step, z, picks)

    return jax.jit(run, compiler_options=QUICKLY if quickly else None)


def _objective(loss: Loss, g: Array, data: _Data) -> Callable[[Array], Array]:
    """F at many z (..., q, m), for features g (n, m)."""
    if _is_squared(loss):
        # F(z) = ½ Σ π‖zg − y‖² = ½‖zRᵀ − Q‖² with (R, Q) the triangular factor of √π(g, y): qm² products a
        # value, and none of them cancel.
        weighted = np.sqrt(data.probabilities)[:, None] * np.c_[g, data.y]
        R, Q = np.hsplit(np.asarray(np.linalg.qr(weighted, mode="r")), [g.shape[1]])
        scale = 0.5 * loss.scale

        def squared(z: Array) -> Array:
            return scale * np.sum((z @ R.T - Q.T) ** 2, axis=(-2, -1))

        return squared

    rows = max(1, BLOCK_ENTRIES // data.y.size)
    mean = _mean_loss(loss)

    def sampled(z: Array) -> Array:
        flat = z.reshape(-1, *z.shape[-2:])
        parts = []
        for start in range(0, len(flat), rows):
            part = flat[start : start + rows]
            filled = np.pad(part, ((0, rows - len(part)), (0, 0), (0, 0)))
            parts.append(np.asarray(mean(filled, g, data.y, data.omega, data.probabilities))[: len(part)])
        return np.concatenate(parts).reshape(z.shape[:-2])

    return sampled


@lru_cache(maxsize=8)
def _mean_loss(loss: Loss) -> Any:
    def mean(z: Any, g: Any, y: Any, omega: Any, probabilities: Any) -> Any:
        return jax.vmap(lambda z: loss.value(g @ z.T, y, omega) @ probabilities)(z)

    return jax.jit(mean)


def _is_squared(loss: Loss) -> TypeGuard[BuiltinLoss]:
    return isinstance(loss, BuiltinLoss) and loss.kind == "squared"


# θ moving


def _trainable(problem: Problem) -> NetworkFeatures:
    network = problem.features.network if isinstance(problem.features, GivenFeatures) else problem.features
    if not isinstance(network, NetworkFeatures):
        raise RequestError(
            "expected a network with parameters, of kind mlp or linear, for θ to move", id="unfit-part"
        )
    return network


def _moving(
    loss: Loss,
    data: _Data,
    network: NetworkFeatures,
    d1: int,
    b: float,
    eta: float,
    draws: _Draws,
    stride: int,
) -> Iterator[Array]:
    """F(z_t, θ_t) at every stride-th step, (·, repeat) at a time."""
    run = _moving_steps(loss, network.forward, d1, draws.steps <= FEW)
    n, parameters = len(data.y), sum(layer.weight.size for layer in network.layers)
    together = max(1, BLOCK_ENTRIES // (n * max(len(layer.weight) for layer in network.layers)))
    states = [
        _start(network, data, min(together, draws.repeat - first))
        for first in range(0, draws.repeat, together)
    ]
    for picks, count in draws.blocks(draws.block_steps(16 + n * parameters // WORK_ENTRIES, stride)):
        groups = picks.T.reshape(draws.repeat, -1, stride)
        values = []
        for i, state in enumerate(states):
            some = groups[i * together : (i + 1) * together]
            rows = (data.x, data.y, data.omega, data.probabilities)
            states[i], F = run(state, some, *rows, eta, b, layer_norms(network))
            values.append(np.asarray(F).T[: -(-count // stride)])
        yield np.concatenate(values, axis=1)


def _start(network: NetworkFeatures, data: _Data, runs: int) -> Any:
    """z_1 = 0 and θ_1 of some runs."""
    z = np.zeros((runs, data.y.shape[1], data.x.shape[1] + data.f.shape[1]))
    return z, jax.tree.map(lambda a: np.repeat(a[None], runs, axis=0), network.theta)


@lru_cache(maxsize=8)
def _moving_steps(loss: Loss, forward: Callable[[Any, Any], Any], d1: int, quickly: bool) -> Any:
    """(z, θ), picks (repeat, groups, stride) ↦ the next (z, θ), and F before every group (repeat, groups)."""

    def losses(state: Any, x: Any, y: Any, omega: Any) -> Any:
        z, theta = state
        d = x.shape[1]
        return loss.value(x @ z[:, :d].T + forward(theta, x[:, :d1]) @ z[:, d:].T, y, omega)

    def run(
        state: Any, picks: Any, x: Any, y: Any, omega: Any, pi: Any, eta: Any, b: Any, limits: Sequence[Any]
    ) -> Any:
        def step(state: Any, i: Any) -> Any:
            weights = None if omega is None else omega[i][None]
            slopes = jax.grad(lambda state: losses(state, x[i][None], y[i][None], weights).sum())(state)
            z, theta = jax.tree.map(lambda a, slope: a - eta * slope, state, slopes)
            layers = [_within(layer, limit) for layer, limit in zip(theta, limits, strict=True)]
            return (_within(z, b), layers), None

        def group(state: Any, picks: Any) -> Any:
            F = losses(state, x, y, omega) @ pi
            return jax.lax.scan(step, state, picks)[0], F

        return jax.lax.scan(group, state, picks)

    together = jax.vmap(run, in_axes=(0, 0, None, None, None, None, None, None, None))
    return jax.jit(together, compiler_options=QUICKLY if quickly else None)


def _within(part: Any, limit: Any) -> Any:
    """The projection of some arrays together onto the ball ‖·‖ ≤ limit."""
    length = jnp.sqrt(sum((a * a).sum() for a in jax.tree.leaves(part)))
    factor = jnp.where(length > limit, limit / length, 1.0)
    return jax.tree.map(lambda a: a * factor, part)
