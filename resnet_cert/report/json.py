"""Reports as one JSON document, whose floats read back to the same bits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style, run_code
from resnet_cert.results import BoundTable, Profile, Report, Sgd, Solved
from resnet_cert.theory.bound import binding_form

if TYPE_CHECKING:
    from resnet_cert.certificate.verification import Verification
    from resnet_cert.search.landscape import Landscape

OMITTED_IF_NONE = frozenset(
    {
        "applies",
        "augmented",
        "curve",
        "expect",
        "outputs",
        "reason",
        "regularized",
        "repeats",
        "target_gap",
        "target_eps",
    }
)
"""Fields that are there only where they say something; everything else that is not known is null."""


def check(reports: Sequence[Report], style: Style) -> str:
    """The document resnet-cert/check/1."""
    verdict = Verdict.all_of(report.verdict for report in reports)
    code = run_code(reports, style.fail_on)
    top = {"schema": "resnet-cert/check/1", "verdict": verdict, "exit_code": code}
    return _text({**top, "reports": tuple(reports)})


def bound(table: BoundTable, style: Style) -> str:
    """The document resnet-cert/bound/1."""
    return _text(bound_document(table))


def bound_document(table: BoundTable) -> dict[str, Any]:
    """Of each row also which of the two sharp forms is the bound; of head and block only what one plain
    output does not say.
    """
    members, constants = _members(table), _members(table.constants)
    usual: dict[str, Any] = {"bypass": False, "s": None, "l2": 0.0, "norm_V": None}
    if table.constants.q == 1:
        usual |= {"q": 1, "k": table.constants.k, "span": 1}
    members["constants"] = {k: v for k, v in constants.items() if k not in usual or v != usual[k]}
    for name in {"rows", "curve"} & members.keys():
        members[name] = [{**_members(row), "form": binding_form(row)} for row in members[name]]
    document = plain({"schema": "resnet-cert/bound/1", **members})
    if table.constants.l2:  # it is about G, in one form
        document |= {"F_lin_min": None, "G_lin_min": document["F_lin_min"]}
        for row in (*document["rows"], *document.get("curve", ())):
            row |= {"F_upper": None, "G_upper": row["F_upper"], "form": "decayed"}
    return document


def profile(profile: Profile, style: Style, picture: str | None) -> str:
    """The document resnet-cert/profile/1."""
    return _text(profile_document(profile))


def profile_document(profile: Profile) -> dict[str, Any]:
    """With every row."""
    return plain({"schema": "resnet-cert/profile/1", **_members(profile)})


def sgd(run: Sgd, style: Style) -> str:
    """The document resnet-cert/sgd/1."""
    return _text({"schema": "resnet-cert/sgd/1", **_members(run)})


def solve(solved: Solved, style: Style) -> str:
    """The document resnet-cert/solve/1; of the start only where it stood."""
    members = {name: item for name, item in _members(solved).items() if name != "start"}
    if solved.start is not None:
        start = solved.start
        members["before"] = {
            "F": start.objective.F,
            "gradient_norm": start.gradient.norm,
            "lambda_min": start.hessian.lambda_min,
            "gap": start.objective.gap,
        }
    return _text({"schema": "resnet-cert/solve/1", **members})


def landscape(found: Landscape, style: Style, picture: str | None) -> str:
    """The document resnet-cert/landscape/1."""
    return _text(found.to_dict())


def verify(verification: Verification, style: Style) -> str:
    """The document resnet-cert/verify/1."""
    return _text(verification.to_dict())


def _text(document: dict[str, Any]) -> str:
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Report data as JSON values: an Enclosure as its three numbers, a Verdict as its word, a float that is
    not finite as null.

    Raises:
        TypeError: for anything that is no report data.
    """
    if isinstance(value, Enclosure):
        return {"value": plain(value.value), "lower": plain(value.lower), "upper": plain(value.upper)}
    if isinstance(value, Verdict):
        return value.value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return plain(_members(value))
    raise TypeError(f"expected report data, got {type(value).__name__}")


def _members(value: Any) -> dict[str, Any]:
    published = (field for field in fields(value) if field.metadata.get("published", True))
    names = [field.name for field in published if not field.name.startswith("_")]
    members = {name: getattr(value, name) for name in names}
    return {name: item for name, item in members.items() if item is not None or name not in OMITTED_IF_NONE}
