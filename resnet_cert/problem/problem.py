"""The problem that the mathematics sees: a distribution, a loss, features f_θ(x), a point (w, V), a domain.

Everything here is frozen, knows no file and no YAML, and names things as the paper does: x ∈ R^d,
f = f_θ(x) ∈ R^k, w ∈ R^d, V ∈ R^{d×k}, prediction p = wᵀ(x + V f) (Shamir 2018, section 2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import Array
from resnet_cert.outcomes import Diagnostic, RequestError

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss

BLOCK_ROWS = 512
"""Rows of one product-sum: an inner product meets at most 512 roundings before the tree takes over."""
CHUNK_BYTES = 2**24
"""Working memory for one chunk of rows; memory does not grow with n."""
HELD_BYTES = 2**28
"""Features of a network that take no more than this are evaluated once and kept."""
BOUNDARY_WIDTH = 1e-6
"""A point whose norm is that of the constraint to this relative accuracy counts as on its boundary: decimals
do not lie on a sphere."""


class Rows(Protocol):
    """An array of samples that is read some rows at a time: in memory (a NumPy array) or in a mapped file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class MappedRows:
    """Rows of a C-ordered array inside a file.  Each read maps its own pages and lets them go again, so the
    resident memory is that of one chunk."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        return np.memmap(
            self.path,
            dtype=self.dtype,
            mode="r",
            offset=self.offset + start * row_bytes,
            shape=(stop - start, *self.shape[1:]),
        )


@dataclass(frozen=True)
class Distribution:
    """A finite distribution of (x, y): E[g] = Σ_i π_i g(x_i, y_i) / Σ_i π_i.

    Args:
        x: (n, d) inputs.
        y: (n,) targets.
        probabilities: (n,) positive weights π_i; None: all equal.
    """

    x: Rows
    y: Rows
    probabilities: Rows | None = None

    @staticmethod
    def of(x: npt.ArrayLike, y: npt.ArrayLike, probabilities: npt.ArrayLike | None) -> Distribution:
        """That of arrays of any framework that NumPy can read."""
        return Distribution(float64(x), float64(y), None if probabilities is None else float64(probabilities))

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def d(self) -> int:
        return self.x.shape[1]


class Features(Protocol):
    """f_θ on the samples: n rows of k numbers, a part of the data as far as the theorems are concerned."""

    @property
    def k(self) -> int: ...

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        """(m, k) features of the samples `rows`, whose inputs are x (m, d).

        A compiled network is run on batches of `pad_to` rows, so that one shape is compiled.
        """
        ...


@dataclass(frozen=True)
class GivenFeatures:
    """Features that come with the data, from any framework: an (n, k) array.

    network: what computed them, where they do not come with the data.
    """

    f: Rows
    network: Features | None = None

    @property
    def k(self) -> int:
        return self.f.shape[1]

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        return np.asarray(self.f[rows], dtype=np.float64)


@dataclass(frozen=True)
class Point:
    """The point (w, V): w (d,), V (d, k)."""

    w: Array
    V: Array


@dataclass(frozen=True)
class Domain:
    """The domain ‖w‖ < b, ‖V‖ < b (spectral norm) and the ball ‖w*‖ ≤ r of the linear predictors.

    None stands for `auto`: b = 1.01·max(‖w‖, ‖V‖) (1 if both are 0); r = 1.01·‖argmin F_lin‖ if it is
    attained, else b.
    """

    b: float | None = None
    r: float | None = None


@dataclass(frozen=True)
class Lipschitz:
    """The user's claims μ0, μ1, μ2: Lipschitz constants of F, ∇F, ∇²F on the domain; None: computed."""

    mu0: float | None = None
    mu1: float | None = None
    mu2: float | None = None


@dataclass(frozen=True)
class Regularizer:
    """The objective is F + l2·(‖w‖² + ‖V‖_F²), l2 ≥ 0."""

    l2: float


@dataclass(frozen=True)
class Constraint:
    """The point is sought on the ball ‖(w, V)‖ = √(‖w‖² + ‖V‖_F²) ≤ norm, norm > 0."""

    norm: float


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples: x (m, d), y (m,), f (m, k), weights π (m,) or None where all are 1."""

    x: Array
    y: Array
    f: Array
    weight: Array | None


Fault = tuple[tuple[str | int, ...], str]
"""What is wrong with a problem: (path in the spec, message)."""


@dataclass(frozen=True)
class AnyProblem(ABC):
    """Is a point an ε-second-order partial stationary point?  The same for any number of outputs."""

    distribution: Distribution
    loss: Any
    features: Features
    point: Any
    epsilon: float
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
    def chunk_rows(self) -> int:
        """Rows of a chunk: whole blocks, n at the most."""
        wanted = CHUNK_BYTES // (8 * self.numbers_a_row)
        return min(self.n, max(1, wanted // BLOCK_ROWS) * BLOCK_ROWS)

    @property
    def numbers_a_row(self) -> int:
        """How many float64 numbers a sample takes in a chunk."""
        return self.d + self.k + 1

    @abstractmethod
    def chunks(self, *, features: bool = True) -> Iterator[Chunk]:
        """The samples in order, `chunk_rows` at a time (fewer in the last one).

        With features=False every f is empty (m, 0): a linear predictor is a residual network without them.
        """

    def slices(self, *, features: bool) -> Iterator[tuple[slice, Chunk]]:
        """The chunks as they stand in the arrays, with their rows."""
        data, size = self.distribution, self.chunk_rows
        for start in range(0, self.n, size):
            rows = slice(start, min(start + size, self.n))
            x, y = float64(data.x[rows]), float64(data.y[rows])
            weight = None if data.probabilities is None else float64(data.probabilities[rows])
            f = self.features.rows(rows, x, size) if features else np.empty((len(x), 0))
            yield rows, Chunk(x, y, f, weight)

    def with_features_held(self) -> Self:
        """The same problem with a network's features evaluated once and kept, if they fit in HELD_BYTES."""
        if isinstance(self.features, GivenFeatures) or self.n * self.k * 8 > HELD_BYTES:
            return self
        f = np.concatenate([chunk.f for _, chunk in self.slices(features=True)])
        return replace(self, features=GivenFeatures(f, self.features))

    def faults(self) -> list[Fault]:
        """Everything about shapes and values that makes this no problem."""
        unfit = self.shape_faults()
        return unfit + self.value_faults(evaluate=not unfit)

    @abstractmethod
    def shape_faults(self) -> list[Fault]:
        """The arrays whose shapes do not fit each other."""

    @abstractmethod
    def value_faults(self, *, evaluate: bool) -> list[Fault]:
        """The values that are not allowed; with evaluate, those of a network too."""

    def without_faults(self) -> Self:
        """The same problem.

        Raises:
            RequestError: naming every array whose shape or values do not fit.
        """
        faults = self.faults()
        if faults:
            raise RequestError([Diagnostic(message) for _, message in faults])
        return self


@dataclass(frozen=True)
class Problem(AnyProblem):
    """Is (w, V) an ε-second-order partial stationary point of F(w,V,θ) = E[ℓ(wᵀ(x + V f_θ(x)); y)]?"""

    loss: Loss
    point: Point
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None

    @property
    def is_plain(self) -> bool:
        """The objective is F itself, on the whole domain: what the theorems of the paper speak of."""
        return self.l2 == 0.0 and self.constraint is None

    @property
    def l2(self) -> float:
        """The coefficient of ‖w‖² + ‖V‖_F² in the objective."""
        return 0.0 if self.regularizer is None else self.regularizer.l2

    def chunks(self, *, features: bool = True) -> Iterator[Chunk]:
        return (chunk for _, chunk in self.slices(features=features))

    def shape_faults(self) -> list[Fault]:
        from resnet_cert.problem import wellformed

        return wellformed.shape_faults(self)

    def value_faults(self, *, evaluate: bool) -> list[Fault]:
        from resnet_cert.problem import wellformed

        return wellformed.value_faults(self, evaluate=evaluate)

    @staticmethod
    def from_arrays(
        *,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        f: npt.ArrayLike,
        w: npt.ArrayLike,
        V: npt.ArrayLike,
        loss: str | Loss = "squared",
        epsilon: float = 0.0,
        probabilities: npt.ArrayLike | None = None,
        b: float | None = None,
        r: float | None = None,
        mu0: float | None = None,
        mu1: float | None = None,
        mu2: float | None = None,
        l2: float | None = None,
        norm: float | None = None,
        name: str = "problem",
    ) -> Problem:
        """A problem from arrays of any framework that NumPy can read.

        Args:
            x: (n, d) inputs;  y: (n,) targets;  f: (n, k) features f_θ(x).
            w: (d,);  V: (d, k): the point.
            loss: a built-in loss by name, or a `Loss`.
            epsilon: ε ≥ 0.
            probabilities: (n,) positive weights; equal by default.
            b, r: the domain; mu0, mu1, mu2: claimed Lipschitz constants.  None: computed.
            l2, norm: the regulariser l2·(‖w‖² + ‖V‖_F²) and the constraint ‖(w, V)‖ ≤ norm, if any.

        Raises:
            RequestError: naming every array whose shape or values do not fit.
        """
        from resnet_cert.problem.losses import named_loss

        return Problem(
            distribution=Distribution.of(x, y, probabilities),
            loss=named_loss(loss) if isinstance(loss, str) else loss,
            features=GivenFeatures(float64(f)),
            point=Point(float64(w), float64(V)),
            epsilon=float(epsilon),
            domain=Domain(b, r),
            lipschitz=Lipschitz(mu0, mu1, mu2),
            name=name,
            regularizer=None if l2 is None else Regularizer(float(l2)),
            constraint=None if norm is None else Constraint(float(norm)),
        ).without_faults()


def float64(a: npt.ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)
