"""The problem that the mathematics sees: a distribution, a loss, features f_θ(x), a point (W, V), a domain.

Everything here is frozen, knows no file and no YAML, and names things as the paper does: x ∈ R^{d1} goes
through the block, f = f_θ(x) ∈ R^k, V ∈ R^{d1×k}, prediction p = W(x + V f) ∈ R^q (Shamir 2018, section 2,
where q = 1 and W = wᵀ).  The head may read more than the block touches: bypass inputs x_2 ∈ R^{d2}, and a
bias c, which is one more of them, constantly 1.  So it reads

    h = (x_1 + V f, x_2, 1) ∈ R^d,   p = W h,   W = (W_1, W_2, c) ∈ R^{q×d},

and d2 = 0 without a bias is the paper's setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.progress import told
from resnet_cert.numerics.radius import Array
from resnet_cert.numerics.sums import BLOCK_ROWS
from resnet_cert.outcomes import Diagnostic, RequestError, printable

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss

CHUNK_BYTES = 2**24
"""Data of one chunk of rows, about, unless one block takes more; memory does not grow with n."""
SMALL_CHUNK_BYTES = 2**26
"""Of a chunk that there may be several of at once."""
HELD_BYTES = 2**28
"""Features of a network that take no more than this are evaluated once and kept."""
BOUNDARY_WIDTH = 1e-6
"""A point whose norm is that of the constraint to this relative accuracy counts as on its boundary: decimals
do not lie on a sphere."""

Method = Literal["auto", "exact", "bound"]
"""How λ_min(∇²F) is found: by S(t), by ‖A_f‖_2, or by what the size of the problem permits."""


class Rows(Protocol):
    """An array of samples that is read some rows at a time: in memory (a NumPy array) or in a mapped file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


UNNAMED = "problem"
"""The name of a problem without one; a spec then goes by its file's."""


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
        try:
            return np.memmap(
                self.path,
                dtype=self.dtype,
                mode="r",
                offset=self.offset + start * row_bytes,
                shape=(stop - start, *self.shape[1:]),
            )
        except (OSError, ValueError) as error:  # it was there, and as long as it said, when it was opened
            gone = Diagnostic(
                f"cannot read rows of it any more: {error}", str(self.path), id="file-unreadable"
            )
            raise RequestError([gone]) from None


@dataclass(frozen=True)
class Distribution:
    """A finite distribution of (x, y): E[g] = Σ_i π_i g(x_i, y_i) / Σ_i π_i.

    Args:
        x: (n, d1) inputs of the block.
        y: (n,) or (n, q) targets; (n,) class labels 0..q−1 where the loss takes labels.
        probabilities: (n,) positive weights π_i; None: all equal.
        bypass: (n, d2) inputs that the head reads and the block does not touch.
        omega: (n, q) weights ≥ 0 of the outputs, for a loss with weights only.
    """

    x: Rows
    y: Rows
    probabilities: Rows | None = None
    bypass: Rows | None = None
    omega: Rows | None = None

    @property
    def n(self) -> int:
        return self.x.shape[0]


class Features(Protocol):
    """f_θ on the samples: n rows of k numbers, a part of the data as far as the theorems are concerned."""

    @property
    def k(self) -> int: ...

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        """(m, k) features of the samples `rows`, whose inputs are x (m, d1).

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
    """The point (W, V): W (q, d1 + d2), V (d1, k), and the bias c (q,) of the head, if it has one."""

    W: Array
    V: Array
    c: Array | None = None

    @cached_property
    def head(self) -> Array:
        """(q, d): W with the bias as its last column."""
        return self.W if self.c is None else np.column_stack([self.W, self.c])


@dataclass(frozen=True)
class Direction:
    """A direction in the space of (W, V): dW (q, d), with the bias as its last column, and dV (d1, k)."""

    dW: Array
    dV: Array


@dataclass(frozen=True)
class Objective:
    """G = F + l2·(‖W‖_F² + ‖V‖_F²) on the ball ‖(W, V)‖ ≤ norm; F itself by default.

    decays_bias: the bias c is a part of W there; else it is left out of ‖W‖.
    """

    l2: float = 0.0
    norm: float | None = None
    decays_bias: bool = True

    @property
    def is_plain(self) -> bool:
        """It is F, on the whole domain: what the theorems of the paper speak of."""
        return self.l2 == 0.0 and self.norm is None


@dataclass(frozen=True)
class Domain:
    """The domain ‖W‖ < b, ‖V‖ < b (spectral norms) and the ball ‖W*‖_F ≤ r of the linear predictors.

    None stands for `auto`: b = 1.01·max(‖W‖, ‖V‖) (1 if both are 0); r = 1.01·‖argmin F_lin‖_F if it is
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
class Support:
    """The samples are independent draws from a distribution with ‖x‖, ‖f‖, ‖y‖ at most these bounds.

    x: all that the head reads but its bias, (x, bypass).  y: None for class labels, which need none.
    confidence: of all statements together.
    """

    confidence: float
    x: float
    f: float
    y: float | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples: x (m, d), all that the head reads, whose first d1 columns the block adds to;
    f (m, k); targets y (m, q); omega (m, q) or None; weight π (m,) or None where all are 1."""

    x: Array
    f: Array
    y: Array
    omega: Array | None = None
    weight: Array | None = None

    def __getitem__(self, some: slice) -> Chunk:
        """Some of them."""
        omega, weight = (None if part is None else part[some] for part in (self.omega, self.weight))
        return Chunk(self.x[some], self.f[some], self.y[some], omega, weight)

    @property
    def weights(self) -> Array:
        """π (m,)."""
        return np.ones(len(self.x)) if self.weight is None else self.weight


class Fault(NamedTuple):
    """What is wrong with a problem: the path in the spec, the message, its id among `outcomes.FAULTS`."""

    path: tuple[str | int, ...]
    message: str
    id: str


@dataclass(frozen=True)
class Problem:
    """Is (W, V) an ε-second-order partial stationary point of F(W,V,θ) = E[ℓ(W(x + V f_θ(x)); y)]?

    Args:
        hessian: how λ_min is to be found.
        comparators: further inputs (n, ·) by name, the best linear predictors on which are compared.
        executor: who adds up over the samples (`moments.executors`); None: this process.
    """

    distribution: Distribution
    loss: Loss
    features: Features
    point: Point
    epsilon: float = 0.0
    objective: Objective = field(default_factory=Objective)
    domain: Domain = field(default_factory=Domain)
    lipschitz: Lipschitz = field(default_factory=Lipschitz)
    hessian: Method = "auto"
    comparators: Mapping[str, Rows] = field(default_factory=dict)
    name: str = UNNAMED
    executor: Any = field(default=None, compare=False, repr=False)

    @property
    def n(self) -> int:
        return self.distribution.n

    @property
    def d1(self) -> int:
        """Inputs of the block: rows of V."""
        return self.distribution.x.shape[1]

    @property
    def d2(self) -> int:
        """Bypass inputs."""
        return 0 if self.distribution.bypass is None else self.distribution.bypass.shape[1]

    @property
    def has_bias(self) -> bool:
        return self.point.c is not None

    @property
    def d(self) -> int:
        """Columns of W: all that the head reads."""
        return self.d1 + self.d2 + self.has_bias

    @property
    def k(self) -> int:
        return self.features.k

    @property
    def q(self) -> int:
        return self.point.W.shape[0]

    @property
    def W(self) -> Array:
        """(q, d), with the bias as its last column."""
        return self.point.head

    @property
    def V(self) -> Array:
        """(d1, k)."""
        return self.point.V

    @cached_property
    def norm_W(self) -> Enclosure:
        """‖W‖, the largest singular value,"""
        return spectral_norm(self.W)

    @cached_property
    def norm_V(self) -> Enclosure:
        """and ‖V‖."""
        return spectral_norm(self.V)

    @property
    def parameters(self) -> int:
        return self.q * self.d + self.d1 * self.k

    @property
    def side(self) -> int:
        """Of the largest matrices of a pass."""
        return max(self.d, self.k, self.q)

    @property
    def is_plain(self) -> bool:
        return self.objective.is_plain

    @cached_property
    def decayed(self) -> Array:
        """(d,) 1 for each column of W that the regulariser and the constraint speak of, else 0."""
        columns = np.ones(self.d)
        if self.has_bias and not self.objective.decays_bias:
            columns[-1] = 0.0
        return columns

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk, n at the most: as many blocks as a subtree of `numerics.sums` has."""
        return self._rows_of_chunk(self._block_bytes(second=True))

    @property
    def first_chunk_rows(self) -> int:
        """The same where no ∇²ℓ is formed: a multiple of `chunk_rows`, or n."""
        return self._rows_of_chunk(self._block_bytes(second=False))

    def _rows_of_chunk(self, block_bytes: int) -> int:
        power = round(math.log2(CHUNK_BYTES / block_bytes))
        return min(self.n, BLOCK_ROWS << max(power, 0))

    def chunk_is_small(self, *, second: bool) -> bool:
        """There may be as many chunks in memory as threads."""
        return self._block_bytes(second=second) <= SMALL_CHUNK_BYTES

    def _block_bytes(self, *, second: bool) -> int:
        """Of the data of a block, and of ∇²ℓ there."""
        q = self.q
        return 8 * BLOCK_ROWS * (self.d + self.k + (1 if q == 1 else q * (q + 4) if second else 4 * q))

    def chunks(self, *, features: bool = True) -> Iterator[Chunk]:
        """The samples in order, `chunk_rows` at a time (fewer in the last one).

        With features=False every f is empty (m, 0): a linear predictor is a residual network without them.
        """
        for start in range(0, self.n, self.chunk_rows):
            stop = min(start + self.chunk_rows, self.n)
            yield self.chunk(slice(start, stop), features=features)
            told("samples", stop, self.n)

    def chunk(self, rows: slice, *, features: bool = True) -> Chunk:
        """The samples of some rows."""
        data = self.distribution
        x = float64(data.x[rows])
        f = self.features.rows(rows, x, self.chunk_rows) if features else np.empty((len(x), 0))
        extra = [] if data.bypass is None else [float64(data.bypass[rows])]
        if self.has_bias:
            extra.append(np.ones((len(x), 1)))
        return Chunk(
            x=np.concatenate([x, *extra], axis=1) if extra else x,
            f=f,
            y=self.loss.targets(float64(data.y[rows]), self.q),
            omega=None if data.omega is None else float64(data.omega[rows]).reshape(len(x), self.q),
            weight=None if data.probabilities is None else float64(data.probabilities[rows]),
        )

    def with_features_held(self) -> Self:
        """The same problem with a network's features evaluated once and kept, if they fit in HELD_BYTES."""
        elsewhere = self.executor is not None  # a cluster computes them where their rows are
        if isinstance(self.features, GivenFeatures) or elsewhere or self.n * self.k * 8 > HELD_BYTES:
            return self
        f = np.concatenate([chunk.f for chunk in self.chunks()])
        return replace(self, features=GivenFeatures(f, self.features))

    def without_faults(self) -> Self:
        """The same problem.

        Raises:
            RequestError: naming every array whose shape or values do not fit.
        """
        from resnet_cert.problem.wellformed import faults

        found = faults(self)
        if found:
            raise RequestError([Diagnostic(fault.message, id=fault.id) for fault in found])
        return self

    def save(self, path: str | Path) -> Path:
        """Write the arrays to `path` (.npz, or .safetensors with the extra of that name) and beside it a spec
        that `check` takes as it is; return the path of the spec."""
        from resnet_cert.spec.saving import save

        return save(self, path)

    @staticmethod
    def from_arrays(
        *,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        f: npt.ArrayLike,
        V: npt.ArrayLike,
        w: npt.ArrayLike | None = None,
        W: npt.ArrayLike | None = None,
        c: npt.ArrayLike | None = None,
        bypass: npt.ArrayLike | None = None,
        loss: str | Mapping[str, Any] | Loss = "squared",
        epsilon: float = 0.0,
        probabilities: npt.ArrayLike | None = None,
        omega: npt.ArrayLike | None = None,
        b: float | None = None,
        r: float | None = None,
        mu0: float | None = None,
        mu1: float | None = None,
        mu2: float | None = None,
        l2: float | None = None,
        weight_decay: float | None = None,
        decay_bias: bool = True,
        norm: float | None = None,
        hessian: Method = "auto",
        compare: Mapping[str, npt.ArrayLike] | None = None,
        name: str = UNNAMED,
    ) -> Problem:
        """A problem from arrays of any framework that NumPy can read.

        Args:
            x: (n, d1) inputs of the block;  f: (n, k) features f_θ(x).
            y: (n,) or (n, 1) targets, (n, q) for q outputs, or (n,) class labels 0..q−1 for softmax.
            the point: w (d1 + d2,) for one output or W (q, d1 + d2);  V: (d1, k);  c: (q,), the head's bias.
            bypass: (n, d2) inputs that the head reads beside x + V f.
            loss: a built-in loss by name, a mapping as in a spec ({"kind": ..., "scale": ...}), or a `Loss`.
            epsilon: ε ≥ 0.
            probabilities: (n,) positive weights; equal by default.
            omega: (n, q) weights ≥ 0 of the outputs, for the weighted squared loss.
            b, r: the domain; mu0, mu1, mu2: claimed Lipschitz constants.  None: computed.
            l2, norm: the regulariser l2·(‖W‖_F² + ‖V‖_F²) and the constraint ‖(W, V)‖ ≤ norm, if any;
                weight_decay = 2·l2, as frameworks have it; decay_bias: is c a part of W there?
            hessian: "exact" (S(t)), "bound" (‖A_f‖_2) or "auto".
            compare: further (n, ·) inputs by name, the best linear predictor on each of which is compared.

        Raises:
            RequestError: naming every array whose shape or values do not fit.
        """
        from resnet_cert.problem.arrays import float64_array, number, optional_number
        from resnet_cert.problem.targets import with_loss

        def optional(a: Any, name: str) -> Array | None:
            return None if a is None else float64_array(a, name)

        given = W if w is None else w
        if given is None or not (w is None or W is None):
            raise RequestError("point: expected one of w and W", id="unfit-part")
        if l2 is not None and weight_decay is not None:
            raise RequestError(
                "expected one of l2 and weight_decay (which is 2·l2), got both", id="unfit-part"
            )
        if hessian not in get_args(Method):
            raise RequestError(
                f"hessian: expected one of {', '.join(get_args(Method))}, got {hessian!r}", id="unknown-name"
            )
        called = "w" if W is None else "W"
        head = rows_of_outputs(float64_array(given, called), called)
        bias = None if c is None else np.atleast_1d(float64_array(c, "c"))
        decay = 0.0 if weight_decay is None else number(weight_decay, "weight_decay") / 2.0
        data = Distribution(
            float64_array(x, "x"),
            float64_array(y, "y"),
            optional(probabilities, "probabilities"),
            optional(bypass, "bypass"),
            optional(omega, "omega"),
        )
        data, known = with_loss(data, loss, len(head))
        return Problem(
            distribution=data,
            loss=known,
            features=GivenFeatures(float64_array(f, "f")),
            point=Point(head, float64_array(V, "V"), bias),
            epsilon=number(epsilon, "epsilon"),
            objective=Objective(
                decay if l2 is None else number(l2, "l2"), optional_number(norm, "norm"), decay_bias
            ),
            domain=Domain(optional_number(b, "b"), optional_number(r, "r")),
            lipschitz=Lipschitz(
                optional_number(mu0, "mu0"), optional_number(mu1, "mu1"), optional_number(mu2, "mu2")
            ),
            hessian=hessian,
            comparators={key: float64_array(rows, f"compare {key}") for key, rows in (compare or {}).items()},
            name=printable(str(name)),
        ).without_faults()


def rows_of_outputs(W: Array, name: str) -> Array:
    """W (q, d) as it is; w (d,) as one row.

    Raises:
        RequestError: it has another number of axes.
    """
    if W.ndim == 1:
        return W[None, :]
    if W.ndim == 2:
        return W
    raise RequestError(f"{name}: expected one or two axes, got the shape {W.shape}", id="shape")


def float64(a: npt.ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)
