"""A check inside of somebody else's program leaves that program as it was, bit for bit.

What the library reads of the process: XLA_FLAGS and other variables of JAX, NumPy and their BLAS, and the
float environment (`numerics.selftest`).  What it sets, on its own thread and for the time of a call: JAX's
jax_enable_x64, jax_debug_nans and jax_default_device, NumPy's error state, and the number of BLAS threads.
"""

from __future__ import annotations

import decimal
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from selections import first
from threadpoolctl import threadpool_info

from resnet_cert import Problem, check

TRAINING = """
import jax
import jax.numpy as jnp
import numpy as np

def judge(W, V, f, x, y):
    {judge}

key = jax.random.PRNGKey(0)
x = jax.random.normal(key, (40, 3))
y = jnp.sin(x.sum(axis=1))
parameters = {{"w": jnp.zeros(3), "V": 0.1 * jnp.ones((3, 4)), "theta": jax.random.normal(key, (4, 3))}}

def features(theta, x):
    return jnp.tanh(x @ theta.T)

def objective(parameters, noise):
    f = features(parameters["theta"], x + noise)
    p = (x + f @ parameters["V"].T) @ parameters["w"]
    return 0.5 * jnp.mean((p - y) ** 2)

step = jax.jit(lambda parameters, noise: jax.tree.map(
    lambda a, g: a - 0.1 * g, parameters, jax.grad(objective)(parameters, noise)))
for epoch in range(2):
    key, of_epoch = jax.random.split(key)
    parameters = step(parameters, 0.01 * jax.random.normal(of_epoch, x.shape))
    f = features(parameters["theta"], x)
    judge(*map(np.asarray, (parameters["w"], parameters["V"], f, x, y)))
for name, array in parameters.items():
    print(name, array.dtype, np.asarray(array).tobytes().hex())
print(float(np.random.default_rng(0).normal()).hex(), jnp.ones(1).dtype)
"""

CHECKED = """
    problem = Problem.from_arrays(x=x, y=y, f=f, w=W, V=V, epsilon=1e-3)
    check(problem)
    Monitor(x=x, y=y)(W, V, f=f)
"""


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_run_in_float32_is_the_same_with_checks_inside_whatever_is_imported_first():
    imports = "from resnet_cert import Monitor, Problem, check\n"
    plain, checked = TRAINING.format(judge="pass"), imports + TRAINING.format(judge=CHECKED.strip())
    alone, after = printed(f"{plain}print('---')\n{checked}").split("---\n")
    assert "float32" in alone
    assert after == alone
    assert printed(checked) == alone


def surroundings() -> dict[str, Any]:
    """All global state that a library might leave changed."""
    flags = {name: getattr(jax.config, name) for name in dir(jax.config) if name.startswith("jax_")}
    return {
        "flags of JAX": flags,
        "NumPy's errors": np.geterr(),
        "NumPy's printing": dict(np.get_printoptions()),
        "NumPy's random state": np.random.get_state()[1].tolist(),
        "random state": random.getstate(),
        "warnings": list(warnings.filters),
        "threads": sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info()),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "decimal": repr(decimal.getcontext()),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "excepthook": sys.excepthook,
        "recursion": sys.getrecursionlimit(),
        "threads alive": {thread.name for thread in threading.enumerate() if not thread.daemon},
        "umask and place": os.getcwd(),
    }


@pytest.mark.parametrize("loss", first(1, ["softmax", "squared"]))
def test_a_check_leaves_everything_global_as_it_was(loss):
    rng = np.random.default_rng(0)
    q = 3 if loss == "softmax" else 1
    problem = Problem.from_arrays(
        x=rng.normal(size=(20, 4)),
        y=rng.integers(0, q, 20) if loss == "softmax" else rng.normal(size=20),
        f=rng.normal(size=(20, 2)),
        W=rng.normal(size=(q, 4)),
        V=rng.normal(size=(4, 2)),
        loss=loss,
        epsilon=1e-3,
    )
    check(problem)  # what is imported stays imported
    with jax.default_matmul_precision("float32"), np.errstate(over="raise", under="ignore"):
        before = surroundings()
        check(problem, augmented=True)
        after = surroundings()
    assert {name for name in before if before[name] != after[name]} == set()
