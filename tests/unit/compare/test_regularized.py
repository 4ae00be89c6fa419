"""The best linear predictor under a constraint that leaves the bias out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from resnet_cert import Problem
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.regularized import least_in_cylinder
from resnet_cert.numerics.jax64 import float64_scope, jnp
from resnet_cert.problem.custom_loss import CustomLoss
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


def _step(t: Any) -> Any:
    return 0.5 + 0.5 * jnp.tanh(0.5 * t)


@pytest.mark.parametrize("convex", [False, True])
def test_in_a_cylinder_as_well_only_a_convex_loss_lies_below_its_chords(convex: bool) -> None:
    """A ridge of height 5 from 0.1 to 2 lies between 0 and a minimiser that is outside of the cylinder."""

    def loss(p: Any, y: Any) -> Any:
        u, height = 0.25 * p * y, 0.0 if convex else 5.0
        return 0.5 * (p - y) ** 2 + height * (_step(200.0 * (u - 0.1)) - _step(200.0 * (u - 2.0)))

    mine = CustomLoss(loss, "mine", convex=convex)
    problem = Problem.from_arrays(
        x=[[1.0], [-1.0]], y=[4.0, -4.0], f=[[0.0], [0.0]], w=[0.1], V=[[0.0]], c=[0.0], loss=mine
    )
    found = least_in_cylinder(replace(problem, objective=Objective(0.0, 0.5, False)), 0.5)
    W, c = np.meshgrid(np.linspace(-0.5, 0.5, 101), np.linspace(-8.0, 8.0, 801))
    with float64_scope():
        F = 0.5 * (np.asarray(loss(W + c, 4.0)) + np.asarray(loss(c - W, -4.0)))
    least = float(np.min(F))
    assert found.lower <= least
    assert found.upper >= least - 1e-3
    assert math.isfinite(found.lower) is convex
