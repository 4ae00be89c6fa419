"""Random landscapes on planes of (W, V), and what is on them by a reference of its own: extended precision,
every loss written out again, Newton's method from a grid and a scan of the rim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_cert import Problem
from resnet_cert.search.landscape import Landscape, landscape

LOSSES = ("squared", "logistic", "pseudo_huber", "poisson", "softmax")
GRID = 33
ANGLES = 1441
NEWTON_STEPS = 60
Array = np.ndarray[Any, Any]


def random_plane(seed: int) -> Problem:
    """Up to three inputs, features and outputs; decay, a ball that may touch, or both."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[seed % len(LOSSES)]
    q = 3 if loss == "softmax" else int(rng.choice([1, 2, 3]))
    d, k, n = (int(rng.integers(low, high)) for low, high in ((1, 4), (1, 4), (1, 11)))
    held = rng.integers(3)
    options: dict[str, Any] = {}
    W, V = rng.normal(size=(q, d)), rng.normal(size=(d, k))
    size = math.sqrt(float(np.sum(W**2) + np.sum(V**2)))
    if q == 1 or held:
        options["norm"] = size * float(rng.choice([1.0, rng.uniform(1.0, 2.0)]))
    if held != 1:
        options["l2"] = float(10.0 ** rng.uniform(-10.0, 0.0))
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, k)), 2.0 * rng.normal(size=(n, q))
    if loss == "softmax":
        y = np.eye(q)[rng.integers(q, size=n)]
    elif loss == "logistic":
        y = np.sign(y) if q == 1 else (y > 0.0).astype(float)
    elif loss == "poisson":
        y = np.abs(y)
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss=loss, **options)


@dataclass(frozen=True)
class Reference:
    """G on a plane in extended precision: coefficients (n, q, 6) of 1, s, t, s², st, t²."""

    loss: str
    coefficients: Array
    y: Array
    weight: Array
    size: Array
    l2: float

    def derivatives(self, at: Array) -> tuple[Array, Array, Array]:
        """G (m,), its gradient (m, 2) and Hessian (m, 2, 2) at points (m, 2)."""
        s, t = at.astype(np.longdouble).T
        zero, one = np.zeros_like(s), np.ones_like(s)
        phi = np.stack([one, s, t, s * s, s * t, t * t])
        moved = np.stack([[zero, one, zero, 2 * s, t, zero], [zero, zero, one, zero, s, 2 * t]])
        bent = np.zeros((2, 2, 6), dtype=np.longdouble)
        bent[0, 0, 3] = bent[1, 1, 5] = 2.0
        bent[0, 1, 4] = bent[1, 0, 4] = 1.0
        C = self.coefficients
        p, p1, p2 = C @ phi, np.einsum("nqc,jcm->jnqm", C, moved), np.einsum("nqc,jlc->jlnq", C, bent)
        value, first = self.losses(p)
        along = np.stack([self.curved(p, p1[j]) for j in (0, 1)])
        mean = self.weight / self.weight.sum()
        G = np.einsum("n,nm->m", mean, value) + self.l2 * (self.size @ phi)
        g = np.einsum("n,nqm,jnqm->mj", mean, first, p1)
        g = g + self.l2 * np.einsum("c,jcm->mj", self.size, moved)
        H = np.einsum("n,jnqm,lnqm->mjl", mean, along, p1) + np.einsum("n,nqm,jlnq->mjl", mean, first, p2)
        return G, g, H + self.l2 * np.einsum("c,jlc->jl", self.size, bent)

    def losses(self, p: Array) -> tuple[Array, Array]:
        """ℓ (n, m) and ∇ℓ (n, q, m)."""
        y = self.y[:, :, None]
        if self.loss == "softmax":
            top = p.max(axis=1, keepdims=True)
            e = np.exp(p - top)
            total = e.sum(axis=1, keepdims=True)
            return (np.log(total) + top)[:, 0] - (y * p).sum(axis=1), e / total - y
        if self.loss == "squared":
            return (0.5 * (p - y) ** 2).sum(axis=1), p - y
        if self.loss == "logistic":
            slope = (1 - y) * _sigmoid(p) - y * _sigmoid(-p)  # σ(p) − y without a cancellation
            return (np.maximum(p, 0) + np.log1p(np.exp(-np.abs(p))) - y * p).sum(axis=1), slope
        if self.loss == "pseudo_huber":
            r = np.hypot(1.0, p - y)
            return (r - 1).sum(axis=1), (p - y) / r
        return (np.exp(p) - y * p).sum(axis=1), np.exp(p) - y

    def curved(self, p: Array, moved: Array) -> Array:
        """∇²ℓ applied to (n, q, m)."""
        if self.loss == "softmax":
            e = np.exp(p - p.max(axis=1, keepdims=True))
            s = e / e.sum(axis=1, keepdims=True)
            return s * (moved - (s * moved).sum(axis=1, keepdims=True))
        if self.loss == "squared":
            return moved
        if self.loss == "logistic":
            return _sigmoid(p) * _sigmoid(-p) * moved
        if self.loss == "pseudo_huber":
            return moved / np.hypot(1.0, p - self.y[:, :, None]) ** 3
        return np.exp(p) * moved


def _sigmoid(p: Array) -> Array:
    e = np.exp(-np.abs(p))
    return np.where(p >= 0, 1 / (1 + e), e / (1 + e))


def reference(problem: Problem, found: Landscape) -> Reference:
    """That of the plane of a landscape."""
    plane = found.plane
    parts = [
        (plane.origin.head, plane.origin.V),
        (plane.first.dW, plane.first.dV),
        (plane.second.dW, plane.second.dV),
    ]
    parts = [(W.astype(np.longdouble), V.astype(np.longdouble)) for W, V in parts]
    chunk = problem.chunk(slice(0, problem.n))
    x, f, d1 = chunk.x.astype(np.longdouble), chunk.f.astype(np.longdouble), problem.d1

    def six(term: Any, second: Any) -> Array:
        """Of 1, s, t, s², st, t², for what is linear in one part and bilinear in two."""
        a = [term(i) + second(0, i) + (second(i, 0) if i else 0.0) for i in range(3)]
        return np.stack([*a, second(1, 1), second(1, 2) + second(2, 1), second(2, 2)], axis=-1)

    p = six(lambda i: x @ parts[i][0].T, lambda i, j: (f @ parts[j][1].T) @ parts[i][0][:, :d1].T)
    held = [np.concatenate([(W * problem.decayed).ravel(), V.ravel()]) for W, V in parts]
    size = six(lambda i: np.longdouble(0.0), lambda i, j: held[i] @ held[j])
    return Reference(problem.loss.name, p, chunk.y, chunk.weights, size, problem.objective.l2)


def _newton(G: Reference, at: Array) -> Array:
    """Where Newton's method comes to rest."""
    at = at.astype(np.longdouble)
    step = np.zeros_like(at)
    for _ in range(NEWTON_STEPS):
        _, g, H = G.derivatives(at)
        det = H[:, 0, 0] * H[:, 1, 1] - H[:, 0, 1] ** 2
        step = np.stack(
            [H[:, 1, 1] * g[:, 0] - H[:, 0, 1] * g[:, 1], H[:, 0, 0] * g[:, 1] - H[:, 0, 1] * g[:, 0]], axis=1
        )
        step = step / det[:, None]
        at = at - step
    keep = np.isfinite(at).all(axis=1) & (np.abs(step) <= 1e-14 * (1.0 + np.abs(at))).all(axis=1)
    return at[keep]


def _distinct(at: Array, tolerance: float = 1e-8) -> list[Array]:
    kept: list[Array] = []
    for one in at:
        if not any(np.abs(one - other).max() <= tolerance * (1.0 + np.abs(one).max()) for other in kept):
            kept.append(one)
    return kept


def interior(problem: Problem, found: Landscape, G: Reference) -> list[Array]:
    """Critical points in the range and on the ball."""
    s0, s1, t0, t1 = found.range
    s, t = np.linspace(s0, s1, GRID), np.linspace(t0, t1, GRID)
    ends = _distinct(_newton(G, np.stack(np.meshgrid(s, t), axis=-1).reshape(-1, 2)))
    ends = [at for at in ends if s0 <= at[0] <= s1 and t0 <= at[1] <= t1]
    norm = problem.objective.norm
    return [at for at in ends if norm is None or norm_squared(G, at) < norm**2 * (1.0 - 1e-12)]


def norm_squared(G: Reference, at: Array) -> float:
    s, t = at
    return float(G.size @ np.array([1, s, t, s * s, s * t, t * t], dtype=np.longdouble))


def rim(found: Landscape, G: Reference) -> list[tuple[Array, float]]:
    """Points where G along the circle is stationary and falls outwards; its curvature along the circle."""
    radius = found.plane.radius
    if not radius:
        return []
    center = np.array(found.plane.center, dtype=np.longdouble)

    def place(angle: Array) -> Array:
        return center + np.longdouble(radius) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    def slope(angle: Array) -> Array:
        g = G.derivatives(place(angle))[1]
        return -g[:, 0] * np.sin(angle) + g[:, 1] * np.cos(angle)

    angles = np.linspace(0.0, 2.0 * math.pi, ANGLES, dtype=np.longdouble) + np.longdouble(0.0123)
    values = slope(angles)
    index = np.flatnonzero(values[:-1] * values[1:] < 0.0)
    low, high, sign = angles[index], angles[index + 1], np.sign(values[index])
    for _ in range(70):
        middle = (low + high) / 2
        same = np.sign(slope(middle)) == sign
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    ends = []
    for angle, rises in zip((low + high) / 2, sign < 0, strict=True):
        at = place(angle[None])[0]
        outward = float(G.derivatives(at[None])[1][0] @ (at - center))
        if outward < 0.0:
            ends.append((at, 1.0 if rises else -1.0))
    return ends


def faults(problem: Problem) -> tuple[list[str], bool]:
    """What a landscape on a plane misses, invents or calls by a wrong name, and whether all is decided."""
    found = landscape(problem)
    with np.errstate(all="ignore"):
        G = reference(problem, found)
        inner, outer = interior(problem, found, G), rim(found, G)
    wrong = []
    norm = problem.objective.norm
    listed = [(np.array(point.at, dtype=np.longdouble), point) for point in found.critical_points if point.at]

    def near(at: Array, other: Array) -> bool:
        return bool(np.abs(at - other).max() <= 1e-6 * (1.0 + np.abs(at).max()))

    def is_open(at: Array) -> bool:
        return any(
            box.s[0] - 1e-9 <= at[0] <= box.s[1] + 1e-9 and box.t[0] - 1e-9 <= at[1] <= box.t[1] + 1e-9
            for box in found.undecided
        )

    lowest = [part.value.value for part in found.critical_sets if part.kind == "minimum"]

    def is_on_curve(at: Array) -> bool:
        """Of global minima: known by their value."""
        value = float(G.derivatives(at[None])[0][0])
        return any(abs(value - least) <= 1e-12 * (1.0 + abs(least)) for least in lowest)

    for at in inner:
        if not (any(near(at, other) for other, _ in listed) or is_open(at) or is_on_curve(at)):
            wrong.append(f"missed {at}")
    for at, _ in outer:
        there = any(near(at, other) and point.on_rim for other, point in listed)
        if not (there or is_open(at) or is_on_curve(at)):
            wrong.append(f"missed on the rim {at}")
    for at, point in listed:
        _, g, H = (part[0] for part in G.derivatives(at[None]))
        scale = 1.0 + float(np.abs(H).max()) * (1.0 + float(np.abs(at).max()))
        if point.on_rim and not point.touching:
            there = [bent for other, bent in outer if near(at, other)]
            if not there:
                wrong.append(f"invented on the rim {at}")
            elif (there[0] > 0.0) != (point.kind == "minimum"):
                wrong.append(f"kind {point.kind} on the rim {at}")
            continue
        low, high = np.linalg.eigvalsh(H.astype(float))
        kind = "minimum" if low > 0.0 else "maximum" if high < 0.0 else "saddle"
        if float(np.abs(g).max()) > 1e-9 * scale:
            wrong.append(f"invented {at}")
        elif kind != point.kind and min(abs(low), abs(high)) > 1e-9 * scale:
            wrong.append(f"kind {point.kind}, not {kind}, {at}")
        if norm is not None and norm_squared(G, at) > norm**2 * (1.0 + 1e-9):
            wrong.append(f"outside {at}")
    return wrong, found.complete
