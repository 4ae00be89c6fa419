"""Arrays of any framework as float64, where nothing is lost on the way; all else is refused by its name.

What is taken: lists, NumPy, JAX and PyTorch arrays on the CPU, pandas and polars frames and series, of floats
up to float64 (bfloat16 among them), integers that float64 holds, and booleans as 1 and 0.  The gradient of a
tensor is no part of its numbers.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError

NARROW_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Types of the package ml_dtypes, each of whose numbers is one of float64."""
MOST_COLUMNS = 5  # that a message names


def float64_array(a: Any, name: str) -> Array:
    """The numbers of `a`, bit for bit.

    Raises:
        RequestError: naming the argument, what it is, and what to write instead.
    """
    taken = _dense(a, name)
    if isinstance(taken, np.ma.MaskedArray):
        masked = int(np.ma.count_masked(taken))
        if masked:
            raise _refused(name, f"no masked entries, got {masked}: fill them or drop their samples")
        taken = taken.data
    kind, dtype = taken.dtype.kind, taken.dtype
    if dtype.name not in NARROW_FLOATS and kind not in "iufb":
        raise _refused(name, f"real numbers, got {_called(taken)}{_REMEDIES.get(kind, '')}")
    with np.errstate(over="ignore"):
        numbers = np.array(taken, dtype=np.float64, order="C", copy=None)
    lost = _lost(taken, numbers)
    if lost is not None:
        remedy = f"{lost!s} is not one of float64: round it as you mean it, {name}.astype(numpy.float64)"
        raise _refused(name, f"numbers that float64 holds, got {dtype}: {remedy}")
    return numbers


def _lost(taken: np.ndarray[Any, Any], numbers: Array) -> Any:
    """A number that is another one in float64; None if there is none."""
    if taken.dtype.kind == "f" and taken.dtype.itemsize > 8:
        wrong = taken[~((numbers.astype(taken.dtype) == taken) | np.isnan(taken))]
        return wrong[0] if wrong.size else None
    if taken.dtype.kind in "iu" and taken.dtype.itemsize == 8:
        large = np.abs(numbers) >= 2.0**53  # smaller ones are all there
        pairs = zip(taken[large].tolist(), numbers[large].tolist(), strict=True)
        return next((exact for exact, rounded in pairs if exact != int(rounded)), None)
    return None


def number(value: Any, name: str) -> float:
    """One real number, which may be NaN or infinite.

    Raises:
        RequestError: naming the argument.
    """
    array = float64_array(value, name)
    if array.size != 1:
        raise RequestError(f"{name}: expected a number, got an array of the shape {array.shape}", "shape")
    return float(array.reshape(()))


def optional_number(value: Any, name: str) -> float | None:
    return None if value is None else number(value, name)


_REMEDIES = {
    "c": ": take its real part, if that is what you mean",
    "M": ": turn them into numbers, such as days since a date",
    "m": ": divide them by a unit, such as numpy.timedelta64(1, 's')",
    "U": ": turn words into numbers, or columns of 0 and 1",
    "S": ": turn words into numbers, or columns of 0 and 1",
    "O": ": make an array of numbers of it, by .astype(float) where all of them are numbers",
}


def _called(a: np.ndarray[Any, Any]) -> str:
    """What the entries are, in words."""
    if a.dtype.kind == "O":
        entries = a.ravel().tolist() or [None]
        first = next((entry for entry in entries if not isinstance(entry, (bool, int, float))), entries[0])
        return f"objects such as {_shown(first)}"
    return {"U": "words", "S": "bytes", "M": "dates", "m": "durations"}.get(a.dtype.kind, str(a.dtype))


def _shown(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _refused(name: str, expected: str) -> RequestError:
    return RequestError(f"{name}: expected {expected}", "array-type")


def _dense(a: Any, name: str) -> np.ndarray[Any, Any]:
    """As NumPy has it, whatever library it comes from."""
    library = type(a).__module__.partition(".")[0]
    if library == "torch":
        a = _of_torch(a, name)
    elif library == "pandas" and hasattr(a, "columns"):
        return _frame(a, [a.iloc[:, i] for i in range(a.shape[1])], name)
    elif library == "polars" and hasattr(a, "collect"):
        raise _refused(name, f"rows, got a {type(a).__name__} of polars: {name}.collect()")
    elif library == "polars" and hasattr(a, "get_columns"):
        return _frame(a, a.get_columns(), name)
    elif library in ("pandas", "polars"):
        return _series(a, name)
    elif hasattr(a, "toarray") or hasattr(a, "todense"):
        raise _refused(name, f"a dense array, got a {type(a).__name__}: {name}.toarray()")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return a if isinstance(a, np.ma.MaskedArray) else np.asarray(a)
    except Exception as error:
        reason = " ".join(str(error).split())
        ragged = "inhomogeneous" in reason
        got = "rows of different lengths" if ragged else f"{type(a).__name__} ({_shown(reason)})"
        raise _refused(name, f"an array of numbers, got {got}") from error


def _of_torch(tensor: Any, name: str) -> Any:
    if getattr(tensor, "layout", None) is not None and str(tensor.layout) != "torch.strided":
        raise _refused(name, f"a dense tensor, got one of {tensor.layout}: {name}.to_dense()")
    if tensor.device.type == "meta":
        raise _refused(name, "a tensor with numbers, got one on the device meta, which has none")
    if tensor.device.type != "cpu":
        raise _refused(name, f"a tensor on the CPU, got one on {tensor.device}: {name}.cpu()")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor.float() if str(tensor.dtype) in ("torch.bfloat16", "torch.float8_e4m3fn") else tensor


def _frame(frame: Any, columns: list[Any], name: str) -> np.ndarray[Any, Any]:
    if not columns:
        return np.empty((len(frame), 0))
    arrays, wrong = [], []
    for column in columns:
        try:
            arrays.append(float64_array(_series(column, name), name))
        except RequestError:
            wrong.append(f"{str(column.name)!r} ({column.dtype})")
    if wrong:
        more = f" and {len(wrong) - MOST_COLUMNS} more" if len(wrong) > MOST_COLUMNS else ""
        listed = ", ".join(wrong[:MOST_COLUMNS]) + more
        raise _refused(name, f"columns of numbers, got {listed}: turn them into numbers or leave them out")
    return np.column_stack(arrays)


def _series(series: Any, name: str) -> np.ndarray[Any, Any]:
    """Missing entries are NaN, which is refused with its place later."""
    kind = str(series.dtype)
    if kind == "category" or kind.startswith(("Categorical", "Enum")):
        raise _refused(name, f"numbers, got categories: {name}.cat.codes, or columns of 0 and 1")
    values = series.to_numpy()
    if values.dtype.kind == "O" and kind[:3] in ("Int", "UIn", "Flo", "boo", "Boo"):
        present = [entry if isinstance(entry, (bool, int, float)) else math.nan for entry in values]
        return np.array(present, dtype=np.float64)
    return values
