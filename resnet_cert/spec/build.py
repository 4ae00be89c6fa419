"""A spec to a problem, or every fault of it in terms of the user's file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from resnet_cert.outcomes import Diagnostic, InternalError, RequestError, Verdict, printable
from resnet_cert.problem.files import require_apart
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import (
    Distribution,
    Domain,
    GivenFeatures,
    Lipschitz,
    Method,
    Objective,
    Problem,
    Support,
)
from resnet_cert.problem.problem import Fault as ProblemFault
from resnet_cert.problem.shards import UnreadRows
from resnet_cert.problem.wellformed import input_faults, shape_faults, value_faults
from resnet_cert.results import Source
from resnet_cert.spec import loss_models, models, network_models
from resnet_cert.spec.code import running
from resnet_cert.spec.context import Context, Samples, Stored
from resnet_cert.spec.document import Document, with_overrides
from resnet_cert.spec.faults import Fault, Faults, Refused, below, describe, holds
from resnet_cert.spec.features import load_features
from resnet_cert.spec.parts import load_loss, load_point
from resnet_cert.spec.reads import files_of, fixed_files_of, missing_files
from resnet_cert.spec.samples import (
    features_fault,
    load_comparators,
    load_samples,
    weights_fault,
    words_fault,
)
from resnet_cert.spec.source import read
from resnet_cert.spec.validation import validate

STDIN, STDIN_SHOWN = "-", "<stdin>"
MAX_BYTES = 2**24
"""Of a spec: larger arrays have files of their own."""
SAME_ROW = 1e-9  # a row's features may differ by rounding when the other rows of its batch change


@dataclass(frozen=True)
class LoadedProblem:
    """A problem and the spec it came from: its path as the user gave it, the sha256 of its bytes.

    point_at: the file, line and column of the point.
    expect: the verdicts that the spec may get, if it says.
    population: what the data are a sample of, if it says.
    overrides: the settings beside it, KEY=VALUE.  reads: the files that it was read from, itself among them;
    fixed: those that it names by an absolute path.
    """

    problem: Problem
    path: str
    sha256: str
    point_at: tuple[str | None, int | None, int | None]
    expect: tuple[Verdict, ...] | None = None
    population: Support | None = None
    overrides: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    @property
    def source(self) -> Source:
        """What a report says of it."""
        return Source(self.path, self.sha256, self.overrides, self.reads, self.fixed)


def load_problem(
    path: str | Path,
    *,
    allow_code: bool = False,
    overrides: Mapping[str, str] | Sequence[str] = (),
    text: str | bytes | None = None,
) -> Problem:
    """The problem of a spec; arguments and errors as in `load_spec`.

    What the spec says beside it, `expect` and `population`, is for the commands: in Python the verdict is at
    hand, and a population is an argument of `check`.
    """
    return load_spec(path, allow_code=allow_code, overrides=overrides, text=text).problem


def load_spec(
    path: str | Path,
    *,
    allow_code: bool = False,
    overrides: Mapping[str, str] | Sequence[str] = (),
    text: str | bytes | None = None,
    writes: Sequence[str] = (),
    stored: Stored | None = None,
) -> LoadedProblem:
    """The problem of a spec, its features evaluated once and kept where they fit into memory.

    Args:
        path: the spec; "-" is standard input.  Paths in the spec are relative to its folder, for standard
            input to the current one.
        allow_code: run the Python files that the spec names.
        overrides: settings {KEY: VALUE}, or "KEY=VALUE": dotted keys, values in YAML.
        text: what the spec says, in place of reading `path`.
        writes: files that the caller is going to write; none may be one that the spec reads.
        stored: for a verifier: the features are these, and nothing is evaluated.

    Raises:
        RequestError: every fault that was found, in the order of the file, then of the overrides; a file that
            is not there comes first.
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
    folder = Path() if str(path) == STDIN else Path(path).parent
    reads = tuple(map(str, files_of(document.value, folder)))
    reads = reads if str(path) == STDIN else (str(path), *reads)
    require_apart(writes, reads)
    parts, faults = validate(document.value)
    faults += missing_files(document.value, folder, set(parts))
    if "data" not in parts and isinstance(document.value, dict):
        labels = words_fault(document.value.get("data"))
        faults += [] if labels is None else Refused([labels]).below("data").faults
    network = parts.get("network")
    given = None if network is None else isinstance(network, network_models.GivenNetwork)
    loss = parts.get("loss")
    weighted = None if loss is None else isinstance(loss, loss_models.WeightedLoss)
    stem = "stdin" if str(path) == STDIN else Path(path).stem
    problem, more = _build(parts, Context(folder, allow_code, given, weighted, stored), stem)
    population = parts.get("population")
    if problem is not None and population is not None and population.bounds.y is None:
        more = [*more, *_without_bound(problem)]
    diagnostics = _diagnostics(document, [*faults, *more])
    if diagnostics:
        raise RequestError(diagnostics)
    if problem is None:
        raise InternalError("expected a problem from a spec without faults, got none")
    at = document.diagnostic(_located(Fault(("point", "W"), "", "domain"), document.value))
    expect = parts.get("expect")
    return LoadedProblem(
        problem=problem,
        path=shown,
        sha256=hashlib.sha256(data).hexdigest(),
        point_at=(at.file, at.line, at.column),
        expect=None if expect is None else tuple(map(Verdict, expect)),
        population=None if population is None else Support(population.confidence, **dict(population.bounds)),
        overrides=tuple(settings),
        reads=reads,
        fixed=tuple(map(str, fixed_files_of(document.value))),
    )


def _without_bound(problem: Problem) -> Iterator[Fault]:
    """What is wrong where a population has no bound of |y|."""
    if not (isinstance(problem.loss, BuiltinLoss) and problem.loss.formulas.labels):
        message = "expected y, a bound of |y|, got none; only class labels need none"
        yield Fault(("population", "bounds"), message, "missing-key", at_key=True)


def _content(path: str | Path, shown: str) -> bytes:
    try:
        if str(path) == STDIN:
            if sys.stdin is None:
                raise OSError("standard input is closed")
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no path can have, a closed stream
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        fault = f"cannot read the spec: {reason}"
        raise RequestError([Diagnostic(fault, shown, 1, 1, "spec-unreadable")]) from None
    if len(data) > MAX_BYTES:
        most = (
            f"expected a spec of at most {MAX_BYTES // 2**20} MiB, got more: large arrays go into .npz files"
        )
        raise RequestError([Diagnostic(most, shown, 1, 1, "spec-size")])
    return data


def _build(parts: dict[str, Any], context: Context, stem: str) -> tuple[Problem | None, Faults]:
    """The problem, if all its parts are there and fit; the faults of those that are there."""
    faults = Faults()
    samples = loss = features = point = data = None
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
    if samples is not None:
        omega = samples.omega if context.weighted else None
        data = Distribution(samples.x, samples.y, samples.probabilities, samples.bypass, omega)
    # The loss changes the targets; code of the user's is tried without any too.
    if "loss" in parts and ((data and point) or isinstance(parts["loss"], loss_models.PythonLoss)):
        q = 1 if point is None else len(point.W)
        with faults.under("loss"):
            data, loss = load_loss(parts["loss"], context, data, q)
    if "network" in parts:
        with faults.under("network"):
            features = load_features(parts["network"], context, samples)
    if samples is not None and features is None:  # a network without a sound x is no network
        faults.extend(map(_of_problem, input_faults(samples.x)))
    if samples is None or data is None or loss is None or features is None or point is None:
        return None, faults
    if context.weighted and samples.omega is None:
        return None, faults
    problem = Problem(
        distribution=data,
        loss=loss,
        features=features,
        point=point,
        epsilon=float(parts.get("epsilon", 0.0)),
        objective=_objective(parts.get("regularizer"), parts.get("constraint")),
        domain=Domain(**_numbers(parts.get("domain"))),
        lipschitz=Lipschitz(**_numbers(parts.get("lipschitz"))),
        hessian=cast(Method, parts.get("hessian", "auto")),
        name=printable(parts.get("name") or stem),
    )
    try:
        return _checked(problem, parts["network"], context, samples, faults), faults
    except UnreadRows as error:
        faults.extend(Fault(("data", "shards"), one.message, one.id) for one in error.diagnostics)
        return None, faults


def _numbers(section: models.Domain | models.Lipschitz | None) -> dict[str, float | None]:
    return {key: None if value == "auto" else float(value) for key, value in section or ()}


def _objective(regularizer: Any, constraint: models.Constraint | None) -> Objective:
    norm = None if constraint is None else float(constraint.norm)
    if regularizer is None:
        return Objective(norm=norm)
    halved = isinstance(regularizer, models.WeightDecay)
    l2 = float(regularizer.weight_decay) / 2.0 if halved else float(regularizer.l2)
    return Objective(l2, norm, regularizer.bias)


def _checked(problem: Problem, network: Any, context: Context, samples: Samples, faults: Faults) -> Problem:
    """The problem with its features evaluated, if they can be; what is wrong with it joins the faults."""
    unfit = shape_faults(problem)
    evaluated = None
    if not unfit:
        with faults.under("network"):
            evaluated = _evaluated(problem, network, context)
    known = evaluated or problem
    if evaluated is not None and samples.compare:
        with faults.under("data"):
            known = replace(evaluated, comparators=load_comparators(samples, evaluated.features))
            unfit = shape_faults(known)
    for fault in [*unfit, *([] if unfit else value_faults(known, evaluate=evaluated is not None))]:
        of_network = fault.path[:2] == ("data", "f") and not context.given
        told = _of_problem(fault._replace(path=("network",)) if of_network else fault)
        if told.id == "target" and samples.column is not None:
            row, _, wrong = told.message.partition(": ")
            told = told._replace(message=f"{row}, column {describe(samples.column)}: {wrong}")
        faults.append(told)
    return known


def _of_problem(fault: ProblemFault) -> Fault:
    return Fault(fault.path, fault.message, fault.id)


def _evaluated(problem: Problem, network: Any, context: Context) -> Problem:
    if context.stored is not None:
        return replace(problem, features=GivenFeatures(context.stored.f, problem.features))
    if not isinstance(network, network_models.PythonNetwork):
        return problem.with_features_held()
    with below("python"), running(context.folder, network.python):
        _require_rowwise(problem, network.python)
        return problem.with_features_held()


def _require_rowwise(problem: Problem, reference: str) -> None:
    """f_θ is a function of x: other rows of a batch, and those that fill it up, must not matter."""
    chunk = next(problem.chunks())
    m = len(chunk.x)
    half = m // 2
    own = chunk.x[:, : problem.d1]
    x = np.concatenate([own[:half], 0.5 * own[half:] + 0.25])
    f = problem.features.rows(slice(0, m), x, problem.chunk_rows)
    if not np.allclose(f[:half], chunk.f[:half], rtol=SAME_ROW, atol=0.0, equal_nan=True):
        wanted = f"expected {reference} to map row by row, got features that change with the other rows"
        raise Refused(wanted, "code-result")


def _diagnostics(document: Document, faults: Sequence[Fault]) -> list[Diagnostic]:
    """All faults with their places, in order; at one place what the text itself has wrong comes alone."""
    taken = {(fault.file, fault.line, fault.column) for fault in document.faults}
    placed = (document.diagnostic(_located(fault, document.value)) for fault in faults)
    found = [*document.faults, *(d for d in placed if (d.file, d.line, d.column) not in taken)]
    files = [document.source.file, *(override.source.file for override in document.overrides)]

    def order(diagnostic: Diagnostic) -> tuple[bool, int, int, int]:
        rank = files.index(diagnostic.file) if diagnostic.file in files else len(files)
        return diagnostic.id != "file-missing", rank, diagnostic.line or 0, diagnostic.column or 0

    return sorted(dict.fromkeys(found), key=order)


def _located(fault: Fault, tree: Any) -> Fault:
    """The fault at a place that the spec has: an array that the data do not name stands at their file."""
    path: list[str | int] = []
    for part in fault.path:
        instead = [key for key in ("sample", "file", "shards") if holds(tree, key)]
        part = "W" if part == "w" and path == ["point"] and holds(tree, "W") else part
        if isinstance(tree, dict) and not holds(tree, part) and instead:
            path.append(instead[0])
            tree = tree[instead[0]]
        if not holds(tree, part):
            break
        path.append(part)
        tree = tree[part]
    return fault._replace(path=tuple(path))
