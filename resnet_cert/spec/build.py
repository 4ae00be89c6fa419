"""A spec to a problem, or every fault of it in terms of the user's file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from resnet_cert.outcomes import Diagnostic, InternalError, RequestError
from resnet_cert.problem.problem import (
    AnyProblem,
    Constraint,
    Distribution,
    Domain,
    Lipschitz,
    Problem,
    Regularizer,
)
from resnet_cert.problem.wellformed import input_faults
from resnet_cert.spec import models
from resnet_cert.spec.code import running
from resnet_cert.spec.document import Document, with_overrides
from resnet_cert.spec.faults import Fault, Faults, Refused, below, holds
from resnet_cert.spec.parts import (
    Context,
    features_fault,
    load_features,
    load_loss,
    load_point,
    load_samples,
    load_vector_loss,
    weights_fault,
)
from resnet_cert.spec.source import read
from resnet_cert.spec.validation import validate
from resnet_cert.vector.problem import VectorPoint, VectorProblem

STDIN, STDIN_SHOWN = "-", "<stdin>"
Part = TypeVar("Part")
P = TypeVar("P", Problem, VectorProblem)
SAME_ROW = 1e-9  # a row's features may differ by rounding when the other rows of its batch change


@dataclass(frozen=True)
class LoadedProblem:
    """A problem and the spec it came from: its path as the user gave it, the sha256 of its bytes.

    point_at: the file, line and column of the point.
    """

    problem: Problem | VectorProblem
    path: str
    sha256: str
    point_at: tuple[str | None, int | None, int | None]


def load_problem(
    path: str | Path,
    *,
    allow_code: bool = False,
    overrides: Mapping[str, str] | Sequence[str] = (),
    text: str | bytes | None = None,
) -> Problem | VectorProblem:
    """The problem of a spec; arguments and errors as in `load_spec`."""
    return load_spec(path, allow_code=allow_code, overrides=overrides, text=text).problem


def load_spec(
    path: str | Path,
    *,
    allow_code: bool = False,
    overrides: Mapping[str, str] | Sequence[str] = (),
    text: str | bytes | None = None,
) -> LoadedProblem:
    """The problem of a spec, its features evaluated once and kept where they fit into memory.

    Args:
        path: the spec; "-" is standard input.  Paths in the spec are relative to its folder, for standard
            input to the current one.
        allow_code: run the Python files that the spec names.
        overrides: settings {KEY: VALUE}, or "KEY=VALUE": dotted keys, values in YAML.
        text: what the spec says, in place of reading `path`.

    Raises:
        RequestError: every fault that was found, in the order of the file, then of the overrides.
    """
    shown = STDIN_SHOWN if str(path) == STDIN else str(path)
    content = _content(path, shown) if text is None else text
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    settings = (
        [f"{key}={value}" for key, value in overrides.items()]
        if isinstance(overrides, Mapping)
        else overrides
    )

    document = with_overrides(read(data, shown), settings)
    parts, faults = validate(document.value)
    folder = Path() if str(path) == STDIN else Path(path).parent
    network = parts.get("network")
    given = None if network is None else isinstance(network, models.GivenNetwork)
    loss = parts.get("loss")
    weighted = None if loss is None else isinstance(loss, models.WeightedLoss)
    stem = "stdin" if str(path) == STDIN else Path(path).stem
    problem, more = _build(parts, Context(folder, allow_code, given, weighted), stem)
    diagnostics = _diagnostics(document, [*faults, *more])
    if diagnostics:
        raise RequestError(diagnostics)
    if problem is None:
        raise InternalError("expected a problem from a spec without faults, got none")
    at = document.diagnostic(_located(Fault(("point", "W"), ""), document.value))
    return LoadedProblem(problem, shown, hashlib.sha256(data).hexdigest(), (at.file, at.line, at.column))


def _content(path: str | Path, shown: str) -> bytes:
    if str(path) == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no path can have
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError([Diagnostic(f"cannot read the spec: {reason}", shown, 1, 1)]) from None


def _build(
    parts: dict[str, Any], context: Context, stem: str
) -> tuple[Problem | VectorProblem | None, Faults]:
    """The problem, if all its parts are there and fit; the faults of those that are there."""
    faults = Faults()
    samples = loss = features = point = None
    if "data" in parts:
        with faults.under("data"):
            samples = load_samples(parts["data"], context)
        for fault in (
            features_fault(parts["data"], context.given),
            weights_fault(parts["data"], context.weighted),
        ):
            faults += [] if fault is None else Refused([fault]).below("data").faults
    if "point" in parts:
        with faults.under("point"):
            point = load_point(parts["point"], context)
    several = isinstance(point, VectorPoint)
    # Which losses there are depends on the point; code of the user's is tried without one too.
    if "loss" in parts and (point is not None or isinstance(parts["loss"], models.PythonLoss)):
        with faults.under("loss"):
            loss = load_vector_loss(parts["loss"]) if several else load_loss(parts["loss"], context)
    if "network" in parts:
        with faults.under("network"):
            features = load_features(parts["network"], context, samples)
    if samples is not None and features is None:  # a network without a sound x is no network
        faults.extend(Fault(path, message) for path, message in input_faults(samples.x))
    if samples is None or loss is None or features is None or point is None:
        return None, faults
    common: dict[str, Any] = {
        "distribution": Distribution(samples.x, samples.y, samples.probabilities),
        "loss": loss,
        "features": features,
        "point": point,
        "epsilon": float(parts.get("epsilon", 0.0)),
        "domain": Domain(**_numbers(parts.get("domain"))),
        "lipschitz": Lipschitz(**_numbers(parts.get("lipschitz"))),
        "name": parts.get("name") or stem,
    }
    if several:
        for key in ("regularizer", "constraint"):
            if parts.get(key) is not None:
                faults.append(Fault((key,), f"expected no {key} with several outputs", at_key=True))
        if context.weighted and samples.omega is None:
            return None, faults
        problem = VectorProblem(**common, omega=samples.omega if context.weighted else None)
        return _checked(problem, parts["network"], context, faults), faults
    problem = Problem(
        **common,
        regularizer=_of(parts.get("regularizer"), Regularizer),
        constraint=_of(parts.get("constraint"), Constraint),
    )
    return _checked(problem, parts["network"], context, faults), faults


def _numbers(section: models.Domain | models.Lipschitz | None) -> dict[str, float | None]:
    return {key: None if value == "auto" else float(value) for key, value in section or ()}


def _of(section: models.Section | None, part: Callable[..., Part]) -> Part | None:
    """A part of the problem whose fields are the numbers of a section."""
    return None if section is None else part(**{key: float(value) for key, value in section})


def _checked(problem: P, network: Any, context: Context, faults: Faults) -> P:
    """The problem with its features evaluated, if they can be; what is wrong with it joins the faults."""
    unfit = problem.shape_faults()
    evaluated = None
    if not unfit:
        with faults.under("network"):
            evaluated = _evaluated(problem, network, context)
    known = evaluated or problem
    for path, message in [*unfit, *known.value_faults(evaluate=evaluated is not None)]:
        of_network = path[:2] == ("data", "f") and not context.given
        faults.append(Fault(("network",) if of_network else path, message))
    return known


def _evaluated(problem: P, network: Any, context: Context) -> P:
    if not isinstance(network, models.PythonNetwork):
        return problem.with_features_held()
    with below("python"), running(context.folder, network.python):
        _require_rowwise(problem, network.python)
        return problem.with_features_held()


def _require_rowwise(problem: AnyProblem, reference: str) -> None:
    """f_θ is a function of x: other rows of a batch, and those that fill it up, must not matter."""
    chunk = next(problem.chunks())
    m = len(chunk.x)
    half = m // 2
    x = np.concatenate([chunk.x[:half], 0.5 * chunk.x[half:] + 0.25])
    f = problem.features.rows(slice(0, m), x, problem.chunk_rows)
    if not np.allclose(f[:half], chunk.f[:half], rtol=SAME_ROW, atol=0.0, equal_nan=True):
        raise Refused(f"expected {reference} to map row by row, got features that change with the other rows")


def _diagnostics(document: Document, faults: Sequence[Fault]) -> list[Diagnostic]:
    """All faults with their places, in order; at one place what the text itself has wrong comes alone."""
    taken = {(fault.file, fault.line, fault.column) for fault in document.faults}
    placed = (document.diagnostic(_located(fault, document.value)) for fault in faults)
    found = [*document.faults, *(d for d in placed if (d.file, d.line, d.column) not in taken)]
    files = [document.source.file, *(override.source.file for override in document.overrides)]

    def order(diagnostic: Diagnostic) -> tuple[int, int, int]:
        rank = files.index(diagnostic.file) if diagnostic.file in files else len(files)
        return rank, diagnostic.line or 0, diagnostic.column or 0

    return sorted(dict.fromkeys(found), key=order)


def _located(fault: Fault, tree: Any) -> Fault:
    """The fault at a place that the spec has: an array that the data do not name stands at their file."""
    path: list[str | int] = []
    for part in fault.path:
        instead = [key for key in ("sample", "file") if holds(tree, key)]
        if isinstance(tree, dict) and not holds(tree, part) and instead:
            path.append(instead[0])
            tree = tree[instead[0]]
        if not holds(tree, part):
            break
        path.append(part)
        tree = tree[part]
    return fault._replace(path=tuple(path))
