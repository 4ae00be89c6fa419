"""`resnet-cert check configs/example-1.yaml` as a whole process against the least that JAX can do.

    python benchmarks/startup.py [--repetitions R]

The other process imports jax, compiles one gradient and one Hessian of the same example and evaluates them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from timing import interleaved_medians

ROOT = Path(__file__).resolve().parent.parent
BARE = """
import jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
F = lambda z: 0.5 * (z[0] * (1.0 + 0.1 * z[1]) - 1.0) ** 2
z = jnp.array([0.0, -10.0])
jax.jit(jax.grad(F))(z).block_until_ready()
jax.jit(jax.hessian(F))(z).block_until_ready()
"""


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a whole check of a tiny example.")
    parser.add_argument("--repetitions", type=int, default=5)
    tasks = {
        "check": lambda: run("-m", "resnet_cert", "check", "configs/example-1.yaml"),
        "bare jax": lambda: run("-c", BARE),
        "--help": lambda: run("-m", "resnet_cert", "--help"),
    }
    medians = interleaved_medians(tasks, parser.parse_args().repetitions)
    for name, seconds in medians.items():
        sys.stdout.write(f"{name:10} {seconds:.3f} s   {seconds / medians['bare jax']:.2f} of bare jax\n")


if __name__ == "__main__":
    main()
