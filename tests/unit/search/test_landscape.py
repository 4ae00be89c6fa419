"""Critical points against polynomial roots and brute force, what is proven of them, how they are shown."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import numpy.polynomial.polynomial as poly
import pytest
from click.testing import CliRunner

from resnet_cert import Problem, RequestError, check, load_problem
from resnet_cert.cli import cli
from resnet_cert.decide.hessian import Direction
from resnet_cert.decide.objective import objective
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.problem import Constraint, Point, Regularizer
from resnet_cert.report.contour_map import COLUMNS, MARGIN, ROWS, contour_map, levels
from resnet_cert.report.figures import rendered
from resnet_cert.report.picture import landscape_figure
from resnet_cert.search.critical_points import Box, critical_points, halton
from resnet_cert.search.landscape import (
    Landscape,
    _examined,
    _on_circle,
    _on_plane,
    _shift_of_exact_point,
    landscape,
)
from resnet_cert.search.plane import PlaneObjective, plane_of, restricted

ROOT = Path(__file__).resolve().parents[3]
FIGURES = {name: ROOT / "configs" / f"figure-1{name}.yaml" for name in "abc"}


def figure(name: str) -> Landscape:
    return landscape(load_problem(FIGURES[name]))


def random_problem(seed: int, *, n: int = 4, d: int = 1, k: int = 1, **options: Any) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=2.0 * rng.normal(size=n),
        f=rng.normal(size=(n, k)),
        w=rng.normal(size=d),
        V=rng.normal(size=(d, k)),
        **options,
    )


# --- The pictures of the paper ----------------------------------------------------------------------------


def shown(found: Landscape) -> list[tuple[str, str, str, str, str]]:
    """Kind, w, v, G, F of the isolated critical points, to eight decimals."""
    return [
        (point.name, *(f"{x:.8f}" for x in (point.w[0], point.V[0][0], point.objective, point.F)))
        for point in found.critical_points
        if point.isolated
    ]


def test_the_first_picture_has_one_saddle_and_two_branches_of_minima() -> None:
    found = figure("a")
    assert shown(found) == [("saddle", "0.00000000", "-1.00000000", "1.00000000", "1.00000000")]
    [saddle] = [point for point in found.critical_points if point.isolated]
    assert saddle.eigenvalues == pytest.approx((-2.0, 2.0), abs=1e-14)
    assert saddle.proven
    branches = [point for point in found.critical_points if not point.isolated]
    assert [point.kind for point in branches] == ["minimum", "minimum"]
    assert sorted(point.w[0] > 0.0 for point in branches) == [False, True]
    assert all(point.objective < 1e-28 and not point.spurious for point in branches)
    for curve in found.curves:
        np.testing.assert_allclose(curve[:, 0] * (1.0 + curve[:, 1]), 1.0, atol=1e-12)


def test_a_curve_of_minima_is_followed_to_the_ends_of_the_box() -> None:
    found = figure("a")
    for curve in found.curves:
        w, v = curve[np.argsort(curve[:, 0])].T
        assert np.abs(w * (1.0 + v) - 1.0).max() < 1e-12
        assert np.hypot(np.diff(w), np.diff(v)).max() < 0.1
        ends = sorted([(w[0], v[0]), (w[-1], v[-1])], key=lambda end: abs(end[0]))
        true = ((0.25, 3.0), (3.0, -2.0 / 3.0)) if w[0] > 0.0 else ((-0.5, -3.0), (-3.0, -4.0 / 3.0))
        assert np.abs(np.array(ends) - true).max() < 0.05


def test_a_regularizer_whose_square_is_no_float64_has_its_minimum() -> None:
    [point] = landscape(replace(load_problem(FIGURES["b"]), regularizer=Regularizer(1e300))).critical_points
    assert (point.kind, point.objective) == ("minimum", pytest.approx(1.0))


def test_a_closed_curve_is_followed_once_around() -> None:
    """G = ½(s² + t² − 1)²: a maximum in the middle of a circle of minima."""
    p, one = np.array([[0.0, 0.0, 0.0, 1.0, 0.0, 1.0]]), np.ones(1)
    G = PlaneObjective(named_loss("squared"), p, one, one, np.zeros(6), 0.0)
    isolated, curves = critical_points(G, Box(-2.0, 2.0, -2.0, 2.0), 64)
    assert np.abs(isolated).max() < 1e-12
    angles = np.sort(np.concatenate([np.arctan2(*curve.T) for curve in curves]))
    assert np.abs(np.linalg.norm(np.concatenate(curves), axis=1) - 1.0).max() < 1e-12
    assert np.diff(angles).max() < 0.06
    assert len(angles) < 2.2 * 2.0 * math.pi / (0.005 * math.sqrt(32.0))


def test_the_second_picture_has_a_spurious_minimum() -> None:
    found = figure("b")
    assert shown(found) == [
        ("minimum", "0.65962771", "0.32771294", "0.15105269", "0.01542657"),
        ("spurious minimum", "-0.98280626", "-1.60268225", "1.04982771", "0.16620307"),
        ("saddle", "-0.27251827", "-1.06944377", "1.26700280", "0.96250875"),
    ]
    assert all(point.proven for point in found.critical_points)
    assert f"{found.objective_lin_min.value:.8f}" == "0.20000000"
    assert found.F_lin_min.value == 0.0


def test_the_third_picture_has_a_spurious_minimum_on_the_circle() -> None:
    found = figure("c")
    assert shown(found) == [
        ("spurious minimum", "-1.07560665", "-1.68614066", "0.06863485", "0.06863485"),
        ("saddle", "0.00000000", "-1.00000000", "1.00000000", "1.00000000"),
    ]
    spurious = next(point for point in found.critical_points if point.spurious)
    assert spurious.proven
    assert f"{spurious.multiplier:.8f}" == "0.33424277"
    assert spurious.eigenvalues == pytest.approx((0.8093806223,), abs=1e-10)


def test_what_the_pictures_show_is_certified_by_check() -> None:
    for name, verdicts in (("b", ["CERTIFIED", "CERTIFIED", "REFUTED"]), ("c", ["CERTIFIED", "REFUTED"])):
        problem, found = load_problem(FIGURES[name]), figure(name)
        points = [point for point in found.critical_points if point.isolated]
        at = [Point(np.array(point.w), np.array(point.V)) for point in points]
        assert [check(replace(problem, point=point)).verdict.value for point in at] == verdicts


def test_what_is_too_far_from_a_critical_point_is_not_proven() -> None:
    """4 μ2 η ≤ λ², δ = 2η/λ inside; Kδ ≤ ψ''/2 on the circle."""
    problem = load_problem(FIGURES["b"])
    plane, least = plane_of(problem), Enclosure.exact(0.2)
    minimum = np.array([-0.98280626, -1.60268225])
    for off, proven in ((1e-6, True), (1e-4, True), (0.1, False)):
        assert _examined(problem, plane, minimum + off, least).proven is proven
    on = _on_plane(problem, plane, minimum)
    assert on.seen.lipschitz is not None
    lam = math.sqrt(4.0 * on.seen.lipschitz.mu2 * 1e-6)
    assert _shift_of_exact_point(Enclosure.exact(1e-6), lam * 1.001, on) == pytest.approx(
        2e-6 / lam, rel=1e-2
    )
    assert _shift_of_exact_point(Enclosure.exact(1e-6), lam * 0.999, on) is None

    problem = load_problem(FIGURES["c"])
    plane, angle = plane_of(problem), math.atan2(-1.68614066, -1.07560665)
    for off, proven in ((1e-8, True), (1e-4, True), (2.5e-3, False)):
        at = 2.0 * np.array([math.cos(angle + off), math.sin(angle + off)])
        point = _on_circle(problem, plane, at, Enclosure.exact(0.0))
        assert point is not None
        assert point.proven is proven


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_spurious_minimum_disappears_in_a_fold() -> None:
    """In the fold ∇G = 0 and det ∇²G = 0, solved here in 30 digits."""
    with mpmath.workdps(30):

        def system(w: Any, v: Any, c: Any) -> tuple[Any, Any, Any]:
            r = w * (1 + v) - 1
            H = 2 * (1 + v) ** 2 + 2 * c, 2 * r + 2 * w * (1 + v), 2 * w**2 + 2 * c
            return r * (1 + v) + c * w, r * w + c * v, H[0] * H[2] - H[1] ** 2

        true = float(mpmath.findroot(system, (-0.6, -1.3, 0.4))[2])
    assert f"{true:.7f}" == "0.3904183"
    *_, (low, high) = example("fold").bisect(load_problem(FIGURES["b"]), 0.39, 0.391, 1e-7)
    assert low <= true <= high
    assert high - low <= 1e-7


# --- Completeness: against other ways of finding them -----------------------------------------------------


def polynomial_critical_points(problem: Problem) -> np.ndarray:
    """All critical points of ½E(wx + wvf − y)² + c(w² + v²): roots of one polynomial in w.

    ∂G/∂v = 0 gives v = w(g − bw)/(dw² + 2c), and that in ∂G/∂w = 0 a polynomial over (dw² + 2c)³.
    """
    chunk = next(problem.chunks())
    x, f, y, c = chunk.x[:, 0], chunk.f[:, 0], chunk.y, problem.l2
    a, b, d, e, g = (float(np.mean(m)) for m in (x * x, x * f, f * f, x * y, f * y))
    w = np.array([0.0, 1.0])
    D = np.array([2.0 * c, 0.0, d])
    N = poly.polymul(w, [g, -b])  # v = N/D
    D2, D3 = poly.polymul(D, D), poly.polypow(D, 3)
    # aw + bwv − e + v(bw + dwv − g) + 2cw, times D³
    terms = [
        poly.polymul([-e, a + 2.0 * c], D3),
        poly.polymul(poly.polymul([-g, 2.0 * b], N), D2),
        poly.polymul(poly.polymul([0.0, d], poly.polymul(N, N)), D),
    ]
    total = np.zeros(1)
    for term in terms:
        total = poly.polyadd(total, term)
    # A double root of D is no critical point: divide it out where it divides.
    roots = np.roots(total[::-1])
    real = roots[np.abs(roots.imag) < 1e-7].real
    points = np.stack([real, poly.polyval(real, N) / poly.polyval(real, D)], axis=1)
    _, gradient, _ = restricted(problem, plane_of(problem)).derivatives(points)
    return points[np.linalg.norm(gradient, axis=1) < 1e-6]


@pytest.mark.parametrize("seed", range(12))
def test_every_root_in_the_box_is_found_and_nothing_else(seed: int) -> None:
    problem = random_problem(seed, l2=float(10.0 ** np.random.default_rng(seed).uniform(-2.0, 0.0)))
    box = Box(-4.0, 4.0, -4.0, 4.0)
    true = polynomial_critical_points(problem)
    true = true[box.holds(true)]
    found = landscape(problem, box=(-4.0, 4.0, -4.0, 4.0))
    at = np.array([point.at for point in found.critical_points])
    assert len(true) == len(at) > 0
    for point in true:
        assert np.min(np.linalg.norm(at - point, axis=1)) < 1e-6
    assert all(point.proven for point in found.critical_points)
    # Poincaré–Hopf: minima + maxima − saddles = 1, for G grows on all sides; if none lies outside the box.
    if len(true) == len(polynomial_critical_points(problem)):
        assert sum(-1 if point.kind == "saddle" else 1 for point in found.critical_points) == 1


def test_sixteen_starts_find_every_critical_point() -> None:
    box = Box(-4.0, 4.0, -4.0, 4.0)
    for seed in range(60):
        problem = random_problem(seed, l2=float(10.0 ** np.random.default_rng(seed).uniform(-3.0, 0.0)))
        true = polynomial_critical_points(problem)
        isolated, _ = critical_points(restricted(problem, plane_of(problem)), box, 16)
        for point in true[box.holds(true)]:
            assert np.linalg.norm(isolated - point, axis=1).min() < 1e-5, seed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("l2", [None, 0.1])
def test_the_points_on_the_circle_are_those_of_a_fine_scan(seed: int, l2: float | None) -> None:
    problem = replace(random_problem(seed, l2=l2), constraint=Constraint(1.5))
    problem = replace(problem, point=Point(np.array([0.1]), np.array([[0.1]])))
    G = restricted(problem, plane_of(problem))
    angles = np.linspace(0.0, 2.0 * np.pi, 200001)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _, gradient, _ = G.derivatives(1.5 * around)
    along = gradient[:, 1] * around[:, 0] - gradient[:, 0] * around[:, 1]
    held = -(gradient * around).sum(axis=1) / 1.5
    changes = np.flatnonzero(np.diff(np.sign(along)))
    expected = [(angles[i], held[i]) for i in changes if held[i] > 1e-3]
    found = [point for point in landscape(problem).critical_points if point.multiplier is not None]
    assert len(found) == len(expected)
    for point in found:
        angle = math.atan2(point.at[1], point.at[0]) % (2.0 * math.pi)
        near = min(expected, key=lambda pair: abs(pair[0] - angle))
        assert near[0] == pytest.approx(angle, abs=1e-4)
        assert near[1] == pytest.approx(point.multiplier, abs=1e-3)
        assert math.hypot(*point.at) == pytest.approx(1.5, rel=1e-14)
        assert point.proven
        turned = angle + 1e-4 * np.array([-1.0, 0.0, 1.0])
        low, middle, high = G.values(1.5 * np.stack([np.cos(turned), np.sin(turned)], axis=1))
        bend = (low - 2.0 * middle + high) / (1.5 * 1e-4) ** 2
        assert point.eigenvalues[0] == pytest.approx(bend, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("loss", ["logistic", "pseudo_huber", "poisson"])
def test_other_losses_have_their_minima_where_a_grid_has(loss: str) -> None:
    problem = random_problem(3, loss="squared", l2=0.05)
    y = np.array([1.0, -1.0, 1.0, -1.0]) if loss == "logistic" else np.array([0.0, 1.0, 2.0, 1.0])
    chunk = next(problem.chunks())
    problem = Problem.from_arrays(x=chunk.x, y=y, f=chunk.f, w=[0.5], V=[[0.5]], loss=loss, l2=0.05)
    found = landscape(problem)
    values = found.values[1:-1, 1:-1]
    neighbours = [
        found.values[1 + i : len(found.values) - 1 + i, 1 + j : len(found.values) - 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if i or j
    ]
    lowest = np.argwhere(np.all([values < other for other in neighbours], axis=0)) + 1
    cell = found.s[1] - found.s[0]
    minima = [point.at for point in found.critical_points if point.kind == "minimum"]
    on_grid = [(found.s[j], found.t[i]) for i, j in lowest]
    assert minima
    for these, those in ((minima, on_grid), (on_grid, minima)):
        assert all(min(math.dist(at, other) for other in those) < 4.0 * cell for at in these)


def test_starts_fill_the_square_evenly() -> None:
    """Of 72 consecutive points each of the 8 × 9 cells gets one."""
    cells = np.floor(halton(144)[72:] * np.array([8, 9])).astype(int)
    assert len({tuple(cell) for cell in cells.tolist()}) == 72
    assert halton(5)[0].tolist() == pytest.approx([1 / 2, 1 / 3])


# --- Planes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"l2": 0.3}, {"norm": 9.0}])
def test_the_objective_on_a_plane_is_the_objective(options: dict[str, float]) -> None:
    problem = random_problem(1, n=6, d=3, k=2, **options)
    plane = plane_of(problem)
    chunk = next(problem.chunks())
    weight = np.full(6, 1.0 / 6.0)
    G = restricted(problem, plane)
    rng = np.random.default_rng(0)
    at = rng.normal(size=(5, 2))
    values, gradients, hessians = G.derivatives(at)
    np.testing.assert_allclose(G.values(at), values, rtol=1e-13)
    step = 1e-5
    for i, place in enumerate(at):
        point = plane.point(place)
        true = objective(point.w, point.V, chunk.x, chunk.f, chunk.y, weight, problem.loss, options.get("l2"))
        assert values[i] == pytest.approx(float(true), rel=1e-13)
        for j in range(2):
            shift = step * np.eye(2)[j]
            up, down = (G.derivatives((place + sign * shift)[None]) for sign in (1.0, -1.0))
            assert gradients[i, j] == pytest.approx((up[0] - down[0])[0] / (2 * step), rel=1e-6, abs=1e-8)
            np.testing.assert_allclose(
                hessians[i, j], (up[1] - down[1])[0] / (2 * step), rtol=1e-6, atol=1e-7
            )


def flat(direction: Direction) -> np.ndarray:
    return np.concatenate([direction.dw, direction.dV.ravel()])


def test_the_plane_is_spanned_by_the_gradient_and_the_lowest_curvature() -> None:
    problem = random_problem(2, n=6, d=3, k=2)
    plane = plane_of(problem)
    first, second = flat(plane.first), flat(plane.second)
    np.testing.assert_allclose([first @ first, first @ second, second @ second], [1, 0, 1], atol=1e-14)
    chunk = next(problem.chunks())
    h = chunk.x + chunk.f @ problem.point.V.T
    r = h @ problem.point.w - chunk.y
    gradient = np.concatenate([(h.T @ r) / 6, np.outer(problem.point.w, chunk.f.T @ r / 6).ravel()])
    np.testing.assert_allclose(first, gradient / np.linalg.norm(gradient), atol=1e-12)
    assert plane.names == ("s (gradient)", "t (lowest curvature)")


def test_at_a_stationary_point_the_plane_goes_through_the_best_linear_predictor() -> None:
    plane = plane_of(load_problem(ROOT / "configs" / "diabetes.yaml"))
    assert plane.names == ("s (lowest curvature)", "t (to the best linear)")


def test_dependent_directions_span_no_plane() -> None:
    problem = random_problem(0, d=2)
    one = Direction(np.ones(2), np.ones((2, 1)))
    with pytest.raises(RequestError, match="expected two independent directions"):
        plane_of(problem, (one, Direction(2.0 * one.dw, 2.0 * one.dV)))


def test_the_circle_is_where_the_sphere_meets_the_plane() -> None:
    problem = random_problem(4, n=5, d=2, k=2, norm=10.0)
    plane = plane_of(problem)
    assert plane.radius is not None
    for angle in (0.1, 2.0, 4.0):
        at = np.array(plane.center) + plane.radius * np.array([math.cos(angle), math.sin(angle)])
        point = plane.point(at)
        assert math.hypot(np.linalg.norm(point.w), np.linalg.norm(point.V)) == pytest.approx(10.0, rel=1e-13)


@pytest.mark.parametrize("norm", [1e-160, 1e160])
def test_a_circle_whose_square_is_no_float64_is_drawn(norm: float) -> None:
    origin = Point(np.zeros(1), np.zeros((1, 1)))
    problem = replace(random_problem(0, l2=0.1), constraint=Constraint(norm), point=origin)
    plane = plane_of(problem, None)
    assert plane.radius == pytest.approx(norm, rel=1e-15)
    assert landscape(problem).plane.radius == plane.radius


def second_picture_in_two_dimensions(scale: float) -> Landscape:
    """The second picture on (w_1, V_1), with a second input that tells a linear predictor to leave it alone.

    On (w_2, V_2) the Hessian is [[4·scale² + 2c, 2r], [2r, 2c]] with r = w_1(1 + V_1) − 1: without that input
    the minimum of the picture is a saddle in the whole space.
    """
    base = load_problem(FIGURES["b"])
    w, v = float(base.point.w[0]), float(base.point.V[0, 0])
    problem = Problem.from_arrays(
        x=[[1.0, 0.0], [0.0, scale], [0.0, -scale]],
        y=[1.0, 0.0, 0.0],
        f=[[1.0], [0.0], [0.0]],
        w=[w, 0.0],
        V=[[v], [0.0]],
        loss=replace(base.loss, scale=6.0),  # three samples, of which one is that of the picture
        l2=0.25,
    )
    along_w = Direction(np.array([1.0, 0.0]), np.zeros((2, 1)))
    along_v = Direction(np.zeros(2), np.array([[1.0], [0.0]]))
    return landscape(problem, directions=(along_w, along_v))


@pytest.mark.parametrize(("scale", "spurious"), [(0.0, False), (10.0, True)])
def test_on_a_plane_a_minimum_is_spurious_if_it_is_one_of_the_whole_space(
    scale: float, spurious: bool
) -> None:
    found = second_picture_in_two_dimensions(scale)
    assert not found.plane.whole
    [minimum] = [point for point in found.critical_points if point.kind == "minimum" and point.w[0] < 0.0]
    assert minimum.at == pytest.approx((0.0, 0.0), abs=1e-12)
    assert minimum.objective == pytest.approx(1.04982771, abs=1e-8)
    assert minimum.spurious is spurious
    document = found.document()
    assert document["restricted_to_plane"]
    assert all("plane" in point for point in document["critical_points"])


def test_without_a_bound_of_the_third_derivative_nothing_is_proven(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text("def twice(p, y):\n    return (p - y) ** 2\n")
    text = FIGURES["b"].read_text().replace("{kind: squared, scale: 2.0}", "{python: losses.py:twice}")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    found = landscape(load_problem(spec, allow_code=True))
    assert [row[:3] for row in shown(found)] == [row[:3] for row in shown(figure("b"))]


# --- What is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_landscape_is_the_same_picture(name: str, ending: str) -> None:
    found = figure(name)
    first, again = (rendered(landscape_figure(found), f"picture{ending}") for _ in range(2))
    assert first == again
    assert len(first) > 10_000
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])


def test_the_picture_has_an_entry_for_everything_in_it() -> None:
    labels = landscape_figure(figure("c")).axes[0].get_legend_handles_labels()[1]
    assert labels == [
        "the best at V = 0: 0, nowhere less",
        "level of a saddle",
        "not isolated",
        "‖(w, V)‖ = 2",
        "spurious minimum",
        "minimum",
        "saddle",
    ]
    assert "the best at V = 0: 0.2" in landscape_figure(figure("b")).axes[0].get_legend_handles_labels()[1]


def test_values_that_overflow_are_left_out_of_the_picture() -> None:
    problem = Problem.from_arrays(
        x=[[1.0], [2.0]], y=[1.0, 0.0], f=[[1.0], [3.0]], w=[0.1], V=[[0.1]], loss="poisson", l2=0.1
    )
    found = landscape(problem, box=(-30.0, 30.0, -30.0, 30.0))
    assert not np.isfinite(found.values).all()
    assert rendered(landscape_figure(found), "x.png")
    assert len(contour_map(found)) > ROWS


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


def test_the_text_has_a_map_or_a_picture_and_a_table(tmp_path: Path) -> None:
    result = run(str(FIGURES["b"]))
    assert result.exit_code == 0
    assert ".:-=+*#%@ from low to high" in result.stdout
    assert "spurious minimum  -0.98280626  -1.6026823  1.0498277" in result.stdout
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
    assert "s (first direction) to the right, t (second direction) upwards" in result.stdout
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
    plain = landscape(replace(problem, regularizer=Regularizer(0.0)))
    assert shown(plain) == shown(figure("a"))
