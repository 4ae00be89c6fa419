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
    if kind not in "iufb" and not is_narrow(dtype):
        raise _refused(name, f"real numbers, got {_called(taken)}{_remedy(taken, name)}")
    with np.errstate(over="ignore"):
        numbers = np.array(taken, dtype=np.float64, order="C", copy=None)
    lost = _lost(taken, numbers)
    if lost is not None:
        remedy = f"{lost!s} is not one of float64: round it as you mean it, numpy.array({name}, float)"
        raise _refused(name, f"numbers that float64 holds, got {dtype}: {remedy}")
    return numbers


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """A float or integer of the package ml_dtypes, such as bfloat16: its numbers are numbers of float64."""
    return dtype.type.__module__ == "ml_dtypes" and "complex" not in dtype.name


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
    "T": ": turn words into numbers, or columns of 0 and 1",
    "S": ": turn words into numbers, or columns of 0 and 1",
    "O": ": make numbers of them, by numpy.array(…, dtype=float) where all of them are numbers",
    "V": ": take the columns that are numbers, one beside the other",
}


def _remedy(a: np.ndarray[Any, Any], name: str) -> str:
    kind, odd = a.dtype.kind, _odd(a) if a.dtype.kind == "O" else None
    if kind == "O" and a.ndim == 0:
        listed = hasattr(odd, "__iter__") and not isinstance(odd, (dict, str, bytes, type))
        return f": numpy.array(list({name})), where these are numbers" if listed else ""
    if isinstance(odd, (str, bytes)):
        kind = "U"
    elif hasattr(odd, "total_seconds"):
        kind = "m"
    elif hasattr(odd, "isoformat"):
        kind = "M"
    return _REMEDIES.get(kind, "")


def _odd(a: np.ndarray[Any, Any]) -> Any:
    """The first entry that is no number, or the first one."""
    entries = a.ravel().tolist() or [None]
    return next((entry for entry in entries if not isinstance(entry, (bool, int, float))), entries[0])


def _called(a: np.ndarray[Any, Any]) -> str:
    """What the entries are, in words."""
    if a.dtype.kind == "O" and a.ndim == 0:
        return f"one object, {_shown(a.item())}"
    if a.dtype.kind == "O":
        return f"objects such as {_shown(_odd(a))}"
    kinds = {"U": "words", "T": "words", "S": "bytes", "M": "dates", "m": "durations"}
    return kinds.get(a.dtype.kind, str(a.dtype))


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
    elif isinstance(a, (list, tuple)) and any(map(_is_tensor, a)):
        a = [float64_array(entry, f"{name}[{i}]") for i, entry in enumerate(a)]
    elif isinstance(a, bytearray):
        a = bytes(a)
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


def _is_tensor(a: Any) -> bool:
    return type(a).__module__.partition(".")[0] == "torch" and hasattr(a, "layout")


def _of_torch(tensor: Any, name: str) -> Any:
    if not hasattr(tensor, "layout"):
        return tensor
    if getattr(tensor, "is_nested", False):
        padded = f"torch.nested.to_padded_tensor({name}, 0)"
        raise _refused(name, f"rows of one length, got a nested tensor: {padded}")
    if str(tensor.layout) != "torch.strided":
        raise _refused(name, f"a dense tensor, got one of {tensor.layout}: {name}.to_dense()")
    if getattr(tensor, "is_quantized", False):
        raise _refused(name, f"numbers, got a quantized tensor: {name}.dequantize()")
    if tensor.device.type == "meta" or type(tensor).__name__ == "FakeTensor":
        raise _refused(name, "a tensor with numbers, got one on the device meta, which has none")
    if tensor.device.type != "cpu":
        raise _refused(name, f"a tensor on the CPU, got one on {tensor.device}: {name}.cpu()")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor.float() if str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8")) else tensor


def _frame(frame: Any, columns: list[Any], name: str) -> np.ndarray[Any, Any]:
    if not columns:
        return np.empty((len(frame), 0))
    arrays, wrong, faults = [], [], []
    for column in columns:
        at = f"{name}[{_shown(column.name)}]"
        try:
            arrays.append(float64_array(_series(column, at), at))
        except RequestError as fault:
            faults.append(fault)
            wrong.append(f"{_shown(column.name)} ({column.dtype})")
    if len(wrong) == 1:
        raise faults[0]
    if wrong:
        more = f" and {len(wrong) - MOST_COLUMNS} more" if len(wrong) > MOST_COLUMNS else ""
        listed = ", ".join(wrong[:MOST_COLUMNS]) + more
        first = faults[0].diagnostics[0].message
        raise _refused(name, f"columns of numbers, got {listed}; {first}")
    return np.column_stack(arrays)


def _series(series: Any, name: str) -> np.ndarray[Any, Any]:
    """Missing entries are NaN, which is refused with its place later."""
    if not hasattr(series, "to_numpy") or not hasattr(series, "dtype"):
        raise _refused(name, f"an array of numbers, got something else of type {type(series).__name__}")
    kind = str(series.dtype)
    if kind == "category" or kind.startswith(("Categorical", "Enum")):
        polars = type(series).__module__.startswith("polars")
        codes = "to_physical()" if polars else "cat.codes" if hasattr(series, "cat") else "codes"
        raise _refused(name, f"numbers, got categories: {name}.{codes}, or columns of 0 and 1")
    if kind.startswith("Struct"):
        raise _refused(name, f"numbers, got records: {name}.struct.unnest()")
    try:
        values = series.to_numpy()
    except Exception as error:  # whatever that library raises of a type that NumPy has not
        raise _refused(name, f"numbers that NumPy has, got {kind}: cast them to Float64") from error
    if values.dtype.kind == "O" and kind[:3] in ("Int", "UIn", "Flo", "boo", "Boo"):
        present = [entry if isinstance(entry, (bool, int, float)) else math.nan for entry in values]
        return np.array(present, dtype=np.float64)
    return values
