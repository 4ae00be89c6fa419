"""Problems: chunks of rows, mapped files, and every fault of shapes and values."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_cert.outcomes import RequestError
from resnet_cert.problem import problem as module
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.problem import (
    Distribution,
    Domain,
    GivenFeatures,
    Lipschitz,
    MappedRows,
    Point,
    Problem,
    rows_of_outputs,
)
from resnet_cert.problem.wellformed import faults

N, D, K = 5, 3, 2
SEVERAL = "y: expected the shape (n, q) = (5, 1), got (5, 2): several outputs take a matrix W in place of w"


def make(**changes: Any) -> Problem:
    """A problem without faults, but for what is changed in its arrays and numbers."""
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {
        "x": rng.normal(size=(N, D)),
        "y": rng.normal(size=N),
        "f": rng.normal(size=(N, K)),
        "probabilities": None,
        "w": rng.normal(size=D),
        "V": rng.normal(size=(D, K)),
        "c": None,
        "bypass": None,
        "loss": named_loss("squared"),
        "epsilon": 0.1,
        "domain": Domain(),
        "lipschitz": Lipschitz(),
    } | changes
    return Problem(
        distribution=Distribution(parts["x"], parts["y"], parts["probabilities"], parts["bypass"]),
        loss=parts["loss"],
        features=parts["f"] if hasattr(parts["f"], "k") else GivenFeatures(parts["f"]),
        point=Point(rows_of_outputs(parts["w"], "w"), parts["V"], parts["c"]),
        epsilon=parts["epsilon"],
        domain=parts["domain"],
        lipschitz=parts["lipschitz"],
    )


def with_entry(shape: tuple[int, ...], index: tuple[int, ...], value: float) -> np.ndarray:
    array = np.ones(shape)
    array[index] = value
    return array


def test_a_sound_problem_has_no_faults() -> None:
    assert faults(make()) == []
    assert (
        faults(make(probabilities=np.full(N, 1 / N), domain=Domain(1e3, 0.0), lipschitz=Lipschitz(0.0, 1.0)))
        == []
    )


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"x": np.ones(N)}, ("data", "x"), "x: expected the shape (n, d), got (5,): reshape it to (5, 1)"),
        ({"x": np.ones((N, D, 1))}, ("data", "x"), "x: expected the shape (n, d), got (5, 3, 1)"),
        ({"x": np.ones(())}, ("data", "x"), "x: expected the shape (n, d), got ()"),
        ({"y": np.ones((N, 2))}, ("data", "y"), SEVERAL),
        (
            {"bypass": np.ones((4, 1)), "w": np.ones(D + 1)},
            ("data", "bypass"),
            "bypass: expected the shape (n, d2) = (5, 1), got (4, 1)",
        ),
        ({"c": np.ones(2)}, ("point", "c"), "c: expected the shape (q,) = (1,), got (2,)"),
        (
            {"c": np.array([math.inf])},
            ("point", "c", 0),
            "c row 1: expected a finite number, got inf",
        ),
        ({"y": np.ones(4)}, ("data", "y"), "y: expected the shape (n,) = (5,), got (4,)"),
        ({"y": np.ones(())}, ("data", "y"), "y: expected the shape (n,) = (5,), got ()"),
        (
            {"probabilities": np.full(4, 0.25)},
            ("data", "probabilities"),
            "probabilities: expected the shape (n,) = (5,), got (4,)",
        ),
        ({"f": np.ones((4, K))}, ("data", "f"), "f: expected the shape (n, k) = (5, 2), got (4, 2)"),
        ({"w": np.ones(2)}, ("point", "w"), "w: expected the shape (d,) = (3,), got (2,)"),
        (
            {"V": np.ones((K, D))},
            ("point", "V"),
            "V: expected the shape (d, k) = (3, 2), got (2, 3): transpose it",
        ),
        ({"V": np.ones(D)}, ("point", "V"), "V: expected the shape (d, k) = (3, 2), got (3,)"),
        (
            {"f": np.ones((N, 0)), "V": np.ones((D, 0))},
            ("network",),
            "expected at least one feature, got k = 0",
        ),
        (
            {"x": with_entry((N, D), (2, 1), math.nan)},
            ("data", "x", 2, 1),
            "x row 3, column 2: expected a finite number, got nan",
        ),
        (
            {"y": with_entry((N,), (4,), -math.inf)},
            ("data", "y", 4),
            "y row 5: expected a finite number, got -inf",
        ),
        (
            {"f": with_entry((N, K), (0, 1), math.inf)},
            ("data", "f", 0, 1),
            "f row 1, column 2: expected a finite number, got inf",
        ),
        (
            {"w": with_entry((D,), (1,), math.nan)},
            ("point", "w", 1),
            "w row 2: expected a finite number, got nan",
        ),
        (
            {"V": with_entry((D, K), (2, 0), math.nan)},
            ("point", "V", 2, 0),
            "V row 3, column 1: expected a finite number, got nan",
        ),
        (
            {"x": np.full((N, D), math.nan)},
            ("data", "x", 0, 0),
            "x row 1, column 1: expected a finite number, got nan (the first of 15)",
        ),
        (
            {"probabilities": with_entry((N,), (3,), 0.0) / 4},
            ("data", "probabilities", 3),
            "probabilities row 4: expected a finite number > 0, got 0.0",
        ),
        (
            {"probabilities": with_entry((N,), (3,), math.nan)},
            ("data", "probabilities", 3),
            "probabilities row 4: expected a finite number > 0, got nan",
        ),
        (
            {"probabilities": np.full(N, 0.2 + 1e-9)},
            ("data", "probabilities"),
            "probabilities: expected the sum 1 up to 1e-09, got 1.000000005"
            "; to divide them by it, write data.normalise: true (in Python pi / pi.sum())",
        ),
        (
            {"loss": named_loss("logistic"), "y": with_entry((N,), (2,), 0.5)},
            ("data", "y", 2),
            "y row 3: expected a label −1 or 1 for the logistic loss, got 0.5",
        ),
        (
            {"loss": named_loss("poisson"), "y": with_entry((N,), (1,), -1.0)},
            ("data", "y", 1),
            "y row 2: expected a target y ≥ 0 for the poisson loss, got -1.0",
        ),
        ({"epsilon": -1e-300}, ("epsilon",), "epsilon: expected a finite number ≥ 0, got -1e-300"),
        ({"epsilon": math.inf}, ("epsilon",), "epsilon: expected a finite number ≥ 0, got inf"),
        ({"epsilon": math.nan}, ("epsilon",), "epsilon: expected a finite number ≥ 0, got nan"),
        ({"domain": Domain(b=0.0)}, ("domain", "b"), "b: expected a finite number > 0, got 0.0"),
        ({"domain": Domain(b=math.nan)}, ("domain", "b"), "b: expected a finite number > 0, got nan"),
        ({"domain": Domain(r=-1.0)}, ("domain", "r"), "r: expected a finite number ≥ 0, got -1.0"),
        (
            {"lipschitz": Lipschitz(mu0=-1.0)},
            ("lipschitz", "mu0"),
            "mu0: expected a finite number ≥ 0, got -1.0",
        ),
        (
            {"lipschitz": Lipschitz(mu1=math.inf)},
            ("lipschitz", "mu1"),
            "mu1: expected a finite number ≥ 0, got inf",
        ),
        (
            {"lipschitz": Lipschitz(mu2=math.nan)},
            ("lipschitz", "mu2"),
            "mu2: expected a finite number ≥ 0, got nan",
        ),
    ],
)
def test_each_fault_is_told_with_its_path(
    changes: dict[str, Any], path: tuple[str | int, ...], message: str
) -> None:
    assert (path, message) in [fault[:2] for fault in faults(make(**changes))]
    if changes.keys() != {"x"}:  # where x has no shape, nothing else is expected to fit it
        assert len(faults(make(**changes))) == 1


def test_all_faults_are_told_together() -> None:
    problem = make(
        y=np.ones(4), f=np.full((N, K), math.nan), w=np.ones(2), epsilon=-1.0, domain=Domain(b=-1.0)
    )
    assert [path for path, *_ in faults(problem)] == [
        ("data", "y"),
        ("point", "w"),
        ("data", "f", 0, 0),
        ("epsilon",),
        ("domain", "b"),
    ]


@pytest.mark.parametrize(
    ("w", "V", "b", "outside"),
    [
        ([3.0, 4.0], np.zeros((2, 2)), 5.0, ["w"]),
        ([3.0, 4.0], np.zeros((2, 2)), 5.0000001, []),
        ([0.0, 0.0], np.diag([3.0, 4.0]), 4.0, ["V"]),  # spectral norm 4, Frobenius norm 5
        ([0.0, 0.0], np.diag([3.0, 4.0]), 4.0000001, []),
        ([0.0, 0.0], np.ones((2, 2)), 1.9999999, ["V"]),
        ([1.0, 0.0], np.eye(2), 1.0, ["w", "V"]),
        ([0.0, 0.0], np.zeros((2, 2)), 5e-324, []),
        ([1e300, 1e300], np.full((2, 2), 1e300), 1e301, []),
    ],
)
def test_the_point_must_lie_in_the_open_domain(
    w: list[float], V: np.ndarray, b: float, outside: list[str]
) -> None:
    problem = make(x=np.ones((N, 2)), w=np.array(w), V=V, domain=Domain(b=b))
    assert [path for path, *_ in faults(problem)] == [("point", name) for name in outside]


@given(seed=st.integers(0, 2**32), slack=st.sampled_from([-1e-9, 1e-9]))
def test_a_point_is_in_the_domain_if_and_only_if_its_norms_are_below_b(seed: int, slack: float) -> None:
    rng = np.random.default_rng(seed)
    V = rng.normal(size=(D, K)) * 10.0 ** rng.integers(-3, 4)
    b = float(np.linalg.svd(V, compute_uv=False)[0]) * (1.0 + slack)
    found = faults(make(w=np.zeros(D), V=V, domain=Domain(b=b)))
    assert [path for path, *_ in found] == ([] if slack > 0 else [("point", "V")])


def test_probabilities_may_miss_one_by_a_billionth() -> None:
    assert faults(make(probabilities=np.full(N, 0.2 + 1e-10))) == []
    assert faults(make(probabilities=np.full(N, 0.2 - 1e-10))) == []
    assert faults(make(probabilities=np.full(N, 0.2 - 3e-10))) != []


@dataclass(frozen=True)
class CountedFeatures:
    """f(x) = x₁ + offset, which notes how it is called."""

    offset: float = 0.0
    k: int = 1
    calls: list[tuple[int, int, int]] = field(default_factory=list)

    def rows(self, rows: slice, x: np.ndarray, pad_to: int) -> np.ndarray:
        self.calls.append((rows.start, rows.stop, pad_to))
        assert len(x) == rows.stop - rows.start
        return x[:, :1] + self.offset


def test_features_of_a_network_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    problem = make(f=CountedFeatures(math.inf), V=np.ones((D, 1)))
    message = "f row 1, column 1: expected a finite number, got inf (the first of 5)"
    assert faults(problem) == [(("data", "f", 0, 0), message, "not-finite")]


def test_a_network_is_not_run_on_shapes_that_do_not_fit() -> None:
    network = CountedFeatures()
    assert [path for path, *_ in faults(make(f=network))] == [("point", "V")]
    assert network.calls == []


def test_chunks_are_the_samples_in_order_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 2000
    rng = np.random.default_rng(1)
    x, y, p = rng.normal(size=(n, D)), rng.normal(size=n), rng.random(n)
    problem = make(x=x, y=y, probabilities=p, f=CountedFeatures(), V=np.ones((D, 1)))
    assert problem.chunk_rows == n
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * (D + 2) * 600)
    assert problem.chunk_rows == 512
    chunks = list(problem.chunks())
    assert [len(chunk.x) for chunk in chunks] == [512, 512, 512, 464]
    np.testing.assert_array_equal(np.concatenate([chunk.x for chunk in chunks]), x)
    np.testing.assert_array_equal(np.concatenate([chunk.y for chunk in chunks]), y[:, None])
    np.testing.assert_array_equal(np.concatenate([chunk.f for chunk in chunks]), x[:, :1])
    np.testing.assert_array_equal(np.concatenate([c.weight for c in chunks if c.weight is not None]), p)
    assert isinstance(problem.features, CountedFeatures)
    assert problem.features.calls == [(0, 512, 512), (512, 1024, 512), (1024, 1536, 512), (1536, 2000, 512)]
    assert all(chunk.f.shape == (len(chunk.x), 0) for chunk in problem.chunks(features=False))
    assert len(problem.features.calls) == 4


def test_held_features_are_evaluated_once_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make(f=CountedFeatures(0.5), V=np.ones((D, 1)))
    held = problem.with_features_held()
    assert isinstance(held.features, GivenFeatures)
    np.testing.assert_array_equal(held.features.f[:], problem.distribution.x[:][:, :1] + 0.5)
    assert held.with_features_held() is held
    monkeypatch.setattr(module, "HELD_BYTES", 8 * N - 1)
    assert problem.with_features_held() is problem


def mapped(path: Path, array: np.ndarray) -> MappedRows:
    path.write_bytes(b"header" + array.tobytes())
    return MappedRows(path, array.dtype, array.shape, len(b"header"))


@pytest.mark.parametrize("shape", [(7,), (7, 3), (1, 1)])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i4"])
def test_mapped_rows_are_slices_of_the_array(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    rows = mapped(tmp_path / "rows", array)
    for part in (slice(0, 7), slice(2, 5), slice(6, 7), slice(None), slice(3, 100)):
        if array[part].size:
            np.testing.assert_array_equal(rows[part], array[part])
            assert rows[part].dtype == array.dtype


def test_faults_of_mapped_rows_are_those_of_the_array(tmp_path: Path) -> None:
    x, y = with_entry((N, D), (3, 2), math.nan), with_entry((N,), (1,), 7.0)
    there = make(
        x=mapped(tmp_path / "x", x.astype(np.float32)),
        y=mapped(tmp_path / "y", y),
        loss=named_loss("logistic"),
    )
    assert faults(there) == faults(make(x=x, y=y, loss=named_loss("logistic")))
    assert [path for path, *_ in faults(there)] == [("data", "x", 3, 2), ("data", "y", 1)]


def test_faults_of_many_rows_are_found_in_the_memory_of_a_chunk(tmp_path: Path) -> None:
    n, d = 4_000_000, 2
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(4 * n * d)  # zeros that take no room
        file.seek(4 * (n * d - 1))
        file.write(np.float32(math.nan).tobytes())
    problem = make(
        x=MappedRows(path, np.dtype(np.float32), (n, d), 0),
        y=MappedRows(path, np.dtype(np.float32), (n,), 0),
        probabilities=np.broadcast_to(np.float64(1 / n), (n,)),
        f=CountedFeatures(),
        w=np.zeros(d),
        V=np.zeros((d, 1)),
    )
    tracemalloc.start()
    found = faults(problem)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        ("data", "x", n - 1, 1),
        f"x row {n}, column 2: expected a finite number, got nan",
        "not-finite",
    ) in found
    assert peak < 6 * module.CHUNK_BYTES  # x alone takes 64 MB


def test_from_arrays_takes_what_numpy_reads() -> None:
    problem = Problem.from_arrays(
        x=[[1, 2]], y=(3,), f=np.ones((1, 1), np.float32), w=[0, 0], V=[[1], [0]], b=2
    )
    assert (problem.n, problem.d, problem.k, problem.loss.name) == (1, 2, 1, "squared")
    assert all(a.dtype == np.float64 for a in (problem.point.W, problem.point.V, problem.distribution.x[:]))


def test_from_arrays_refuses_with_every_fault() -> None:
    with pytest.raises(RequestError) as raised:
        Problem.from_arrays(x=[[1, 2]], y=[1, 2], f=[[math.nan]], w=[0, 0], V=[[1], [0]], epsilon=-1)
    for message in (
        "y: expected the shape (n,) = (1,), got (2,)",
        "f row 1, column 1: expected a finite number, got nan",
        "epsilon: expected a finite number ≥ 0, got -1.0",
    ):
        assert message in str(raised.value)


def test_a_problem_can_be_changed_by_replacing_its_parts() -> None:
    problem = replace(make(), epsilon=0.5)
    assert problem.epsilon == 0.5
    assert faults(problem) == []


def test_one_row_of_outputs_is_one_output() -> None:
    x, y, f, V = np.ones((2, 3)), [1.0, 2.0], np.ones((2, 1)), np.zeros((3, 1))
    same = [
        Problem.from_arrays(x=x, y=targets, f=f, V=V, **head)
        for targets in (y, np.reshape(y, (2, 1)))
        for head in ({"w": [1, 2, 3]}, {"w": [[1, 2, 3]]}, {"W": [[1, 2, 3]]})
    ]
    for problem in same:
        [chunk] = problem.chunks()
        assert problem.W.tolist() == [[1.0, 2.0, 3.0]]
        assert chunk.y.tolist() == [[1.0], [2.0]]


def test_a_bias_and_bypass_inputs_are_columns_of_the_head() -> None:
    problem = Problem.from_arrays(
        x=[[1.0, 2.0]],
        y=[[1.0, 0.0]],
        f=[[7.0]],
        W=[[1, 2, 3], [4, 5, 6]],
        V=[[0], [1]],
        c=[8, 9],
        bypass=[[5.0]],
    )
    [chunk] = problem.chunks()
    assert (problem.d1, problem.d2, problem.d, problem.q, problem.parameters) == (2, 1, 4, 2, 10)
    assert problem.W.tolist() == [[1, 2, 3, 8], [4, 5, 6, 9]]
    assert chunk.x.tolist() == [[1, 2, 5, 1]]
    assert problem.decayed.tolist() == [1, 1, 1, 1]
    free = replace(problem, objective=replace(problem.objective, decays_bias=False))
    assert free.decayed.tolist() == [1, 1, 1, 0]


def test_weight_decay_is_twice_l2() -> None:
    arrays = {"x": [[1.0]], "y": [1.0], "f": [[1.0]], "w": [1.0], "V": [[1.0]]}
    assert Problem.from_arrays(**arrays, weight_decay=0.5).objective.l2 == 0.25
    with pytest.raises(RequestError):
        Problem.from_arrays(**arrays, weight_decay=0.5, l2=0.25)
    with pytest.raises(RequestError):
        Problem.from_arrays(**arrays, W=[[1.0]])
