"""The search in d + k unknowns: no step loses a critical point, and the list is what descents come to."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from selections import first
from stationary import LOSSES, assert_stationary, critical_points, hessian, problem_of

from resnet_cert import Problem
from resnet_cert.search import decayed
from resnet_cert.search.decayed import search
from resnet_cert.search.derivatives import Objective
from resnet_cert.search.equations import equations
from resnet_cert.search.heads import Heads
from resnet_cert.search.landscape import MULTI_START, landscape
from resnet_cert.search.shells import Shells

APART = [("logistic", (3, 2, 0.03)), ("squared", (2, 2, 0.05))]


@pytest.mark.parametrize(
    ("loss", "size"),
    first(2, sorted(product(LOSSES, [(2, 2, 0.05), (3, 2, 0.03)]), key=lambda case: case not in APART)),
)
def test_no_box_loses_a_critical_point(loss: str, size: tuple[int, int, float]) -> None:
    d, k, l2 = size
    problem = problem_of(3, d, k, l2, loss)
    with np.errstate(all="ignore"):
        shells = Shells(equations(problem), problem.loss, np.inf)
    rng = np.random.default_rng(0)
    points = critical_points(problem, 40, 2)
    assert points
    for z in points:
        W, V = Objective(problem).head(z)
        w, s = W[0], float(W[0] @ W[0])
        b = V.T @ w / s
        at = np.concatenate([w, s * b, b, [s, b @ b]])
        reach = np.abs(at) * 10.0 ** rng.uniform(-6.0, 1.5, size=(100, len(at)))
        low, high = at - reach * rng.uniform(size=reach.shape), at + reach * rng.uniform(size=reach.shape)
        low[:, -2:] = np.maximum(low[:, -2:], 0.0)
        starts = low[:, : d + k] + rng.uniform(size=(100, d + k)) * (high - low)[:, : d + k]
        heads = Heads(shells, 0.0)
        for examine, of, start in ((shells, slice(None), starts), (heads, shells.of, starts[:, d:])):
            if b @ b > shells.edge and examine is shells:
                continue
            with np.errstate(all="ignore"):
                seen = examine(low[:, of], high[:, of], start)
            held = [alone for *_, alone in seen.found]  # a box whose one zero is found is not kept
            assert all((np.abs(at[shells.of] - c) <= r).all() for c, r in held)
            assert seen.alive.sum() + len(held) == len(low)
            slack = 1e-7 * np.abs(at[of])
            assert (seen.low <= at[of] + slack)[seen.alive].all()
            assert (seen.high >= at[of] - slack)[seen.alive].all()


@pytest.mark.parametrize(
    ("seed", "d", "k", "l2", "loss"),
    [
        (1, 2, 2, 1e-3, "squared"),
        pytest.param(2, 2, 3, 1e-2, "logistic", marks=pytest.mark.long),
        pytest.param(1, 3, 3, 1e-2, "squared", marks=pytest.mark.long),
        pytest.param(3, 3, 3, 0.1, "poisson", marks=pytest.mark.long),
        pytest.param(4, 2, 3, 1e-5, "pseudo_huber", marks=pytest.mark.long),
    ],
)
def test_six_unknowns_are_decided(seed: int, d: int, k: int, l2: float, loss: str) -> None:
    problem = problem_of(seed, d, k, l2, loss)
    found = search(problem, np.array([-20.0, -20.0]), np.array([20.0, 20.0]))
    assert found.complete
    listed = assert_stationary(problem, found.points)
    for z in critical_points(problem, 8):
        if np.abs(z).max() < 20.0:
            assert min(float(np.linalg.norm(z - other)) for other in listed) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_around_a_point_is_enclosed(loss: str) -> None:
    problem, rng = problem_of(2, 3, 2, 0.1, loss), np.random.default_rng(0)
    function, W, V = Objective(problem), problem.W, problem.V
    for radius in (0.0, 1e-3):
        found = equations(problem).hessian(W[0], V, radius)
        step = rng.normal(size=problem.parameters)
        truth = hessian(function, function.flat(problem.point) + step * (radius / np.linalg.norm(step)))
        away = float(np.linalg.norm(truth - found.center))
        assert away <= float(found.radius) + 1e-12 * np.abs(truth).max()
        assert float(found.radius) < (100.0 * radius + 1e-12) * np.abs(truth).max()


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "k", "n", "l2"),
    [(41000037, 3, 6, 2.819214615473914e-10), (42100013, 2, 5, 2.8686366814555246e-10)],
)
def test_a_kind_is_proven_where_the_smallest_eigenvalue_is_that_of_the_decay(
    seed: int, k: int, n: int, l2: float
) -> None:
    found = landscape(problem_of(seed, 2, k, l2, "logistic", n))
    assert found.complete
    assert [point.kind for point in found.critical_points] == ["minimum", "saddle"]
    assert all(point.proven for point in found.critical_points)


def test_a_point_near_by_is_so_at_any_scale() -> None:
    """|w_1bᵀ − (w + r)(b + s)ᵀ| of the order 1e-180, whose square underflows."""
    problem = problem_of(0, 2, 1, 0.1, "squared")
    at, radius = np.array([1e-10, 2e-10, 0.0]), np.array([0.0, 0.0, 1e-170])
    *_, distance = decayed.placed(problem, at, radius)
    assert distance >= np.hypot(1e-10, 2e-10) * 1e-170


def test_a_ratio_is_bounded_at_any_scale() -> None:
    """|b| = |E[ℓ' f]|/(2·l2) where y, and so ℓ' at 0, is of the order 1e-170, whose square underflows."""
    problem = problem_of(0, 1, 1, 0.1, "squared")
    system = equations(problem)
    tiny = replace(system, y=system.y * 1e-170)
    most = decayed._largest_ratio(problem, Shells(tiny, problem.loss, 1.0), 1e-175, 1e-175)
    assert most[0] >= 1e-170 * abs(float(np.mean(system.y * system.z[:, 1]))) / 0.2


@pytest.mark.long
def test_separable_labels_far_from_0_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decayed, "STARTS", 1)
    rng = np.random.default_rng(1)
    x, f = rng.normal(size=(10, 3)), rng.normal(size=(10, 1))
    problem = Problem.from_arrays(
        x=x, f=f, y=np.sign(x[:, 0]), w=np.ones(3), V=np.ones((3, 1)), loss="logistic", l2=3e-9
    )
    found = search(problem, np.array([-30.0, -5.0]), np.array([30.0, 5.0]))
    assert found.complete
    assert found.reach_w > 30.0
    assert len(assert_stationary(problem, found.points)) == 2


def test_what_is_left_is_listed_as_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decayed, "STARTS", 1)
    monkeypatch.setattr(decayed, "LEAST_BOXES", 500)
    monkeypatch.setattr(decayed, "MOST_SHELLS", 500)
    found = landscape(problem_of(0, 3, 3, 1e-3, "logistic"))
    document = found.to_dict()
    assert found.searched == "d + k unknowns, in part"
    assert not found.complete
    assert document["undecided_boxes"] >= len(document["undecided"]) > 0
    box = document["undecided"][0]
    assert np.shape(box["w"]) == (3, 2)
    assert np.shape(box["V"]) == (3, 3, 2)
    assert document["range"].keys() == {"w", "V"}
    assert "Not decided here, in" in str(found)


def test_many_unknowns_are_said_to_be_descended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decayed, "STARTS", 2)
    found = landscape(problem_of(0, 4, 4, 0.1, "squared", n=20))
    assert found.searched == MULTI_START
    assert not found.complete
    assert "descents from many starts" in " ".join(str(found).split())
    assert "that there is none is not proven" in " ".join(str(found).split())
