"""The problem with several outputs: p = W(x + V f_θ(x)) ∈ R^q, W ∈ R^{q×d}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import Array
from resnet_cert.problem.problem import (
    AnyProblem,
    Chunk,
    Distribution,
    Domain,
    Fault,
    GivenFeatures,
    Lipschitz,
    Rows,
    float64,
)
from resnet_cert.vector.losses import VectorLoss, named_loss


@dataclass(frozen=True)
class VectorPoint:
    """The point (W, V): W (q, d), V (d, k)."""

    W: Array
    V: Array


@dataclass(frozen=True)
class VectorChunk(Chunk):
    """Consecutive samples; y (m, q), and weights ω (m, q) of the outputs where the loss has some."""

    omega: Array | None = None


@dataclass(frozen=True)
class VectorProblem(AnyProblem):
    """Is (W, V) an ε-second-order partial stationary point of F(W,V,θ) = E[ℓ(W(x + V f_θ(x)); y)]?

    Args:
        distribution: its y is (n, q), or (n,) class labels 0..q−1 where the loss takes labels.
        omega: (n, q) weights of the outputs, for a loss with weights only.
        domain: ‖W‖ < b, ‖V‖ < b in spectral norm; ‖W*‖_F ≤ r for the linear predictors.
    """

    loss: VectorLoss
    point: VectorPoint
    omega: Rows | None = None

    @property
    def q(self) -> int:
        return self.point.W.shape[0]

    @property
    def numbers_a_row(self) -> int:
        return self.d + self.k + self.q * (self.q + 4)

    def chunks(self, *, features: bool = True) -> Iterator[VectorChunk]:
        for rows, chunk in self.slices(features=features):
            y = one_hot(chunk.y, self.q) if chunk.y.ndim == 1 else chunk.y
            omega = None if self.omega is None else float64(self.omega[rows])
            yield VectorChunk(chunk.x, y, chunk.f, chunk.weight, omega)

    def shape_faults(self) -> list[Fault]:
        from resnet_cert.vector import wellformed

        return wellformed.shape_faults(self)

    def value_faults(self, *, evaluate: bool) -> list[Fault]:
        from resnet_cert.vector import wellformed

        return wellformed.value_faults(self, evaluate=evaluate)

    @staticmethod
    def from_arrays(
        *,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        f: npt.ArrayLike,
        W: npt.ArrayLike,
        V: npt.ArrayLike,
        loss: str | VectorLoss = "squared",
        epsilon: float = 0.0,
        probabilities: npt.ArrayLike | None = None,
        omega: npt.ArrayLike | None = None,
        b: float | None = None,
        r: float | None = None,
        mu0: float | None = None,
        mu1: float | None = None,
        mu2: float | None = None,
        name: str = "problem",
    ) -> VectorProblem:
        """A problem from arrays of any framework that NumPy can read.

        Args:
            x: (n, d) inputs;  f: (n, k) features f_θ(x).
            y: (n, q) targets, or (n,) class labels 0..q−1 for the softmax loss.
            W: (q, d);  V: (d, k): the point.
            loss: a built-in loss for vectors by name, or a `VectorLoss`.
            epsilon: ε ≥ 0.
            probabilities: (n,) positive weights; equal by default.
            omega: (n, q) weights ≥ 0 of the outputs, for the weighted squared loss.
            b, r: the domain; mu0, mu1, mu2: claimed Lipschitz constants.  None: computed.

        Raises:
            RequestError: naming every array whose shape or values do not fit.
        """
        return VectorProblem(
            distribution=Distribution.of(x, y, probabilities),
            loss=named_loss(loss) if isinstance(loss, str) else loss,
            features=GivenFeatures(float64(f)),
            point=VectorPoint(float64(W), float64(V)),
            epsilon=float(epsilon),
            omega=None if omega is None else float64(omega),
            domain=Domain(b, r),
            lipschitz=Lipschitz(mu0, mu1, mu2),
            name=name,
        ).without_faults()


def one_hot(labels: Array, q: int) -> Array:
    """(m, q): row i has its 1 at labels_i."""
    return (labels[:, None] == np.arange(float(q))).astype(np.float64)
