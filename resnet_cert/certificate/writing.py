"""Write what `check` found as a certificate, which `resnet-cert verify` decides again (docs/certificate.md).

A certificate claims of λ_min only what its verdict is about: CERTIFIED that it is no less than −√(μ2 ε),
REFUTED by curvature that it is less, shown by a direction, REFUTED by the gradient nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import resnet_cert
from resnet_cert.certificate.bundle import ENDING, write_bundle
from resnet_cert.certificate.comparison import BreakEvenClaim, break_even_claim
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.files import require_apart, written
from resnet_cert.problem.losses import ULPS, BuiltinLoss
from resnet_cert.problem.problem import Direction, Problem
from resnet_cert.problem.shards import ShardedRows, rows_by_shard
from resnet_cert.results import Report

FORMAT = "resnet-cert/certificate/2"
IEEE = "float64 arithmetic, in NumPy and in its BLAS, is that of IEEE 754, rounded to nearest"
ELEMENTARY = f"exp, expm1, log1p and hypot of NumPy are within {ULPS} units in the last place"
ASSUMPTIONS = {"float64": (IEEE, ELEMENTARY), "ball": (IEEE,)}
"""What the bounds rest on, by the arithmetic in which ℓ, ∇ℓ, ∇²ℓ were evaluated."""


def write_certificate(
    path: str | Path,
    problem: Problem,
    report: Report,
    *,
    arithmetic: str = "float64",
    direction: Direction | None = None,
) -> None:
    """Write the certificate of a report to `path` and its data beside it to `path`.data, both or none.

    Where `path` ends in .zip, both and the spec with every file that it reads go into that one file.

    Args:
        problem: as it was checked; with features held, they are evaluated no second time.
        report: what `check` found, of the spec that it names.
        arithmetic: a key of `ASSUMPTIONS`.
        direction: (dW, dV) of the lowest curvature, as `check` found it: what refutes by curvature.
    Raises:
        RequestError: the loss is not a built-in one, there is no file to be written at `path`, it is one that
            the spec reads, or a bundle cannot hold those.
    """
    if not isinstance(problem.loss, BuiltinLoss):
        raise RequestError(
            f"expected a built-in loss for a certificate, got {problem.loss.name}: no other can be verified",
            id="unfit-part",
        )
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise RequestError(
            f"expected an ordinary file in an existing folder for the certificate, got {path}",
            id="output-place",
        )
    bundled = target.suffix == ENDING
    require_apart([str(target)] if bundled else [str(target), f"{target}.data"], report.spec.reads)
    claim = _curvature_claim(report, direction)
    even = break_even_claim(problem, report)
    spec = _spec_file(report)
    if bundled:
        with write_bundle(target, None if spec is None else report.spec) as (folder, named):
            _write_pair(
                folder,
                "certificate.json",
                problem,
                problem.loss,
                report,
                claim,
                even,
                arithmetic,
                named,
            )
        return
    named = None if spec is None else Path(os.path.relpath(spec, target.parent)).as_posix()
    _write_pair(target.parent, target.name, problem, problem.loss, report, claim, even, arithmetic, named)


def _write_pair(
    folder: Path,
    name: str,
    problem: Problem,
    loss: BuiltinLoss,
    report: Report,
    curvature: _CurvatureClaim,
    even: BreakEvenClaim | None,
    arithmetic: str,
    spec: str | None,
) -> None:
    """The certificate and its data, both or none."""
    target, data = folder / name, folder / f"{name}.data"
    with written(str(data), str(target)) as (new_data, new_target):
        hashes = _write_arrays(new_data, problem, curvature.direction, even)
        named = {
            "path": spec,
            "sha256": report.spec.sha256,
            "overrides": list(report.spec.overrides),
            **_shards(problem),
        }
        document = {
            "format": FORMAT,
            "producer": f"resnet-cert {resnet_cert.__version__}",
            "spec": None if spec is None else named,
            "claim": _claim(problem, loss, report),
            "inputs": {"file": data.name, **hashes},
            "assumptions": list(ASSUMPTIONS[arithmetic]),
            "bounds": {
                "F": _ends(report.objective.F),
                "gradient_norm": _ends(report.gradient.norm),
                "lambda_min": {"lower": _hex(curvature.lower), "upper": _hex(curvature.upper)},
                "break_even_radius": {
                    "lower": None if even is None else _hex(even.lower),
                    "upper": None if even is None else _hex(even.upper),
                },
            },
            "reasons": list(report.reasons),
        }
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
        document["sha256"] = hashlib.sha256(canonical).hexdigest()
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        new_target.write(text.encode("utf-8", "backslashreplace"))  # a path's stray byte, as JSON escapes it


@dataclass(frozen=True)
class _CurvatureClaim:
    """lower ≤ λ_min ≤ upper, as far as it is claimed; the direction that shows the upper bound."""

    lower: float | None = None
    upper: float | None = None
    direction: Direction | None = None


def _curvature_claim(report: Report, direction: Direction | None) -> _CurvatureClaim:
    """The float next to −√(μ2 ε) on the side of λ_min, if λ_min is known to lie beyond it."""
    eps, mu2, lambda_min = report.epsilon, report.constants.mu2, report.hessian.lambda_min
    t = _root_below(Fraction(mu2 or 0.0) * Fraction(eps))
    if report.verdict is Verdict.CERTIFIED:
        return _CurvatureClaim(lower=0.0 - t if lambda_min.lower >= -t else None)
    if report.hessian.verdict is not Verdict.REFUTED or report.gradient.verdict is Verdict.REFUTED:
        return _CurvatureClaim()
    below = -math.nextafter(t, math.inf)
    upper = below if lambda_min.upper <= below else None
    return _CurvatureClaim(upper=None if direction is None else upper, direction=direction)


def _root_below(square: Fraction) -> float:
    """The largest float t with t² ≤ square."""
    scale = 2 ** max(0, 1100 - square.numerator.bit_length() + square.denominator.bit_length())
    t = float(Fraction(math.isqrt(square.numerator * scale**2 // square.denominator), scale))
    return t if Fraction(t) ** 2 <= square else math.nextafter(t, 0.0)


def _claim(problem: Problem, loss: BuiltinLoss, report: Report) -> dict[str, Any]:
    constants, objective = report.constants, problem.objective
    return {
        "verdict": report.verdict.value,
        "epsilon": _hex(report.epsilon),
        "b": {"value": _hex(constants.b), "source": constants.source["b"]},
        "mu2": {"value": _hex(constants.mu2), "source": constants.source["mu2"]},
        "loss": {"kind": loss.kind, "scale": _hex(loss.scale)},
        "objective": {
            "l2": _hex(objective.l2),
            "decays_bias": objective.decays_bias,
            "norm": _hex(objective.norm),
        },
        "n": problem.n,
        "d": problem.d1,
        "bypass": problem.d2,
        "bias": problem.has_bias,
        "k": problem.k,
        "q": problem.q,
    }


def _shards(problem: Problem) -> dict[str, Any]:
    """The shards of the data, if it has some, so that one that is missing or another is named."""
    x = problem.distribution.x
    if not isinstance(x, ShardedRows):
        return {}
    return {"shards": [{"path": name, "rows": rows} for name, rows in rows_by_shard(x).items()]}


def _spec_file(report: Report) -> Path | None:
    """The spec, in the folder that it was found in: the files that it names lie there, wherever a link leads.

    None for a problem that no file describes.
    """
    path, sha256 = report.spec.path, report.spec.sha256
    if path is None or sha256 is None or not Path(path).is_file():
        return None
    return Path(os.path.realpath(Path(path).parent)) / Path(path).name


def _write_arrays(
    file: BinaryIO, problem: Problem, direction: Direction | None, even: BreakEvenClaim | None
) -> dict[str, str | None]:
    """The arrays one after another, some rows at a time, and the hash of each; None for those left out."""
    names = ("x", "y", "omega", "probabilities", "f", "W", "V", "dW", "dV", "U")
    hashes: dict[str, str | None] = dict.fromkeys(names)
    for name, shape, blocks in _arrays(problem, direction, even):
        digest = hashlib.sha256(f"<f8 {'x'.join(map(str, shape))}\n".encode("ascii"))
        for block in blocks:
            raw = np.ascontiguousarray(block, dtype="<f8").tobytes()
            digest.update(raw)
            file.write(raw)
        hashes[name] = digest.hexdigest()
    return hashes


def _arrays(
    problem: Problem, direction: Direction | None, even: BreakEvenClaim | None
) -> Iterator[tuple[str, tuple[int, ...], Iterable[Array]]]:
    n, d, k, q = problem.n, problem.d1 + problem.d2, problem.k, problem.q
    data = problem.distribution
    yield "x", (n, d), (chunk.x[:, :d] for chunk in problem.chunks(features=False))
    yield "y", (n, q), (chunk.y for chunk in problem.chunks(features=False))
    if data.omega is not None:
        chunks = problem.chunks(features=False)
        yield "omega", (n, q), (chunk.omega for chunk in chunks if chunk.omega is not None)
    if data.probabilities is not None:
        yield "probabilities", (n,), (chunk.weights for chunk in problem.chunks(features=False))
    yield "f", (n, k), (chunk.f for chunk in problem.chunks())
    yield "W", problem.W.shape, [problem.W]
    yield "V", problem.V.shape, [problem.V]
    if direction is not None:
        yield "dW", problem.W.shape, [direction.dW]
        yield "dV", problem.V.shape, [direction.dV]
    if even is not None:
        yield "U", even.U.shape, [even.U]


def _ends(enclosure: Enclosure) -> dict[str, str | None]:
    return {"lower": _hex(enclosure.lower), "upper": _hex(enclosure.upper)}


def _hex(number: float | None) -> str | None:
    """A C99 hex string; None for an end that is not known."""
    return None if number is None or math.isinf(number) else float(number).hex()
