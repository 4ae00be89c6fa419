"""A plain tree against the models: what is sound in it, and every fault of the rest in the user's terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from resnet_cert.spec.faults import Fault, Path, describe, nearest, shortened, suggestion
from resnet_cert.spec.loss_models import LOSS_NAME
from resnet_cert.spec.models import Spec
from resnet_cert.spec.network_models import NETWORK_KINDS
from resnet_cert.spec.section import Section
from resnet_cert.spec.values import EXPECTED, SAID, UNKNOWN_KIND, OneOf

MOST_SUGGESTED = 100  # unknown keys for which the one that was meant is looked for


def _sections(base: type[Section]) -> Iterator[type[Section]]:
    for section in base.__subclasses__():
        yield section
        yield from _sections(section)


_FORMS = {section.form: section for section in _sections(Section) if section.form}


def validate(tree: Any) -> tuple[dict[str, Any], list[Fault]]:
    """The parts of the spec that are as they should be, by key, and every fault of the others."""
    try:
        return dict(Spec.model_validate(tree)), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    if not isinstance(tree, dict):
        return {}, _faults(errors)
    faulty = {error["loc"][0] for error in errors}
    sound = Spec.model_construct()
    for key in tree:
        if key in Spec.model_fields and key not in faulty:
            Spec.__pydantic_validator__.validate_assignment(sound, key, tree[key])
    return {key: value for key, value in sound if key not in faulty}, _faults(errors)


def _path(loc: Path) -> Path:
    """The path in the spec of an error's location, which also names the forms that were chosen."""
    return tuple(part for part in loc if part not in _FORMS and part != LOSS_NAME)


def _model(loc: Path) -> type[BaseModel]:
    """The model of the mapping at a location."""
    model: type[BaseModel] = Spec
    for part in loc:
        if part in _FORMS:
            model = _FORMS[str(part)]
        elif part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            model = next(filter(_is_section, (annotation, *get_args(annotation))), model)
    return model


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _faults(errors: list[Any]) -> list[Fault]:
    """The errors as faults, without those that only follow from another one."""
    undecided: set[Path] = set()  # mappings whose kind is not known: nothing else in them means anything
    meant: dict[Path, Path] = {}  # unknown keys, and the known ones beside them that they are nearest to
    for error in errors:
        path, kind = _path(error["loc"]), error["type"]
        if kind == UNKNOWN_KIND or (kind == "missing" and path[-1] == "kind"):
            undecided.add(path[:-1])
        if kind == "extra_forbidden" and len(meant) < MOST_SUGGESTED:
            near = nearest(str(path[-1]), _model(error["loc"][:-1]).model_fields)
            meant[path] = (*path[:-1], near or "")
    misspelt = set(meant.values())
    faults = []
    for error in errors:
        path = _path(error["loc"])
        about = meant.get(path, path)
        follows = any(path[:i] in undecided and about[i:] != ("kind",) for i in range(len(path)))
        if not follows and not (error["type"] == "missing" and path in misspelt):
            faults.append(_fault(error, path, with_hint=len(faults) < MOST_SUGGESTED))
    return faults


def _fault(error: Any, path: Path, *, with_hint: bool) -> Fault:
    kind, message = error["type"], error["msg"]
    if kind in (SAID, UNKNOWN_KIND):
        return Fault(path, message, error["ctx"]["id"])
    if kind in ("missing", "extra_forbidden"):
        model, key = _model(error["loc"][:-1]), str(path[-1])
        inside = model.form if issubclass(model, Section) and model.form else ".".join(map(str, path[:-1]))
        where = f" in {inside}" if inside else ""
        if kind == "extra_forbidden" and not with_hint:
            return Fault(path, f"unknown key {describe(key)}", "unknown-key", at_key=True)
        if kind == "extra_forbidden":
            hint = suggestion(key, model.model_fields)
            where = "" if nearest(key, model.model_fields) == "kind" else where  # no form is known then
            return Fault(path, f"unknown key {describe(key)}{where}{hint}", "unknown-key", at_key=True)
        choices = [entry for entry in model.model_fields[key].metadata if isinstance(entry, OneOf)]
        wanted = f"; expected one of {', '.join(choices[0].names())}" if choices else where
        return Fault(path[:-1], f"missing key {key!r}{wanted}", "missing-key", at_key=True)
    what = {
        EXPECTED: message,
        "list_type": "a list",
        "too_short": "at least one entry",
        "model_type": f"a mapping with {', '.join(_model(error['loc']).model_fields)}",
    }[kind]
    return Fault(
        path, f"expected {what}, got {describe(error['input'])}{_remedy(error, path)}", "wrong-value"
    )


def _remedy(error: Any, path: Path) -> str:
    """What to write in place of a word that stands for what was meant."""
    word = error["input"]
    if not isinstance(word, str):
        return ""
    if error["type"] == "list_type":
        return f": write [{shortened(word)}]"
    if path in (("data",), ("point",)) and word.lower().endswith((".npz", ".csv", ".safetensors")):
        return f": write {path[0]}: {{file: {shortened(word)}}}"
    if path == ("network",) and word in NETWORK_KINDS:
        return f": write network: {{kind: {word}, ...}}"
    return ""
