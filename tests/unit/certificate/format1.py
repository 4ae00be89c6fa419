"""Certificates made by hand from the oracle's truth, for tests of the verifier, without the package.

`document` is a certificate as a dictionary of JSON values, `arrays` the numbers of its data file; `write`
puts both into a folder.  `sealed` renews the hash over the document, as a forger would.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from oracle import Sample, Truth

Document = dict[str, Any]
Arrays = dict[str, npt.NDArray[np.float64]]

NAMES = ("x", "y", "probabilities", "f", "w", "V", "dw", "dV")


def outward(ball: Any) -> tuple[float, float]:
    """Floats below and above a ball, at a relative distance of at least 2^-52."""
    middle = float(ball.mid())
    slack = abs(middle) * 2.0**-45 + float(ball.rad()) * 2.0
    return middle - slack, middle + slack


def array_hash(array: npt.NDArray[np.float64]) -> str:
    shape = "x".join(str(size) for size in array.shape)
    return hashlib.sha256(f"<f8 {shape}\n".encode() + array.astype("<f8").tobytes()).hexdigest()


def hexes(ends: tuple[float | None, float | None]) -> dict[str, str | None]:
    lower, upper = (None if end is None else end.hex() for end in ends)
    return {"lower": lower, "upper": upper}


def spectral_norm(V: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(V, 2))


def dense_hessian(truth: Truth) -> npt.NDArray[np.float64]:
    return np.array([[float(entry.mid()) for entry in row] for row in truth.hessian])


def certificate(
    sample: Sample,
    *,
    verdict: str,
    epsilon: float,
    mu2: float | None = 1.0,
    source: str = "given",
    lower: float | None = None,
    upper: float | None = None,
    direction: npt.NDArray[np.float64] | None = None,
    b: float | None = None,
) -> tuple[Document, Arrays]:
    """A certificate of `verdict` whose bounds of F and ‖∇F‖ are true; the rest is as told."""
    truth = Truth(sample)
    (n, d), k = sample.x.shape, sample.f.shape[1]
    arrays: Arrays = {"x": sample.x, "y": sample.y, "f": sample.f, "w": sample.w, "V": sample.V}
    if sample.probabilities is not None:
        arrays["probabilities"] = sample.probabilities
    if direction is not None:
        arrays |= {"dw": direction[:d], "dV": direction[d:].reshape(d, k)}
    largest = max(float(np.linalg.norm(sample.w)), spectral_norm(sample.V))
    bounds = {"F": outward(truth.F), "gradient_norm": outward(truth.norm), "lambda_min": (lower, upper)}
    document = {
        "format": "resnet-cert/certificate/1",
        "producer": "by hand",
        "spec": None,
        "claim": {
            "verdict": verdict,
            "epsilon": epsilon.hex(),
            "b": (b or 1.01 * largest or 1.0).hex(),
            "mu2": {"value": None if mu2 is None else mu2.hex(), "source": source},
            "loss": {"kind": sample.loss, "scale": sample.scale.hex()},
            "n": n,
            "d": d,
            "k": k,
        },
        "inputs": {
            "file": "certificate.data",
            **{name: array_hash(arrays[name]) if name in arrays else None for name in NAMES},
        },
        "assumptions": ["none"],
        "bounds": {name: hexes(ends) for name, ends in bounds.items()},
        "reasons": ["by hand"],
    }
    return sealed(document), arrays


def certified(sample: Sample, *, slack: float = 1.1, **claim: Any) -> tuple[Document, Arrays]:
    """CERTIFIED at an ε that is `slack` times the smallest one; λ_min ≥ −√(μ2 ε) rounded inward."""
    mu2 = claim.setdefault("mu2", 1.0)
    epsilon = slack * float(Truth(sample).smallest_epsilon(mu2).mid())
    lower = -math.sqrt(mu2 * epsilon) * (1.0 - 2.0**-50)
    return certificate(sample, verdict="CERTIFIED", epsilon=epsilon, lower=lower, **claim)


def refuted_by_curvature(sample: Sample, **claim: Any) -> tuple[Document, Arrays]:
    """REFUTED by the computed eigenvector of λ_min < 0, at an ε whose −√(μ2 ε) is half of it."""
    truth = Truth(sample)
    mu2 = claim.setdefault("mu2", 1.0)
    m = float(truth.m.mid())
    direction = np.linalg.eigh(dense_hessian(truth))[1][:, 0]
    return certificate(
        sample, verdict="REFUTED", epsilon=m * m / 4 / mu2, upper=-0.75 * m, direction=direction, **claim
    )


def refuted_by_gradient(sample: Sample, **claim: Any) -> tuple[Document, Arrays]:
    """REFUTED because ‖∇F‖ > ε = ‖∇F‖/2."""
    return certificate(sample, verdict="REFUTED", epsilon=float(Truth(sample).norm.mid()) / 2, **claim)


def sealed(document: Document) -> Document:
    """The document with the hash that fits it."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def with_arrays(document: Document, arrays: Arrays) -> Document:
    """The document with the hashes of other arrays, sealed."""
    inputs = {name: array_hash(arrays[name]) if name in arrays else None for name in NAMES}
    return sealed({**document, "inputs": {**document["inputs"], **inputs}})


def write(folder: Path, document: Document | str, arrays: Arrays) -> Path:
    """The certificate and its data file in `folder`."""
    path = folder / "certificate.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    numbers = [arrays[name].ravel() for name in NAMES if name in arrays]
    (folder / "certificate.data").write_bytes(np.concatenate(numbers).astype("<f8").tobytes())
    return path
