"""What the models of the spec have in common: a mapping with known keys, in one of several forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator

from resnet_cert.spec.faults import nearest
from resnet_cert.spec.values import EXPECTED


class Section(BaseModel):
    """A mapping of the spec."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        defer_build=True,  # the validator of the whole spec holds those of its sections
        model_title_generator=lambda model: _title(model),
    )
    form: ClassVar[str] = ""  # which form of its part this is, as messages name it


def _title(model: type) -> str:
    return getattr(model, "form", "") or model.__name__.lower()


def chosen_by(form: Callable[[Any], str | None], what: str) -> Discriminator:
    return Discriminator(form, custom_error_type=EXPECTED, custom_error_message=what)


def meant(value: Any, *forms: type[BaseModel]) -> set[str | None]:
    """The keys of a mapping; for one that no form of the part has, the nearest one that some form has."""
    known = {key for form in forms for key in form.model_fields}
    return {key if key in known else nearest(key, known) for key in value}
