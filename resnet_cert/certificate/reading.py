"""The certificate as a file: strict JSON beside one file of float64 numbers, both bound by hashes.

Nothing is repaired and nothing is guessed: whatever is not exactly as docs/certificate.md has it raises
`Rejected`, which names the place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.outcomes import Verdict

Array = npt.NDArray[np.float64]

FORMAT = "resnet-cert/certificate/1"
LARGEST_COUNT = 2**40
LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")


class Rejected(Exception):
    """The certificate is at fault: the reason."""


@dataclass(frozen=True)
class Interval:
    """lower ≤ true value ≤ upper is claimed; None: nothing is claimed of that end."""

    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Spec:
    """The spec that the claim is about: its file, relative to the certificate, and the settings beside it."""

    path: str
    sha256: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, as read."""

    spec: Spec | None
    verdict: Verdict
    epsilon: float
    b: float
    mu2: float | None
    mu2_source: str
    loss: str
    scale: float
    n: int
    d: int
    k: int
    data: str
    hashes: dict[str, str | None]
    F: Interval
    gradient_norm: Interval
    lambda_min: Interval

    @property
    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of the arrays that are there, in the order of the data file."""
        n, d, k = self.n, self.d, self.k
        every = {"x": (n, d), "y": (n,), "probabilities": (n,), "f": (n, k), "w": (d,), "V": (d, k)}
        every |= {"dw": (d,), "dV": (d, k)}
        return ((name, shape) for name, shape in every.items() if self.hashes[name] is not None)


def read_certificate(raw: bytes) -> Certificate:
    """The certificate in a file's bytes."""
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as fault:
        raise Rejected(f"expected a JSON document, got none: {fault}") from fault
    top = _keys(document, "", "format producer spec claim inputs assumptions bounds reasons sha256")
    _one_of(top["format"], "format", (FORMAT,))
    _text(top["producer"], "producer")
    _texts(top["assumptions"], "assumptions")
    _texts(top["reasons"], "reasons")
    claim = _keys(top["claim"], "claim", "verdict epsilon b mu2 loss n d k")
    mu2 = _keys(claim["mu2"], "claim.mu2", "value source")
    loss = _keys(claim["loss"], "claim.loss", "kind scale")
    inputs = _keys(top["inputs"], "inputs", "file x y probabilities f w V dw dV")
    bounds = _keys(top["bounds"], "bounds", "F gradient_norm lambda_min")
    certificate = Certificate(
        spec=_optional(_spec, top["spec"], "spec"),
        verdict=Verdict(
            _one_of(claim["verdict"], "claim.verdict", tuple(verdict.value for verdict in Verdict))
        ),
        epsilon=_real(claim["epsilon"], "claim.epsilon", least=0.0),
        b=_real(claim["b"], "claim.b", least=0.0),
        mu2=_optional(lambda value, at: _real(value, at, least=0.0), mu2["value"], "claim.mu2.value"),
        mu2_source=_one_of(mu2["source"], "claim.mu2.source", ("computed", "given", "missing")),
        loss=_one_of(loss["kind"], "claim.loss.kind", LOSSES),
        scale=_real(loss["scale"], "claim.loss.scale", least=0.0),
        n=_count(claim["n"], "claim.n"),
        d=_count(claim["d"], "claim.d"),
        k=_count(claim["k"], "claim.k"),
        data=_file_name(inputs["file"], "inputs.file"),
        hashes={
            name: _text(inputs[name], f"inputs.{name}")
            if name in ("x", "y", "f", "w", "V")
            else _optional(_text, inputs[name], f"inputs.{name}")
            for name in ("x", "y", "probabilities", "f", "w", "V", "dw", "dV")
        },
        F=_interval(bounds["F"], "bounds.F"),
        gradient_norm=_interval(bounds["gradient_norm"], "bounds.gradient_norm"),
        lambda_min=_interval(bounds["lambda_min"], "bounds.lambda_min"),
    )
    if (certificate.mu2 is None) != (mu2["source"] == "missing"):
        raise Rejected(
            f"claim.mu2: a value of {mu2['value']!r} does not go with the source {mu2['source']!r}"
        )
    if certificate.scale == 0.0:
        raise Rejected("claim.loss.scale: expected a positive number, got 0")
    directed = [certificate.hashes[name] is not None for name in ("dw", "dV")]
    if directed[0] != directed[1]:
        raise Rejected("inputs.dw, inputs.dV: expected both or none")
    if certificate.lambda_min.upper is not None and not directed[0]:
        raise Rejected("bounds.lambda_min.upper: expected a direction (dw, dV) that shows it")
    body = {key: value for key, value in top.items() if key != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    if top["sha256"] != hashlib.sha256(canonical).hexdigest():
        raise Rejected("sha256: expected the hash of the certificate's other entries, got another")
    return certificate


def read_data(certificate: Certificate, folder: Path) -> dict[str, Array]:
    """The arrays of the data file, one after another, each with its hash; mapped, not loaded."""
    path = folder / certificate.data
    expected = 8 * sum(math.prod(shape) for _, shape in certificate.shapes)
    try:
        if path.stat().st_size != expected:
            raise Rejected(f"inputs.file: expected {expected} bytes in {path}, got {path.stat().st_size}")
        numbers = np.memmap(path, dtype="<f8", mode="r")
    except OSError as fault:
        raise Rejected(f"inputs.file: cannot read {path}: {fault.strerror}") from fault
    arrays: dict[str, Array] = {}
    start = 0
    for name, shape in certificate.shapes:
        arrays[name] = numbers[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
        if certificate.hashes[name] != array_hash(arrays[name]):
            raise Rejected(f"inputs.{name}: expected the array with this hash in {path}, got another")
        if not np.isfinite(arrays[name]).all():
            raise Rejected(f"inputs.{name}: expected finite numbers, got NaN or Inf")
    if certificate.loss == "logistic" and not (np.abs(arrays["y"]) == 1.0).all():
        raise Rejected("inputs.y: expected -1 or 1 for the logistic loss")
    if certificate.loss == "poisson" and not (arrays["y"] >= 0.0).all():
        raise Rejected("inputs.y: expected nonnegative targets for the poisson loss")
    if "probabilities" in arrays and not (arrays["probabilities"] > 0.0).all():
        raise Rejected("inputs.probabilities: expected positive numbers")
    return arrays


def array_hash(array: Array) -> str:
    """SHA-256 of dtype, shape and bytes: the line `<f8 NxM`, then the numbers in C order."""
    header = f"<f8 {'x'.join(map(str, array.shape))}\n".encode("ascii")
    digest = hashlib.sha256(header)
    digest.update(np.ascontiguousarray(array, dtype="<f8").data)
    return digest.hexdigest()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise Rejected(f"expected every key once, got {[key for key, _ in pairs]}")
    return keys


def _no_number(literal: str) -> Any:
    raise Rejected(f"expected reals as C99 hex strings, got {literal}")


def _keys(value: Any, at: str, names: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise Rejected(f"{at or 'certificate'}: expected an object, got {type(value).__name__}")
    if value.keys() != set(names.split()):
        raise Rejected(f"{at or 'certificate'}: expected the keys {names}, got {' '.join(value)}")
    return value


def _optional(read: Callable[[Any, str], Any], value: Any, at: str) -> Any:
    return None if value is None else read(value, at)


def _text(value: Any, at: str) -> str:
    if type(value) is not str:
        raise Rejected(f"{at}: expected a string, got {type(value).__name__}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise Rejected(f"{at}: expected text, got {value!a}")
    return value


def _texts(value: Any, at: str) -> tuple[str, ...]:
    if type(value) is not list:
        raise Rejected(f"{at}: expected a list of strings, got {type(value).__name__}")
    return tuple(_text(entry, at) for entry in value)


def _one_of(value: Any, at: str, words: tuple[str, ...]) -> str:
    if _text(value, at) not in words:
        raise Rejected(f"{at}: expected one of {', '.join(words)}, got {value!r}")
    return value


def _count(value: Any, at: str) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST_COUNT:
        raise Rejected(f"{at}: expected an integer from 1 to {LARGEST_COUNT}, got another value")
    return value


def _real(value: Any, at: str, least: float = -math.inf) -> float:
    try:
        number = float.fromhex(_text(value, at))
    except (ValueError, OverflowError) as fault:
        raise Rejected(f"{at}: expected a real as a C99 hex string, got {value!r}") from fault
    if not math.isfinite(number) or number.hex() != value:
        raise Rejected(f"{at}: expected a finite real as float.hex() writes it, got {value!r}")
    if number < least:
        raise Rejected(f"{at}: expected at least {least!r}, got {value!r}")
    return number


def _file_name(value: Any, at: str) -> str:
    if Path(_text(value, at)).name != value:
        raise Rejected(f"{at}: expected the name of a file beside the certificate, got {value!r}")
    return value


def _interval(value: Any, at: str) -> Interval:
    ends = _keys(value, at, "lower upper")
    return Interval(*(_optional(_real, ends[end], f"{at}.{end}") for end in ("lower", "upper")))


def _spec(value: Any, at: str) -> Spec:
    entries = _keys(value, at, "path sha256 overrides")
    return Spec(
        _text(entries["path"], f"{at}.path"),
        _text(entries["sha256"], f"{at}.sha256"),
        _texts(entries["overrides"], f"{at}.overrides"),
    )
