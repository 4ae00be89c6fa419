"""How many samples a statement about the distribution takes: what is added to a sample's own numbers.

    python benchmarks/population.py [--confidence 0.99] [--spread 0.1] [--output FILE.png]

For n samples, in units of the range of D (its half width) and of the bound B of ‖∇ℓ xᵀ‖:

    bernstein, betting   above the mean of D, of standard deviation `spread`, over n/2 samples
    gradient             above the mean of ∇ℓ xᵀ over n/2 samples
    ε                    above the norm of ∇F over n samples, in units of its own bound

and how many samples it takes until what is added to ‖∇ℓ xᵀ‖, which is most of it, is below a given gap.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np
from timing import write_table

from resnet_cert.compare.population import STATEMENTS, _bernstein, _betting, _deviation

SIZES = (100, 1000, 10_000, 100_000, 1_000_000)
GAPS = (0.1, 0.03, 0.01, 0.003, 0.001)
NAMES = ("E D, empirical Bernstein", "E D, betting", "‖∇ℓ xᵀ‖", "ε")


def rows(confidence: float, spread: float) -> list[list[float]]:
    """n, and the four numbers, for each n."""
    delta, rng = (1.0 - confidence) / STATEMENTS, np.random.default_rng(0)
    found = []
    for n in SIZES:
        D = spread * rng.choice([-1.0, 1.0], n // 2)
        mean, variance = float(D.mean()), float(D.var(ddof=1))
        found.append(
            [
                float(n),
                _bernstein(mean, variance, len(D), 1.0, delta) - mean,
                _betting(D, 1.0, delta) - mean,
                _deviation(1.0, len(D), delta),
                _deviation(1.0, n, delta),
            ]
        )
    return found


def samples(gap: float, confidence: float) -> int:
    """n with `gradient` ≤ gap: it falls as 1/√n."""
    delta = (1.0 - confidence) / STATEMENTS
    return math.ceil(2.0 * (_deviation(1.0, 1, delta) / gap) ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--confidence", type=float, default=0.99)
    parser.add_argument("--spread", type=float, default=0.1)
    parser.add_argument("--output", metavar="FILE.png")
    arguments = parser.parse_args()
    found = rows(arguments.confidence, arguments.spread)
    names = ["n", "bernstein", "betting", "gradient", "ε"]
    write_table([names, *([f"{row[0]:,.0f}", *(f"{x:.3g}" for x in row[1:])] for row in found)])
    sys.stdout.write("\n")
    write_table([["gap", "n"], *([f"{gap:g}", f"{samples(gap, arguments.confidence):,}"] for gap in GAPS)])
    if arguments.output:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(5.0, 3.5), layout="constrained")
        for i, name in enumerate(NAMES, start=1):
            axes.loglog([row[0] for row in found], [row[i] for row in found], label=name)
        axes.set_xlabel("samples")
        axes.set_ylabel(f"added to the sample's, confidence {arguments.confidence:g}")
        axes.legend()
        figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()
