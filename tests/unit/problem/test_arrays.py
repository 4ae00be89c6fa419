"""Arrays of every framework: taken to the bit where nothing is lost, else refused by name with a remedy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from resnet_cert.outcomes import RequestError
from resnet_cert.problem.arrays import float64_array, number
from resnet_cert.problem.problem import Problem

NUMBERS = [[1.0, 2.5], [-3.0, 0.125]]


def matrix(rows: list[list[int]]) -> Any:
    """NumPy's, which it would rather be without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asmatrix(rows)


def refused(a: Any) -> str:
    with pytest.raises(RequestError) as raised:
        float64_array(a, "x")
    [diagnostic] = raised.value.diagnostics
    assert diagnostic.id == "array-type"
    assert diagnostic.message.startswith("x: expected ")
    return diagnostic.message


@pytest.mark.parametrize(
    "dtype",
    [np.float64, ">f8", np.float32, np.float16, np.longdouble, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_are_taken_to_the_bit(dtype: Any, order: Any) -> None:
    taken = float64_array(np.array(NUMBERS, dtype=dtype, order=order), "x")
    assert taken.dtype == np.float64
    assert taken.dtype.isnative
    np.testing.assert_array_equal(taken, NUMBERS)


@pytest.mark.parametrize(
    "a",
    [
        [[1, 2], [-3, 0]],
        ((1, 2.0), (-3.0, False)),
        np.array([[1, 2], [-3, 0]], dtype=np.int8),
        np.array([[1, 2], [-3, 0]]),
        np.ma.masked_array([[1.0, 2.0], [-3.0, 0.0]], mask=False),
        matrix([[1, 2], [-3, 0]]),
        [np.array([1.0, 2.0]), np.array([-3.0, 0.0])],
        np.array([[1.0, 2.0], [-3.0, 0.0]])[::-1][::-1],
    ],
)
def test_what_holds_numbers_is_taken(a: Any) -> None:
    taken = float64_array(a, "x")
    assert type(taken) is np.ndarray
    np.testing.assert_array_equal(taken, [[1.0, 2.0], [-3.0, 0.0]])


def test_booleans_are_one_and_zero_and_absent_numbers_stay() -> None:
    np.testing.assert_array_equal(float64_array([True, False], "x"), [1.0, 0.0])
    np.testing.assert_array_equal(
        float64_array(np.array([np.nan, np.inf], dtype=np.longdouble), "x"), [np.nan, np.inf]
    )
    np.testing.assert_array_equal(float64_array([2**53, -(2**53)], "x"), [2.0**53, -(2.0**53)])


@pytest.mark.parametrize(
    ("a", "words"),
    [
        (np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 1]), "no masked entries, got 2"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "got dates: turn them into numbers"),
        (np.array([3], dtype="timedelta64[s]"), "got durations: divide them by a unit"),
        (["1.0", "2.0"], "got words: turn words into numbers"),
        (np.array([b"1"]), "got bytes"),
        (np.array([1.0 + 0.0j]), "got complex128: take its real part"),
        ([[1.0, 2.0], [3.0]], "got rows of different lengths"),
        ([Decimal("0.1")], "got objects such as Decimal('0.1')"),
        ([1.0, None], "got objects such as None"),
        (np.array([2**53 + 1]), "9007199254740993 is not one of float64"),
        (np.array([2**63 + 1], dtype=np.uint64), "is not one of float64"),
        (np.array([np.longdouble(1) + np.finfo(np.longdouble).eps]), "is not one of float64"),
        (scipy.sparse.csr_matrix(np.eye(2)), "got a csr_matrix: x.toarray()"),
        (scipy.sparse.csr_array(np.eye(2)), "got a csr_array: x.toarray()"),
        (np.array([(1.0, 2)], dtype=[("a", "f8"), ("b", "i4")]), "expected real numbers, got"),
        ({"a": 1.0}, "got one object, {'a': 1.0}"),
        (lambda: 1.0, "got one object, <function"),
        ((i for i in range(3)), ": numpy.array(list(x)), where these are numbers"),
        (bytearray(b"12"), "got bytes"),
        (np.array(["a"], dtype=np.dtypes.StringDType()), "got words"),
        ([date(2020, 1, 1)], "turn them into numbers, such as days since a date"),
    ],
)
def test_what_would_lose_something_is_refused(a: Any, words: str) -> None:
    assert words in refused(a)


def test_what_another_library_raises_is_told_by_the_name_of_the_argument() -> None:
    class Broken:
        def __array__(self, *arguments: Any, **named: Any) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    assert "can't convert cuda:0" in refused(Broken())


def test_numbers() -> None:
    for value in (2, 2.0, np.float32(2), np.array(2), np.array([2]), True + True):
        assert number(value, "b") == 2.0
    assert math.isnan(number(math.nan, "b"))
    for value in ("2", None, 1j, [1.0, 2.0], {}):
        with pytest.raises(RequestError, match=r"^error: b: expected "):
            number(value, "b")


ARRAYS: dict[str, Any] = {
    "x": [[1.0], [2.0]],
    "y": [1.0, 0.0],
    "f": [[0.5], [1.0]],
    "w": [1.0],
    "V": [[0.0]],
    "bypass": [[1.0], [2.0]],
    "probabilities": [0.5, 0.5],
}
NUMBERS_OF_A_PROBLEM = ("epsilon", "b", "r", "mu0", "mu1", "mu2", "l2", "norm", "weight_decay")


@pytest.mark.parametrize("name", [*ARRAYS, *NUMBERS_OF_A_PROBLEM])
def test_every_argument_of_a_problem_is_named(name: str) -> None:
    arguments = {**ARRAYS, "w": [1.0, 1.0], name: "12"}
    with pytest.raises(RequestError, match=rf"^error: {name}: expected real numbers, got words"):
        Problem.from_arrays(**arguments)


def test_comparators_and_the_method_are_named() -> None:
    arguments = {**ARRAYS, "w": [1.0, 1.0]}
    with pytest.raises(RequestError, match=r"^error: compare early: expected real numbers, got words"):
        Problem.from_arrays(**arguments, compare={"early": ["a", "b"]})
    with pytest.raises(
        RequestError, match=r"^error: hessian: expected one of auto, exact, bound, got 'fast'"
    ):
        Problem.from_arrays(**arguments, hessian="fast")  # type: ignore[arg-type]


# --- Frameworks, where they are installed -------------------------------------------------------------------


def test_jax_arrays_are_taken() -> None:
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32):
        np.testing.assert_array_equal(float64_array(jnp.ones((2, 2), dtype), "x"), np.ones((2, 2)))


def test_tensors_are_taken_with_their_gradients_left_behind() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool):
        np.testing.assert_array_equal(float64_array(torch.ones(2, 3, dtype=dtype).T, "x"), np.ones((3, 2)))
    np.testing.assert_array_equal(float64_array(torch.nn.Linear(3, 2).weight * 0 + 1, "x"), np.ones((2, 3)))
    np.testing.assert_array_equal(float64_array([torch.tensor(1.0), torch.tensor(2.0)], "x"), [1.0, 2.0])
    rows = [torch.ones(2, dtype=torch.bfloat16, requires_grad=True), torch.ones(2, dtype=torch.float8_e5m2)]
    np.testing.assert_array_equal(float64_array(rows, "x"), np.ones((2, 2)))


def test_tensors_that_hold_no_numbers_here_are_refused() -> None:
    torch = pytest.importorskip("torch")
    assert "got one on the device meta" in refused(torch.ones(2, device="meta"))
    assert "x.to_dense()" in refused(torch.eye(2).to_sparse())
    jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged)
    assert "torch.nested.to_padded_tensor(x, 0)" in refused(jagged)
    with pytest.raises(RequestError, match=r"x\[1\]: expected a tensor with numbers"):
        float64_array([torch.ones(2), torch.ones(2, device="meta")], "x")
    assert "take its real part" in refused(torch.ones(2, dtype=torch.complex64))


@pytest.fixture(params=["pandas", "polars"])
def frames(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def test_frames_and_series_are_taken(frames: Any) -> None:
    frame = frames.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    np.testing.assert_array_equal(float64_array(frame, "x"), [[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]])
    np.testing.assert_array_equal(float64_array(frame["b"], "x"), [0.5, 1.5])


def test_columns_that_are_no_numbers_are_named(frames: Any) -> None:
    frame = frames.DataFrame({"a": [1, 2], "sex": ["f", "m"], "b": [None, "x"]})
    message = refused(frame)
    assert message.startswith("x: expected columns of numbers, got 'sex' (")
    assert ", 'b' (" in message
    assert "'a'" not in message
    assert "got words" in refused(frame["sex"]) or "objects such as 'f'" in refused(frame["sex"])


def test_a_single_column_that_is_no_numbers_has_its_own_remedy(frames: Any) -> None:
    for column, words in (
        (
            [2**53 + 1, 1],
            "9007199254740993 is not one of float64: round it as you mean it, numpy.array(x['b'], float)",
        ),
        (["f", "m"], "turn words into numbers"),
        ([date(2020, 1, 1)] * 2, "such as days since a date"),
    ):
        with pytest.raises(RequestError, match=r"^error: x\['b'\]: expected ") as raised:
            float64_array(frames.DataFrame({"a": [1, 2], "b": column}), "x")
        assert words in str(raised.value)


def test_frames_of_other_backends_are_taken() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    for backend in ("numpy_nullable", "pyarrow"):
        taken = float64_array(frame.convert_dtypes(dtype_backend=backend), "x")
        np.testing.assert_array_equal(taken, [[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]])
    np.testing.assert_array_equal(float64_array(frame["a"].astype("Sparse[int]"), "x"), [1.0, 2.0])


def test_what_has_no_rows_is_refused() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert "DataFrameGroupBy" in refused(pandas.DataFrame({"a": [1]}).groupby("a"))
    assert "of type Expr" in refused(polars.col("a"))
    assert "x.struct.unnest()" in refused(polars.Series([{"a": 1}]))
    assert "cast them to Float64" in refused(polars.Series([1], dtype=polars.Int128))


def test_missing_entries_of_a_frame_are_nan_and_refused_with_their_place(frames: Any) -> None:
    dtype: Callable[..., Any] = frames.Series
    series = dtype([1, None]) if frames.__name__ == "polars" else dtype([1, None], dtype="Int64")
    np.testing.assert_array_equal(float64_array(series, "y"), [1.0, np.nan])
    with pytest.raises(RequestError, match="y row 2: expected a finite number, got nan"):
        Problem.from_arrays(**{**ARRAYS, "w": [1.0, 1.0], "y": series})


def test_categories_and_dates_of_a_frame_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    assert "x.cat.codes" in refused(pandas.Series(["a", "b"], dtype="category"))
    assert "got dates" in refused(pandas.Series(pandas.to_datetime(["2020-01-01"])))
    polars = pytest.importorskip("polars")
    assert "x.collect()" in refused(polars.LazyFrame({"a": [1]}))
    assert "x.to_physical()" in refused(polars.Series(["a"], dtype=polars.Categorical))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("MSE", "did you mean 'mse'"),
        ("nn.MSELoss", "did you mean 'mse'"),
        ("bce", "did you mean 'bce_with_logits'"),
        ("BCEWithLogitsLoss", "did you mean 'bce_with_logits'"),
        ("nll_loss", "did you mean 'cross_entropy'"),
        ("smooth_l1", "did you mean 'pseudo_huber'"),
        ("hinge", "did you mean 'logistic'"),
        ("kl", "expected one of squared, "),
        (3, "expected a loss by its name, or a mapping as in a spec, got int"),
        (None, "got NoneType"),
    ],
)
def test_the_fields_own_words_for_losses_are_hints(loss: Any, words: str) -> None:
    x = np.array(NUMBERS)
    with pytest.raises(RequestError) as raised:
        Problem.from_arrays(x=x, y=[1.0, 2.0], f=x, w=[0.0, 0.0], V=x, loss=loss)
    assert words in str(raised.value)


def test_objects_that_are_no_numbers_are_shown_and_those_that_are_have_a_remedy() -> None:
    assert "objects such as 'a'" in refused(np.array([[1.0, "a"]], dtype=object))
    assert "dtype=float) where all of them are numbers" in refused(np.array(NUMBERS, dtype=object))
    assert "objects such as 1.0" in refused(np.array(NUMBERS, dtype=object))
