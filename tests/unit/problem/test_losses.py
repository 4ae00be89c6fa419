"""Losses against their definitions in 300 bits: derivatives, suprema, infima, directions of recession."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from flint import arb, ctx

from resnet_cert import RequestError
from resnet_cert.numerics.radius import NOTHING, Radius
from resnet_cert.problem import losses
from resnet_cert.problem.losses import LOSSES, BuiltinLoss, named_loss
from resnet_cert.problem.problem import Distribution
from resnet_cert.problem.targets import with_loss

Array = np.ndarray
KINDS = list(LOSSES)
SCALES = (1e-12, 1e-3, 1.0, 30.0)


def draw(kind: str, rng: np.random.Generator, m: int, q: int) -> tuple[Array, Array, Array | None]:
    """Predictions, targets and weights (m, q)."""
    p = rng.normal(size=(m, q)) * rng.choice(SCALES)
    if kind == "softmax":
        sure = np.eye(q)[rng.integers(0, q, m)]
        y = sure if rng.random() < 0.5 else rng.dirichlet(np.ones(q), size=m)
    elif kind == "logistic":
        y = rng.random((m, q)) if rng.random() < 0.5 else rng.integers(0, 2, (m, q)).astype(float)
    elif kind == "poisson":
        y = rng.poisson(2.0, (m, q)).astype(float)
    else:
        y = rng.normal(size=(m, q)) * rng.choice(SCALES)
    return p, y, rng.random((m, q)) if kind == "weighted_squared" else None


def truth(loss: BuiltinLoss, p: list[arb], y: Array, omega: Array | None) -> tuple[arb, list[arb], Any]:
    """ℓ, ∇ℓ, ∇²ℓ by automatic differentiation of the definition, with mpmath at 60 digits."""
    with mpmath.workdps(60):
        point = [mpmath.mpf(x.mid().str(60, radius=False)) for x in p]

        def scalar(*z: Any) -> Any:
            each: list[Any]
            if loss.kind == "softmax":
                lse = mpmath.log(mpmath.fsum(mpmath.exp(z_j) for z_j in z))
                each = [mpmath.mpf(float(t)) * (lse - z_j) for t, z_j in zip(y, z, strict=True)]
            else:
                one: dict[str, Any] = {
                    "squared": lambda z, t: (z - t) ** 2 / 2,
                    "weighted_squared": lambda z, t: (z - t) ** 2 / 2,
                    "logistic": lambda z, t: mpmath.log(1 + mpmath.exp(z)) - t * z,
                    "pseudo_huber": lambda z, t: mpmath.sqrt(1 + (z - t) ** 2) - 1,
                    "poisson": lambda z, t: mpmath.exp(z) - t * z,
                }
                weights = np.ones(len(y)) if omega is None else omega
                each = [
                    mpmath.mpf(float(w)) * one[loss.kind](z_j, mpmath.mpf(float(t)))
                    for w, t, z_j in zip(weights, y, z, strict=True)
                ]
            return mpmath.mpf(loss.scale) * mpmath.fsum(each)

        def partial(*orders: int) -> Any:
            return mpmath.diff(scalar, tuple(point), tuple(orders)) if sum(orders) else scalar(*point)

        q, unit = len(point), np.eye(len(point), dtype=int)
        first = [partial(*map(int, unit[i])) for i in range(q)]
        second = [[partial(*map(int, unit[i] + unit[j])) for j in range(q)] for i in range(q)]
        return partial(*([0] * q)), first, second


@pytest.mark.parametrize("kind", KINDS)
def test_balls_are_the_definition_and_its_derivatives(kind: str):
    rng = np.random.default_rng(3)
    for _ in range(6):
        q = int(rng.integers(1, 4))
        p, y, omega = draw(kind, rng, 1, q)
        loss = BuiltinLoss(kind, float(rng.choice([1.0, 0.3])))
        with ctx.workprec(300):
            point = [arb(float(x)) for x in p[0]]
            weights = None if omega is None else [arb(float(w)) for w in omega[0]]
            ours = loss.ball(point, [arb(float(t)) for t in y[0]], weights, arb)
            value, first, second = truth(loss, point, y[0], None if omega is None else omega[0])
            pairs = [(ours.value, value), *zip(ours.first, first, strict=True)]
            pairs += [(ours.second[i][j], second[i][j]) for i in range(q) for j in range(q)]
            for got, expected in pairs:
                assert mpmath.almosteq(mpmath.mpf(got.mid().str(40, radius=False)), expected, 1e-12, 1e-12)


def misses(kind: str, seed: int, count: int) -> dict[str, float]:
    """The largest ratio of an error to its bound, over random predictions known to within an error."""
    rng = np.random.default_rng(seed)
    worst = {"value": 0.0, "first": 0.0, "second": 0.0}
    for _ in range(count):
        m, q = 3, int(rng.integers(1, 5))
        p, y, omega = draw(kind, rng, m, q)
        delta = rng.normal(size=(m, q)) * 10.0 ** rng.integers(-17, 1)
        error = Radius.of(np.linalg.norm(delta, axis=1) * (1.0 + 1e-12))
        if rng.random() < 0.3:
            delta, error = np.zeros((m, q)), NOTHING
        loss = BuiltinLoss(kind, float(rng.choice([1.0, 0.3])))
        at = loss.derivatives(p, error, y, omega)
        for i in range(m):
            with ctx.workprec(300):
                point = [arb(float(a)) + arb(float(b)) for a, b in zip(p[i], delta[i], strict=True)]
                weights = None if omega is None else [arb(float(w)) for w in omega[i]]
                exact = loss.ball(point, [arb(float(t)) for t in y[i]], weights, arb)
                S = at.second[i] * np.eye(q) if at.second.ndim == 1 else at.second[i]
                S = np.diag(S) if S.ndim == 1 else S
                off = np.array(
                    [[float(exact.second[a][b] - arb(S[a, b])) for b in range(q)] for a in range(q)]
                )
                errors = {
                    "value": abs(float(exact.value - arb(float(at.value[i])))),
                    "first": float(
                        np.linalg.norm([float(exact.first[j] - arb(at.first[i, j])) for j in range(q)])
                    ),
                    "second": float(np.linalg.norm(off, 2)),
                }
            for name, found in errors.items():
                bound = float(np.broadcast_to(getattr(at, f"{name}_error").upper, m)[i])
                if found > 1e-300:
                    worst[name] = max(worst[name], found / bound if bound else np.inf)
            assert np.linalg.norm(np.abs(S), 2) <= np.broadcast_to(at.second_size.upper, m)[i] * (1 + 1e-15)
    return worst


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_within_its_bound(kind: str):
    assert max(misses(kind, 1, 120).values()) <= 1.0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "squared" not in kind])
def test_without_margins_some_are_not(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "ELEMENTARY", 0.0)
    monkeypatch.setattr(losses, "U", 0.0)
    monkeypatch.setattr(losses, "gamma", lambda k: 0.0)
    assert max(misses(kind, 1, 120).values()) > 1.0


def first_misses(kind: str, seed: int, count: int, q: int) -> float:
    """The same of ℓ and ∇ℓ alone, for rows of which some may have one class and others not."""
    rng, m, worst = np.random.default_rng(seed), 4, 0.0
    for _ in range(count):
        p, y, omega = draw(kind, rng, m, q)
        if rng.random() < 0.3 and kind != "poisson":
            p *= 20.0  # some slopes vanish beside others, or are no floats
        other = draw(kind, rng, m, q)[1]
        y = np.where(rng.random((m, 1)) < 0.5, other, y)
        if rng.random() < 0.2:
            p = np.broadcast_to(p[:1, :1], (m, q))
        delta = rng.normal(size=(m, q)) * 10.0 ** rng.integers(-17, 1)
        error = Radius.of(np.linalg.norm(delta, axis=1) * (1.0 + 1e-12))
        if rng.random() < 0.3:
            delta, error = np.zeros((m, q)), NOTHING
        loss = BuiltinLoss(kind, float(rng.choice([1.0, 0.3])))
        at = loss.first_derivatives(p, error, y, omega)
        for i in range(m):
            with ctx.workprec(300):
                point = [arb(float(a)) + arb(float(b)) for a, b in zip(p[i], delta[i], strict=True)]
                weights = None if omega is None else [arb(float(w)) for w in omega[i]]
                exact = loss.ball(point, [arb(float(t)) for t in y[i]], weights, arb)
                slope = [float(exact.first[j] - arb(at.first[i, j])) for j in range(q)]
                value = abs(float(exact.value - arb(float(at.value[i]))))
            for found, error_at in ((value, at.value_error), (np.linalg.norm(slope), at.first_error)):
                bound = float(np.broadcast_to(error_at.upper, m)[i])
                if found > 1e-300:
                    worst = max(worst, float(found) / bound if bound else np.inf)
            if at.first_size is not None:
                assert np.broadcast_to(at.first_size.upper, m)[i] >= np.linalg.norm(at.first[i]) * (
                    1.0 - 1e-15
                )
    return worst


@pytest.mark.parametrize("q", [1, 2, 5, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_slopes_alone_are_within_their_bounds(kind: str, q: int):
    worst = first_misses(kind, 2, 20 if q < 40 else 4, q)
    assert worst <= 1.0
    assert worst > 1e-6 or (kind, q) == ("softmax", 1)  # which is 0


@pytest.mark.parametrize("kind", ["squared", "logistic"])
def test_slopes_alone_of_several_outputs_need_their_margins(kind: str, monkeypatch: pytest.MonkeyPatch):
    for name, nothing in (("ELEMENTARY", 0.0), ("U", 0.0), ("gamma", lambda k: 0.0)):
        monkeypatch.setattr(losses, name, nothing)
    assert first_misses(kind, 2, 60, 3) > 1.0


@pytest.mark.parametrize("q", [511, 513, 1100])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_logarithms_of_products_are_sums_of_logarithms(q: int, scale: float):
    rng = np.random.default_rng(11)
    p, y = rng.normal(size=(3, q)) * scale, rng.integers(0, 2, (3, q)).astype(float)
    y[0] = p[0] > 0.0  # ℓ is as small as it can be
    at = named_loss("logistic").first_derivatives(p, NOTHING, y)
    for i in range(3):
        with ctx.workprec(200):
            exact = arb(0)
            for p_j, y_j in zip(p[i].tolist(), y[i].tolist(), strict=True):
                exact += (-arb(p_j if y_j else -p_j)).exp().log1p()
            assert abs(float(exact - arb(float(at.value[i])))) <= at.value_error.upper[i]
            assert at.value_error.upper[i] <= 1e-12 * at.value[i]


@pytest.mark.parametrize("kind", ["softmax", "squared", "logistic"])
def test_no_row_of_slopes_depends_on_another(kind: str):
    rng, m, q = np.random.default_rng(12), 40, 30
    p, y = rng.normal(size=(m, q)), rng.dirichlet(np.ones(q), size=m)
    y[::3] = np.eye(q)[rng.integers(0, q, len(y[::3]))]
    error, loss = Radius.of(rng.random(m) * 1e-9), named_loss(kind)
    at = loss.first_derivatives(p, error, y)
    for i in range(m):
        one = loss.first_derivatives(p[i : i + 1], error[i : i + 1], y[i : i + 1])
        assert np.array_equal(at.first[i], one.first[0])
        assert at.value[i] == one.value[0]
        assert at.first_error.upper[i] == one.first_error.upper[0]
        assert at.value_error.upper[i] == one.value_error.upper[0]


@pytest.mark.parametrize("kind", KINDS)
def test_suprema_are_never_exceeded_and_nearly_reached(kind: str):
    rng = np.random.default_rng(5)
    loss, closest, m = named_loss(kind, 0.7), 0.0, 11
    for _ in range(30):
        q = int(rng.integers(1, 4))
        p, y, omega = draw(kind, rng, 1, q)
        reach = float(rng.choice(SCALES)) * abs(rng.normal())
        y, omega = np.repeat(y, m, axis=0), None if omega is None else np.repeat(omega, m, axis=0)
        bounds = loss.suprema(Radius.of(np.full(m, reach)), y, omega)
        points = p / np.linalg.norm(p) * (reach * np.append(rng.random(m - 1), 1.0)[:, None])
        at = loss.derivatives(points, NOTHING, y, omega)
        first = np.linalg.norm(at.first, axis=1) - at.first_error.upper
        S = at.second.reshape(m, -1)
        second = np.linalg.norm(at.second, 2, axis=(1, 2)) if at.second.ndim == 3 else np.abs(S).max(axis=1)
        assert (first <= bounds.first.upper * (1 + 1e-12)).all()
        assert (second <= bounds.second.upper * (1 + 1e-12)).all()
        closest = max(closest, float(np.max(first / bounds.first.upper)))
        v = rng.normal(size=(m, q))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        step = 1e-4 * max(1.0, reach)
        ahead, behind = (loss.derivatives(points + s * v, NOTHING, y, omega).second for s in (step, -step))
        change = (ahead - behind) / (2 * step)
        along = v**3 if change.ndim == 2 else v[:, :, None] * v[:, None, :]
        bend = (change * along).reshape(m, -1).sum(axis=1) if change.ndim > 1 else change
        room = loss.suprema(Radius.of(np.full(m, reach + 2 * step)), y, omega).third
        assert (np.abs(bend) <= room.upper * (1 + 1e-6) + 1e-7).all()
    assert closest > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_is_below_the_infimum(kind: str):
    rng = np.random.default_rng(7)
    loss = named_loss(kind)
    for _ in range(200):
        q = int(rng.integers(1, 4))
        p, y, omega = draw(kind, rng, 1, q)
        if kind == "poisson":  # at the minimiser of each output
            p = np.where(y > 0.0, np.log(np.maximum(y, 1e-300)), -700.0)
        if kind == "softmax" and rng.random() < 0.5:
            p = np.log(np.maximum(y, 1e-300))
        value = loss.derivatives(p, NOTHING, y, omega).value[0]
        assert loss.infimum(y, omega)[0] <= value
        assert not loss.nonnegative or loss.infimum(y, omega)[0] >= 0.0


def test_recession_says_where_a_loss_stays_bounded():
    rng = np.random.default_rng(9)
    for kind, y in (
        ("logistic", np.array([[1.0, 0.0, 0.5]])),
        ("poisson", np.array([[0.0, 2.0, 0.0]])),
        ("softmax", np.array([[0.0, 1.0, 0.0]])),
        ("softmax", np.array([[0.5, 0.5, 0.0]])),
    ):
        loss = named_loss(kind)
        rays = loss.recession(y)
        assert rays is not None
        for _ in range(100):
            u = rng.integers(-1, 2, size=3).astype(float)
            near, far = (loss.derivatives(t * u[None], NOTHING, y, None).value[0] for t in (300.0, 600.0))
            allowed = bool((rays.helping.vector @ u >= 0).all() and not (rays.fixed.vector @ u).any())
            assert allowed == (far <= near * (1 + 1e-12) + 1e-12), (kind, u)
    assert named_loss("squared").recession(np.zeros((1, 2))) is None


def test_labels_become_rows_and_signs_probabilities():
    assert named_loss("softmax").targets(np.array([2.0, 0.0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert named_loss("softmax").targets(np.array([[2.0]]), 3).tolist() == [[0, 0, 1]]
    assert named_loss("logistic").targets(np.array([-1.0, 1.0]), 1).tolist() == [[0.0], [1.0]]
    assert named_loss("logistic").targets(np.array([[0.25, 1.0]]), 2).tolist() == [[0.25, 1.0]]


def test_the_names_of_frameworks_mean_their_numbers():
    rng = np.random.default_rng(11)
    p, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    labels = rng.integers(0, 3, 6)
    logs = p - np.log(np.exp(p).sum(axis=1, keepdims=True))
    weights, s = np.array([1.0, 5.0, 0.5]), 0.1
    smooth = (1 - s) * np.eye(3)[labels] + s / 3
    t = rng.integers(0, 2, (6, 3)).astype(float)
    cases: list[tuple[Any, Array, float]] = [
        ("mse", y, float(np.mean((p - y) ** 2))),
        ("bce_with_logits", t, float(np.mean(np.log1p(np.exp(p)) - t * p))),
        ("cross_entropy", labels, float(-np.mean(logs[range(6), labels]))),
        (
            {"kind": "cross_entropy", "label_smoothing": s},
            labels,
            float(-np.mean((smooth * logs).sum(axis=1))),
        ),
        (
            {"kind": "cross_entropy", "label_smoothing": s, "class_weights": weights.tolist()},
            labels,
            float(-(smooth * weights * logs).sum() / weights[labels].sum()),
        ),
    ]
    for name, targets, expected in cases:
        data, loss = with_loss(Distribution(p, np.asarray(targets, dtype=float)), name, 3)
        rows = loss.targets(np.asarray(data.y[:]), 3)
        each = loss.derivatives(p, NOTHING, rows, None).value
        pi = np.full(6, 1 / 6) if data.probabilities is None else np.asarray(data.probabilities[:])
        assert float(each @ pi) == pytest.approx(expected, rel=1e-13)


def test_what_is_no_loss_is_refused():
    for kind, scale in (("square", 1.0), ("squared", 0.0), ("squared", np.inf), ("squared", np.nan)):
        with pytest.raises(RequestError):
            named_loss(kind, scale)
    assert replace(named_loss("squared", 2.0), called="mse").name == "mse"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_search_takes_are_the_floats_of_what_is_proven(kind: str):
    rng = np.random.default_rng(8)
    cases = [draw(kind, rng, 5, 3) for _ in range(6)]
    if kind == "softmax":  # labels beside other targets, and a class that does not count
        p, y, _ = cases[0]
        y[:2] = np.eye(3)[:2]
        cases += [(p, y, np.ones((5, 3))), (p[:, :2], y[:, :2], np.array([[1.0, 0.0]] * 5))]
    for p, y, omega in cases:
        value, first = BuiltinLoss(kind, 0.3).approximate_first(p, y, omega)
        proven = BuiltinLoss(kind, 0.3).first_derivatives(p, NOTHING, y, omega)
        assert value == pytest.approx(proven.value, rel=1e-13, abs=1e-300)
        assert first == pytest.approx(proven.first, rel=1e-13, abs=1e-300)
