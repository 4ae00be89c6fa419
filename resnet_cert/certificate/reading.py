"""The certificate as a file: strict JSON, in format 2 for every kind of point, or in format 1 for one output.

Nothing is repaired and nothing is guessed: whatever is not exactly as docs/certificate.md has it raises
`Rejected`, which names the place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cert.outcomes import Verdict

FORMATS = ("resnet-cert/certificate/1", "resnet-cert/certificate/2")
LARGEST_COUNT = 2**40
MOST_OVERRIDES = 1000
LOSSES = ("squared", "logistic", "pseudo_huber", "poisson", "softmax", "weighted_squared")
SCALARS = LOSSES[:4]
"""The losses of format 1."""

Shape = tuple[int, ...]


class Rejected(Exception):
    """The certificate is at fault: the reason."""


@dataclass(frozen=True)
class Interval:
    """lower ≤ true value ≤ upper is claimed; None: nothing is claimed of that end."""

    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Named:
    """The spec that the claim is about: its file, relative to the certificate, and the settings beside it.

    shards: those that it reads, by the names that it has for them and in order, and how many rows each has;
    None where the certificate does not say.
    """

    path: str
    sha256: str
    overrides: tuple[str, ...]
    shards: dict[str, int] | None = None


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, as read.

    d, bypass: columns of x that the block adds to, and those that the head alone reads; bias: the head reads
    a column of ones after them, so that W is q × `columns`.  b_source, mu2_source: "computed", "given" or
    "missing"; b_source is None where the certificate does not say (format 1).
    l2, decays_bias, norm: the objective is F + l2·(‖W‖² + ‖V‖²), without the bias if it is not decayed, on
    ‖(W, V)‖ ≤ norm.  arrays: the name in the data file of each array that is there, its shape and hash.
    """

    format: str
    spec: Named | None
    verdict: Verdict
    epsilon: float
    b: float
    b_source: str | None
    mu2: float | None
    mu2_source: str
    loss: str
    scale: float
    l2: float
    decays_bias: bool
    norm: float | None
    n: int
    d: int
    bypass: int
    bias: bool
    k: int
    q: int
    data: str
    arrays: dict[str, tuple[Shape, str]]
    F: Interval
    gradient_norm: Interval
    lambda_min: Interval
    break_even_radius: Interval

    @property
    def columns(self) -> int:
        """Columns of W: all that the head reads."""
        return self.d + self.bypass + self.bias

    @property
    def is_plain(self) -> bool:
        """The objective is F itself."""
        return self.l2 == 0.0 and self.norm is None

    @property
    def numbers(self) -> int:
        """How many numbers the data file has."""
        return sum(math.prod(shape) for shape, _ in self.arrays.values())


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
    scalar = _one_of(top["format"], "format", FORMATS) == FORMATS[0]
    _text(top["producer"], "producer")
    _texts(top["assumptions"], "assumptions")
    _texts(top["reasons"], "reasons")
    claim = _of_one_output(top["claim"]) if scalar else _keys(top["claim"], "claim", _CLAIM)
    mu2 = _keys(claim["mu2"], "claim.mu2", "value source")
    loss = _keys(claim["loss"], "claim.loss", "kind scale")
    objective = _keys(claim["objective"], "claim.objective", "l2 decays_bias norm")
    bounds = _keys(
        top["bounds"], "bounds", "F gradient_norm lambda_min" + ("" if scalar else " break_even_radius")
    )
    even = bounds.get("break_even_radius", {"lower": None, "upper": None})
    sizes = {name: _count(claim[name], f"claim.{name}") for name in ("n", "d", "k", "q")}
    sizes["bypass"] = _count(claim["bypass"], "claim.bypass", least=0)
    bias = _flag(claim["bias"], "claim.bias")
    certificate = Certificate(
        format=top["format"],
        spec=_optional(_spec, top["spec"], "spec"),
        verdict=Verdict(
            _one_of(claim["verdict"], "claim.verdict", tuple(verdict.value for verdict in Verdict))
        ),
        epsilon=_real(claim["epsilon"], "claim.epsilon", least=0.0),
        **_domain(claim["b"], scalar),
        mu2=_optional(_nonnegative, mu2["value"], "claim.mu2.value"),
        mu2_source=_one_of(mu2["source"], "claim.mu2.source", ("computed", "given", "missing")),
        loss=_one_of(loss["kind"], "claim.loss.kind", SCALARS if scalar else LOSSES),
        scale=_positive(loss["scale"], "claim.loss.scale"),
        l2=_nonnegative(objective["l2"], "claim.objective.l2"),
        decays_bias=_flag(objective["decays_bias"], "claim.objective.decays_bias"),
        norm=_optional(_positive, objective["norm"], "claim.objective.norm"),
        bias=bias,
        **sizes,
        **_inputs(top["inputs"], scalar, sizes, bias),
        F=_interval(bounds["F"], "bounds.F"),
        gradient_norm=_interval(bounds["gradient_norm"], "bounds.gradient_norm"),
        lambda_min=_interval(bounds["lambda_min"], "bounds.lambda_min"),
        break_even_radius=_interval(even, "bounds.break_even_radius"),
    )
    if scalar and certificate.spec is not None and certificate.spec.shards is not None:
        raise Rejected("spec: expected the keys path sha256 overrides, got shards too")
    if (certificate.mu2 is None) != (mu2["source"] == "missing"):
        raise Rejected(
            f"claim.mu2: a value of {mu2['value']!r} does not go with the source {mu2['source']!r}"
        )
    if (certificate.loss == "weighted_squared") != ("omega" in certificate.arrays):
        raise Rejected("inputs.omega: expected weights with the loss weighted_squared, and with no other")
    if certificate.lambda_min.upper is not None and "dW" not in certificate.arrays:
        raise Rejected("bounds.lambda_min.upper: expected a direction (dW, dV) that shows it")
    if certificate.break_even_radius != Interval(None, None) and "U" not in certificate.arrays:
        raise Rejected("bounds.break_even_radius: expected a linear predictor U that shows it")
    body = {key: value for key, value in top.items() if key != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    if top["sha256"] != hashlib.sha256(canonical).hexdigest():
        raise Rejected("sha256: expected the hash of the certificate's other entries, got another")
    return certificate


_CLAIM = "verdict epsilon b mu2 loss objective n d bypass bias k q"


def _of_one_output(claim: Any) -> dict[str, Any]:
    """The claim of format 1, completed to one of format 2."""
    claim = _keys(claim, "claim", "verdict epsilon b mu2 loss n d k")
    plain = {"l2": "0x0.0p+0", "decays_bias": True, "norm": None}
    return {**claim, "objective": plain, "bypass": 0, "bias": False, "q": 1}


def _domain(value: Any, scalar: bool) -> dict[str, Any]:
    if scalar:
        return {"b": _real(value, "claim.b", least=0.0), "b_source": None}
    entries = _keys(value, "claim.b", "value source")
    source = _one_of(entries["source"], "claim.b.source", ("computed", "given"))
    return {"b": _positive(entries["value"], "claim.b.value"), "b_source": source}


def _inputs(value: Any, scalar: bool, sizes: dict[str, int], bias: bool) -> dict[str, Any]:
    """The data file, and name, shape and hash of the arrays that are in it, in their order there."""
    n, d, k, q = (sizes[name] for name in ("n", "d", "k", "q"))
    if scalar:
        required: dict[str, Shape] = {"x": (n, d), "y": (n,), "f": (n, k), "w": (d,), "V": (d, k)}
        optional: dict[str, Shape] = {"probabilities": (n,), "dw": (d,), "dV": (d, k)}
        order = "x y probabilities f w V dw dV"
    else:
        head = (q, d + sizes["bypass"] + bias)
        required = {"x": (n, d + sizes["bypass"]), "y": (n, q), "f": (n, k), "W": head, "V": (d, k)}
        optional = {"omega": (n, q), "probabilities": (n,), "dW": head, "dV": (d, k), "U": head}
        order = "x y omega probabilities f W V dW dV U"
    inputs = _keys(value, "inputs", f"file {order}")
    arrays: dict[str, tuple[Shape, str]] = {}
    for name in order.split():
        sha256 = inputs[name]
        if sha256 is None and name in optional:
            continue
        shape = (required | optional)[name]
        arrays[_SAME.get(name, name)] = shape, _text(sha256, f"inputs.{name}")
    if ("dW" in arrays) != ("dV" in arrays):
        raise Rejected("inputs: expected both parts of a direction, or none")
    return {"data": _file_name(inputs["file"], "inputs.file"), "arrays": arrays}


_SAME = {"w": "W", "dw": "dW"}
"""Arrays of format 1 by their names in format 2."""


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


def _flag(value: Any, at: str) -> bool:
    if type(value) is not bool:
        raise Rejected(f"{at}: expected true or false, got {type(value).__name__}")
    return value


def _count(value: Any, at: str, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= LARGEST_COUNT:
        raise Rejected(f"{at}: expected an integer from {least} to {LARGEST_COUNT}, got another value")
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


def _nonnegative(value: Any, at: str) -> float:
    return _real(value, at, least=0.0)


def _positive(value: Any, at: str) -> float:
    number = _real(value, at, least=0.0)
    if number == 0.0:
        raise Rejected(f"{at}: expected a positive number, got 0")
    return number


def _file_name(value: Any, at: str) -> str:
    if Path(_text(value, at)).name != value or value in ("", ".."):
        raise Rejected(f"{at}: expected the name of a file beside the certificate, got {value!r}")
    return value


def _interval(value: Any, at: str) -> Interval:
    ends = _keys(value, at, "lower upper")
    return Interval(*(_optional(_real, ends[end], f"{at}.{end}") for end in ("lower", "upper")))


def _spec(value: Any, at: str) -> Named:
    lists = type(value) is dict and "shards" in value
    entries = _keys(value, at, "path sha256 overrides" + " shards" * lists)
    overrides = _texts(entries["overrides"], f"{at}.overrides")
    if len(overrides) > MOST_OVERRIDES:
        raise Rejected(f"{at}.overrides: expected at most {MOST_OVERRIDES}, got {len(overrides)}")
    return Named(
        _text(entries["path"], f"{at}.path"),
        _text(entries["sha256"], f"{at}.sha256"),
        overrides,
        _shards(entries["shards"], f"{at}.shards") if lists else None,
    )


def _shards(value: Any, at: str) -> dict[str, int]:
    if type(value) is not list or not value:
        raise Rejected(f"{at}: expected a list of shards, got {value!r}")
    shards: dict[str, int] = {}
    for shard in value:
        entries = _keys(shard, at, "path rows")
        name = _text(entries["path"], at)
        if name in shards:
            raise Rejected(f"{at}: expected every shard once, got {name!r} twice")
        shards[name] = _count(entries["rows"], at)
    return shards
