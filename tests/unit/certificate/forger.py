"""Certificates made without the package, as a forger would: of any head, true or not, every hash renewed.

`spec` writes a problem as a spec and its files, `certificate` makes a document and the arrays of a data file
from the oracle's truth, `changed` and `sealed` turn them into others, `write` puts them into a folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from heads import Head, HeadTruth

Document = dict[str, Any]
Arrays = dict[str, npt.NDArray[np.float64]]

ORDER = ("x", "y", "omega", "probabilities", "f", "W", "V", "dW", "dV", "U")
NAME = "certificate.json"


@dataclass(frozen=True)
class Case:
    """A head with what a spec says beside it; network, data: YAML in place of stored features or samples."""

    head: Head
    epsilon: float
    mu2: float | None = 1.0
    b: float | None = None
    network: str = "{kind: given}"
    extra: str = ""


def spec(folder: Path, case: Case) -> Path:
    """The problem as a spec beside its data."""
    head = case.head
    data: Arrays = {"x": head.x, "y": head.y if head.q > 1 else head.y[:, 0]}
    if head.loss == "logistic" and head.q == 1:
        data["y"] = 2.0 * data["y"] - 1.0
    keys = {"file": "data.npz"}
    if "given" in case.network:
        data["f"] = head.f
    for name, array in (
        ("bypass", head.bypass),
        ("omega", head.omega),
        ("probabilities", head.probabilities),
    ):
        if array is not None:
            data[name] = array
            keys[name] = name
    np.savez(folder / "data.npz", **data)
    point = {"W": head.W, "V": head.V} | ({} if head.c is None else {"c": head.c})
    np.savez(folder / "point.npz", **point)
    loss: Any = head.loss
    if loss == "weighted_squared":
        loss = {"kind": loss, "weights": keys.pop("omega")}
        keys["omega"] = "omega"
    tree: dict[str, Any] = {
        "version": 1,
        "data": keys,
        "loss": loss,
        "point": {"file": "point.npz"},
        "epsilon": case.epsilon,
    }
    if case.mu2 is not None:
        tree["lipschitz"] = {"mu2": case.mu2}
    if case.b is not None:
        tree["domain"] = {"b": case.b}
    if head.l2:
        tree["regularizer"] = {"l2": head.l2, "bias": head.decay_bias}
    path = folder / "problem.yaml"
    text = yaml.safe_dump(tree, sort_keys=False)
    path.write_text(f"{text}network: {case.network}\n{case.extra}\n")
    return path


def named(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    return {
        "path": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "overrides": overrides or [],
    }


def arrays_of(head: Head) -> Arrays:
    x = head.x if head.bypass is None else np.concatenate([head.x, head.bypass], axis=1)
    arrays = {"x": x, "y": head.y, "f": head.f, "W": head.head, "V": head.V}
    optional = {"omega": head.omega, "probabilities": head.probabilities}
    return arrays | {name: array for name, array in optional.items() if array is not None}


def certificate(
    case: Case,
    verdict: str,
    *,
    lower: float | None = None,
    direction: npt.NDArray[np.float64] | None = None,
    upper: float | None = None,
    source: str | None = None,
    norm: float | None = None,
) -> tuple[Document, Arrays]:
    """A certificate of `verdict` whose bounds of F and ‖∇G‖ are true; the rest is as told.

    source: of μ2; "given" by default, "missing" where there is none.
    """
    head, arrays, truth = case.head, arrays_of(case.head), case.head.truth
    if direction is not None:
        cut = head.head.size
        arrays |= {
            "dW": direction[:cut].reshape(head.head.shape),
            "dV": direction[cut:].reshape(head.V.shape),
        }
    b = case.b or computed_b(head)
    bounds = {"F": outward(truth.F), "gradient_norm": outward(truth.norm), "lambda_min": (lower, upper)}
    bounds["break_even_radius"] = (None, None)
    missing = "missing" if case.mu2 is None else "given"
    document: Document = {
        "format": "resnet-cert/certificate/2",
        "producer": "by hand",
        "spec": None,
        "claim": {
            "verdict": verdict,
            "epsilon": float(case.epsilon).hex(),
            "b": {"value": b.hex(), "source": "computed" if case.b is None else "given"},
            "mu2": {
                "value": None if case.mu2 is None else float(case.mu2).hex(),
                "source": source or missing,
            },
            "loss": {"kind": head.loss, "scale": (1.0).hex()},
            "objective": {
                "l2": float(head.l2).hex(),
                "decays_bias": head.decay_bias if head.l2 else True,
                "norm": None if norm is None else norm.hex(),
            },
            "n": len(head.x),
            "d": head.x.shape[1],
            "bypass": 0 if head.bypass is None else head.bypass.shape[1],
            "bias": head.c is not None,
            "k": head.f.shape[1],
            "q": head.q,
        },
        "inputs": {"file": f"{NAME}.data", **dict.fromkeys(ORDER)},
        "assumptions": ["none"],
        "bounds": {
            name: dict(zip(("lower", "upper"), map(_hex, ends), strict=True)) for name, ends in bounds.items()
        },
        "reasons": ["by hand"],
    }
    return sealed(document, arrays), arrays


def computed_b(head: Head) -> float:
    return 1.01 * max(float(np.linalg.norm(head.head, 2)), float(np.linalg.norm(head.V, 2))) or 1.0


def certified(case: Case) -> tuple[Document, Arrays]:
    """CERTIFIED; λ_min ≥ −√(μ2 ε) rounded inward."""
    return certificate(
        case, "CERTIFIED", lower=-math.sqrt((case.mu2 or 0.0) * case.epsilon) * (1.0 - 2.0**-50)
    )


def refuted_by_gradient(case: Case) -> tuple[Document, Arrays]:
    return certificate(case, "REFUTED")


def refuted_by_curvature(case: Case) -> tuple[Document, Arrays]:
    """By the computed eigenvector of λ_min < 0."""
    values, vectors = np.linalg.eigh(dense(case.head.truth.hessian_G))
    return certificate(case, "REFUTED", direction=vectors[:, 0], upper=float(values[0]) * (1.0 - 1e-9))


def smallest_epsilon(truth: HeadTruth, mu2: float) -> float:
    m = max(0.0, -float(truth.lambda_min.lower()))
    return max(float(truth.norm.mid()), m * m / mu2)


def at_threshold(head: Head, slack: float, mu2: float = 1.0) -> Case:
    return Case(head, slack * smallest_epsilon(head.truth, mu2), mu2)


def dense(H: Any) -> npt.NDArray[np.float64]:
    return np.array([[float(entry.mid()) for entry in row] for row in H])


def outward(ball: Any) -> tuple[float, float]:
    """Floats below and above a ball, at a relative distance of at least 2^-52."""
    middle = float(ball.mid())
    slack = abs(middle) * 2.0**-45 + float(ball.rad()) * 2.0
    return middle - slack, middle + slack


def _hex(number: float | None) -> str | None:
    return None if number is None else float(number).hex()


def array_hash(array: npt.NDArray[np.float64]) -> str:
    shape = "x".join(str(size) for size in array.shape)
    return hashlib.sha256(f"<f8 {shape}\n".encode() + array.astype("<f8").tobytes()).hexdigest()


def sealed(document: Document, arrays: Arrays | None = None) -> Document:
    """The document with the hashes that fit its arrays, and itself."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    if arrays is not None:
        hashes = {name: array_hash(arrays[name]) if name in arrays else None for name in ORDER}
        body["inputs"] = {**body["inputs"], **hashes}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "sha256": hashlib.sha256(canonical.encode("ascii", "surrogatepass")).hexdigest()}


def changed(document: Document, at: tuple[Any, ...], value: Any) -> Document:
    """The document with another value at a place; not sealed."""
    mutant = copy.deepcopy(document)
    section = mutant
    for key in at[:-1]:
        section = section[key]
    section[at[-1]] = value
    return mutant


def write(folder: Path, document: Document | str, arrays: Arrays) -> Path:
    """The certificate and its data file in `folder`."""
    path = folder / NAME
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    order = ("x", "y", "probabilities", "f", "w", "V", "dw", "dV") if "w" in arrays else ORDER
    numbers = [arrays[name].ravel() for name in order if name in arrays]
    (folder / f"{NAME}.data").write_bytes(np.concatenate(numbers).astype("<f8").tobytes())
    return path


def bound(folder: Path, case: Case, made: tuple[Document, Arrays]) -> Path:
    """A certificate beside the spec of its case, which it names."""
    document, arrays = made
    return write(folder, sealed({**document, "spec": named(spec(folder, case))}, arrays), arrays)


def as_format_1(document: Document, arrays: Arrays) -> tuple[Document, Arrays]:
    """The same certificate as the first format has it, for a plain point of one output."""
    claim = {key: document["claim"][key] for key in ("verdict", "epsilon", "mu2", "loss", "n", "d", "k")}
    claim["b"] = document["claim"]["b"]["value"]
    inputs = {"file": f"{NAME}.data"}
    old: Arrays = {}
    for name, now in {
        "x": "x",
        "y": "y",
        "probabilities": "probabilities",
        "f": "f",
        "w": "W",
        "V": "V",
    }.items():
        if now in arrays:
            old[name] = arrays[now].ravel() if name in ("y", "w") else arrays[now]
    if document["claim"]["loss"]["kind"] == "logistic":
        old["y"] = 2.0 * old["y"] - 1.0
    if "dW" in arrays:
        old |= {"dw": arrays["dW"].ravel(), "dV": arrays["dV"]}
    for name in ("x", "y", "probabilities", "f", "w", "V", "dw", "dV"):
        inputs[name] = array_hash(old[name]) if name in old else None
    bounds = {name: ends for name, ends in document["bounds"].items() if name != "break_even_radius"}
    first = {**document, "format": "resnet-cert/certificate/1"}
    first |= {"claim": claim, "inputs": inputs, "bounds": bounds}
    return sealed(first), old
