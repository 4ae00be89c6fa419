"""Write what `check` found as a certificate, which `resnet-cert verify` decides again (docs/certificate.md).

A certificate claims of λ_min only what its verdict is about: CERTIFIED that it is no less than −√(μ2 ε),
REFUTED by curvature that it is less, shown by a direction, REFUTED by the gradient nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

import resnet_cert
from resnet_cert.decide.hessian import Direction, curvature, refuting_direction
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Array, Enclosure
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.losses import ULPS, BuiltinLoss
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Report

FORMAT = "resnet-cert/certificate/1"
IEEE = "float64 arithmetic, in NumPy and in its BLAS, is that of IEEE 754, rounded to nearest"
ELEMENTARY = f"exp, expm1, log1p and hypot of NumPy are within {ULPS} units in the last place"
ASSUMPTIONS = {"float64": (IEEE, ELEMENTARY), "ball": (IEEE,)}
"""What the bounds rest on, by the arithmetic in which ℓ, ℓ', ℓ'' were evaluated."""


def write_certificate(
    path: str | Path,
    problem: Problem,
    report: Report,
    *,
    overrides: Sequence[str] = (),
    arithmetic: str = "float64",
    direction: Direction | None = None,
) -> None:
    """Write the certificate of a report to `path` and its data beside it to `path`.data, both or none.

    Args:
        problem: as it was checked; with features held, they are evaluated no second time.
        report: what `check` found.
        overrides: the settings KEY=VALUE that replaced entries of the spec, in order.
        arithmetic: a key of `ASSUMPTIONS`.
        direction: of the lowest curvature, as `check` found it; sought again if one is needed and not given.
    Raises:
        RequestError: the loss is not a built-in one, the problem is regularised or constrained, or there is
            no file to be written at `path`.
    """
    if not isinstance(problem.loss, BuiltinLoss):
        raise RequestError(
            f"expected a built-in loss for a certificate, got {problem.loss.name}: no other can be verified"
        )
    if not problem.is_plain:
        raise RequestError("expected no regularizer and no constraint for a certificate")
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise RequestError(f"expected an ordinary file in an existing folder for the certificate, got {path}")
    data = target.with_name(f"{target.name}.data")
    claim = _curvature_claim(problem, report, direction)
    new_data, new_target = (at.with_name(f".{at.name}.{os.getpid()}.tmp") for at in (data, target))
    try:
        with new_data.open("wb") as file:
            hashes = _write_arrays(file, problem, claim.direction)
        document = {
            "format": FORMAT,
            "producer": f"resnet-cert {resnet_cert.__version__}",
            "spec": _spec(report, target.parent, overrides),
            "claim": _claim(problem, problem.loss, report),
            "inputs": {"file": data.name, **hashes},
            "assumptions": list(ASSUMPTIONS[arithmetic]),
            "bounds": {
                "F": _ends(report.objective.F),
                "gradient_norm": _ends(report.gradient.norm),
                "lambda_min": {"lower": _hex(claim.lower), "upper": _hex(claim.upper)},
            },
            "reasons": list(report.reasons),
        }
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
        document["sha256"] = hashlib.sha256(canonical).hexdigest()
        new_target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(new_data, data)
        os.replace(new_target, target)
    finally:
        new_data.unlink(missing_ok=True)
        new_target.unlink(missing_ok=True)


@dataclass(frozen=True)
class _CurvatureClaim:
    """lower ≤ λ_min ≤ upper, as far as it is claimed; the direction that shows the upper bound."""

    lower: float | None = None
    upper: float | None = None
    direction: Direction | None = None


def _curvature_claim(problem: Problem, report: Report, direction: Direction | None) -> _CurvatureClaim:
    """The float next to −√(μ2 ε) on the side of λ_min, if λ_min is known to lie beyond it."""
    eps, mu2, lambda_min = report.epsilon, report.constants.mu2, report.hessian.lambda_min
    t = _root_below(Fraction(mu2 or 0.0) * Fraction(eps))
    if report.verdict is Verdict.CERTIFIED:
        return _CurvatureClaim(lower=0.0 - t if lambda_min.lower >= -t else None)
    if report.hessian.verdict is not Verdict.REFUTED or report.gradient.verdict is Verdict.REFUTED:
        return _CurvatureClaim()
    below = -math.nextafter(t, math.inf)
    w, upper = problem.point.w, below if lambda_min.upper <= below else None
    if direction is None and upper is not None:
        direction = curvature(observe(problem, report.constants.b).here, w).direction
    if direction is None:  # float64 does not show it
        from resnet_cert.decide import ball

        decision = ball.decide(problem, cast(BuiltinLoss, problem.loss), mu2)
        direction = refuting_direction(decision.moments, w, t)
    return _CurvatureClaim(upper=upper, direction=direction)


def _root_below(square: Fraction) -> float:
    """The largest float t with t² ≤ square."""
    scale = 2 ** max(0, 1100 - square.numerator.bit_length() + square.denominator.bit_length())
    t = float(Fraction(math.isqrt(square.numerator * scale**2 // square.denominator), scale))
    return t if Fraction(t) ** 2 <= square else math.nextafter(t, 0.0)


def _claim(problem: Problem, loss: BuiltinLoss, report: Report) -> dict[str, Any]:
    constants = report.constants
    return {
        "verdict": report.verdict.value,
        "epsilon": _hex(report.epsilon),
        "b": _hex(constants.b),
        "mu2": {"value": _hex(constants.mu2), "source": constants.source["mu2"]},
        "loss": {"kind": loss.kind, "scale": _hex(loss.scale)},
        "n": problem.n,
        "d": problem.d,
        "k": problem.k,
    }


def _spec(report: Report, folder: Path, overrides: Sequence[str]) -> dict[str, Any] | None:
    """None for a problem that no file describes."""
    path, sha256 = report.spec.path, report.spec.sha256
    if path is None or sha256 is None or not Path(path).is_file():
        return None
    relative = Path(os.path.relpath(os.path.realpath(path), folder)).as_posix()
    return {"path": relative, "sha256": sha256, "overrides": list(overrides)}


def _write_arrays(file: BinaryIO, problem: Problem, direction: Direction | None) -> dict[str, str | None]:
    """The arrays one after another, some rows at a time, and the hash of each; None for those left out."""
    hashes: dict[str, str | None] = dict.fromkeys(("x", "y", "probabilities", "f", "w", "V", "dw", "dV"))
    for name, shape, blocks in _arrays(problem, direction):
        digest = hashlib.sha256(f"<f8 {'x'.join(map(str, shape))}\n".encode("ascii"))
        for block in blocks:
            raw = np.ascontiguousarray(block, dtype="<f8").tobytes()
            digest.update(raw)
            file.write(raw)
        hashes[name] = digest.hexdigest()
    return hashes


def _arrays(
    problem: Problem, direction: Direction | None
) -> Iterator[tuple[str, tuple[int, ...], Iterable[Array]]]:
    n, d, k = problem.n, problem.d, problem.k
    yield "x", (n, d), (chunk.x for chunk in problem.chunks(features=False))
    yield "y", (n,), (chunk.y for chunk in problem.chunks(features=False))
    if problem.distribution.probabilities is not None:
        chunks = problem.chunks(features=False)
        yield "probabilities", (n,), (chunk.weight for chunk in chunks if chunk.weight is not None)
    yield "f", (n, k), (chunk.f for chunk in problem.chunks())
    yield "w", (d,), [problem.point.w]
    yield "V", (d, k), [problem.point.V]
    if direction is not None:
        yield "dw", (d,), [direction.dw]
        yield "dV", (d, k), [direction.dV]


def _ends(enclosure: Enclosure) -> dict[str, str | None]:
    return {"lower": _hex(enclosure.lower), "upper": _hex(enclosure.upper)}


def _hex(number: float | None) -> str | None:
    """A C99 hex string; None for an end that is not known."""
    return None if number is None or math.isinf(number) else float(number).hex()
