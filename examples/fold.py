"""At which coefficient of a regulariser do the spurious minima of a problem disappear?

    python examples/fold.py [SPEC] [LOW] [HIGH]

For configs/figure-1b.yaml, G(w, v) = (w(1 + v) − 1)² + l2·(w² + v²), the spurious minimum and the saddle
beside it meet in a fold at l2 = 0.3904183; beyond it the only minimum is better than any linear predictor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from resnet_cert import Problem, load_problem
from resnet_cert.problem.problem import Objective
from resnet_cert.search.landscape import landscape

FIGURE = Path(__file__).resolve().parent.parent / "configs" / "figure-1b.yaml"


def has_spurious_minimum(problem: Problem, l2: float) -> bool:
    """Proven either way: every critical point of the range is listed, or the search says that it is not."""
    found = landscape(replace(problem, objective=Objective(l2)))
    spurious = any(point.spurious and point.proven for point in found.critical_points)
    if not (spurious or found.complete):
        raise SystemExit(f"not decided at l2 = {l2!r}")
    return spurious


def bisect(problem: Problem, low: float, high: float, width: float = 1e-8) -> Iterator[tuple[float, float]]:
    """Ever narrower brackets of the coefficient: a spurious minimum at the lower end, none at the upper."""
    if not has_spurious_minimum(problem, low) or has_spurious_minimum(problem, high):
        raise SystemExit(f"expected a spurious minimum at {low} and none at {high}")
    yield low, high
    while high - low > width:
        middle = (low + high) / 2.0
        low, high = (middle, high) if has_spurious_minimum(problem, middle) else (low, middle)
        yield low, high


def main(spec: str = str(FIGURE), low: str = "0.25", high: str = "0.5") -> None:
    for below, above in bisect(load_problem(spec), float(low), float(high)):
        print(f"a spurious minimum at l2 = {below:.9f}, none at {above:.9f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
