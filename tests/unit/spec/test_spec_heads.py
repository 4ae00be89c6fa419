"""Heads of every shape in a spec: outputs, bias, bypass, comparators, decay; every fault with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from spec_cases import wrong_specs

from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.problem import Objective, Problem
from resnet_cert.spec import load_problem, load_spec

BASE = {
    "version": "1",
    "data": "{x: [[1.0, 2.0], [3.0, 4.0]], y: [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]}",
    "loss": "squared",
    "network": "{kind: identity}",
    "point": "{W: [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], V: [[0.0, 0.0], [0.0, 0.0]]}",
    "epsilon": "0.1",
}
X = [[1.0, 2.0], [3.0, 4.0]]
Y = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]
W, V = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]
ONE = {"point": "{w: [1, 0], V: [[0, 0], [0, 0]]}", "data": "{x: [[1, 2], [3, 4]], y: [1, 0]}"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the specs name, and the tests running in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,b,class,p,q,r\n1,2,0,1,0,0.5\n3,4,2,0,1,0.5\n")
    (tmp_path / "wrong.csv").write_text("a,b,class,p,q,r\n1,2,0,1,0,0.5\n3,4,0.5,0,nan,0.5\n")
    np.savez("data.npz", x=X, y=Y, weights=np.ones((2, 3)))
    np.savez("omega.npz", x=X, y=Y, omega=[[1.0, 2.0, 3.0], [1.0, -2.0, -3.0]])
    np.savez("point.npz", W=W, V=V)
    np.savez("one.npz", w=[1.0, 0.0], V=V)
    np.savez("both.npz", w=[1.0, 0.0], W=W, V=V)
    np.savez("no-V.npz", W=W)
    np.savez("flat.npz", W=[1.0, 2.0], V=V)
    np.savez("words.npz", W=[["a", "b"]], V=V)
    np.save("y3.npy", np.ones((2, 3, 1)))
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    return tmp_path


def text(**parts: str) -> str:
    """The base spec with other parts."""
    return "".join(f"{key}: {value}\n" for key, value in (BASE | parts).items())


def load(**parts: str) -> Problem:
    return load_problem("s.yaml", text=text(**parts))


WEIGHTED = "{kind: weighted_squared, weights: omega}"


@pytest.mark.parametrize(
    ("parts", "y", "omega"),
    [
        ({}, Y, None),
        ({"data": "{file: data.npz}"}, Y, None),
        ({"data": "{file: d.csv, x: [a, b], y: [p, q, r]}"}, Y, None),
        ({"data": "{file: d.csv, x: [a, b], y: class}", "loss": "softmax"}, [0.0, 2.0], None),
        ({"data": "{x: [[1, 2], [3, 4]], y: [0, 2]}", "loss": "{kind: softmax}"}, [0.0, 2.0], None),
        ({"data": "{x: [[1, 2], [3, 4]], y: [[1, 0, 0], [0, 0.5, 0.5]]}", "loss": "softmax"}, None, None),
        (
            {"data": "{file: data.npz, omega: weights}", "loss": WEIGHTED},
            Y,
            [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
        ),
        (
            {"data": "{file: d.csv, x: [a, b], y: [p, q, r], omega: [r, q, p]}", "loss": WEIGHTED},
            Y,
            [[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]],
        ),
        ({"point": "{file: point.npz}"}, Y, None),
    ],
)
def test_a_spec_becomes_its_problem(folder: Path, parts: dict[str, str], y: Any, omega: Any) -> None:
    problem = load(**parts)
    assert (problem.n, problem.d, problem.k, problem.q) == (2, 2, 2, 3)
    np.testing.assert_array_equal(problem.distribution.x[:], X)
    np.testing.assert_array_equal(problem.point.W, W)
    np.testing.assert_array_equal(problem.point.V, V)
    if y is not None:
        np.testing.assert_array_equal(problem.distribution.y[:], y)
    if omega is None:
        assert problem.distribution.omega is None
    else:
        assert problem.distribution.omega is not None
        np.testing.assert_array_equal(problem.distribution.omega[:], omega)


def test_one_output_may_be_written_in_every_way() -> None:
    problems = [
        load(data=f"{{x: [[1, 2], [3, 4]], y: {y}}}", point=f"{{{w}, V: [[0, 0], [0, 0]]}}")
        for y in ("[1, 0]", "[[1], [0]]")
        for w in ("w: [1, 0]", "w: [[1, 0]]", "W: [[1, 0]]")
    ]
    for problem in problems:
        assert (problem.q, problem.d1) == (1, 2)
        np.testing.assert_array_equal(problem.W, [[1.0, 0.0]])
        [chunk] = problem.chunks()
        np.testing.assert_array_equal(chunk.y, [[1.0], [0.0]])


@pytest.mark.parametrize("c", ["2", "[2]"])
def test_a_bias_is_the_last_column_of_the_head(c: str) -> None:
    problem = load(**ONE | {"point": f"{{w: [1, 0], V: [[0, 0], [0, 0]], c: {c}}}"})
    np.testing.assert_array_equal(problem.W, [[1.0, 0.0, 2.0]])
    [chunk] = problem.chunks()
    np.testing.assert_array_equal(chunk.x, [[1.0, 2.0, 1.0], [3.0, 4.0, 1.0]])


@pytest.mark.parametrize(
    "data",
    [
        "{x: [[1], [3]], bypass: [[2], [4]], y: [1, 0]}",
        "{file: d.csv, x: [a], bypass: [b], y: p}",
        "{file: bypass.npz, bypass: z}",
    ],
)
def test_bypass_inputs_stand_behind_those_of_the_block(folder: Path, data: str) -> None:
    np.savez("bypass.npz", x=[[1.0], [3.0]], z=[[2.0], [4.0]], y=[1.0, 0.0])
    problem = load(data=data, point="{w: [1, 0.5], V: [[0]]}")
    assert (problem.d1, problem.d2, problem.d) == (1, 1, 2)
    [chunk] = problem.chunks()
    np.testing.assert_array_equal(chunk.x, X)


@pytest.mark.parametrize(
    "data",
    [
        "{x: [[1, 2], [3, 4]], y: [1, 0], compare: {early: z.npy, all: [x, f]}}",
        "{file: d.csv, x: [a, b], y: p, compare: {early: [r], all: [x, f]}}",
        "{file: d.csv, x: [a, b], y: p, compare: {early: r, all: [a, b, f]}}",
        "{file: compare.npz, compare: {early: z, all: [x, f]}}",
    ],
)
def test_comparators_are_arrays_side_by_side_features_among_them(folder: Path, data: str) -> None:
    np.savez("compare.npz", x=X, z=[0.5, 0.5], y=[1.0, 0.0])
    np.save("z.npy", [[0.5], [0.5]])
    problem = load(data=data, point="{w: [1, 0], V: [[0], [0]]}", network="{kind: linear, weight: [[1, 1]]}")
    np.testing.assert_array_equal(problem.comparators["early"][:], [[0.5], [0.5]])
    np.testing.assert_array_equal(problem.comparators["all"][:], [[1.0, 2.0, 3.0], [3.0, 4.0, 7.0]])


def test_a_state_dict_is_a_point(folder: Path) -> None:
    """As PyTorch saves one, bfloat16 and all."""
    import ml_dtypes

    state = {
        "head.weight": np.array(W, dtype=np.float32),
        "head.bias": np.array([0.5, 1.0, -2.0], dtype=ml_dtypes.bfloat16),
        "block.proj.weight": np.array([[0.25, 0.0], [0.5, 0.0]], dtype=np.float16),
        "step": np.array(7),
    }
    save_file(state, "model.safetensors")
    np.savez("state.npz", **{name: array.astype(np.float32) for name, array in state.items()})
    for file in ("model.safetensors", "state.npz"):
        problem = load(point=f"{{file: {file}, W: head.weight, V: block.proj.weight, c: head.bias}}")
        np.testing.assert_array_equal(problem.W, np.column_stack([W, [0.5, 1.0, -2.0]]))
        np.testing.assert_array_equal(problem.V, [[0.25, 0.0], [0.5, 0.0]])
    np.savez("trained.npz", W=np.array(W), V=np.array(V), c=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(load(point="{file: trained.npz}").W[:, -1], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("parts", "objective"),
    [
        ({}, Objective()),
        ({"regularizer": "{l2: 0.25}"}, Objective(0.25)),
        ({"regularizer": "{weight_decay: 0.5, bias: false}"}, Objective(0.25, None, False)),
        ({"regularizer": "{l2: 0}", "constraint": "{norm: 9}"}, Objective(0.0, 9.0)),
    ],
)
def test_the_objective(parts: dict[str, str], objective: Objective) -> None:
    assert load(**parts).objective == objective


def test_what_the_spec_says_beside_its_problem(folder: Path) -> None:
    bounds = "{x: 10.0, f: 20.0, y: 1.0}"
    spec = text(
        hessian="bound", expect="[REFUTED, UNDECIDED]", population=f"{{confidence: 0.9, bounds: {bounds}}}"
    )
    loaded = load_spec("s.yaml", text=spec)
    assert loaded.problem.hessian == "bound"
    assert loaded.expect == (Verdict.REFUTED, Verdict.UNDECIDED)
    assert loaded.population is not None
    assert (loaded.population.confidence, loaded.population.f) == (0.9, 20.0)
    plain = load_spec("s.yaml", text=text(expect="CERTIFIED"))
    assert (plain.problem.hessian, plain.expect) == ("auto", (Verdict.CERTIFIED,))
    assert plain.population is None


def test_probabilities_are_normalised_where_that_is_asked_for() -> None:
    thirds = "probabilities: [0.33333334, 0.33333334, 0.33333334]"
    data = f"x: [[1, 0], [2, 0], [3, 0]], y: [1, 0, 1], {thirds}"
    problem = load(**ONE | {"data": f"{{{data}, normalise: true}}"})
    assert problem.distribution.probabilities is not None
    np.testing.assert_allclose(problem.distribution.probabilities[:], [1 / 3] * 3, rtol=1e-15)
    with pytest.raises(RequestError, match=r"got 1\.0000000199999999; .* data\.normalise: true") as raised:
        load(**ONE | {"data": f"{{{data}}}"})
    assert [d.id for d in raised.value.diagnostics] == ["probability-sum"]


def test_labels_0_and_1_of_a_logistic_loss_name_what_to_write() -> None:
    with pytest.raises(RequestError, match=r"write data\.labels: \{0: -1, 1: 1\}, or loss: bce_with_logits"):
        load(**ONE | {"loss": "logistic"})
    assert load(**ONE | {"loss": "bce_with_logits"}).n == 2


# --- Faults -----------------------------------------------------------------------------------------------

FAULTS = """
point: {W: [[1, 0, 0]], V: [[0, 0], [0, 0]]}
  2:40 shape
  5:12 shape

point: {W: [[1, 0]], V: [[0, 0], [0, 0]]}
  2:40 shape

point: {W: [[1, 0], [0, 1], [1, 1]], V: [[0, 0]]}
  5:41 shape

point: {W: [[1, 0], [0, 1], [1, 1]], V: [[0], [0]]}
  5:41 shape

point: {W: [[1, .nan], [0, 1], [1, 1]], V: [[0, 0], [0, .inf]]}
  5:17 not-finite
  5:57 not-finite

point: {W: [], V: [[0, 0], [0, 0]]}
  5:12 wrong-value

point: {W: 3, V: [[0, 0], [0, 0]]}
  5:12 wrong-value

point: {W: [[1, 0], [0, 1], [1, 1]]}
  5:1 missing-key

point: {w: [1, 2], V: [[0, 0], [0, 0]]}
  2:40 shape

point: {file: one.npz}
  2:40 shape

point: {file: both.npz}
  5:15 unfit-part

point: {file: no-V.npz}
  5:15 array-missing

point: {file: flat.npz}
  5:15 shape

point: {file: words.npz}
  5:15 array-type

point: {file: none.npz}
  5:15 file-missing

domain: {b: 0.5}
  5:12 domain

loss: softmax
  2:41 probability-sum

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [0, 3]}
  2:36 target

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [-1, 1.5]}
  2:33 target

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [0, 1, 2]}
  2:32 shape

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [[0.5, -0.5, 1], [0, 1, 0]]}
  2:39 target

loss: softmax
data: {file: d.csv, x: [a, b], y: clas}
  2:35 column-missing

loss: softmax
data: {file: wrong.csv, x: [a, b], y: class}
  2:39 target

loss: softmax
point: {W: [[1, 0], [0, 1]], V: [[0, 0], [0, 0]]}
data: {file: d.csv, x: [a, b], y: class}
  2:35 target

data: {x: [[1, 2], [3, 4]], y: [0, 1]}
  2:32 shape

data: {x: [[1, 2], [3, 4]], y: [[0, 1], [1, 0]]}
  2:32 shape

data: {x: [[1, 2], [3, 4]], y: y3.npy}
  2:32 shape

data: {file: d.csv, x: [a, b], y: [p, q]}
  2:35 shape

data: {file: d.csv, x: [a, b], y: [p, q, rr]}
  2:42 column-missing

data: {sample: {n: 4, d: 2, y: {teacher: linear}}}
  2:32 shape

loss: logistic
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 2], [1, 0, -1]]}
  2:40 target

loss: {kind: weighted_squared, weights: omega}
  2:1 missing-key

loss: {kind: weighted_squared, weights: omega}
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2], [1, 1]]}
  2:63 shape

loss: {kind: weighted_squared, weights: omega}
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2, -1], [1, 1, 1]]}
  2:71 target

loss: {kind: weighted_squared, weights: omega}
data: {file: data.npz}
  2:14 array-missing

loss: {kind: weighted_squared, weights: omega}
data: {file: omega.npz}
  2:14 target

loss: {kind: weighted_squared, weights: omega}
data: {file: d.csv, x: [a, b], y: [p, q, r], omega: [p, q]}
  2:53 shape

loss: {kind: weighted_squared, weights: omega}
data: {sample: {n: 4, d: 2, y: {teacher: linear}}}
  2:8 unfit-part

data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2, 1], [1, 1, 1]]}
  2:56 unfit-part

loss: {kind: cross_entropy, class_weights: [1, 2]}
data: {x: [[1, 2], [3, 4]], y: [0, 2]}
  3:7 wrong-value

loss: {kind: cross_entropy, class_weights: [1, 2, 0]}
data: {x: [[1, 2], [3, 4]], y: [0, 2]}
  3:7 wrong-value

loss: {kind: cross_entropy, label_smoothing: 1}
data: {x: [[1, 2], [3, 4]], y: [0, 2]}
  3:46 wrong-value

loss: {kind: squared, label_smoothing: 0.1}
  3:23 unknown-key

loss: bce
  3:7 unknown-name

regularizer: {l2: 0.25, weight_decay: 1}
  7:15 unknown-key

regularizer: {bias: false}
  7:1 missing-key

regularizer: {l2: 1, bias: 1}
  7:28 wrong-value

hessian: fast
  7:10 unknown-name

expect: certified
  7:9 wrong-value

population: {confidence: 1, bounds: {x: 1}}
  7:26 wrong-value
  7:29 missing-key

population: {confidence: 0.9, bounds: {x: 1, f: 1}}
  7:31 missing-key

point: {W: [[1, 0], [0, 1], [1, 1]], V: [[0, 0], [0, 0]], c: [1, 2]}
  5:62 shape

point: {w: [[1, 0], [0, 1]], V: [[0, 0], [0, 0]]}
  5:12 shape

data: {file: data.npz, bypass: weights}
  5:12 shape

data: {file: data.npz, bypass: z}
  2:32 array-missing

data: {file: data.npz, compare: {pixels: x0}}
  2:42 array-missing

data: {file: data.npz, compare: {pixels: [x, 3]}}
  2:42 wrong-value

data: {file: data.npz, compare: [x]}
  2:33 wrong-value

data: {file: data.npz, normalise: true}
  2:35 unfit-part

point: {file: point.npz, W: head}
  5:29 array-missing

point: {file: model.safetensors, W: head, V: block}
  5:15 file-unreadable

point: {file: model.pt}
  5:15 file-missing
  5:15 wrong-value
"""


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("parts", "faults"), wrong_specs(FAULTS))
def test_a_wrong_spec_gets_its_faults_with_their_places_and_nothing_else(
    parts: dict[str, str], faults: list[str]
) -> None:
    with pytest.raises(RequestError) as raised:
        load(**parts)
    assert [f"{d.line}:{d.column} {d.id}" for d in raised.value.diagnostics] == faults
