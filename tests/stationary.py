"""Small problems with weight decay, and the critical points that MINPACK finds from random starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.optimize import root

from resnet_cert import Problem
from resnet_cert.search.derivatives import Objective

LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")


def problem_of(seed: int, d: int, k: int, l2: float, loss: str, n: int = 8) -> Problem:
    rng = np.random.default_rng(seed)
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, k)), 2.0 * rng.normal(size=n)
    return Problem.from_arrays(
        x=x,
        y={"logistic": np.sign(y), "poisson": np.abs(y)}.get(loss, y),
        f=f,
        w=rng.normal(size=d),
        V=rng.normal(size=(d, k)),
        loss=loss,
        l2=l2,
    )


def hessian(function: Objective, z: np.ndarray) -> np.ndarray:
    return np.stack([function.hessian_product(z, unit) for unit in np.eye(len(z))])


def critical_points(problem: Problem, starts: int, most: int = 9) -> list[np.ndarray]:
    """(w, V) where MINPACK's method comes to from random starts."""
    function, rng = Objective(problem), np.random.default_rng(7)
    found: list[np.ndarray] = []
    for _ in range(starts):
        z = rng.normal(size=problem.parameters) * 2.0 ** rng.integers(-3, 3)
        with np.errstate(all="ignore"):
            end = root(lambda z: function.at(z)[1], z, jac=lambda z: hessian(function, z), tol=1e-13)
        size = float(np.linalg.norm(function.at(end.x)[1]))
        if size < 1e-10 and not any(np.linalg.norm(end.x - other) < 1e-6 for other in found):
            found.append(end.x)
        if len(found) == most:
            break
    return found


def assert_stationary(
    problem: Problem, points: Iterable[tuple[np.ndarray, np.ndarray, Any]]
) -> list[np.ndarray]:
    """The points (w, bwᵀ) that a search with weight decay lists, each with a gradient that vanishes."""
    listed = [np.concatenate([w, np.outer(w, b).ravel()]) for w, b, _ in points]
    for z in listed:
        assert np.linalg.norm(Objective(problem).at(z)[1]) < 1e-9
    return listed
