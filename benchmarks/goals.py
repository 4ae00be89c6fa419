"""What the program is held to, side by side with what it is held against, in one table.

    python benchmarks/goals.py [--only NAME[,NAME...]] [--old CHECKOUT]

digits    ten-class digits with a bias (n = 1797, d = 64, k = 128): the whole process of a check against a
          script that imports JAX, jits loss and gradient, and prints the norm: at most 1.5 ×
further   one more check of configs/digits.yaml (ten classes, a bias, weight decay) in the same process: at
          most 1 s
door      a PyTorch network on the digits, with as many threads as there are: capture, check and report beyond
          importing PyTorch: at most 5 s
monitor   a call of Monitor on the digits: at most 50 ms
wide      n = 5000, d = k = 512, q = 10: the same, at most 5 ×
huge      n = 2000, d = k = 2048, q = 1000: runs, in under 4 GB
meeting   the break-even radius of configs/digits.yaml against its min F_lin: at most 3 ×
small     (n, d, k) = (20000, 64, 128), one output, in one process: against the checkout of an older version,
large     (20000, 128, 512): the same; at most 1 ×

Every entry is a process of its own with one thread; times are the processor's, so that a busy machine counts
as little as it can.  digits, door and monitor need scikit-learn, door needs PyTorch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
for variable in LIMITS:
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (its threads are capped first)

BARE = """
import sys, numpy as np, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
a = np.load(sys.argv[1])
x, f, y = a["x"], a["f"], a["y"]
def objective(W, V, c):
    p = (x + f @ V.T) @ W.T + c
    return jnp.mean(jax.nn.logsumexp(p, axis=1) - jnp.take_along_axis(p, y[:, None], axis=1)[:, 0])
value, slopes = jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2)))(a["W"], a["V"], a["c"])
print(float(value), float(jnp.sqrt(sum(jnp.sum(s * s) for s in slopes))))
"""
OURS = """
import sys
sys.argv = ["resnet-cert", "check", sys.argv[1], "-q", "--fail-on", "never"]
from resnet_cert.cli import main
main()
"""
ONE_OUTPUT = """
import sys, time
sys.path.insert(0, {benchmarks!r})
import numpy as np
from resnet_cert import check
from timing import random_logistic_problem
problem = random_logistic_problem({n}, {d}, {k})
check(problem)
seconds = []
for _ in range(3):
    started = time.process_time()
    check(problem)
    seconds.append(time.process_time() - started)
print(sorted(seconds)[1])
"""
FURTHER = """
import time
from resnet_cert import check, load_problem
problem = load_problem({spec!r})
check(problem)
started = time.process_time()
check(problem)
print(time.process_time() - started)
"""
MEETING = """
import time
from resnet_cert import load_problem
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.break_even import break_even_radius
from resnet_cert.moments.gradient import first_moments
problem = load_problem({spec!r}).with_features_held()
F = first_moments(problem).F
for _ in range(3):
    started = time.process_time()
    linear = best_linear_predictor(problem, None, 3.0)
    between = time.process_time()
    break_even_radius(F, linear)
    ended = time.process_time()
print(between - started, ended - between)
"""
DOOR = """
import sys, time
import numpy as np, torch
from torch import nn
a = np.load(sys.argv[1])
class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.V, self.head = nn.Linear(128, 64), nn.Linear(64, 10)
    def forward(self, x):
        return self.head(x + self.V(self.inner(x)))
model, x = Residual(), a["x"].astype(np.float32)
model(torch.from_numpy(x))
started = time.process_time()
from resnet_cert import check
from resnet_cert.capture.torch import capture
problem = capture(model, (x, a["y"]), loss="cross_entropy", weight_decay=1e-2, epsilon=1e-3)
str(check(problem))
print(time.process_time() - started)
"""
MONITOR = """
import sys, time
import numpy as np
from resnet_cert import Monitor
a = np.load(sys.argv[1])
monitor = Monitor(a["x"], a["y"], loss="cross_entropy", weight_decay=1e-2)
seconds = []
for step in range(6):
    started = time.process_time()
    monitor(a["W"] * (1.0 + 0.01 * step), a["V"], a["c"], a["f"] * (1.0 + 0.01 * step))
    seconds.append(time.process_time() - started)
print(max(seconds[1:]))
"""
SPEC = """version: 1
data: {{file: {name}}}
loss: softmax
network: {{kind: given}}
point: {{file: {name}}}
epsilon: 0.1
"""


def write(folder: Path, name: str, **arrays: np.ndarray) -> Path:
    np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
    spec = folder / f"{name}.yaml"
    spec.write_text(SPEC.format(name=f"{name}.npz"))
    return spec


def classes(n: int, d: int, k: int, q: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    W, V = rng.normal(size=(q, d)) / d, rng.normal(size=(d, k)) / np.sqrt(d * k)
    return {"x": x, "f": f, "y": rng.integers(0, q, n), "W": W, "V": V, "c": np.zeros(q)}


def digits() -> dict[str, np.ndarray]:
    from table import digits as trained

    data = trained()
    x, c = data.x[:, :-1], data.W[:, -1]  # the column of ones is the bias
    return {"x": x, "f": data.f, "y": data.y, "W": data.W[:, :-1], "V": data.V[:-1], "c": c}


def run(
    code: str, *arguments: str, path: str | None = None, threads: bool = False
) -> tuple[float, float, str]:
    """Processor seconds, peak of memory in MB, and what it prints; threads: as many as there are."""
    environment = dict(os.environ) | ({} if path is None else {"PYTHONPATH": path})
    for variable in LIMITS if threads else ():
        environment.pop(variable, None)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a run failed with the status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024.0, printed


def against_jax(name: str, arrays: dict[str, np.ndarray], goal: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = write(Path(folder), name, **arrays)
        bare, _, _ = run(BARE, str(spec.with_suffix(".npz")))
        ours, peak, _ = run(OURS, str(spec))
    tell(name, f"JAX script {bare:.2f} s, check {ours:.2f} s, {peak:.0f} MB", ours / bare, goal)


def against_old(name: str, sizes: tuple[int, int, int], old: str | None) -> None:
    here = str(Path(__file__).parent)
    n, d, k = sizes
    code = ONE_OUTPUT.format(benchmarks=here, n=n, d=d, k=k)
    ours = float(run(code)[2])
    if old is None:
        return tell(name, f"check {ours:.3f} s", None, "give --old CHECKOUT")
    code = ONE_OUTPUT.format(benchmarks=f"{old}/benchmarks", n=n, d=d, k=k)
    before = float(run(code, path=old)[2])
    return tell(name, f"before {before:.3f} s, now {ours:.3f} s", ours / before, "≤ 1")


def further() -> None:
    spec = Path(__file__).parent.parent / "configs" / "digits.yaml"
    seconds = float(run(FURTHER.format(spec=str(spec)))[2])
    tell("further", f"check {seconds:.2f} s", seconds, "≤ 1 s")


def meeting() -> None:
    spec = Path(__file__).parent.parent / "configs" / "digits.yaml"
    minimum, met = map(float, run(MEETING.format(spec=str(spec)))[2].split())
    tell("meeting", f"min F_lin {minimum:.3f} s, break-even radius {met:.3f} s", met / minimum, "≤ 3")


def on_digits(name: str, code: str, goal: str, *, threads: bool = False) -> None:
    """The seconds that a program says, with the digits as its data."""
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder), name, **digits()).with_suffix(".npz")
        seconds = float(run(code, str(data), threads=threads)[2])
    tell(name, f"{seconds:.3f} s", seconds, goal)


def tell(name: str, what: str, ratio: float | None, goal: str) -> None:
    shown = "" if ratio is None else f"{ratio:.2f}"
    sys.stdout.write(f"{name:8}{shown:>8}   goal {goal:20} {what}\n")
    sys.stdout.flush()


def main() -> None:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--only", default="digits,further,meeting,door,monitor,wide,huge,small,large")
    parser.add_argument("--old", metavar="CHECKOUT")
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        if name == "digits":
            against_jax(name, digits(), "≤ 1.5")
        elif name == "further":
            further()
        elif name == "meeting":
            meeting()
        elif name == "door":
            on_digits(name, DOOR, "≤ 5 s", threads=True)
        elif name == "monitor":
            on_digits(name, MONITOR, "≤ 0.05 s")
        elif name == "wide":
            against_jax(name, classes(5000, 512, 512, 10), "≤ 5")
        elif name == "huge":
            against_jax(name, classes(2000, 2048, 2048, 1000), "runs, < 4 GB")
        else:
            against_old(name, {"small": (20000, 64, 128), "large": (20000, 128, 512)}[name], arguments.old)


if __name__ == "__main__":
    main()
