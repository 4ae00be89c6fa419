"""b and μ2 where the spec leaves them open: the verifier's own enclosure of what they have to be.

On ‖W‖, ‖V‖ ≤ b each |p| is at most P = b(‖x‖ + b‖f‖); L2, L3 bound ‖∇²ℓ‖, ‖∇³ℓ‖ over ‖p‖ ≤ P, and
J² = (‖x‖ + b‖f‖)² + b²‖f‖².  With z = (x, f) and κ² = λ_max [[1+b², b²], [b², b²]], ∇²F is Lipschitz with

    E[L3 J³ + 3 L2 J‖f‖]   and with   κ²λ_max(E[L3 J zzᵀ]) + 3κ√(λ_max(E[L2 zzᵀ])·λ_max(E[L2 ffᵀ])),

and μ2 is the least of the two, with traces in place of λ_max where n(d+k)² exceeds MATRIX_WORK.  A larger one
is a Lipschitz constant as well, but makes more points stationary than the spec does; so a computed μ2 is at
most the least of them, up to ROUNDING, relatively.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import numpy as np
from flint import arb, arb_mat

from resnet_cert.certificate.facts import Array, Data
from resnet_cert.certificate.fields import BALLS, semidefinite, spectral_norm_at_most, squares
from resnet_cert.certificate.files import Undecided
from resnet_cert.certificate.losses import LOSSES

ROUNDING = 2.0**-26
"""What float64 may add to μ2, relatively: eigenvalues are rounded up, by the slack of their proofs."""
ROUNDING_OF_B = 2.0**-40
"""What float64 may be off in b, relatively."""

LOST = 2.0**-900
"""A μ2 below it may have met numbers too small for floats, whose bounds are no longer relative,"""
KEPT = 2.0**500
"""and so may the matrix form, where b, or a mean of squares in it, is beyond this or below its inverse."""
MATRIX_WORK = 2**27
"""Up to this n(d+k)², a part of the definition of a computed μ2, eigenvalues are taken, and traces beyond."""


def inside(b: arb, data: Data) -> bool:
    """‖W‖ < b and ‖V‖ < b, spectral norms."""
    return all(spectral_norm_at_most(BALLS.of(M), b, BALLS, strictly=True) for M in (data.W, data.V))


def is_computed_b(b: float, data: Data) -> bool:
    """b = 1.01·max(‖W‖, ‖V‖), or 1 if both are 0, up to ROUNDING_OF_B or to the next float."""
    if not (data.W.any() or data.V.any()):
        return b == 1.0
    factor = arb(1.01)
    above, below = (arb(math.nextafter(b, end)) for end in (math.inf, 0.0))
    if not inside(above / factor * (1 + arb(ROUNDING_OF_B)), data):
        return False
    limit = below / factor / (1 + arb(ROUNDING_OF_B))
    return any(_norm_at_least(M, limit) for M in (data.W, data.V))


def _norm_at_least(M: Array, limit: arb) -> bool:
    """‖M‖ ≥ limit, shown by a vector that floats have found."""
    largest = float(np.max(np.abs(M)))
    if largest == 0.0:
        return False
    scaled = M / largest
    tall = scaled if scaled.shape[0] >= scaled.shape[1] else scaled.T
    v = _top(tall.T @ tall)
    image = BALLS.of(M if tall is scaled else np.ascontiguousarray(M.T)) * BALLS.of(v)
    zero = arb(0)
    return squares(image.entries(), zero) >= limit**2 * squares(map(arb, v.tolist()), zero)


def _top(gram: Array) -> Array:
    """A unit vector close to that of the largest eigenvalue; any one where that is not found."""
    if np.isfinite(gram).all():
        with suppress(np.linalg.LinAlgError):
            if len(gram) < 300:  # to import SciPy takes longer
                return np.linalg.eigh(gram)[1][:, -1]
            from scipy.linalg import eigh

            return eigh(gram, subset_by_index=(len(gram) - 1, len(gram) - 1))[1][:, 0]
    return np.eye(len(gram))[0]


def is_computed_mu2(mu2: float, b: float, data: Data, *, per_sample_only: bool = False) -> bool:
    """μ2 is a Lipschitz constant of ∇²F on ‖W‖, ‖V‖ ≤ b, and no larger than the least formula.

    Args:
        per_sample_only: as format 1 has it, by the first of the formulas.
    """
    formulas = _Formulas(b, data)
    claimed, most = arb(mu2), 1 + arb(ROUNDING)
    least = arb(math.nextafter(mu2, 0.0)) if mu2 else claimed  # a μ2 that is no float is rounded up
    per_sample = formulas.per_sample()
    if LOST > mu2 > 0.0 and not least <= per_sample * most:
        raise Undecided(f"μ2 is {per_sample.str(6)} at most, where floats lose it, and {mu2!r} is claimed")
    if per_sample_only or not least <= per_sample * most:
        return bool(per_sample <= claimed and least <= per_sample * most)
    n, d, _, k, _ = data.sizes
    traces = n * (d + k) ** 2 > MATRIX_WORK
    matrix = formulas.trace_form() if traces else formulas.matrix_at_least()
    if not least <= matrix * most:
        if per_sample <= claimed and formulas.may_be_lost():
            raise Undecided(f"μ2 is {matrix.str(6)} at most, where floats lose it, and {mu2!r} is claimed")
        return False
    return bool(per_sample <= claimed or (matrix <= claimed if traces else formulas.matrix_at_most(mu2)))


class _Formulas:
    """The two formulas for μ2, in balls."""

    def __init__(self, b: float, data: Data) -> None:
        self.b, self.data, at = arb(b), data, LOSSES[data.loss]
        self.norm_f, self.J, self.L2, self.L3, self.pi = [], [], [], [], []
        omegas = [None] * len(data.y) if data.omega is None else data.omega.tolist()
        weights = [1.0] * len(data.y) if data.weights is None else data.weights.tolist()
        zero = arb(0)
        for x, f, y, omega, pi in zip(data.x, data.f, data.y.tolist(), omegas, weights, strict=True):
            norm_f = squares(map(arb, f.tolist()), zero).sqrt()
            reach = squares(map(arb, x.tolist()), zero).sqrt() + self.b * norm_f
            second, third = at.suprema(self.b * reach, y, omega)
            self.norm_f.append(norm_f)
            self.J.append((reach**2 + (self.b * norm_f) ** 2).sqrt())
            self.L2.append(second)
            self.L3.append(third)
            self.pi.append(arb(pi))
        self.factor = arb(data.scale) / sum(self.pi, zero)
        self.kappa_squared = (1 + 2 * self.b**2 + (1 + 4 * self.b**4).sqrt()) / 2

    def per_sample(self) -> arb:
        """E[L3 J³ + 3 L2 J‖f‖]."""
        each = zip(self.pi, self.L2, self.L3, self.J, self.norm_f, strict=True)
        return self.factor * sum((pi * (T * J**3 + 3 * L * J * f) for pi, L, T, J, f in each), arb(0))

    def trace_form(self) -> arb:
        """The matrix form with traces."""
        return self._matrix(*self._traces())

    def _traces(self) -> list[arb]:
        traces = []
        for weights, first in self._weights():
            each = zip(weights, np.hstack([self.data.x, self.data.f])[:, first:], strict=True)
            traces.append(
                self.factor * sum((c * squares(map(arb, z.tolist()), arb(0)) for c, z in each), arb(0))
            )
        return traces

    def may_be_lost(self) -> bool:
        """Floats may not have been able to hold the matrix form."""
        sizes = [self.b, *self._traces(), *(square / self.factor for square in self._traces())]
        return any(bool(size != 0) and not arb(1 / KEPT) < size < arb(KEPT) for size in sizes)

    def _matrix(self, third: arb, second: arb, inner: arb) -> arb:
        """The matrix form from its three eigenvalues."""
        return self.kappa_squared * third + 3 * (self.kappa_squared * second * inner).sqrt()

    def _weights(self) -> Iterator[tuple[list[arb], int]]:
        """What zzᵀ is weighted with in the three matrices, and the first column of z that is in them."""
        yield [pi * T * J for pi, T, J in zip(self.pi, self.L3, self.J, strict=True)], 0
        seconds = [pi * L for pi, L in zip(self.pi, self.L2, strict=True)]
        yield seconds, 0
        yield seconds, self.data.x.shape[1]

    def _vectors(self) -> list[Array]:
        """Where each of the matrices has its largest eigenvalue, as floats see it."""
        z, found = np.hstack([self.data.x, self.data.f]), list[Array]()
        for weights, first in self._weights():
            part = z[:, first:]
            part = part / (float(np.max(np.abs(part))) or 1.0)
            largest = functools.reduce(lambda one, other: other if other > one else one, weights)
            c = np.array([float((w / largest).mid()) for w in weights]) if largest > 0 else np.zeros(len(z))
            with np.errstate(all="ignore"):
                found.append(_top((part.T * np.nan_to_num(c)) @ part))
        return found

    def matrix_at_least(self) -> arb:
        """A lower bound of the matrix form, by Rayleigh quotients."""
        quotients = []
        for (weights, first), v in zip(self._weights(), self._vectors(), strict=True):
            size, total, unit = squares(map(arb, v.tolist()), arb(0)), arb(0), BALLS.of(v)
            for rows in self.data.blocks():
                z = BALLS.of(np.hstack([self.data.x[rows], self.data.f[rows]])[:, first:])
                along = (z * unit).entries()
                total += sum((c * a * a for c, a in zip(weights[rows], along, strict=True)), arb(0))
            quotients.append(self.factor * total / size)
        return self._matrix(*quotients)

    def matrix_at_most(self, claimed: float) -> bool:
        """The matrix form is at most a number, by upper bounds of its eigenvalues."""
        bounds = []
        for weights, first in self._weights():
            columns = self.data.x.shape[1] + self.data.f.shape[1] - first
            total = arb_mat(columns, columns)
            for rows in self.data.blocks():
                z = BALLS.of(np.hstack([self.data.x[rows], self.data.f[rows]])[:, first:])
                scaled = [c * e for c, row in zip(weights[rows], z.tolist(), strict=True) for e in row]
                total += z.transpose() * arb_mat(z.nrows(), columns, scaled)
            bounds.append(self.factor * _largest_eigenvalue(total))
        return bool(self._matrix(*bounds) <= arb(claimed))


def _largest_eigenvalue(M: arb_mat) -> arb:
    """An upper bound of λ_max of a semidefinite matrix; its trace where no better one is proven."""
    trace = M.trace()
    if not trace > 0:
        return trace
    scaled = (1 / trace) * M
    floats = np.array([float(entry.mid()) for entry in scaled.entries()]).reshape(M.nrows(), -1)
    largest = float(np.linalg.eigvalsh(floats)[-1])
    for slack in (2.0**-40, 2.0**-34):
        bound = arb(largest) * (1 + arb(slack))
        if semidefinite(bound * BALLS.identity(M.nrows()) - scaled):
            return trace * bound
    return trace


def threshold_squared(mu2: float | None, epsilon: float) -> Fraction | None:
    """μ2·ε, exactly; None where μ2 is not known, unless ε = 0."""
    if mu2 is None:
        return Fraction(0) if epsilon == 0.0 else None
    return Fraction(mu2) * Fraction(epsilon)
