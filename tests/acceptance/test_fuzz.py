"""Long: random specs, files and surroundings end in a documented exit code, without a traceback, and change
no file but their output.  A seed names each case, so that it can be run again alone."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from resnet_cert.cli import cli
from resnet_cert.outcomes import FAULTS, RequestError
from resnet_cert.spec import load_problem

pytestmark = pytest.mark.long

SPECS, FILES, STATES = 10_000, 2_000, 500
BATCH = 100
DOCUMENTED = {0, 2, 10, 20, 70}
FINE = {0, 2, 10, 20}

BASES: list[dict[str, Any]] = [
    {
        "version": 1,
        "name": "fuzz",
        "data": {"x": [[1.0, 2.0], [3.0, -0.5]], "y": [1.0, -1.0], "probabilities": [0.25, 0.75]},
        "loss": {"kind": "logistic", "scale": 2.0},
        "network": {"kind": "linear", "weight": [[0.1, 0.2]], "bias": [0.5]},
        "point": {"w": [0.0, 1.0], "V": [[-10.0], [2]], "c": 0.5},
        "epsilon": 0.2,
        "domain": {"b": "auto", "r": 2},
        "lipschitz": {"mu0": "auto", "mu1": 3, "mu2": "auto"},
        "expect": "REFUTED",
    },
    {
        "version": 1,
        "data": {"file": "d.npz", "bypass": "z", "compare": {"all": ["x", "f"]}},
        "loss": {"kind": "cross_entropy", "label_smoothing": 0.1, "class_weights": [1, 2, 3]},
        "network": {"kind": "given"},
        "point": {"file": "p.npz", "W": "head", "V": "block", "c": "bias"},
        "epsilon": 1e-3,
        "regularizer": {"weight_decay": 1e-3, "bias": False},
        "hessian": "auto",
    },
    {
        "version": 1,
        "data": {"file": "d.csv", "x": ["a", "b"], "y": "label", "labels": {"no": -1, "yes": 1}},
        "loss": "mse",
        "network": {"kind": "mlp", "activation": "gelu_tanh", "widths": [3, 2], "seed": 1},
        "point": {"W": [[1.0, 0.5]], "V": [[0.0, 0.0], [0.1, 0.2]]},
        "epsilon": 0.5,
        "constraint": {"norm": 9.0},
        "population": {"confidence": 0.99, "bounds": {"x": 10.0, "f": 20.0, "y": 1.0}},
    },
    {
        "version": 1,
        "data": {"sample": {"n": 6, "d": 2, "x": "sphere", "y": {"teacher": "sign", "noise": 0.1}}},
        "loss": "pseudo_huber",
        "network": {"kind": "identity"},
        "point": {"w": [0.0, 0.0], "V": [[0.0, 0.0], [0.0, 0.0]]},
        "epsilon": 1.0,
    },
]  # fmt: skip
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, 5e-324, -1e-300, 2**63, "", " ", "auto", "softmax", "x",
    "d.npz", "p.npz", "d.csv", "../d.npz", "no.npz", "a" * 300, "é\u202e\x07", "\ud800", [], {}, [[]],
    [[1.0]], [1.0, "a"], [[1.0], [2.0, 3.0]], {"kind": "mlp"}, {"python": "code.py:f"}, {"file": "d.npz"},
    "given", "mse",
]  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(inner for key, part in parts for inner in places(part, (*path, key)))]


def changed_spec(rng: random.Random) -> bytes:
    """A spec with parts replaced, left out, doubled or renamed, and its text changed here and there."""
    tree = json.loads(json.dumps(rng.choice(BASES)))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        path = rng.choice([p for p in places(tree) if p] or [()])
        if not path:
            break
        parent = tree
        for part in path[:-1]:
            parent = parent[part]
        change = rng.choice(["junk", "junk", "remove", "rename", "nest"])
        if change == "remove":
            del parent[path[-1]]
        elif change == "rename" and isinstance(parent, dict):
            parent[rng.choice([path[-1] + "s", path[-1][:-1], path[-1].upper()])] = parent.pop(path[-1])
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(JUNK)) if change != "nest" else [parent[path[-1]]]
    flow = rng.choice([True, False, None])
    text = json.dumps(tree) if rng.random() < 0.3 else yaml.safe_dump(tree, default_flow_style=flow)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = bytes(rng.randrange(256) for _ in range(rng.randrange(3)))
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    x = np.array([[1.0, 2.0], [3.0, -0.5], [0.0, 1.0]])
    np.savez(folder / "d.npz", x=x, y=np.array([0, 1, 2]), f=x[:, :1], z=x[:, :1])
    np.savez(folder / "p.npz", head=np.ones((3, 3)), block=np.ones((2, 1)), bias=np.zeros(3))
    (folder / "d.csv").write_text("a,b,label\n1,2,no\n3,4,yes\n")
    (folder / "code.py").write_text("def f(x):\n    return x\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load_or_refuse(path: Path, text: bytes) -> None:
    with contextlib.suppress(RequestError):
        load_problem(path, text=text, allow_code=True)
        return
    with pytest.raises(RequestError) as raised:
        load_problem(path, text=text, allow_code=True)
    for diagnostic in raised.value.diagnostics:
        assert diagnostic.id in FAULTS
        assert str(diagnostic).isprintable()
        assert diagnostic.line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", range(SPECS // BATCH))
def test_random_specs_load_or_are_refused(batch: int, folder: Path):
    before = contents(folder)
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        text = changed_spec(random.Random(seed))
        try:
            load_or_refuse(folder / "s.yaml", text)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {text!r}") from error
    assert contents(folder) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", range(SPECS // BATCH // 10))
def test_random_specs_are_checked_or_refused(batch: int, folder: Path):
    """Every hundredth of them through the command, where nothing but a report may come out."""
    before = contents(folder)
    for seed in range(batch * BATCH, (batch + 1) * BATCH, 10):
        (folder / "s.yaml").write_bytes(changed_spec(random.Random(seed)))
        result = CliRunner().invoke(cli, ["check", str(folder / "s.yaml"), "--format", "json"])
        (folder / "s.yaml").unlink()
        assert result.exit_code in FINE, (seed, result.output)
        assert "Traceback" not in result.output
        json.loads(result.stdout)
    assert contents(folder) == before


def changed_file(rng: random.Random) -> tuple[str, bytes, str]:
    """A damaged .npz, .npy or CSV file: its name, its bytes, and `data` of a spec that reads it."""
    kind = rng.choice(["npz", "npy", "csv", "csv"])
    whole = io.BytesIO()
    if kind == "csv":
        cells = [
            "1",
            "-2.5e3",
            "",
            "nan",
            "True",
            "no",
            '"3"',
            '"a,b"',
            "1_0",
            "é",
            "1,5",
            '"x',
            "1e999",
            " 4 ",
        ]
        delimiter = rng.choice([",", ",", ";", "\t"])
        rows = [delimiter.join(rng.choice(["a", "b", "y", "a b"]) for _ in range(rng.choice([1, 2, 3, 3])))]
        rows = [delimiter.join(["a", "b", "y"])] if rng.random() < 0.7 else rows
        likely = rng.random()
        for _ in range(rng.choice([0, 1, 5, 40])):
            width = 3 if rng.random() < 0.9 else rng.randrange(5)
            rows.append(
                delimiter.join("1" if rng.random() < likely else rng.choice(cells) for _ in range(width))
            )
        ending = rng.choice(["\n", "\r\n", "\r"])
        whole.write(ending.join(rows).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"])))
        data = "{file: f.csv, x: [a, b], y: y}"
    else:
        dtype = rng.choice(["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "M8[D]", "O", "g"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = np.ones(rng.choice([(3, 2), (3,), (0, 2), (3, 2, 1), ()])).astype(dtype)
            y = np.zeros(3).astype(dtype)
        if kind == "npy":
            np.save(whole, x)
            data = "{x: f.npy, y: [1, 2, 3]}"
        else:
            rng.choice([np.savez, np.savez_compressed])(whole, x=x, y=y)
            data = rng.choice(["{file: f.npz}", "{file: f.npz, labels: {a: 1}}", "{file: f.npz, bypass: y}"])
            if rng.random() < 0.1:
                with zipfile.ZipFile(whole, "a") as archive:
                    archive.writestr("x.npy", b"twice")
    content = bytearray(whole.getvalue())
    for _ in range(rng.choice([0, 0, 1, 3])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    end = len(content) if rng.random() < 0.8 else rng.randrange(len(content) + 1)
    return f"f.{kind}", bytes(content[:end]), data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", range(FILES // BATCH))
def test_random_files_are_read_or_refused(batch: int, tmp_path: Path):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        name, content, data = changed_file(random.Random(seed))
        (tmp_path / name).write_bytes(content)
        spec = f"""version: 1
data: {data}
loss: squared
network: {{kind: identity}}
point: {{w: [0, 0], V: [[0, 0], [0, 0]]}}
epsilon: 1
"""
        try:
            load_or_refuse(tmp_path / "s.yaml", spec.encode())
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data}, {content!r}") from error
        assert (tmp_path / name).read_bytes() == content


VARIABLES: dict[str, list[str]] = {
    "JAX_PLATFORMS": ["cpu", "", "cuda", "gpu", "tpu", "nonsense", "cpu,cuda"],
    "JAX_ENABLE_X64": ["0", "1", "maybe"],
    "JAX_DEBUG_NANS": ["1"],
    "JAX_DISABLE_JIT": ["1"],
    "JAX_NUMPY_RANK_PROMOTION": ["raise"],
    "JAX_DEFAULT_MATMUL_PRECISION": ["bfloat16", "highest"],
    "JAX_COMPILATION_CACHE_DIR": ["/nonexistent/cache", "cache", ""],
    "XLA_FLAGS": ["--xla_nonsense", "--xla_cpu_enable_fast_math=true", "nowhere", "", "--xla_dump_to=."],
    "MPLBACKEND": ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"],
    "MATPLOTLIBRC": ["matplotlibrc", "/nonexistent"],
    "MPLCONFIGDIR": ["/nonexistent"],
    "OPENBLAS_NUM_THREADS": ["0", "-1", "many", "64"],
    "OMP_NUM_THREADS": ["0", "x"],
    "PYTHONIOENCODING": ["ascii", "latin-1", "utf-16"],
    "PYTHONUTF8": ["0", "1"],
    "PYTHONWARNINGS": ["error", "nonsense"],
    "PYTHONOPTIMIZE": ["2"],
    "PYTHONHASHSEED": ["7"],
    "LC_ALL": ["C", "xx_YY.UTF-8", "POSIX"],
    "TERM": ["dumb", "xterm", "nonsense", ""],
    "COLUMNS": ["0", "-3", "7", "x", "1000000"],
    "NO_COLOR": ["1", ""],
    "HOME": ["", "/nonexistent"],
    "XDG_CACHE_HOME": ["/dev/null", "/nonexistent"],
    "TMPDIR": ["/nonexistent"],
    "RESNET_CERT_DEBUG": ["1"],
}
COMMANDS = [
    "check s.yaml --output out",
    "check s.yaml --format json --output /dev/stdout",
    "check s.yaml --format html:out --format junit:out2",
    "check s.yaml --certificate out",
    "check - --format json",
    "check s.yaml --output d.npz",
    "check s.yaml --output /dev/full",
    "check s.yaml --output /proc/self/fd/7",
    "bound s.yaml",
    "schema",
    "solve s.yaml --output out.npz",
    "sgd s.yaml --steps 5 --output out.svg",
    "landscape s.yaml --output out.png",
]
OUT = ("out", "out2", "out.data", "out.npz", "out.svg", "out.png")


@pytest.mark.parametrize("seed", range(STATES))
def test_random_surroundings_end_in_a_documented_exit_code(seed: int, tmp_path: Path):
    rng = random.Random(seed)
    names = rng.sample(sorted(VARIABLES), rng.choice([0, 1, 2, 5]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
    environment |= {name: rng.choice(VARIABLES[name]) for name in names}
    np.savez(tmp_path / "d.npz", x=np.ones((2, 1)), y=np.array([1.0, 0.0]))
    spec = {**BASES[3], "data": {"file": "d.npz"}, "point": {"w": [0.5], "V": [[1.0]]}, "epsilon": 0.3}
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    if rng.random() < 0.2:
        (tmp_path / "matplotlibrc").write_bytes(b"\xff broken")
    before = contents(tmp_path)
    command = [sys.executable, "-m", "resnet_cert", *rng.choice(COMMANDS).split()]
    streams = rng.choice(["", "", "<&-", ">&-", "2>&-", "</dev/null", ">/dev/full"])
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *command],
        cwd=tmp_path, env=environment, capture_output=True, timeout=300,
        input=(tmp_path / "s.yaml").read_bytes() if streams != "<&-" else None,
    )  # fmt: skip
    told = (environment.get("RESNET_CERT_DEBUG"), done.stderr)
    assert done.returncode in DOCUMENTED, told
    if done.returncode == 70:
        unwritten = ">/dev/full" in streams
        fast = "fast_math" in environment.get("XLA_FLAGS", "")
        assert unwritten or fast or b"junitparser" in done.stderr, told
    if not told[0]:
        assert b"Traceback" not in done.stderr
    after = contents(tmp_path)
    changed = [path for path in before if after.get(path) != before[path]]
    assert changed == []
    if done.returncode not in FINE and streams != ">/dev/full":  # a file that was asked for may be there then
        assert not any((tmp_path / name).exists() for name in OUT)
