"""The problem with several outputs: p = W(x + V f_θ(x)) ∈ R^q, W ∈ R^{q×d}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from resnet_cert.enclosure import Array
from resnet_cert.errors import RequestError
from resnet_cert.problem import (
    BLOCK_ROWS,
    CHUNK_BYTES,
    HELD_BYTES,
    Chunk,
    Distribution,
    Domain,
    Features,
    GivenFeatures,
    Lipschitz,
    Rows,
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
class VectorProblem:
    """Is (W, V) an ε-second-order partial stationary point of F(W,V,θ) = E[ℓ(W(x + V f_θ(x)); y)]?

    Args:
        distribution: its y is (n, q), or (n,) class labels 0..q−1 where the loss takes labels.
        omega: (n, q) weights of the outputs, for a loss with weights only.
        domain: ‖W‖ < b, ‖V‖ < b in spectral norm; ‖W*‖_F ≤ r for the linear predictors.
    """

    distribution: Distribution
    loss: VectorLoss
    features: Features
    point: VectorPoint
    epsilon: float
    omega: Rows | None = None
    domain: Domain = field(default_factory=Domain)
    lipschitz: Lipschitz = field(default_factory=Lipschitz)
    name: str = "problem"

    @property
    def n(self) -> int:
        return self.distribution.n

    @property
    def d(self) -> int:
        return self.distribution.d

    @property
    def k(self) -> int:
        return self.features.k

    @property
    def q(self) -> int:
        return self.point.W.shape[0]

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk: whole blocks, n at the most."""
        wanted = CHUNK_BYTES // (8 * (self.d + self.k + self.q * (self.q + 4)))
        return min(self.n, max(1, wanted // BLOCK_ROWS) * BLOCK_ROWS)

    def chunks(self, *, features: bool = True) -> Iterator[VectorChunk]:
        """The samples in order, `chunk_rows` at a time; with features=False every f is empty (m, 0)."""
        data, size = self.distribution, self.chunk_rows
        for start in range(0, self.n, size):
            rows = slice(start, min(start + size, self.n))
            x, y = _float64(data.x[rows]), _float64(data.y[rows])
            if y.ndim == 1:
                y = one_hot(y, self.q)
            weight = None if data.probabilities is None else _float64(data.probabilities[rows])
            omega = None if self.omega is None else _float64(self.omega[rows])
            f = self.features.rows(rows, x, size) if features else np.empty((len(x), 0))
            yield VectorChunk(x, y, f, weight, omega)

    def with_features_held(self) -> VectorProblem:
        """The same problem with a network's features evaluated once and kept, if they fit in HELD_BYTES."""
        if isinstance(self.features, GivenFeatures) or self.n * self.k * 8 > HELD_BYTES:
            return self
        f = np.concatenate([chunk.f for chunk in self.chunks()])
        return replace(self, features=GivenFeatures(f, self.features))

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
        problem = VectorProblem(
            distribution=Distribution(
                _float64(x), _float64(y), None if probabilities is None else _float64(probabilities)
            ),
            loss=named_loss(loss) if isinstance(loss, str) else loss,
            features=GivenFeatures(_float64(f)),
            point=VectorPoint(_float64(W), _float64(V)),
            epsilon=float(epsilon),
            omega=None if omega is None else _float64(omega),
            domain=Domain(b, r),
            lipschitz=Lipschitz(mu0, mu1, mu2),
            name=name,
        )
        faults = problem.faults()
        if faults:
            raise RequestError("\n".join(message for _, message in faults))
        return problem

    def faults(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Everything about shapes and values that makes this no problem: (path in the spec, message)."""
        from resnet_cert.vector.wellformed import shape_faults, value_faults

        unfit = shape_faults(self)
        return unfit + value_faults(self, evaluate=not unfit)


def one_hot(labels: Array, q: int) -> Array:
    """(m, q): row i has its 1 at labels_i."""
    return (labels[:, None] == np.arange(float(q))).astype(np.float64)


def _float64(a: npt.ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)
