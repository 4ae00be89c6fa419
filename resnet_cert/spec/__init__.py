"""Reading problem specs: YAML to `Problem`."""

from __future__ import annotations

from typing import Any

from resnet_cert.spec.build import LoadedProblem, load_problem, load_spec

__all__ = ["LoadedProblem", "load_problem", "load_spec", "spec_schema"]


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of the spec (draft 2020-12)."""
    from resnet_cert.spec.models import spec_schema as schema

    return schema()
