"""Critical points against closed forms, polynomial roots and exhaustive scans; what is proven, and how it is
shown."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.polynomial.polynomial as poly
import pytest
from click.testing import CliRunner
from selections import each_once, first

from resnet_cert import Problem, RequestError, check, load_problem
from resnet_cert.cli import cli
from resnet_cert.numerics.balls import Balls
from resnet_cert.numerics.jax64 import float64_scope, jax, jnp
from resnet_cert.numerics.krawczyk import zeros
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Direction, Objective, Point
from resnet_cert.report import Style, formatter
from resnet_cert.report.contour_map import COLUMNS, MARGIN, ROWS, contour_map, levels
from resnet_cert.report.figures import rendered
from resnet_cert.report.picture import landscape_figure, round_levels
from resnet_cert.search import derivatives as of
from resnet_cert.search.critical_points import closed_form, exact_rank, judged, why_not_listed
from resnet_cert.search.enclosed import OneSampleGradient, RateGradient, polynomials
from resnet_cert.search.landscape import (
    Landscape,
    Undecided,
    eigenvalues,
    hulls,
    landscape,
    least_loss,
    lowest_found,
)
from resnet_cert.search.plane import plane_of, restricted

ROOT = Path(__file__).resolve().parents[3]
FIGURES = {name: ROOT / "configs" / f"figure-1{name}.yaml" for name in "abc"}
LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")


@cache
def figure(name: str) -> Landscape:
    return landscape(load_problem(FIGURES[name]))


def random_problem(seed: int, *, n: int = 4, d: int = 1, k: int = 1, q: int = 1, **options: Any) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=2.0 * rng.normal(size=(n, q)),
        f=rng.normal(size=(n, k)),
        W=rng.normal(size=(q, d)),
        V=rng.normal(size=(d, k)),
        **options,
    )


def place(point: Any) -> tuple[float, float]:
    assert point.at is not None
    return point.at


# --- The pictures of the paper ----------------------------------------------------------------------------


def shown(found: Landscape) -> list[tuple[str, str, str, str, str]]:
    """Kind, w, v, G, F of the isolated critical points, to eight decimals."""
    return [
        (point.name, *(f"{x:.8f}" for x in (*place(point), point.objective.value, point.F.value)))
        for point in found.critical_points
    ]


def test_the_first_picture_is_its_closed_form() -> None:
    found = figure("a")
    assert shown(found) == [("saddle", "0.00000000", "-1.00000000", "1.00000000", "1.00000000")]
    [saddle] = found.critical_points
    assert saddle.eigenvalues == pytest.approx((-2.0, 2.0), abs=1e-14)
    assert saddle.proven
    [minima] = found.critical_sets
    assert (minima.kind, minima.dimension) == ("minimum", 1)
    assert minima.value.upper < 1e-28
    w, v = minima.through.W[0, 0], minima.through.V[0, 0]
    assert w * (1.0 + v) == pytest.approx(1.0, abs=1e-12)
    [tangent] = minima.directions
    assert tangent.dW[0, 0] * (1.0 + v) + w * tangent.dV[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert found.complete
    assert found.closed_form is not None
    assert found.closed_form.attained is True
    for curve in found.curves:
        np.testing.assert_allclose(curve[:, 0] * (1.0 + curve[:, 1]), 1.0, atol=1e-9)


def test_the_second_picture_has_a_spurious_minimum() -> None:
    found = figure("b")
    assert shown(found) == [
        ("minimum", "0.65962771", "0.32771294", "0.15105269", "0.01542657"),
        ("spurious minimum", "-0.98280626", "-1.60268225", "1.04982771", "0.16620307"),
        ("saddle", "-0.27251827", "-1.06944377", "1.26700280", "0.96250875"),
    ]
    assert found.complete
    assert all(point.proven and point.within < 1e-12 for point in found.critical_points)
    assert f"{found.objective_lin_min.value:.8f}" == "0.20000000"
    assert found.F_lin_min.value == 0.0


def test_the_third_picture_has_a_spurious_minimum_on_the_circle() -> None:
    found = figure("c")
    assert shown(found) == [
        ("spurious minimum", "-1.07560665", "-1.68614066", "0.06863485", "0.06863485"),
        ("saddle", "0.00000000", "-1.00000000", "1.00000000", "1.00000000"),
    ]
    [spurious] = [point for point in found.critical_points if point.spurious]
    assert spurious.on_rim
    assert spurious.proven
    assert f"{spurious.multiplier:.8f}" == "0.33424277"
    assert spurious.eigenvalues == pytest.approx((0.8093806223,), abs=1e-10)
    assert [part.kind for part in found.critical_sets] == ["minimum"]
    assert found.complete  # where the curve of minima meets the circle is a part of it


@pytest.mark.parametrize("l2", first(1, [1e-10, 1e-6, 1e-2]))
def test_a_tiny_decay_leaves_two_isolated_minima_of_a_curve(l2: float) -> None:
    """On w(1 + v) = 1 the least w² + v² has v = w²/(1 + v): v(1 + v)³ = 1, up to O(l2)."""
    found = landscape(replace(load_problem(FIGURES["b"]), objective=Objective(l2)))
    assert found.complete
    minima = [place(point) for point in found.critical_points if point.kind == "minimum"]
    roots = poly.polyroots([-1.0, 1.0, 3.0, 3.0, 1.0])
    real = sorted(float(root.real) for root in roots if abs(root.imag) < 1e-9)
    assert sorted(v for _, v in minima) == pytest.approx(real, abs=3.0 * l2 + 1e-9)
    assert [point.kind for point in found.critical_points].count("saddle") == 1


def test_what_the_pictures_show_is_certified_by_check() -> None:
    for name, verdicts in (("b", ["CERTIFIED", "CERTIFIED", "REFUTED"]), ("c", ["CERTIFIED", "REFUTED"])):
        problem, found = load_problem(FIGURES[name]), figure(name)
        points = [replace(problem, point=point.point, epsilon=1e-6) for point in found.critical_points]
        assert [check(point).verdict.value for point in points] == verdicts


def test_the_spurious_minimum_disappears_in_a_fold() -> None:
    kinds = []
    for l2 in (0.39041, 0.39043):  # it exists below 0.3904183
        problem = replace(load_problem(FIGURES["b"]), objective=Objective(l2))
        found = landscape(problem)
        assert found.complete
        kinds.append([point.name for point in found.critical_points])
    assert kinds == [["minimum", "spurious minimum", "saddle"], ["minimum"]]


# --- Plain F, in closed form --------------------------------------------------------------------------------


def test_a_network_that_is_linear_already_has_its_minimum_and_no_other() -> None:
    """One tanh unit on exactly linear targets: F = 0 at (1, 0), which a search by curvature ratios missed."""
    x = np.linspace(-1.0, 1.0, 9)[:, None]
    problem = Problem.from_arrays(x=x, y=x[:, 0], f=np.tanh(0.03 * x + 0.01), w=[0.5], V=[[0.2]])
    found = landscape(problem)
    kinds = [(point.kind, point.spurious) for point in found.critical_points]
    assert kinds == [("minimum", False), ("saddle", False)]
    assert place(found.critical_points[0]) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert found.complete


@pytest.mark.parametrize("loss", first(2, LOSSES))
def test_one_number_each_has_one_minimum_and_one_saddle(loss: str) -> None:
    rng = np.random.default_rng(3)
    x, f, y = rng.normal(size=(3, 12))
    y = {"logistic": np.sign(y), "poisson": np.abs(y)}.get(loss, y)
    problem = Problem.from_arrays(x=x[:, None], y=y, f=f[:, None], w=[0.0], V=[[0.0]], loss=loss)
    found = landscape(problem)
    assert [point.kind for point in found.critical_points] == ["minimum", "saddle"]
    assert found.complete
    function = of.Objective(problem)
    for point in found.critical_points:
        assert np.linalg.norm(function.at(function.flat(point.point))[1]) < 1e-12
    # the saddle: w = 0, v a_0 = −α_0
    slope = problem.loss.derivatives(np.zeros((12, 1)), of.NOTHING, next(problem.chunks()).y).first[:, 0]
    assert place(found.critical_points[1]) == pytest.approx((0.0, -(slope @ x) / (slope @ f)), abs=1e-12)


@pytest.mark.parametrize(("q", "d", "k"), [(1, 3, 2), (2, 3, 2), (2, 2, 3)])
def test_heads_of_any_size_have_a_space_of_minima_and_saddles_at_0(q: int, d: int, k: int) -> None:
    problem = random_problem(1, n=20, d=d, k=k, q=q)
    listed = closed_form(problem)
    assert listed.attained is True
    minima = listed.sets[0]
    assert (minima.kind, minima.dimension) == ("minimum", k * (d - q))
    assert len(minima.directions) == k * (d - q)
    function = of.Objective(problem)
    value, gradient = function.at(function.flat(minima.through))
    assert np.linalg.norm(gradient) < 1e-10
    assert minima.value.lower - 1e-12 <= value <= minima.value.upper + 1e-9
    saddles = [part for part in listed.sets if part.kind == "saddle"]
    assert len(saddles) == (k >= q)
    for saddle in saddles:
        assert saddle.dimension == d * (k - q)
        value, gradient = function.at(function.flat(saddle.through))
        assert np.linalg.norm(gradient) < 1e-12
        lowest, _ = of.lowest_curvature(function, function.flat(saddle.through))
        assert saddle.lambda_min is not None
        assert saddle.lambda_min.lower - 1e-9 <= lowest <= saddle.lambda_min.upper + 1e-9
        assert lowest < 0.0


def test_separable_data_have_no_minimum() -> None:
    x = np.array([[1.0], [-1.0], [2.0]])
    problem = Problem.from_arrays(x=x, y=[1.0, -1.0, 1.0], f=x**2, w=[1.0], V=[[0.0]], loss="logistic")
    listed = closed_form(problem)
    assert listed.attained is False
    assert all(part.kind == "saddle" for part in listed.sets)
    assert "not attained" in run_text(problem)


def run_text(problem: Problem) -> str:
    return formatter("text").landscape(landscape(problem), Style(), "picture.png")


def test_ranks_are_exact() -> None:
    rows = np.array([[1.0, 3.0, 4.0], [2.0, 6.0, 8.0], [0.1, 0.3, 0.1 + 0.3]])
    assert exact_rank(rows[:2]) == 1
    assert exact_rank(rows) == 2  # 0.3 is not 3 · 0.1
    assert exact_rank(np.zeros((4, 2))) == 0


# --- Against exhaustive references --------------------------------------------------------------------------


def hard_problem(seed: int, **options: Any) -> Problem:
    """All losses, scales over two powers of ten, one sample to ten."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[seed % 4]
    n = int(rng.choice([1, 2, 3, 5, 10]))
    x, f = (rng.normal(size=n) * 10.0 ** rng.uniform(-1.0, 0.5) for _ in range(2))
    y = rng.normal(size=n) * 10.0 ** rng.uniform(-0.5, 0.5)
    y = {"logistic": np.sign(y), "poisson": np.abs(y)}.get(loss, y)
    return Problem.from_arrays(
        x=x[:, None], y=y, f=f[:, None], w=rng.normal(size=1), V=rng.normal(size=(1, 1)), loss=loss, **options
    )


def polished(function: of.Objective, at: np.ndarray) -> np.ndarray:
    """Newton's method where the scan is not flat to rounding, as at the saddle near w = 0."""
    for _ in range(3):
        gradient = function.at(at)[1]
        if np.linalg.norm(gradient) < 1e-13:
            break
        H = np.stack([function.hessian_product(at, unit) for unit in np.eye(2)])
        if np.linalg.cond(H) > 1e3:
            break
        at = at - np.linalg.solve(H, gradient)
    return at


def scanned(problem: Problem, ends: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """G is convex in w: its critical points are the sign changes of ∂_v G at w(v) = argmin G(·, v)."""
    from scipy.optimize import brentq

    function = of.Objective(problem)

    def slope(w: float, v: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            gradient = function.at(np.array([w, v]))[1]
        return np.where(np.isfinite(gradient), gradient, np.sign(w) * 1e300)

    def best(v: float) -> float:
        return brentq(lambda w: slope(w, v)[0], -1e5, 1e5, xtol=1e-15, rtol=1e-15, maxiter=500)

    def across(v: float) -> float:
        return float(slope(best(v), v)[1])

    w0, w1, v0, v1 = ends
    grid = np.linspace(v0, v1, 601) + 1e-7 * math.pi
    values = np.array([across(v) for v in grid])
    found = []
    for i in np.flatnonzero(values[:-1] * values[1:] < 0.0):
        v = brentq(across, grid[i], grid[i + 1], xtol=1e-15, rtol=1e-14)
        at = polished(function, np.array([best(v), v]))
        if w0 <= at[0] <= w1:
            found.append((float(at[0]), float(at[1])))
    return found


def agrees(found: Landscape, reference: list[tuple[float, float]]) -> bool:
    places = [place(point) for point in found.critical_points]

    def within(those: list[tuple[float, float]], at: tuple[float, float]) -> bool:
        return any(math.dist(at, other) < 1e-6 * (1.0 + math.hypot(*at)) for other in those)

    return all(within(places, at) for at in reference) and all(within(reference, at) for at in places)


def decayed_landscape_is_right(seed: int) -> bool:
    l2 = 10.0 ** np.random.default_rng(1000 + seed).uniform(-10.0, 0.0)
    problem = hard_problem(seed, l2=float(l2))
    found = landscape(problem)
    function = of.Objective(problem)
    for point in found.critical_points:
        lowest, _ = of.lowest_curvature(function, function.flat(point.point))
        if (lowest > 0.0) != (point.kind == "minimum"):
            return False
    return found.complete and agrees(found, scanned(problem, found.range))


@pytest.mark.parametrize("seed", first(1, range(4)))
def test_with_decay_every_critical_point_is_listed_and_no_other(seed: int) -> None:
    assert decayed_landscape_is_right(seed)


@pytest.mark.long
def test_where_boxes_of_w_and_v_are_left_those_of_w_and_their_ratio_decide() -> None:
    assert decayed_landscape_is_right(50027)  # Poisson, three samples, l2 = 4e-10, a minimum at w = -83


@pytest.mark.long
@pytest.mark.parametrize("first", range(4, 1004, 50))
def test_with_decay_a_thousand_landscapes_are_right(first: int) -> None:
    assert [seed for seed in range(first, first + 50) if not decayed_landscape_is_right(seed)] == []


def on_circle(problem: Problem, norm: float) -> list[tuple[tuple[float, float], str]]:
    """The points of a circle where G along it is stationary and falls outwards, by a scan of angles."""
    function = of.Objective(problem)
    angles = np.linspace(0.0, 2.0 * math.pi, 4001) + 0.12345

    def slope(angle: float) -> float:
        z = norm * np.array([math.cos(angle), math.sin(angle)])
        gradient = function.at(z)[1]
        return float(-gradient[0] * math.sin(angle) + gradient[1] * math.cos(angle))

    from scipy.optimize import brentq

    values = np.array([slope(angle) for angle in angles])
    found = []
    for i in np.flatnonzero(values[:-1] * values[1:] < 0.0):
        angle = brentq(slope, angles[i], angles[i + 1], xtol=1e-14, rtol=1e-14)
        z = norm * np.array([math.cos(angle), math.sin(angle)])
        if function.at(z)[1] @ z < -1e-9 * norm:
            found.append(((float(z[0]), float(z[1])), "minimum" if values[i] < 0.0 else "saddle"))
    return found


def rim_is_right(seed: int) -> bool:
    rng = np.random.default_rng(2000 + seed)
    l2 = float(10.0 ** rng.uniform(-6.0, 0.0)) if seed % 3 else 0.0
    norm = float(rng.uniform(0.3, 3.0))
    free = hard_problem(seed, l2=l2)
    small = Point(free.W * 0.0, free.V * 0.0)
    problem = replace(free, point=small, objective=Objective(l2, norm))
    found = landscape(problem)
    reference = on_circle(replace(problem, objective=Objective(l2)), norm)
    rim = [
        (place(point), point.kind) for point in found.critical_points if point.on_rim and not point.touching
    ]
    same = len(rim) == len(reference) and all(
        any(kind == other and math.dist(at, there) < 1e-6 for there, other in reference) for at, kind in rim
    )
    return same and found.complete


@pytest.mark.parametrize("seed", first(1, [2, 3, 0, 1, *range(4, 8)]))
def test_every_stationary_point_of_the_rim_is_listed(seed: int) -> None:
    assert rim_is_right(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(8, 508, 50))
def test_five_hundred_rims_are_right(first: int) -> None:
    assert [seed for seed in range(first, first + 50) if not rim_is_right(seed)] == []


def assert_decided_on_ball(loss: str, targets: np.ufunc, n: int, norm: float, l2: float) -> None:
    rng = np.random.default_rng(3)
    x, f, y = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), targets(rng.normal(size=n))
    found = landscape(Problem.from_arrays(x=x, y=y, f=f, w=[0.1], V=[[0.0]], loss=loss, norm=norm, l2=l2))
    assert found.complete
    assert any(point.kind == "minimum" for point in found.critical_points)


@pytest.mark.parametrize(("n", "norm", "l2"), first(1, [(6, 40.0, 0.0), (2, 30.0, 0.1)]))
def test_rates_that_overflow_leave_nothing_open(
    monkeypatch: pytest.MonkeyPatch, n: int, norm: float, l2: float
) -> None:
    """Poisson on a ball with predictions of thousands: every box of it and of its rim is decided."""
    monkeypatch.setattr("resnet_cert.search.landscape.MOST_BOXES", 50_000)
    monkeypatch.setattr("resnet_cert.search.landscape.MOST_PIXELS", 21)
    assert_decided_on_ball("poisson", np.abs, n, norm, l2)


@pytest.mark.parametrize(("n", "norm", "l2"), first(1, [(1, 156.0, 0.0), (3, 117.0, 0.07), (7, 110.0, 0.0)]))
def test_rates_that_underflow_leave_nothing_open(n: int, norm: float, l2: float) -> None:
    """Logistic on a ball with predictions of thousands, some slopes of which are below every float."""
    assert_decided_on_ball("logistic", np.sign, n, norm, l2)


@pytest.mark.parametrize("seed", [3, 1])
def test_the_gradient_divided_by_a_rate_is_enclosed(seed: int) -> None:
    """At points z of boxes about c: g(z) = ∇G(z)/h(z), h = e^{q_0} or σ(q_0), and g(z) ∈ g(c) + J(z − c)."""
    problem = hard_problem(seed, l2=0.1)
    assert problem.loss.name == {3: "poisson", 1: "logistic"}[seed]
    plane = plane_of(problem, np.ones((1, 1)))
    whole = restricted(problem, plane).gradient
    divided = RateGradient(whole.samples, whole.size, whole.l2)
    rng = np.random.default_rng(0)
    center, reach = rng.uniform(-2.0, 2.0, (200, 2)), rng.uniform(0.0, 0.3, (200, 2))
    place = center + reach * rng.uniform(-1.0, 1.0, (200, 2))
    found = divided(center, reach)

    def predictions(at: np.ndarray) -> np.ndarray:
        assert whole.samples.rates is not None
        return polynomials(whole.samples.rates, at, 0.0 * at)[0].center

    largest = predictions(center).argmax(axis=1)
    rate = np.exp(predictions(place)[np.arange(200), largest])[:, None]
    rate = rate if seed == 3 else rate / (1.0 + rate)
    truth = whole(place, 0.0 * place).at.center / rate
    slack = 1e-12 * (1.0 + np.abs(truth))
    assert (np.abs(truth - found.over.center) <= found.over.radius + slack).all()
    step = place - center
    middle = found.at.center + np.einsum("bij,bj->bi", found.jacobian.center, step)
    spread = found.at.radius + np.einsum("bij,bj->bi", found.jacobian.radius, np.abs(step))
    assert (np.abs(truth - middle) <= spread + slack).all()


def test_a_minimum_that_touches_the_rim_is_one() -> None:
    """Teacher w = 1, v = 0 and the norm 1: F = 0 exactly on the rim, with the multiplier 0."""
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(2, 6))
    problem = Problem.from_arrays(x=x[:, None], y=x, f=f[:, None], w=[0.5], V=[[0.0]], norm=1.0)
    found = landscape(problem)
    [minimum] = [point for point in found.critical_points if point.kind == "minimum"]
    assert minimum.touching
    assert minimum.on_rim
    assert place(minimum) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert not minimum.spurious
    assert "touching the rim" in run_text(problem)


def test_an_eigenvalue_beside_one_of_1e12_times_its_size_is_known() -> None:
    for tiny in (1e-8, -1e-8):
        H = Balls(np.array([[3e4, 2.0], [2.0, 4.0 / 3e4 + tiny]]), np.full((2, 2), 1e-15))
        low, high = eigenvalues(H)
        exact = np.linalg.eigvalsh(H.center)
        assert (low.lower > 0.0, low.upper < 0.0) == (tiny > 0.0, tiny < 0.0)
        assert low.lower <= tiny * (1.0 - 1e-8) <= low.upper
        assert high.lower <= exact[1] <= high.upper


@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e-200, 1e-300])
def test_an_error_of_any_scale_counts_in_an_eigenvalue(scale: float) -> None:
    """The squares of the radii underflow from 1e-162 on."""
    low, high = eigenvalues(Balls(scale * np.eye(2), np.full((2, 2), 5.0 * scale)))
    assert low.lower <= -4.0 * scale
    assert high.upper >= 6.0 * scale


@pytest.mark.parametrize(
    ("kind", "y", "place", "least"),
    [
        ("squared", 3.0, 3.0, 0.0),
        ("pseudo_huber", -2.5, -2.5, 0.0),
        ("poisson", 3.0, math.log(3.0), 3.0 - 3.0 * math.log(3.0)),
    ],
)
def test_the_least_loss_of_a_sample_is_enclosed_by_the_sign_of_its_slope(
    kind: str, y: float, place: float, least: float
) -> None:
    targets = np.array([[y]])
    loss = Problem.from_arrays(x=[[1.0]], y=targets, f=[[1.0]], w=[1.0], V=[[0.0]], loss=kind).loss
    assert isinstance(loss, BuiltinLoss)
    found = least_loss(loss, place * (1.0 + 1e-13), targets, None)
    assert found is not None
    assert found.lower <= least <= found.upper
    assert found.upper - found.lower < 1e-13 * (1.0 + abs(least))
    assert least_loss(loss, place + 1e-3, targets, None) is None


def exact_zero(problem: Problem, at: tuple[float, float]) -> tuple[Fraction, Fraction]:
    """Of ∇G of one w, one v and the squared loss, near a place: Newton's method in rational numbers."""
    chunk = problem.chunk(slice(0, problem.n))
    rows = [list(map(Fraction, row)) for row in np.concatenate([chunk.x, chunk.f, chunk.y], axis=1)]
    w, v = map(Fraction, at)
    decay = 2 * Fraction(problem.objective.l2) * len(rows)
    for _ in range(4):
        g = [decay * w, decay * v]
        H = [decay, Fraction(0), decay]
        for x, f, y in rows:
            rest, p_w, p_v = w * (x + v * f) - y, x + v * f, w * f
            g = [g[0] + rest * p_w, g[1] + rest * p_v]
            H = [H[0] + p_w * p_w, H[1] + p_w * p_v + rest * f, H[2] + p_v * p_v]
        det = H[0] * H[2] - H[1] * H[1]
        w, v = w - (H[2] * g[0] - H[1] * g[1]) / det, v - (H[0] * g[1] - H[1] * g[0]) / det
        w, v = (entry.limit_denominator(2**400) for entry in (w, v))
    return w, v


@pytest.mark.parametrize(("inside", "l2"), each_once([True, False], [0.0, 1e-3]))
def test_a_saddle_an_ulp_from_the_rim_lies_on_its_side(inside: bool, l2: float) -> None:
    """Where it is inside, a minimum of the ball is beside it, for G bends upwards along the rim."""
    x, f, y = np.random.default_rng(5).normal(size=(3, 6))
    problem = Problem.from_arrays(x=x[:, None], y=y, f=f[:, None], w=[0.0], V=[[0.0]], l2=l2 or None)
    [saddle] = [point for point in landscape(problem).critical_points if point.kind == "saddle"]
    w, v = exact_zero(problem, place(saddle))
    norm = math.hypot(w, v)
    while (Fraction(norm) ** 2 > w * w + v * v) != inside:
        norm = math.nextafter(norm, math.inf if inside else 0.0)
    found = landscape(replace(problem, objective=Objective(l2, norm)))
    near = [point for point in found.critical_points if math.dist(place(point), (w, v)) < 1e-9]
    assert found.complete
    assert sorted((point.kind, point.on_rim) for point in near) == (
        [("minimum", True), ("saddle", False)] if inside else []
    )


# --- Planes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"l2": 0.3}, {"norm": 9.0}])
@pytest.mark.parametrize("q", [1, 2])
def test_the_objective_on_a_plane_is_the_objective(options: dict[str, float], q: int) -> None:
    problem = random_problem(1, n=6, d=3, k=2, q=q, **options)
    plane = plane_of(problem, np.zeros((q, 3)))
    G = restricted(problem, plane)
    function = of.Objective(problem)
    first, second = function.flat(plane.first), function.flat(plane.second)
    at = np.random.default_rng(0).normal(size=(5, 2))
    gradient, hessian = G.gradient.derivatives(at, np.zeros_like(at))
    values = G.values(at)
    for i, spot in enumerate(at):
        z = function.flat(plane.point(spot))
        value, slope = function.at(z)
        assert values[i] == pytest.approx(value, rel=1e-12)
        F, enclosed = G.enclosed(spot, np.zeros(2))
        assert enclosed.lower - 1e-12 <= value <= enclosed.upper + 1e-12
        assert F.upper - F.lower < 1e-10
        for j, direction in enumerate((first, second)):
            assert gradient.center[i, j] == pytest.approx(slope @ direction, rel=1e-9, abs=1e-11)
            bent = function.hessian_product(z, direction)
            assert hessian.center[i, j] == pytest.approx([first @ bent, second @ bent], rel=1e-9, abs=1e-10)
    assert gradient.radius.max() < 1e-10


def test_one_sample_has_its_minimum_on_the_curve_whatever_the_decay() -> None:
    """p = st on the circle of radius 2 about 0, ½(p − 1)² + l2 (s² + t²): (1, 1), up to l2."""
    x, l2 = np.zeros((1, 1)), 1e-9
    problem = Problem.from_arrays(x=x, y=[1.0], f=[[1.0]], w=[0.0], V=[[0.0]], l2=l2, norm=2.0)
    gradient = restricted(problem, plane_of(problem, np.zeros((1, 1)))).gradient
    range_ = np.array([0.3, 0.1]), np.array([2.0, 2.0])
    assert not zeros([gradient], *range_, most_boxes=500).complete
    found = zeros([gradient, OneSampleGradient(gradient)], *range_, most_boxes=2_000)
    assert found.complete
    [at] = found.center
    assert at == pytest.approx(math.sqrt(1.0 - 2.0 * l2), abs=1e-9)


def test_a_slope_of_softmax_next_to_0_is_known_to_its_digits() -> None:
    """W = (w, 0), where p = (50, 0) for the first class: ∇_w F = −xe⁻⁵⁰/(1 + e⁻⁵⁰)."""
    problem = Problem.from_arrays(
        x=[[1.0]], y=[0], f=[[0.0]], W=[[50.0], [0.0]], V=[[0.0]], loss="softmax", norm=60.0
    )
    along = Direction(np.array([[1.0], [0.0]]), np.zeros((1, 1)))
    other = Direction(np.zeros((2, 1)), np.ones((1, 1)))
    gradient = restricted(problem, plane_of(problem, np.zeros((2, 1)), (along, other))).gradient
    slope, bent = gradient.derivatives(np.zeros((1, 2)), np.zeros((1, 2)))
    for found, truth in ((slope[0, 0], -math.exp(-50.0)), (bent[0, 0, 0], math.exp(-50.0))):
        assert found.center == pytest.approx(truth, rel=1e-12)
        assert found.radius < 1e-12 * abs(truth)


def test_the_plane_is_spanned_by_the_gradient_and_the_lowest_curvature() -> None:
    problem = random_problem(2, n=6, d=3, k=2)
    plane = plane_of(problem, np.zeros((1, 3)))
    function = of.Objective(problem)
    first, second = function.flat(plane.first), function.flat(plane.second)
    np.testing.assert_allclose([first @ first, first @ second, second @ second], [1, 0, 1], atol=1e-14)
    gradient = function.at(function.flat(problem.point))[1]
    np.testing.assert_allclose(first, gradient / np.linalg.norm(gradient), atol=1e-12)
    assert plane.words == ("gradient", "lowest curvature")


def test_at_a_stationary_point_the_plane_goes_through_the_best_linear_predictor() -> None:
    problem = load_problem(ROOT / "configs" / "diabetes.yaml")
    plane = plane_of(problem, np.ones((1, problem.d)))
    assert plane.words == ("lowest curvature", "to the best linear predictor")


def test_dependent_directions_span_no_plane() -> None:
    problem = random_problem(0, d=2)
    one = Direction(np.ones((1, 2)), np.ones((2, 1)))
    with pytest.raises(RequestError, match="expected two independent directions"):
        plane_of(problem, np.zeros((1, 2)), (one, Direction(2.0 * one.dW, 2.0 * one.dV)))


def test_the_circle_is_where_the_sphere_meets_the_plane() -> None:
    problem = random_problem(4, n=5, d=2, k=2, norm=10.0)
    plane = plane_of(problem, np.zeros((1, 2)))
    assert plane.radius is not None
    for angle in (0.1, 2.0, 4.0):
        at = np.array(plane.center) + plane.radius * np.array([math.cos(angle), math.sin(angle)])
        point = plane.point(at)
        assert math.hypot(np.linalg.norm(point.W), np.linalg.norm(point.V)) == pytest.approx(10.0, rel=1e-13)


def test_one_sample_on_a_ball_is_searched_on_a_plane() -> None:
    """Data on one line, and more than two numbers a sample."""
    found = landscape(random_problem(5, n=1, d=2, k=1, norm=2.0))
    assert found.searched == "plane"
    assert not found.plane.whole


@pytest.mark.parametrize("loss", first(1, ["squared", "poisson", "pseudo_huber"]))
def test_one_sample_has_a_curve_of_minima_on_a_plane(loss: str) -> None:
    """∇F = ℓ'(p)∇p: the curve ℓ'(p) = 0, and what is isolated beside it."""
    rng = np.random.default_rng(2)
    x, f, y = rng.normal(size=(1, 2)), rng.normal(size=(1, 2)), np.array([0.7])
    w, V = rng.normal(size=2), rng.normal(size=(2, 2))
    problem = Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, loss=loss, norm=4.0)
    found = landscape(problem)
    assert found.complete
    [curve] = found.critical_sets
    assert (curve.kind, curve.dimension) == ("minimum", problem.parameters - 1)
    assert check(replace(problem, point=curve.through)).gradient.norm.value < 1e-9
    least = {"squared": 0.0, "pseudo_huber": 0.0, "poisson": 0.7 - 0.7 * np.log(0.7)}[loss]
    assert curve.value.lower <= least <= curve.value.upper
    places = np.concatenate(found.curves)
    assert found.plane.radius is not None
    assert (np.hypot(*(places - found.plane.center).T) <= found.plane.radius * 1.001).all()
    assert restricted(problem, found.plane).values(places) == pytest.approx(least, abs=1e-9)
    assert "Global minima of F over all (W, V)" in run_text(problem)


def second_picture_in_two_dimensions(scale: float) -> Landscape:
    """The second picture on (w_1, V_1), with a second input that tells a linear predictor to leave it alone.

    On (w_2, V_2) the Hessian is [[4·scale² + 2c, 2r], [2r, 2c]] with r = w_1(1 + V_1) − 1: without that input
    the minimum of the picture is a saddle in the whole space.
    """
    base = load_problem(FIGURES["b"])
    w, v = float(base.W[0, 0]), float(base.V[0, 0])
    problem = Problem.from_arrays(
        x=[[1.0, 0.0], [0.0, scale], [0.0, -scale]],
        y=[1.0, 0.0, 0.0],
        f=[[1.0], [0.0], [0.0]],
        w=[w, 0.0],
        V=[[v], [0.0]],
        loss=replace(base.loss, scale=6.0),  # three samples, of which one is that of the picture
        l2=0.25,
    )
    along_w = Direction(np.array([[1.0, 0.0]]), np.zeros((2, 1)))
    along_v = Direction(np.zeros((1, 2)), np.array([[1.0], [0.0]]))
    return landscape(problem, directions=(along_w, along_v))


@pytest.mark.parametrize(("scale", "kind"), first(1, [(10.0, "spurious minimum"), (0.0, "saddle")]))
def test_with_decay_the_list_is_of_the_whole_space(scale: float, kind: str) -> None:
    found = second_picture_in_two_dimensions(scale)
    assert not found.plane.whole
    assert found.searched == "d + k unknowns"
    assert found.complete
    [there] = [
        point for point in found.critical_points if math.dist(point.point.W[0], (-0.98280626, 0.0)) < 1e-6
    ]
    assert there.name == kind
    assert there.at == pytest.approx((0.0, 0.0), abs=1e-7)
    assert there.objective.value == pytest.approx(1.04982771, abs=1e-8)
    document = found.to_dict()
    assert document["restricted_to_plane"]


def test_the_third_picture_in_two_dimensions_has_its_spurious_minimum_on_the_rim() -> None:
    """(c) beside a second input with the target 0: a minimum on the rim in every dimension."""
    base = load_problem(FIGURES["c"])
    problem = Problem.from_arrays(
        x=[[1.0, 0.0], [0.0, 3.0], [0.0, -3.0]],
        y=[1.0, 0.0, 0.0],
        f=[[1.0], [0.0], [0.0]],
        w=[-1.0, 0.0],
        V=[[-1.5], [0.0]],
        loss=replace(base.loss, scale=6.0),
        norm=2.0,
    )
    along_w = Direction(np.array([[1.0, 0.0]]), np.zeros((2, 1)))
    along_v = Direction(np.zeros((1, 2)), np.array([[1.0], [0.0]]))
    found = landscape(problem, directions=(along_w, along_v))
    [spurious] = [point for point in found.critical_points if point.spurious]
    assert spurious.on_rim
    assert spurious.kind_in_space == "minimum"
    assert spurious.point.W[0] == pytest.approx((-1.07560665, 0.0), abs=1e-8)
    assert spurious.point.V[:, 0] == pytest.approx((-1.68614066, 0.0), abs=1e-8)


def test_a_loss_of_the_user_is_proven_as_well(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text("def twice(p, y):\n    return (p - y) ** 2\n")
    text = FIGURES["b"].read_text().replace("{kind: squared, scale: 2.0}", "{python: losses.py:twice}")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    found = landscape(load_problem(spec, allow_code=True))
    assert [row[:3] for row in shown(found)] == [row[:3] for row in shown(figure("b"))]
    assert found.complete


def log_cosh(p: Any, y: Any) -> Any:
    return jnp.log(jnp.cosh(p - y))


def hollow(p: Any, y: Any) -> Any:
    """It has a local minimum near y and a lower one near 6."""
    return log_cosh(p, y) - 40.0 * jnp.exp(-4.0 * (p - 6.0) ** 2)


def one_number_each(loss: Any, **options: Any) -> Problem:
    return Problem.from_arrays(
        x=[[1.0], [-0.6]], y=[0.5, -1.0], f=[[0.3], [0.8]], w=[0.4], V=[[0.2]], loss=loss, **options
    )


def by_logaddexp(p: Any, y: Any) -> Any:
    """log cosh up to a constant, of which nothing is known far away."""
    return jnp.logaddexp(p - y, y - p)


@pytest.mark.parametrize("function", [by_logaddexp, hollow])
def test_of_a_loss_that_may_not_be_convex_no_minimum_is_said_to_be_global(function: Any) -> None:
    problem = random_problem(3, n=5, d=2, loss=CustomLoss(function, "mine"))
    assert why_not_listed(problem) == "the loss mine is not known to be convex for every p"
    found = landscape(problem)
    text = " ".join(formatter("text").landscape(found, Style(), "picture.png").split())
    assert found.closed_form is None
    assert not any(part.kind == "minimum" for part in found.critical_sets)
    assert not any(words in text for words in ("global", "is spurious", "No spurious minimum on"))
    assert "Minima of F may be spurious, and lie off this plane or range: the loss mine is not known" in text
    assert "infimum" not in found.to_dict()


def test_a_spurious_minimum_of_a_loss_that_is_not_convex_is_not_said_to_be_none() -> None:
    problem = one_number_each(CustomLoss(hollow, "mine"))
    # Near (w, v) = (0.8, 0) the losses have minima of their own; where a prediction is 6 there is a lower F.
    w, v = np.meshgrid(np.linspace(-12.0, 12.0, 61), np.linspace(-6.0, 6.0, 61))
    with float64_scope():
        far = [hollow(w * (1.0 + 0.3 * v), 0.5), hollow(w * (-0.6 + 0.8 * v), -1.0)]
    lowest = float(np.min(np.mean(far, axis=0)))
    found = landscape(problem, box=(0.2, 1.4, -1.0, 1.0))
    assert lowest < -10.0
    assert all(point.objective.lower > lowest for point in found.critical_points)
    text = " ".join(formatter("text").landscape(found, Style(), "picture.png").split())
    assert "global" not in text
    assert "No spurious minimum with" not in text


@pytest.mark.parametrize(("function", "convex"), [(by_logaddexp, True), (log_cosh, False)])
def test_a_loss_that_is_claimed_or_proven_to_be_convex_has_its_closed_form(
    function: Any, convex: bool
) -> None:
    problem = random_problem(3, n=5, d=2, loss=CustomLoss(function, "mine", convex=convex))
    text = " ".join(run_text(problem).split())
    assert "No minimum of F is spurious" in text
    assert "not known to be convex" not in text


def test_the_curvature_of_a_critical_point_does_not_rest_on_convexity() -> None:
    """At p = 6.4, where ℓ'' < 0, with A_f of one number: λ_min against the dense Hessian."""
    loss = CustomLoss(hollow, "mine")
    problem = Problem.from_arrays(x=[[1.0]], y=[0.0], f=[[1.0]], w=[1.6], V=[[3.0]], loss=loss)
    lambda_min = judged(problem).of_F.lambda_min
    with float64_scope():
        H = np.asarray(jax.hessian(lambda z: hollow(z[0] * (1.0 + z[1]), 0.0))(jnp.array([1.6, 3.0])))
    least = float(np.linalg.eigvalsh(H)[0])
    assert least < -1.0
    assert lambda_min.lower <= least + 1e-9 * abs(least)
    assert least - 1e-9 * abs(least) <= lambda_min.upper


# --- What is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ending"), first(1, zip(FIGURES, [".png", ".svg", ".pdf"], strict=True)))
def test_the_same_landscape_is_the_same_picture(name: str, ending: str, tmp_path: Path) -> None:
    found, picture = figure(name), tmp_path / f"picture{ending}"
    found.save(picture)
    first = picture.read_bytes()
    assert rendered(landscape_figure(found), f"picture{ending}") == first
    assert len(first) > 10_000
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])


def test_the_picture_has_an_entry_for_everything_in_it() -> None:
    labels = landscape_figure(figure("c")).axes[0].get_legend_handles_labels()[1]
    assert labels == [
        "best at $V = 0$: $0$, nowhere less",
        "level of a saddle",
        "minima, a curve",
        "$\\|(W, V)\\| = 2$",
        "spurious minimum",
        "saddle",
    ]
    assert "best at $V = 0$: $0.2$" in landscape_figure(figure("b")).axes[0].get_legend_handles_labels()[1]


@pytest.mark.long
def test_values_that_overflow_are_left_out_of_the_picture() -> None:
    problem = Problem.from_arrays(
        x=[[1.0], [2.0]], y=[1.0, 0.0], f=[[1.0], [3.0]], w=[0.1], V=[[0.1]], loss="poisson", l2=0.1
    )
    found = landscape(problem, box=(-30.0, 30.0, -30.0, 30.0))
    assert not np.isfinite(found.values).all()
    assert rendered(landscape_figure(found), "x.png")
    assert len(contour_map(found)) > ROWS


def test_levels_of_a_picture_are_round_numbers() -> None:
    bounds = levels(np.linspace(0.0, 3.0, 400) ** 4 + 0.137, 12)
    rounded = round_levels(bounds)
    assert (np.diff(rounded) > 0.0).all()
    assert len(rounded) > 10
    assert all(len(f"{level:.6g}".replace("0.", "").rstrip("0")) <= 4 for level in rounded)
    assert np.abs(rounded - bounds).max() <= np.diff(bounds).max() / 2.0


def test_a_notebook_shows_it_and_it_can_be_saved(tmp_path: Path) -> None:
    found = figure("b")
    html = found._repr_html_()
    assert html.startswith("<svg")
    assert "proven" in html
    assert "spurious minimum" in str(found)
    found.save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["complete"]


def test_what_is_not_decided_is_hatched_and_named() -> None:
    found = figure("b")
    assert found.undecided == ()
    left = replace(found, undecided=(Undecided((0.0, 0.5), (1.0, 1.5)),), complete=False)
    labels = landscape_figure(left).axes[0].get_legend_handles_labels()[1]
    assert "not decided here" in labels
    text = formatter("text").landscape(left, Style(), "b.png")
    assert "Not decided here: w ∈ [0, 0.5], v ∈ [1, 1.5]." in text
    assert "is not proven" in text or "spurious" in text
    assert left.to_dict()["undecided"] == [{"w": [0.0, 0.5], "v": [1.0, 1.5]}]


def test_levels_rise_from_the_least_value_and_half_of_them_are_below_the_median() -> None:
    values = np.concatenate([np.linspace(-1.0, 2.0, 501) ** 3, [np.nan, np.inf, 1e300]])
    bounds = levels(values, 10)
    assert bounds[0] == -1.0
    assert bounds[5] == pytest.approx(np.median(values[:501]))
    assert (np.diff(bounds) > 0.0).all()
    for flat_values in (np.full(4, 2.5), np.array([np.nan])):
        assert (np.diff(levels(flat_values, 9)) > 0.0).all()


@pytest.mark.parametrize("name", FIGURES)
def test_the_map_fits_into_80_columns_of_ascii_and_marks_every_point(name: str) -> None:
    found = figure(name)
    lines = contour_map(found)
    assert max(map(len, lines)) <= 80
    assert "".join(lines).isascii()
    rows = [line[MARGIN:] for line in lines[:ROWS]]
    assert {len(row) for row in rows} == {COLUMNS}
    text = "".join(rows)
    for kind, mark in (("saddle", "x"), ("spurious minimum", "S"), ("minimum", "o")):
        assert text.count(mark) == sum(point.name == kind for point in found.critical_points)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["landscape", *arguments])


@pytest.fixture
def found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command shows a picture of the paper as `figure` has it: it is not searched again."""

    def of(problem: Problem, **asked: Any) -> Landscape:
        assert not any(asked.values())
        return figure(problem.name.removeprefix("figure-1"))

    monkeypatch.setattr(importlib.import_module("resnet_cert.search.landscape"), "landscape", of)


@pytest.mark.usefixtures("found_before")
def test_the_json_document_has_the_fields_of_the_contract() -> None:
    result = run(str(FIGURES["c"]), "--format", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["schema"] == "resnet-cert/landscape/1"
    assert (document["F_lin_min"], document["objective_lin_min"]) == (0.0, 0.0)
    for point in document["critical_points"]:
        assert {"w", "V", "kind", "objective", "F", "eigenvalues", "multiplier", "spurious"} <= point.keys()
        assert point["kind"] in ("minimum", "saddle", "maximum")
    [spurious] = [point for point in document["critical_points"] if point["spurious"]]
    assert spurious["multiplier"] == pytest.approx(0.33424277, abs=1e-8)
    assert spurious["on_rim"]
    assert document["complete"] is True
    assert document["undecided"] == []
    assert document["range"] == {"w": [-3.0, 3.0], "v": [-3.0, 3.0]}
    assert [part["dimension"] for part in document["critical_sets"]] == [1]
    assert "grid" not in document
    with_grid = json.loads(run(str(FIGURES["c"]), "--format", "json", "--grid").stdout)["grid"]
    assert len(with_grid["values"]) == len(with_grid["v"])
    assert len(with_grid["values"][0]) == len(with_grid["w"])


@pytest.mark.usefixtures("found_before")
def test_the_text_has_a_map_or_a_picture_and_a_table(tmp_path: Path) -> None:
    result = run(str(FIGURES["b"]))
    assert result.exit_code == 0
    assert ".:-=+*#%@ from low to high" in result.stdout
    assert "spurious minimum  -0.98280626  -1.6026823  1.0498277" in result.stdout
    assert "These are all critical points of G with w ∈ [-3, 3], v ∈ [-3, 3], proven." in result.stdout
    picture = tmp_path / "b.svg"
    drawn = run(str(FIGURES["b"]), "--output", str(picture))
    assert drawn.exit_code == 0
    assert picture.read_bytes().startswith(b"<?xml")
    assert ".:-=+*#%@" not in drawn.stdout
    assert f"the picture is in {picture}" in " ".join(drawn.stdout.split())


def test_the_range_is_what_is_searched() -> None:
    document = json.loads(run(str(FIGURES["b"]), "--format", "json", "--range", "0:1,0:1").stdout)
    assert [point["kind"] for point in document["critical_points"]] == ["minimum"]
    empty = run(str(FIGURES["b"]), "--range", "2:3,2:3")
    assert "No critical points here." in empty.stdout


def test_settings_change_the_landscape() -> None:
    document = json.loads(run(str(FIGURES["b"]), "--format", "json", "--set", "regularizer.l2=0.4").stdout)
    assert [point["kind"] for point in document["critical_points"]] == ["minimum"]


@pytest.mark.parametrize("given", ["1:0,0:1", "0:1", "0:1,0:1,0:1", "a:b,0:1", "0:inf,0:1", "0:1,nan:1"])
def test_a_wrong_range_is_refused(given: str) -> None:
    result = run(str(FIGURES["b"]), "--range", given)
    assert result.exit_code == 2
    assert "expected W0:W1,V0:V1 with W0 < W1 and V0 < V1" in result.stderr


def test_a_wrong_output_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(str(FIGURES["b"]), "--output", "x.gif").exit_code == 2
    assert run(str(FIGURES["b"]), "--output", str(tmp_path / "none" / "x.png")).exit_code == 2
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = run(str(FIGURES["b"]), "--output", str(tmp_path / "x.png"))
    assert missing.exit_code == 2
    assert "pip install 'resnet-cert[plot]'" in missing.stderr
    assert not list(tmp_path.iterdir())


def test_directions_are_read_from_a_file(tmp_path: Path) -> None:
    spec = ROOT / "configs" / "diabetes.yaml"
    arrays = {"dw1": np.ones(11), "dV1": np.zeros((11, 8)), "dw2": np.zeros(11), "dV2": np.ones((11, 8))}
    np.savez(tmp_path / "d.npz", **arrays)
    result = run(str(spec), "--directions", str(tmp_path / "d.npz"))
    assert result.exit_code == 0
    assert "s to the right, t upwards" in result.stdout
    np.savez(tmp_path / "wrong.npz", **{**arrays, "dV2": np.ones((11, 7)), "dw1": np.full(11, np.nan)})
    wrong = run(str(spec), "--directions", str(tmp_path / "wrong.npz"))
    assert wrong.exit_code == 2
    assert "dw1: expected finite numbers, got NaN or infinity" in wrong.stderr
    assert "dV2: expected the shape (11, 8), got the shape (11, 7)" in wrong.stderr
    assert run(str(spec), "--directions", str(tmp_path / "none.npz")).exit_code == 2


def test_help_does_not_load_numpy() -> None:
    assert run("--help").exit_code == 0
    assert "resnet_cert.commands.landscape" in sys.modules


def test_a_coefficient_of_zero_is_the_plain_landscape() -> None:
    problem = load_problem(FIGURES["b"])
    plain = landscape(replace(problem, objective=Objective(0.0)))
    assert shown(plain) == shown(figure("a"))


def test_a_list_without_the_saddles_of_rank_1_is_not_called_complete() -> None:
    """W_1 of rank 1, W_1ᵀA_f = 0: a saddle of two outputs that is neither 0 nor listed."""
    found = landscape(random_problem(1, n=20, d=3, k=2, q=2))
    assert not found.complete
    assert "they are not listed" in " ".join(run_text(random_problem(1, n=20, d=3, k=2, q=2)).split())
    assert landscape(random_problem(1, n=20, d=3, k=2)).complete


def test_boxes_of_a_range_without_a_finite_size_are_one() -> None:
    low = np.full((500, 2), -np.inf)
    low[:, 1] = np.arange(500.0)
    for gap in (np.array([np.inf, 1.0]), np.array([np.nan, 1.0]), np.zeros(2)):
        found = hulls(low, low + 1.0, gap)
        assert [len(ends) for ends in found] == [1, 1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_the_objective_is_infinite_wherever_a_descent_begins_the_range_is_of_the_point() -> None:
    problem = Problem.from_arrays(x=[[1e200]], y=[7e200], f=[[1.0]], w=[2.0], V=[[3.0]], l2=1.0)
    found = lowest_found(problem, np.array([[1.0]]))
    assert (found.W.tolist(), found.V.tolist()) == ([[2.0]], [[3.0]])
    s0, s1, t0, t1 = landscape(problem).range
    assert s0 < -2.0 < 2.0 < s1
    assert t0 < -3.0 < 3.0 < t1
