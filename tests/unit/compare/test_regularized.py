"""The best linear predictor under a constraint that leaves the bias out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from resnet_cert import Problem
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.regularized import least_in_cylinder
from resnet_cert.problem.problem import Objective


@pytest.mark.parametrize(("q", "l2"), [(1, 0.0), (2, 0.0), (1, 0.3)])
def test_a_free_bias_takes_the_means_away(q: int, l2: float):
    """Of squared loss: its best value is that of the centred data, on the ball of the other columns."""
    rng = np.random.default_rng(q)
    x, y, f = rng.normal(size=(12, 3)), rng.normal(size=(12, q)) + 3.0, rng.normal(size=(12, 2))
    W, V = rng.normal(size=(q, 3)) / 10.0, rng.normal(size=(3, 2)) / 10.0
    problem = Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, c=np.zeros(q), loss="squared")
    # ½E(wx − y)² + l2‖w‖² is the loss of data with √(2·l2·n) more rows I, and so of n + 3 samples.
    rows = np.concatenate([x - x.mean(axis=0), np.sqrt(2.0 * l2 * 12.0) * np.eye(3)])
    targets = np.concatenate([y - y.mean(axis=0), np.zeros((3, q))])
    centred = Problem.from_arrays(x=rows, y=targets, f=np.zeros((15, 1)), W=W, V=V[:, :1], loss="squared")
    for most, active in ((0.2, True), (50.0, False)):
        found = least_in_cylinder(replace(problem, objective=Objective(l2, most, False)), most)
        true = best_linear_predictor(centred, most, 1.0).F_min.value * 15.0 / 12.0
        assert found.lower <= true * (1.0 + 1e-12)
        assert true * (1.0 - 1e-12) <= found.upper
        assert found.upper - found.lower < 1e-9 * true
        everywhere = best_linear_predictor(problem, most, 1.0).F_min.lower
        assert not active or found.upper < everywhere - 0.1  # the ball of all columns is another question
