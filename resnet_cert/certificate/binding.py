"""Does the spec that a certificate names say the same as the certificate and its data?

The spec is read as `check` reads it; none of its code is run.  What its files state must be the certificate's
numbers, each of them.  What a program computes from it, drawn samples and the features of a network, is
allowed to differ by rounding, since another machine need not return the same floats: this tells which
problem a certificate is about, while the proofs are about the certificate's own numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cert.certificate.proofs import COMPUTED
from resnet_cert.certificate.reading import Array, Certificate, Rejected, Spec
from resnet_cert.outcomes import RequestError

ROUNDING = 1e-9
"""How far computed numbers may be off, relative to the largest of their array."""
SUBNORMAL = 2.0**-1022
CHUNK_ROWS = 4096
SECTIONS = {"version", "name", "data", "loss", "network", "point", "epsilon", "domain", "lipschitz"}
"""What a spec may say.  Whatever else it says is about a problem that this verifier does not know."""

NO_SPEC = "the certificate names no spec: it speaks of the numbers in its data file"
CODE_NOT_RUN = "the network is Python code, which is not run: its features are those of the certificate"


def bind(certificate: Certificate, data: dict[str, Array], folder: Path) -> tuple[str, ...]:
    """Rejects a certificate whose spec says something else; returns what could not be compared."""
    if certificate.spec is None:
        return (NO_SPEC,)
    path = folder / certificate.spec.path
    raw = _content(path, certificate.spec)
    from resnet_cert.problem.problem import Point
    from resnet_cert.spec import data_models, models
    from resnet_cert.spec.document import with_overrides
    from resnet_cert.spec.faults import Refused
    from resnet_cert.spec.parts import Context, load_features, load_point, load_samples
    from resnet_cert.spec.source import read
    from resnet_cert.spec.validation import validate

    try:
        document = with_overrides(read(raw, str(path)), certificate.spec.overrides)
        parts, faults = validate(document.value)
        if document.faults or faults:
            raise Rejected(f"spec: {document.faults[0] if document.faults else faults[0].message}")
        network = parts["network"]
        context = Context(path.parent, allow_code=False, given=isinstance(network, models.GivenNetwork))
        samples, point = load_samples(parts["data"], context), load_point(parts["point"], context)
        is_code = isinstance(network, models.PythonNetwork)
        features = None if is_code else load_features(network, context, samples)
    except (RequestError, Refused) as fault:
        raise Rejected(f"spec: {fault}") from fault
    if not isinstance(point, Point):
        raise Rejected("spec: expected a point of one output, w and V, got W and V")
    _require_same_claim(certificate, parts)
    if parts["domain"].b == "auto":
        _require_computed_b(certificate, data)

    drawn = ROUNDING if isinstance(parts["data"], data_models.SampleData) else 0.0
    stated = {"x": samples.x, "y": samples.y, "w": point.w, "V": point.V}
    if samples.probabilities is not None:
        stated["probabilities"] = samples.probabilities
    elif "probabilities" in data:
        raise Rejected("inputs.probabilities: the spec has none")
    for name, rows in stated.items():
        _require_close(name, rows.shape, rows.__getitem__, data, drawn if name in ("x", "y") else 0.0)
    if is_code:
        return (CODE_NOT_RUN,)
    if features is None:
        raise Rejected("inputs.f: the spec has none")
    shape = (certificate.n, features.k)

    def evaluated(rows: slice) -> Array:
        return features.rows(rows, np.asarray(data["x"][rows]), min(certificate.n, CHUNK_ROWS))

    _require_close("f", shape, evaluated, data, 0.0 if context.given else ROUNDING)
    return ()


def _content(path: Path, spec: Spec) -> bytes:
    try:
        raw = path.read_bytes() if path.is_file() else None
    except OSError as fault:
        raise Rejected(f"spec.path: cannot read {path}: {fault.strerror}") from fault
    if raw is None or hashlib.sha256(raw).hexdigest() != spec.sha256:
        raise Rejected(
            f"spec: expected the file with this hash at {path}, got {'none' if raw is None else 'another'}"
        )
    return raw


def _require_same_claim(certificate: Certificate, parts: dict[str, Any]) -> None:
    """ε, the loss, and b and μ2 where the spec gives them."""
    said = {name for name, value in parts.items() if value is not None}
    if "regularizer" in said and parts["regularizer"].l2 == 0.0:
        said -= {"regularizer"}  # nothing is added to F
    unknown = said - SECTIONS
    if unknown:
        raise Rejected(f"spec: {', '.join(sorted(unknown))} is not part of what a certificate is about")
    loss, mu2 = parts["loss"], (certificate.mu2, certificate.mu2_source)
    claimed = {
        "epsilon": (certificate.epsilon, parts["epsilon"]),
        "loss.kind": (certificate.loss, loss if isinstance(loss, str) else getattr(loss, "kind", "python")),
        "loss.scale": (certificate.scale, getattr(loss, "scale", 1.0)),
        "b": (certificate.b, certificate.b if parts["domain"].b == "auto" else parts["domain"].b),
        "mu2": (mu2[1] == "given", False)
        if parts["lipschitz"].mu2 == "auto"
        else (mu2, (parts["lipschitz"].mu2, "given")),
    }
    for name, (ours, theirs) in claimed.items():
        if ours != theirs:
            raise Rejected(f"claim.{name}: expected {theirs!r} as in the spec, got {ours!r}")


def _require_computed_b(certificate: Certificate, data: dict[str, Array]) -> None:
    """b = 1.01·max(‖w‖, ‖V‖), or 1 if both are 0, to COMPUTED."""
    largest = float(max(np.max(np.abs(data["w"])), np.max(np.abs(data["V"])))) or 1.0
    sizes = (float(np.linalg.norm(data[name] / largest, 2)) for name in ("w", "V"))
    b = 1.01 * max(sizes) * largest or 1.0
    if not abs(certificate.b - b) <= COMPUTED * b + SUBNORMAL:
        raise Rejected(f"claim.b: expected {b!r}, which the spec leaves open, got {certificate.b!r}")


def _require_close(
    name: str,
    shape: tuple[int, ...],
    stated: Callable[[slice], Any],
    data: dict[str, Array],
    tolerance: float,
) -> None:
    """|stated − data| ≤ tolerance · max|data|; a tolerance of 0 lets nothing differ."""
    array = data.get(name)
    if array is None or array.shape != shape:
        raise Rejected(f"inputs.{name}: expected the shape {shape} as in the spec")
    largest = float(np.max(np.abs(array)))
    for start in range(0, len(array), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        if not (
            np.abs(np.asarray(stated(rows), dtype=np.float64) - array[rows]) <= tolerance * largest
        ).all():
            raise Rejected(f"inputs.{name}: expected the numbers of the spec, got others")
