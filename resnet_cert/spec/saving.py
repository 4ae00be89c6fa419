"""A problem in memory as a file of arrays and a spec beside it, which `check` takes as they are."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from resnet_cert.outcomes import RequestError
from resnet_cert.problem.files import require_apart, write_whole
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import UNNAMED
from resnet_cert.problem.shards import ShardedRows
from resnet_cert.problem.targets import FRAMEWORK_NAMES

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Problem

ENDINGS = (".npz", ".safetensors")


def save(problem: Problem, path: str | Path) -> Path:
    """Write the arrays to `path` and a spec beside it, and return the path of the spec.

    Raises:
        RequestError: the name ends in neither .npz nor .safetensors, or is that of a shard that the problem
            is read from; a custom loss, which no spec can name without its file; or a missing package.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise RequestError(
            f"expected a file name that ends in {' or '.join(ENDINGS)}, got {path.name!r}", id="output-name"
        )
    spec = path.with_suffix(".yaml")
    x = problem.distribution.x
    shards = [str(shard.state.path) for _, shard in x.parts] if isinstance(x, ShardedRows) else []
    require_apart([str(path), str(spec)], shards)
    text = _spec(problem, path.name)
    write_whole(str(path), _packed(_arrays(problem), path.suffix))
    write_whole(str(spec), text.encode())
    return spec


def _arrays(problem: Problem) -> dict[str, npt.NDArray[Any]]:
    """Every array of the problem by its name in the spec."""
    data, point = problem.distribution, problem.point
    f = np.concatenate([chunk.f for chunk in problem.chunks()])
    named = {"x": data.x, "y": data.y, "probabilities": data.probabilities, "omega": data.omega}
    named |= {"bypass": data.bypass, **{_compared(name): rows for name, rows in problem.comparators.items()}}
    arrays = {name: np.asarray(rows[slice(None)]) for name, rows in named.items() if rows is not None}
    arrays |= {"f": f, "W": point.W, "V": point.V}
    if point.c is not None:
        arrays["c"] = point.c
    return arrays


def _compared(name: str) -> str:
    return f"compare.{name}"


def _packed(arrays: dict[str, npt.NDArray[Any]], ending: str) -> bytes:
    if ending == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()
    try:
        from safetensors.numpy import save as packed
    except ImportError:
        raise RequestError(
            "a .safetensors file needs safetensors: pip install 'resnet-cert[safetensors]'",
            id="needs-package",
        ) from None
    return packed({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _spec(problem: Problem, file: str) -> str:
    """The spec, one part a line."""
    data: dict[str, Any] = {"file": file}
    if problem.distribution.bypass is not None:
        data["bypass"] = "bypass"
    if problem.distribution.probabilities is not None:
        data["probabilities"] = "probabilities"
    if problem.comparators:
        data["compare"] = {name: _compared(name) for name in problem.comparators}
    parts: dict[str, Any] = {
        "version": 1,
        **({} if problem.name == UNNAMED else {"name": problem.name}),
        "data": data,
        "loss": _loss(problem.loss),
        "network": {"kind": "given"},
        "point": {"file": file},
        "epsilon": problem.epsilon,
    }
    objective = problem.objective
    if objective.l2:
        parts["regularizer"] = {"l2": objective.l2, **({} if objective.decays_bias else {"bias": False})}
    if objective.norm is not None:
        parts["constraint"] = {"norm": objective.norm}
    for part, values in (("domain", problem.domain), ("lipschitz", problem.lipschitz)):
        given = {name: value for name, value in vars(values).items() if value is not None}
        if given:
            parts[part] = given
    if problem.hessian != "auto":
        parts["hessian"] = problem.hessian
    return "".join(f"{key}: {_flow(value)}\n" for key, value in parts.items())


def _loss(loss: Any) -> str | dict[str, Any]:
    if not isinstance(loss, BuiltinLoss):
        raise RequestError(
            "expected a built-in loss to write into a spec, got a custom one: "
            "name its file there, loss: {python: FILE.py:FUNCTION}"
        )
    if loss.called in FRAMEWORK_NAMES:
        return loss.called
    weights = {"weights": "omega"} if loss.formulas.weighted else {}
    if loss.scale == 1.0 and not weights:
        return loss.kind
    return {"kind": loss.kind, **({} if loss.scale == 1.0 else {"scale": loss.scale}), **weights}


def _flow(value: Any) -> str:
    """As YAML 1.2 in flow style, of which JSON is a part; a number keeps its bits."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"expected a finite number to write into a spec, got {value!r}")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
