"""The best linear predictors on further inputs: for the last block of a deep network, its raw inputs, say.

No theorem is behind the comparison: min F_lin on each is a number, and so is its distance from F.
"""

from __future__ import annotations

import numpy as np

from resnet_cert.compare.augmented import on_inputs
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Comparator


def comparators_here(problem: Problem, F: Enclosure, b: float) -> tuple[Comparator, ...]:
    """F against each; with a bias where the head has one.

    Args:
        F: its value at the point.  b: the radius where no minimum is attained.
    """
    found = []
    for name, rows in problem.comparators.items():
        W = np.zeros((problem.q, rows.shape[1]))
        bias = np.zeros(problem.q) if problem.has_bias else None
        best = best_linear_predictor(on_inputs(problem, rows, W, bias=bias), problem.domain.r, b)
        found.append(Comparator(name, best.F_min, F - best.F_min, best.r, best.attained))
    return tuple(found)
