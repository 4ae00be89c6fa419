"""The loss and the point of any form of `loss` and `point`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError, printable
from resnet_cert.problem.problem import Distribution, Point
from resnet_cert.spec import loss_models, models
from resnet_cert.spec.arrays import inline, open_arrays
from resnet_cert.spec.code import load_function, running
from resnet_cert.spec.faults import Fault, Faults, Refused, below, listed

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss

from resnet_cert.spec.arrays import optional
from resnet_cert.spec.context import Context


def load_loss(
    loss: Any, context: Context, data: Distribution | None, q: int
) -> tuple[Distribution | None, Loss]:
    """The loss of any form of `loss`, and the data with the targets and weights that it stands for.

    A loss in Python needs no data.

    Raises:
        Refused: for one in Python that may not run or fails, and for one that does not fit the data; paths
            start at `loss`.
    """
    from resnet_cert.problem.targets import with_loss

    try:
        if isinstance(loss, loss_models.PythonLoss) or data is None:
            return data, _python_loss(loss, context)
        named = loss if isinstance(loss, str) else {key: value for key, value in loss if value is not None}
        return with_loss(data, named, q)
    except RequestError as error:
        raise Refused(Fault((), fault.message, fault.id) for fault in error.diagnostics) from None


@below("python")
def _python_loss(loss: loss_models.PythonLoss, context: Context) -> Loss:
    from resnet_cert.problem.custom_loss import CustomLoss

    function = load_function(context.folder, loss.python, allow_code=context.allow_code)
    with running(context.folder, loss.python):
        return CustomLoss(function, printable(loss.python), convex=loss.convex is True)


def load_point(point: Any, context: Context) -> Point:
    """The point of any form of `point`.

    Raises:
        Refused: every fault of the section and of its file; paths start at `point`.
    """
    if isinstance(point, models.InlinePoint):
        return Point(inline(point.w), inline(point.V), optional(point.c))
    if isinstance(point, models.InlineMatrices):
        return Point(inline(point.W), inline(point.V), optional(point.c))
    faults, arrays = Faults(), {}
    with faults.under("file"), open_arrays(context.folder, point.file) as array:
        with faults.under("W"):
            key, name = _head_name(point, array.names)
            arrays["W"] = _row_of(array(name)) if key == "w" else _matrix(array(name), name)
        with faults.under("V"):
            if point.V == "V" and "V" not in array.names:
                raise Refused(_unnamed("V", "V", point.file, array.names), "array-missing")
            arrays["V"] = _matrix(array(point.V), point.V)
        bias = point.c or ("c" if "c" in array.names else None)
        with faults.under("c"):
            if bias is not None:
                arrays["c"] = np.atleast_1d(array(bias))
    faults.refuse()
    return Point(**arrays)


def _head_name(point: models.FilePoint, names: Sequence[str]) -> tuple[str, str]:
    """w or W, and the array that it is."""
    given = [(key, name) for key, name in (("w", point.w), ("W", point.W)) if name is not None]
    found = given or [(key, key) for key in ("w", "W") if key in names]
    if len(found) == 2:
        raise Refused(f"expected an array w or W in {point.file}, got both", "unfit-part")
    if not found:
        raise Refused(_unnamed("w or W", "W", point.file, names), "array-missing")
    return found[0]


def _unnamed(letter: str, key: str, file: str, names: Sequence[str]) -> str:
    """That a point has no array of a default name, and how to name the one that it is."""
    return f"no array {letter} in {file}: name yours, {key}: NAME, one of {listed(names)}"


def _row_of(w: Array) -> Array:
    """w (1, d) of (d,) or (1, d)."""
    if w.ndim == 1 or (w.ndim == 2 and len(w) == 1):
        return w.reshape(1, -1)
    raise Refused(f"w: expected the shape (d,) or (1, d), got {w.shape}; several outputs are W", "shape")


def _matrix(array: Array, name: str) -> Array:
    if array.ndim != 2:
        raise Refused(f"{name}: expected a matrix, got the shape {array.shape}", "shape")
    return array
