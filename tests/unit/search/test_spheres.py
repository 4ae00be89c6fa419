"""Global minima that weight decay leaves in a sphere: proven, and against the convex function below G."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from stationary import LOSSES

from resnet_cert import Problem
from resnet_cert.search import decayed
from resnet_cert.search.derivatives import Augmented, Objective
from resnet_cert.search.landscape import landscape
from resnet_cert.search.spheres import null_space


def of_rank_1(seed: int, loss: str) -> Problem:
    """x_1 = s·(1, 2, −3) exactly, and targets that features tell more of."""
    rng = np.random.default_rng(seed)
    s, f = np.round(64.0 * rng.normal(size=8)) / 64.0, rng.normal(size=(8, 2))
    y = f.sum(axis=1) + 0.3 * s + 0.1 * rng.normal(size=8)
    return Problem.from_arrays(
        x=np.outer(s, [1.0, 2.0, -3.0]),
        f=f,
        y={"logistic": np.sign(y), "poisson": np.abs(y)}.get(loss, y),
        w=rng.normal(size=3),
        V=rng.normal(size=(3, 2)),
        loss=loss,
        l2=0.01,
    )


def least_below(problem: Problem) -> float:
    """min Φ(w, z) + 2·l2·‖z‖, by BFGS."""
    Phi, l2 = Augmented(problem), problem.objective.l2

    def convex(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = Phi.at(u)
        size = float(np.linalg.norm(u[3:]))
        return value + 2.0 * l2 * size, slope + 2.0 * l2 * np.append(np.zeros(3), u[3:] / size)

    return float(minimize(convex, np.ones(5), jac=True, tol=1e-10).fun)


@pytest.mark.parametrize(
    ("seed", "loss"),
    [
        (1, "squared"),
        *(pytest.param(seed, loss, marks=pytest.mark.long) for seed in range(2, 5) for loss in LOSSES),
    ],
)
def test_minima_that_are_a_sphere_are_listed_as_one(
    monkeypatch: pytest.MonkeyPatch, seed: int, loss: str
) -> None:
    monkeypatch.setattr(decayed, "STARTS", 4)
    problem = of_rank_1(seed, loss)
    found = landscape(problem)
    assert found.complete
    [sphere] = found.critical_sets
    assert (sphere.kind, sphere.dimension) == ("minimum", 1)
    assert sphere.value.upper - sphere.value.lower < 1e-9
    assert least_below(problem) == pytest.approx(sphere.value.value, abs=1e-7)
    function = Objective(problem)
    w, V = sphere.through.W[0], sphere.through.V
    b = V.T @ w / float(w @ w)
    assert float(b @ b) == pytest.approx(1.0, abs=1e-9)
    axis = np.array([1.0, 2.0, -3.0]) / np.sqrt(14.0)
    for angle in (0.7, 2.0, 4.0):  # w turned about the axis of x_1
        turned = np.cos(angle) * w + np.sin(angle) * np.cross(axis, w)
        turned += (1.0 - np.cos(angle)) * float(axis @ w) * axis
        value, slope = function.at(np.concatenate([turned, np.outer(turned, b).ravel()]))
        assert value == pytest.approx(sphere.value.value, abs=1e-12)
        assert np.linalg.norm(slope) < 1e-9
    assert all(point.objective.lower > sphere.value.upper for point in found.critical_points)
    assert "Global minima of G over all (W, V)" in " ".join(str(found).split())


def test_a_null_space_is_exact() -> None:
    x = np.array([[1.0, 3.0, 0.5, 0.0], [2.0, 6.0, 1.0, 0.0], [0.1, 0.3, 0.05, 0.0]])
    found = null_space(x[:2])
    assert found is not None
    columns, null = found
    assert columns == [0]
    assert null.center.tolist() == [[-3.0, 1.0, 0.0, 0.0], [-0.5, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    found = null_space(x)
    assert found is not None
    assert found[0] == [0, 1]  # 0.3 is not 3 · 0.1
    turned = found[1].center @ x.T
    assert np.abs(turned).max() < 1e-15
