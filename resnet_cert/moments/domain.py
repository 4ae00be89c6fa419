"""The domain of a problem and the constants on it: what the user gives, and what stands for `auto`."""

from __future__ import annotations

import math

from resnet_cert.moments.lipschitz import LipschitzConstants
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Constants


def domain_radius(problem: Problem) -> float:
    """b: as given, or 1.01·max(‖W‖, ‖V‖), or 1 if both are 0."""
    if problem.domain.b is not None:
        return problem.domain.b
    W, V = problem.norm_W, problem.norm_V
    largest, least = max(W.value, V.value), max(W.upper, V.upper)
    # The value is off by a few roundings, the bound by the slack of its proof; either is inside.
    return (1.01 * largest if 1.01 * largest > least else 1.01 * least) or 1.0


def lipschitz_claims(problem: Problem, bounds: LipschitzConstants | None, b: float, r: float) -> Constants:
    """μ0, μ1, μ2: the user's claims, else the computed bounds, else None; and where each is from."""
    values: dict[str, float | None] = {}
    source = {
        "b": "computed" if problem.domain.b is None else "given",
        "r": "computed" if problem.domain.r is None else "given",
    }
    for name in ("mu0", "mu1", "mu2"):
        claim = getattr(problem.lipschitz, name)
        bound = None if bounds is None else getattr(bounds, name)
        if bound is not None and not math.isfinite(bound):  # it overflows: a claim is as good as none
            bound = None
        values[name] = bound if claim is None else claim
        source[name] = "given" if claim is not None else "missing" if bound is None else "computed"
    names = ("mu0", "mu1", "mu2")
    forms = {} if bounds is None else dict(zip(names, bounds.forms, strict=True))
    form = {name: forms[name] for name in names if source[name] == "computed"}
    return Constants(b=b, r=r, source=source, form=form, **values)
