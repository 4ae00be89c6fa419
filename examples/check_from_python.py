"""Check a point from Python: arrays in, a report of proven numbers out.

    python examples/check_from_python.py

Random features f = tanh(x·Mᵀ), targets from a teacher that mixes x and f, and the least-squares (w, V): the
gradient vanishes up to rounding.  Then the same point moved a little, which is no longer stationary.
"""

from __future__ import annotations

import sys

import numpy as np

from resnet_cert import Problem, Report, check


def least_squares_point(x: np.ndarray, y: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(w, V) with wᵀx + (Vᵀw)ᵀf the best linear predictor of y on (x, f), V of least norm."""
    coefficients = np.linalg.lstsq(np.hstack([x, f]), y, rcond=None)[0]
    w, z = np.split(coefficients, [x.shape[1]])
    return w, np.outer(w, z) / (w @ w)


def reports(seed: int = 0) -> tuple[Report, Report]:
    """The report at the least-squares point and at a point beside it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1000, 5))
    f = np.tanh(x @ rng.normal(size=(5, 3)))
    y = x[:, 0] + f @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.normal(size=1000)
    w, V = least_squares_point(x, y, f)
    stationary = Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, epsilon=1e-6, name="least-squares")
    moved = Problem.from_arrays(x=x, y=y, f=f, w=w + 0.01, V=V, epsilon=1e-6, name="moved")
    return check(stationary), check(moved)


def main() -> None:
    for report in reports():
        gap = report.objective.gap
        sys.stdout.write(
            f"{report.name}: {report.verdict.value}\n"
            f"  ‖∇F‖ in [{report.gradient.norm.lower:.3e}, {report.gradient.norm.upper:.3e}]\n"
            f"  λ_min in [{report.hessian.lambda_min.lower:.3e}, {report.hessian.lambda_min.upper:.3e}]\n"
            f"  F − min F_lin in [{gap.lower:.6f}, {gap.upper:.6f}]\n"
        )


if __name__ == "__main__":
    main()
