"""Does the spec that a certificate names say the same as the certificate and its data?

The spec is read as `check` reads it, with all of its refusals; none of its code is run and none of its
networks is evaluated there.  What it states must be the certificate's numbers, each of them, bit for bit.
The features of a built-in network are evaluated by the verifier itself: each stored one has to lie
within what a float64 evaluation of that entry may be off, and no more than that is known of them then.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flint import ctx

from resnet_cert.certificate import cost, networks
from resnet_cert.certificate.arrays import data_files
from resnet_cert.certificate.cost import Cost, Limits
from resnet_cert.certificate.facts import Array, Data
from resnet_cert.certificate.files import Undecided, read_file, require_all
from resnet_cert.certificate.reading import Certificate, Named, Rejected
from resnet_cert.certificate.verification import AS_STORED, BITWISE, Spec
from resnet_cert.outcomes import RequestError

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Problem

LARGEST_SPEC = 2**24
DRAWN = 1e-12
"""How far drawn samples may be off to be those of another machine."""
INCOMPLETE = ("file-missing", "file-unreadable", "needs-package")
"""What may be wrong with a spec here and not where it was checked: nothing is false then."""
MOST_SHARDS = 5
"""Of those that are not as long as they were, so many are named."""
PRECISIONS = (128, 512)
"""Bits at which a network is evaluated, tried in turn."""

CODE_NOT_RUN = "the network is Python code, which is not run: its features are taken as stored"
NOT_KNOWN = "the network's activation is not known to the verifier: its features are taken as stored"


@dataclass(frozen=True)
class Bound:
    """A spec that says the same.

    features: how they are bound, as in the answer.  radius: (n, k) how far they may be off; None: not at all.
    b_source: where b is from.
    """

    spec: Spec
    b_source: str
    features: str | float
    radius: Array | None = None
    notes: tuple[str, ...] = ()


def require_files(certificate: Certificate, named: Named | None, path: Path) -> None:
    """Raises RequestError with every file that the certificate needs and that is not there."""
    from resnet_cert.spec.document import with_overrides
    from resnet_cert.spec.reads import absent_files, shards_of
    from resnet_cert.spec.source import read

    candidates = data_files(certificate, path)
    needed = [next((file for file in candidates if file.exists()), candidates[-1])]
    if named is not None:
        spec = path.parent / named.path
        needed.append(spec)
        try:
            if spec.is_file():
                document = with_overrides(read(read_file(spec, LARGEST_SPEC), str(spec)), named.overrides)
                needed += absent_files(document.value, spec.parent)
                there = set(shards_of(document.value, spec.parent))
                if there:  # else their pattern is absent, and says it all
                    missing = [spec.parent / name for name in named.shards or () if name not in there]
                    needed += [path / "*.npy" if path.is_dir() else path for path in missing]
        except (RequestError, ValueError, OSError, Undecided):
            pass  # what cannot be read names no files; its own fault is told where it is read for its content
    require_all(needed)


def bind(certificate: Certificate, named: Named, data: Data, folder: Path, limits: Limits) -> Bound:
    """What is known of the features.

    Raises:
        Rejected: the spec says something else.
        Undecided: its network would take too long.
    """
    from resnet_cert.problem.problem import GivenFeatures

    problem, spec, drawn = _read(certificate, named, data, folder, limits)
    _require_same_shards(named, problem)
    _require_same_claim(certificate, problem)
    _require_same_numbers(data, problem, drawn)
    b_source = "computed" if problem.domain.b is None else "given"
    features = problem.features
    assert isinstance(features, GivenFeatures)
    source: Any = features.network
    if isinstance(source, GivenFeatures):
        if source.f is data.f:
            return Bound(spec, b_source, AS_STORED, notes=(CODE_NOT_RUN,))
        for rows in data.blocks():
            f = np.asarray(source.f[rows], dtype=np.float64)
            _require_equal("f", f, data.f[rows], problem, rows.start)
        return Bound(spec, b_source, BITWISE)
    layers = getattr(source, "layers", None)
    if layers is None:
        _require_equal("f", data.x[:, : certificate.d], data.f)
        return Bound(spec, b_source, BITWISE)
    activation = source.activation if len(layers) > 1 else "relu"
    if activation not in networks.ACTIVATIONS:
        return Bound(spec, b_source, AS_STORED, notes=(NOT_KNOWN,))
    theta = [(layer.weight, layer.bias) for layer in layers]
    radius = _radius(theta, activation, np.ascontiguousarray(data.x[:, : certificate.d]), data.f, limits)
    if not radius.any():
        return Bound(spec, b_source, BITWISE)
    return Bound(spec, b_source, float(np.max(radius)), radius)


def _read(
    certificate: Certificate, named: Named, data: Data, folder: Path, limits: Limits
) -> tuple[Problem, Spec, bool]:
    """The problem, its spec, and whether its samples are drawn."""
    from resnet_cert.spec import load_spec
    from resnet_cert.spec.context import Stored
    from resnet_cert.spec.document import with_overrides
    from resnet_cert.spec.source import read

    path = folder / named.path
    raw = read_file(path, LARGEST_SPEC)
    if hashlib.sha256(raw).hexdigest() != named.sha256:
        raise Rejected(f"spec: expected the file with this hash at {path}, got another")
    by_time = (limits.until - time.monotonic()) / (cost.MULTIPLICATION * certificate.n)
    drawable = int(max(0.0, min(by_time, limits.memory / (4 * cost.ENTRY_BYTES))))
    stored = Stored(certificate.d, data.f, drawable)
    try:
        loaded = load_spec(path, overrides=named.overrides, text=raw, stored=stored)
    except RequestError as fault:
        first = fault.diagnostics[0]
        if incomplete := [unread for unread in fault.diagnostics if unread.id in INCOMPLETE]:
            raise RequestError(incomplete) from fault
        if first.id == "too-large":
            raise Undecided(f"the spec: {first.message}") from fault
        raise Rejected(f"spec: {first.message}") from fault
    drawn = "sample" in with_overrides(read(raw, str(path)), named.overrides).value["data"]
    return loaded.problem, Spec(shortest(path), named.sha256, named.overrides), drawn


def shortest(path: Path) -> str:
    """The path without its detours, where they lead to the same file."""
    straight = os.path.normpath(path)
    return straight if os.path.exists(straight) and os.path.samefile(straight, path) else str(path)


def _require_same_shards(named: Named, problem: Problem) -> None:
    """The shards that the certificate lists, if it does: no other, and each as long as it was."""
    from resnet_cert.problem.shards import ShardedRows, rows_by_shard
    from resnet_cert.spec.faults import listed

    if named.shards is None:
        return
    x = problem.distribution.x
    found, stated = rows_by_shard(x) if isinstance(x, ShardedRows) else {}, named.shards
    if more := [name for name in found if name not in stated]:
        raise Rejected(f"spec.shards: expected those of the certificate, got others too: {listed(more)}")
    if fewer := [name for name in stated if name not in found]:
        raise Rejected(f"spec.shards: expected rows of the spec in {listed(fewer)}, got none")
    if lengths := [
        f"{stated[name]} rows in {name}, got {rows}" for name, rows in found.items() if stated[name] != rows
    ]:
        raise Rejected(f"spec.shards: expected {'; '.join(lengths[:MOST_SHARDS])}")
    if [*found] != [*stated]:
        raise Rejected("spec.shards: expected them in the order of their names")


def _require_same_claim(certificate: Certificate, problem: Problem) -> None:
    """ε, the loss, the objective, the sizes, and b and μ2 where the spec gives them."""
    from resnet_cert.problem.losses import BuiltinLoss

    loss, c = problem.loss, certificate
    if not isinstance(loss, BuiltinLoss):
        raise Rejected("spec: expected a built-in loss")
    b, mu2 = problem.domain.b, problem.lipschitz.mu2
    decays = problem.objective.decays_bias or not problem.has_bias
    claimed: dict[str, tuple[Any, Any]] = {
        "epsilon": (c.epsilon, problem.epsilon),
        "loss.kind": (c.loss, loss.kind),
        "loss.scale": (c.scale, loss.scale),
        "objective.l2": (c.l2, problem.objective.l2),
        "objective.decays_bias": (c.decays_bias or not c.bias, decays),
        "objective.norm": (c.norm, problem.objective.norm),
        "n": (c.n, problem.n),
        "d": (c.d, problem.d1),
        "bypass": (c.bypass, problem.d2),
        "bias": (c.bias, problem.has_bias),
        "q": (c.q, problem.q),
        "k": (c.k, problem.k),
        "b": ((c.b, "given"), (b, "given")) if b is not None else (c.b_source, "computed"),
        "mu2": ((c.mu2, c.mu2_source), (mu2, "given")),
    }
    if mu2 is None:  # computed, or missing
        claimed["mu2"] = (c.mu2_source == "given", False)
    if c.b_source is None:  # format 1 does not say
        claimed["b"] = (c.b, c.b if b is None else b)
    for name, (ours, theirs) in claimed.items():
        if ours != theirs:
            raise Rejected(f"claim.{name}: expected {theirs!r} as in the spec, got {ours!r}")


def _require_same_numbers(data: Data, problem: Problem, drawn: bool) -> None:
    """The point and the samples.

    Drawn ones may differ by rounding from those of another machine: nothing is false then, and nothing known.
    """
    _require_equal("W", problem.W, data.W)
    _require_equal("V", problem.V, data.V)
    if (data.weights is None) != (problem.distribution.probabilities is None):
        raise Rejected("inputs.probabilities: expected them iff the spec has some")
    for rows in data.blocks():
        chunk = problem.chunk(rows, features=False)
        if drawn and not all(map(np.array_equal, (chunk.x, chunk.y), (data.x[rows], data.y[rows]))):
            pairs = ((chunk.x, data.x[rows]), (chunk.y, data.y[rows]))
            if all(np.allclose(*pair, rtol=DRAWN, atol=DRAWN) for pair in pairs):
                raise Undecided(
                    f"the samples are drawn, and rounded otherwise by NumPy {np.__version__} here"
                )
        _require_equal("x", chunk.x, data.x[rows], problem, rows.start)
        _require_equal("y", chunk.y, data.y[rows], problem, rows.start)
        if chunk.omega is not None and data.omega is not None:
            _require_equal("omega", chunk.omega, data.omega[rows], problem, rows.start)
        if chunk.weight is not None and data.weights is not None:
            _require_equal("probabilities", chunk.weight, data.weights[rows], problem, rows.start)


def _require_equal(
    name: str, stated: Array, stored: Array, problem: Problem | None = None, first: int = 0
) -> None:
    """problem, first: whose rows they are, from which on, to name the shard that has others."""
    from resnet_cert.problem.shards import ShardedRows, shard_of

    if stated.shape == stored.shape and (stated == stored).all():
        return
    where = ""
    if problem is not None and stated.shape == stored.shape:
        x = problem.distribution.x
        row = first + int(np.argmax((stated != stored).reshape(len(stated), -1).any(axis=1)))
        where = f", in shard {shard_of(x, row)}" if isinstance(x, ShardedRows) else ""
    raise Rejected(f"inputs.{name}: expected the numbers of the spec, got others{where}")


def _radius(theta: networks.Layers, activation: str, x: Array, f: Array, limits: Limits) -> Array:
    """(n, k): how far from f another float64 evaluation may be; 0 where there is only one."""
    work = networks.multiplications(len(x), x.shape[1], theta)
    entries = len(x) * sum(len(weight) + weight.shape[1] for weight, _ in theta)
    seconds = work * cost.MULTIPLICATION + entries * 6 * cost.OPERATION
    weights = max(weight.size for weight, _ in theta)
    limits.require("the network", Cost(seconds, cost.BASE_BYTES + 3 * cost.ENTRY_BYTES * weights))
    for precision in PRECISIONS:
        with ctx.workprec(precision):
            radius = np.empty_like(f)
            if all(_within(radius, evaluated, f) for evaluated in networks.evaluate(theta, activation, x)):
                return radius
    raise Rejected("inputs.f: expected what the network of the spec returns in float64, got something else")


def _within(radius: Array, at: networks.Evaluated, f: Array) -> bool:
    """May the stored f be an evaluation of these rows?  Puts down how far from it another one can be."""
    distance, error = networks.distances(at.values, f[at.rows]), at.error
    radius[at.rows] = np.where(at.exact, 0.0, (distance + error) * (1.0 + 2.0**-40))
    return bool((distance <= error).all())
