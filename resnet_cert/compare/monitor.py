"""Where training stands, once an epoch: the least ε for which the point is an ε-SOPSP, and the gap.

min F_lin is found once; each call is a pass over the data for F, ∇F and −‖A_f‖_2 ≤ λ_min, one for an upper
bound of λ_min, and where the features have changed one for μ2.  The domain ‖W‖, ‖V‖ < b is fixed at the first
call, so that ε* of two epochs speaks of the same μ2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.first_order import bounded
from resnet_cert.decide.lagrangian import slope
from resnet_cert.moments.gradient import first_moments, mu2_pass
from resnet_cert.numerics.enclosure import QUIET, Array, Enclosure, norm
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.arrays import float64_array
from resnet_cert.problem.convexity import assumption1
from resnet_cert.problem.problem import Problem
from resnet_cert.theory import theorems

ROOM = 4.0
"""b at the first call is so many times max(‖W‖, ‖V‖), or this itself where both are smaller than 1."""


@dataclass(frozen=True)
class Progress:
    """One point of a training run, as `check` would enclose it.

    epsilon: the least ε for which it is an ε-SOPSP on the domain of radius b; None where μ2 is not known.
    gap: F − min F_lin.  b, mu2: what ε* speaks of; b has doubled where the point had left the domain.
    """

    epsilon: Enclosure | None
    gradient_norm: Enclosure
    lambda_min: Enclosure
    gap: Enclosure
    F: Enclosure
    b: float
    mu2: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Flat numbers for a logger: upper bounds, of λ_min the lower one."""
        return {
            "epsilon": None if self.epsilon is None else self.epsilon.upper,
            "gradient_norm": self.gradient_norm.upper,
            "lambda_min": self.lambda_min.lower,
            "gap": self.gap.upper,
            "F": self.F.value,
        }

    def __str__(self) -> str:
        epsilon = "unknown" if self.epsilon is None else f"{self.epsilon.upper:.3g}"
        return (
            f"ε* ≤ {epsilon}, ‖∇F‖ ≤ {self.gradient_norm.upper:.3g}, λ_min ≥ {self.lambda_min.lower:.3g}, "
            f"F − min F_lin ≤ {self.gap.upper:.3g}"
        )


class Monitor:
    """`monitor(W, V)` says where a training run stands.

    Args:
        x: (n, d) inputs of the block;  y: the targets, as in `Problem.from_arrays`.
        loss: as there.
        f: x ↦ the features (n, k) of the network as it is now; or none, and each call is given them.
        b: the domain ‖W‖, ‖V‖ < b; by default 4·max(‖W‖, ‖V‖) at the first call, at least 4.
        r: the ball of the linear predictors; by default a little more than the best one's norm.
        options: as in `Problem.from_arrays`: bypass, probabilities, weight_decay, decay_bias, mu2, ...
    """

    @QUIET
    def __init__(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        loss: Any = "squared",
        f: Callable[[Array], npt.ArrayLike] | None = None,
        b: float | None = None,
        r: float | None = None,
        **options: Any,
    ) -> None:
        require_sound_arithmetic()
        self._x, self._y = float64_array(x, "x").copy(), float64_array(y, "y").copy()  # as they are now
        self._loss, self._features = loss, f
        self._b, self._r, self._options = b, r, options
        self._linear: LinearMinimum | None = None
        self._f: Array | None = None
        self._mu2: float | None = None

    @QUIET
    def __call__(
        self,
        W: npt.ArrayLike,
        V: npt.ArrayLike,
        c: npt.ArrayLike | None = None,
        f: npt.ArrayLike | None = None,
    ) -> Progress:
        """The point (W, V), with the head's bias c if it has one; W may be w (d,).

        Raises:
            RequestError: the shapes do not fit, no features are given, or the loss violates Assumption 1.
        """
        if f is None and self._features is None:
            raise RequestError(
                "expected the features f, here or as a function when the Monitor is made", id="unfit-part"
            )
        given = self._features(self._x) if f is None and self._features is not None else f
        features = float64_array(given, "f")
        problem = Problem.from_arrays(
            x=self._x, y=self._y, f=features, W=W, V=V, c=c, loss=self._loss, r=self._r, **self._options
        )
        with small_algebra(problem.side):
            return self._at(problem, features)

    def _at(self, problem: Problem, features: Array) -> Progress:
        b = self._b
        if b is None or max(norm(problem.W).upper, norm(problem.V).upper) >= b:  # Frobenius' norms are larger
            size = max(problem.norm_W.upper, problem.norm_V.upper)
            b = ROOM * max(size, 1.0) if b is None else b
            while size >= b:
                b *= 2.0
        if self._linear is None:
            self._linear = best_linear_predictor(problem, self._r, b)
            assumption1(problem, 0.0, self._linear.r)
        if b != self._b or self._f is None or not np.array_equal(features, self._f):
            self._mu2 = self._claim(problem, b)
        self._b, self._f = b, features.copy()  # a training loop may write into its own

        here = first_moments(problem)
        at = slope(problem, here)
        lambda_min = bounded(problem, here, at, None, open_=False, searches=False).lambda_min
        m = (-lambda_min).positive_part()
        return Progress(
            epsilon=theorems.smallest_epsilon(at.norm, m, self._mu2),
            gradient_norm=at.norm,
            lambda_min=lambda_min,
            gap=here.F - self._linear.F_min,
            F=here.F,
            b=b,
            mu2=self._mu2,
        )

    @staticmethod
    def _claim(problem: Problem, b: float) -> float | None:
        """μ2: the user's, or the bound on the domain."""
        if problem.lipschitz.mu2 is not None:
            return problem.lipschitz.mu2
        mu2 = mu2_pass(problem, b)
        return None if mu2 is None or not np.isfinite(mu2) else mu2
