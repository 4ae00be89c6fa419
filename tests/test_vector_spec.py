"""Specs of several outputs through the command line: what they become, and every fault with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from spec_cases import wrong_specs

from resnet_cert import RequestError, VectorProblem, load_problem
from resnet_cert.cli import cli

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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the specs name, and the program running in it."""
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
    return tmp_path


def write(**parts: str) -> None:
    """s.yaml: the base spec with other parts."""
    Path("s.yaml").write_text("".join(f"{key}: {value}\n" for key, value in (BASE | parts).items()))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- What a spec becomes ----------------------------------------------------------------------------------

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
    write(**parts)
    problem = load_problem("s.yaml")
    assert isinstance(problem, VectorProblem)
    assert (problem.n, problem.d, problem.k, problem.q) == (2, 2, 2, 3)
    np.testing.assert_array_equal(problem.distribution.x[:], X)
    np.testing.assert_array_equal(problem.point.W, W)
    np.testing.assert_array_equal(problem.point.V, V)
    if y is not None:
        np.testing.assert_array_equal(problem.distribution.y[:], y)
    if omega is None:
        assert problem.omega is None
    else:
        assert problem.omega is not None
        np.testing.assert_array_equal(problem.omega[:], omega)


def test_the_document_names_the_outputs_and_reads_back(folder: Path) -> None:
    write(point="{W: [[1, 0], [0, 1], [1, 1]], V: [[1, 0], [0, 0]]}")
    result = run("check", "s.yaml", "--format", "json")
    document = json.loads(result.stdout)
    [report] = document["reports"]
    assert report["problem"]["outputs"] == 3
    assert report["problem"]["parameters"] == 2 * (3 + 2)
    assert result.exit_code == document["exit_code"]
    assert document["verdict"] == report["verdict"] == run("check", "s.yaml", "-q").stdout.strip()
    assert not report["theorem1"]["applies"]
    assert not report["theorem3"]["applies"]
    assert report["theorem1"]["reason"]
    assert report["theorem3"]["reason"]
    assert set(report["corollary1"]) == {"verdict", "reason"}
    assert isinstance(report["hessian"]["lambda_min"]["lower"], float)


@pytest.mark.parametrize("verbosity", [[], ["-v"]])
def test_the_text_speaks_of_matrices_in_a_hundred_columns(folder: Path, verbosity: list[str]) -> None:
    write(
        point="{W: [[1, 0], [0, 1]], V: [[1, 0], [0, 2]]}",
        data="{x: [[1, 2], [3, 4]], y: [1, 0]}",
        loss="softmax",
    )
    text = run("check", "s.yaml", *verbosity).stdout
    assert "  outputs       q = 2: p = W(x + V f(x)), W in R^(2×2)\n" in text
    assert "over ‖W‖_F ≤ r" in text
    assert "Corollary 1: for d = 2 ≥ q = 2 every second-order stationary point has F ≤ inf F_lin.\n" in text
    for scalar in ("‖w‖", "(w, V)", "w*", "w = 0"):
        assert scalar not in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_would_not_fit_into_the_memory_is_refused() -> None:
    d, k = 4000, 97
    arrays = {"x": np.ones((1, d)), "f": np.ones((1, k)), "V": np.zeros((d, k)), "y": np.zeros((1, 2))}
    with pytest.raises(RequestError, match=r"W: expected q\(d \+ k\) ≤ 8192 for several outputs, got 8194"):
        VectorProblem.from_arrays(**arrays, W=np.zeros((2, d)))
    arrays["f"], arrays["V"] = np.ones((1, 96)), np.zeros((d, 96))
    assert VectorProblem.from_arrays(**arrays, W=np.zeros((2, d))).faults() == []


# --- Faults -----------------------------------------------------------------------------------------------

FAULTS = """
point: {W: [[1, 0, 0]], V: [[0, 0], [0, 0]]}
  2:40: y: expected the shape (n, q) = (2, 1), got (2, 3)
  5:12: W: expected the shape (q, d) = (1, 2), got (1, 3)

point: {W: [[1, 0]], V: [[0, 0], [0, 0]]}
  2:40: y: expected the shape (n, q) = (2, 1), got (2, 3)

point: {W: [[1, 0], [0, 1], [1, 1]], V: [[0, 0]]}
  5:41: V: expected the shape (d, k) = (2, 2), got (1, 2)

point: {W: [[1, 0], [0, 1], [1, 1]], V: [[0], [0]]}
  5:41: V: expected the shape (d, k) = (2, 2), got (2, 1)

point: {W: [[1, .nan], [0, 1], [1, 1]], V: [[0, 0], [0, .inf]]}
  5:17: expected a finite number, got .nan
  5:57: expected a finite number, got .inf

point: {W: [], V: [[0, 0], [0, 0]]}
  5:12: expected a list of rows of numbers, such as [[1.0, 2.0], [3.0, 4.0]], got an empty list

point: {W: 3, V: [[0, 0], [0, 0]]}
  5:12: expected a list of rows of numbers, such as [[1.0, 2.0], [3.0, 4.0]], got 3

point: {W: [[1, 0], [0, 1], [1, 1]]}
  5:1: missing key 'V' in a point of several outputs

point: {w: [1, 2], V: [[0, 0], [0, 0]]}
  2:40: y: expected the shape (n,) = (2,), got (2, 3): several outputs take a matrix W in place of w

point: {file: one.npz}
  2:40: y: expected the shape (n,) = (2,), got (2, 3): several outputs take a matrix W in place of w

point: {file: both.npz}
  5:15: expected an array w or W in both.npz, got both

point: {file: no-V.npz}
  5:15: no array 'V' in no-V.npz; expected one of W

point: {file: flat.npz}
  5:15: W: expected the shape (q, d), got (2,)

point: {file: words.npz}
  5:15: array 'W' in words.npz: expected real numbers (floats of at most 64 bits or integers), got <U1

point: {file: none.npz}
  5:15: no such file: none.npz; did you mean 'one.npz'?

domain: {b: 0.5}
  5:12: W: expected ‖W‖ < b = 0.5, got ‖W‖ = 1.7320508075688772

loss: softmax
  2:41: y row 1: expected probabilities of sum 1 for the softmax loss, got the sum 1.5

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [0, 3]}
  2:36: y row 2: expected a class label 0, ..., 2 for the softmax loss, got 3.0

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [-1, 1.5]}
  2:33: y row 1: expected a class label 0, ..., 2 for the softmax loss, got -1.0 (the first of 2)

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [0, 1, 2]}
  2:32: y: expected the shape (n,) = (2,), got (3,)

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [[0], [1]]}
  2:32: y: expected the shape (n,) = (2,), got (2, 1): drop its last axis

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [[0.5, -0.5, 1], [0, 1, 0]]}
  2:39: y row 1, column 2: expected a probability ≥ 0 for the softmax loss, got -0.5

loss: softmax
data: {file: d.csv, x: [a, b], y: clas}
  2:35: no column 'clas' in d.csv; did you mean 'class'?

loss: softmax
data: {file: wrong.csv, x: [a, b], y: class}
  2:39: y row 2: expected a class label 0, ..., 2 for the softmax loss, got 0.5

loss: softmax
point: {W: [[1, 0], [0, 1]], V: [[0, 0], [0, 0]]}
data: {file: d.csv, x: [a, b], y: class}
  2:35: y row 2: expected a class label 0, ..., 1 for the softmax loss, got 2.0

data: {x: [[1, 2], [3, 4]], y: [0, 1]}
  2:32: y: expected the shape (n, q) = (2, 3), got (2,)

data: {x: [[1, 2], [3, 4]], y: [[0, 1], [1, 0]]}
  2:32: y: expected the shape (n, q) = (2, 3), got (2, 2)

data: {x: [[1, 2], [3, 4]], y: y3.npy}
  2:32: y: expected the shape (n, q) = (2, 3), got (2, 3, 1): drop its last axis

data: {file: d.csv, x: [a, b], y: [p, q]}
  2:35: y: expected the shape (n, q) = (2, 3), got (2, 2)

data: {file: d.csv, x: [a, b], y: [p, q, rr]}
  2:42: no column 'rr' in d.csv; did you mean 'r'?

data: {sample: {n: 4, d: 2, y: {teacher: linear}}}
  2:32: y: expected the shape (n, q) = (4, 3), got (4,)

loss: logistic
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 2], [1, 0, -1]]}
  2:40: y row 1, column 3: expected a target in [0, 1] for the logistic loss, got 2.0 (the first of 2)

loss: poisson
  3:7: expected one of softmax, squared, logistic, weighted_squared for several outputs,
    point: {W: ..., V: ...}, got 'poisson'

loss: {kind: pseudo_huber, scale: 2}
  3:14: expected one of softmax, squared, logistic, weighted_squared for several outputs,
    point: {W: ..., V: ...}, got 'pseudo_huber'

loss: {python: losses.py:loss}
  3:8: expected one of the losses softmax, squared, logistic, weighted_squared of several outputs,
    point: {W: ..., V: ...}

loss: softmax
data: {x: [[1, 2], [3, 4]], y: [0, 1]}
point: {w: [1, 2], V: [[0, 0], [0, 0]]}
  3:7: expected one of squared, logistic, pseudo_huber, poisson for one output, point: {w: ..., V: ...},
    got 'softmax'

loss: {kind: weighted_squared, weights: omega}
  2:1: missing key 'omega', the weights of the outputs for the loss

loss: {kind: weighted_squared, weights: omega}
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2], [1, 1]]}
  2:63: omega: expected the shape (n, q) = (2, 3), got (2, 2)

loss: {kind: weighted_squared, weights: omega}
data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2, -1], [1, 1, 1]]}
  2:71: omega row 1, column 3: expected a finite number ≥ 0, got -1.0

loss: {kind: weighted_squared, weights: omega}
data: {file: data.npz}
  2:14: no array 'omega' in data.npz; expected one of x, y, weights

loss: {kind: weighted_squared, weights: omega}
data: {file: omega.npz}
  2:14: omega row 2, column 2: expected a finite number ≥ 0, got -2.0 (the first of 2)

loss: {kind: weighted_squared, weights: omega}
data: {file: d.csv, x: [a, b], y: [p, q, r], omega: [p, q]}
  2:53: omega: expected the shape (n, q) = (2, 3), got (2, 2)

loss: {kind: weighted_squared, weights: omega}
data: {sample: {n: 4, d: 2, y: {teacher: linear}}}
  2:8: a loss of weights: omega needs them, got a drawn sample

data: {x: [[1, 2], [3, 4]], y: [[0, 1, 1], [1, 0, 1]], omega: [[1, 2, 1], [1, 1, 1]]}
  2:56: expected omega only with a loss of weights: omega

regularizer: {l2: 0.25}
constraint: {norm: 2}
  7:1: expected no regularizer with several outputs
  8:1: expected no constraint with several outputs
"""


@pytest.mark.parametrize(("parts", "faults"), wrong_specs(FAULTS))
def test_a_wrong_spec_gets_its_faults_with_their_places_and_nothing_else(
    folder: Path, parts: dict[str, str], faults: list[str]
) -> None:
    write(**parts)
    before = sorted(folder.iterdir())
    result = run("check", "s.yaml", "--output", "report.txt")
    assert result.exit_code == 2
    assert result.stdout == ""
    expected = [f"s.yaml:{fault}".replace(": ", ": error: ", 1) for fault in faults]
    assert result.stderr.splitlines() == expected
    assert sorted(folder.iterdir()) == before


ONE_OUTPUT = {
    "this command": (
        ("bound", "s.yaml", "--eps", "1e-3"),
        ("landscape", "s.yaml", "--output", "out.png"),
        ("solve", "s.yaml", "--output", "out.npz"),
        ("sgd", "s.yaml", "--steps", "3", "--output", "out.png"),
    ),
    "--certificate": (("check", "s.yaml", "--certificate", "out.json"),),
    "--witness": (("check", "s.yaml", "--witness", "out.npz"),),
    "--augmented": (("check", "s.yaml", "--augmented", "--output", "out.txt"),),
    "--arithmetic ball": (("check", "s.yaml", "--arithmetic", "ball", "--format", "json"),),
}


@pytest.mark.parametrize(("point", "place"), [(BASE["point"], "5:12"), ("{file: point.npz}", "5:15")])
@pytest.mark.parametrize(("asked", "commands"), ONE_OUTPUT.items())
def test_what_takes_one_output_says_so_at_the_point(
    folder: Path, asked: str, commands: tuple[tuple[str, ...], ...], point: str, place: str
) -> None:
    write(point=point)
    before = sorted(folder.iterdir())
    for command in commands:
        result = run(*command)
        assert result.exit_code == 2
        assert result.stdout == ""
        fault = f"expected one output, a point of w and V, for {asked}, got q = 3 outputs"
        assert result.stderr == f"s.yaml:{place}: error: {fault}\n"
    assert sorted(folder.iterdir()) == before


def test_a_point_from_the_command_line_is_named_there(folder: Path) -> None:
    write(point="{w: [1, 2], V: [[0, 0], [0, 0]]}", data="{x: [[1, 2], [3, 4]], y: [0, 1]}", loss="squared")
    setting = "point={W: [[1, 0]], V: [[0, 0], [0, 0]]}"
    result = run("check", "s.yaml", "--set", setting, "--set", "data.y=[[0], [1]]", "--witness", "out.npz")
    assert result.exit_code == 2
    fault = "expected one output, a point of w and V, for --witness, got q = 1 outputs"
    assert result.stderr == f"--set {setting}:1:11: error: {fault}\n"


def test_a_certificate_does_not_speak_of_several_outputs(folder: Path) -> None:
    """A certificate whose spec has become one of several outputs since is rejected."""
    write(point="{w: [1, 2], V: [[0, 0], [0, 0]]}", data="{x: [[1, 2], [3, 4]], y: [0, 1]}")
    assert run("check", "s.yaml", "--certificate", "c.json").exit_code == 10
    assert run("verify", "c.json").exit_code == 10
    write()
    assert run("verify", "c.json").exit_code == 30
