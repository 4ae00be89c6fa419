"""The spec as pydantic models: what may stand where, in every form that the parts of a spec have.

The messages, the defaults and the JSON Schema all come from here.  A part with several forms is a union whose
form is chosen by the keys that are there, so that a fault is told in terms of the form that was meant; a
new form is one model and one line in the function that chooses.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Tag
from pydantic.json_schema import GenerateJsonSchema

from resnet_cert.spec.data_models import Data
from resnet_cert.spec.entries import Head, Matrix, Numbers, Verdicts
from resnet_cert.spec.loss_models import Loss
from resnet_cert.spec.network_models import Network
from resnet_cert.spec.section import Section, chosen_by, meant
from resnet_cert.spec.values import (
    ArrayFile,
    ArrayName,
    AutoNonNegative,
    AutoPositive,
    Flag,
    NonNegative,
    OneOf,
    Positive,
    Probability,
    Text,
    Version,
)


class InlineMatrices(Section):
    """The point (W, V) of several outputs in the spec."""

    form = "a point of several outputs"
    W: Matrix = Field(description="q rows of d numbers (with bypass inputs of d + d2)")
    V: Matrix = Field(description="d rows of k numbers")
    c: Numbers | None = Field(default=None, description="The head's bias, q numbers; none by default")


class InlinePoint(Section):
    """The point (w, V) in the spec."""

    form = "a point in the spec"
    w: Head = Field(description="d numbers (with bypass inputs d + d2), or one row of them")
    V: Matrix = Field(description="d rows of k numbers")
    c: Numbers | None = Field(
        default=None,
        description="The head's bias, one number; none by default.  One inside the block is a feature "
        "that is constantly 1",
    )


class FilePoint(Section):
    """The arrays of a .npz or .safetensors file by their names: w or W, V, and c if there is one."""

    form = "a point from a file"
    file: ArrayFile = Field(description="A .npz or .safetensors file, relative to the folder of the spec")
    w: ArrayName | None = Field(default=None, description='The array (d,) or (1, d); "w" or "W" by default')
    W: ArrayName | None = Field(default=None, description='The array (q, d); "w" or "W" by default')
    V: ArrayName = Field(default="V", description="The array (d, k)")
    c: ArrayName | None = Field(
        default=None, description='The array (q,) of the head\'s bias; "c" if the file has it'
    )


def _point_form(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    if "file" in meant(value, InlinePoint, FilePoint):
        return FilePoint.form
    return InlineMatrices.form if "W" in value else InlinePoint.form


Point = Annotated[
    Annotated[InlinePoint, Tag(InlinePoint.form)]
    | Annotated[InlineMatrices, Tag(InlineMatrices.form)]
    | Annotated[FilePoint, Tag(FilePoint.form)],
    chosen_by(_point_form, "a mapping with w (or W) and V, or with file"),
]


class Domain(Section):
    """The domain ‖w‖ < b, ‖V‖ < b (spectral norm) and the ball ‖w*‖ ≤ r of linear predictors."""

    b: AutoPositive = Field(default="auto", description="auto: 1.01·max(‖w‖, ‖V‖), or 1 if both are 0")
    r: AutoNonNegative = Field(
        default="auto", description="auto: 1.01·‖argmin F_lin‖ if it is attained, else b"
    )


class Lipschitz(Section):
    """Lipschitz constants of F, ∇F and ∇²F in (w, V) on the domain; a number is taken as the user's claim."""

    mu0: AutoNonNegative = Field(default="auto", description="Of F; auto: a proven bound")
    mu1: AutoNonNegative = Field(default="auto", description="Of ∇F; auto: a proven bound")
    mu2: AutoNonNegative = Field(default="auto", description="Of ∇²F; auto: a proven bound")


class Regularizer(Section):
    """The objective is F + l2·(‖W‖² + ‖V‖²), with Frobenius norms."""

    form = "a regularizer"
    l2: NonNegative = Field(description="Coefficient of ‖W‖² + ‖V‖²")
    bias: Flag = Field(default=True, description="Is the head's bias c decayed too?")


class WeightDecay(Section):
    """The objective is F + (weight_decay/2)·(‖W‖² + ‖V‖²), as frameworks have it."""

    form = "a weight decay"
    weight_decay: NonNegative = Field(description="λ of (λ/2)(‖W‖² + ‖V‖²), so l2 = λ/2")
    bias: Flag = Field(default=True, description="Is the head's bias c decayed too?")


def _regularizer_form(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return WeightDecay.form if "weight_decay" in meant(value, Regularizer, WeightDecay) else Regularizer.form


AnyRegularizer = Annotated[
    Annotated[Regularizer, Tag(Regularizer.form)] | Annotated[WeightDecay, Tag(WeightDecay.form)],
    chosen_by(_regularizer_form, "a mapping with l2 or with weight_decay"),
]


class Bounds(Section):
    """Bounds that hold on the whole distribution."""

    x: Positive = Field(description="‖x‖, with bypass inputs ‖(x, bypass)‖, is at most this")
    f: Positive = Field(description="‖f‖ is at most this")
    y: Positive | None = Field(default=None, description="|y| is at most this; class labels need none")


class Population(Section):
    """The data are an independent hold-out sample of a distribution, of which something is then said."""

    confidence: Probability = Field(default=0.99, description="The statements hold with this probability")
    bounds: Bounds = Field(description="Of x, f and y on the whole distribution")


class Constraint(Section):
    """The point (w, V) is sought on a ball."""

    norm: Positive = Field(description="‖(w, V)‖ = √(‖w‖² + ‖V‖²) is at most this (Frobenius norm of V)")


METHODS = ("auto", "exact", "bound")


class Spec(BaseModel):
    """A point of a residual network, to be checked for ε-second-order partial stationarity."""

    model_config = ConfigDict(extra="forbid", title="resnet-cert problem spec")
    version: Version = Field(description="Version of this format")
    name: Text | None = Field(default=None, description="Name in reports; the file's stem by default")
    data: Data = Field(description="A finite distribution of (x, y)")
    loss: Loss = Field(description="ℓ(p; y), convex and twice differentiable in the prediction p")
    network: Network = Field(description="The features f_θ(x) ∈ R^k; θ is fixed")
    point: Point = Field(description="The point (w, V); predictions are wᵀ(x + V f_θ(x))")
    epsilon: NonNegative = Field(description="ε of the ε-second-order partial stationary point")
    domain: Domain = Domain()
    lipschitz: Lipschitz = Lipschitz()
    regularizer: AnyRegularizer | None = Field(default=None, description="Added to F; nothing by default")
    constraint: Constraint | None = Field(default=None, description="On (w, V); none by default")
    hessian: Annotated[str, OneOf("method", lambda: METHODS)] = Field(
        default="auto",
        description="exact: λ_min of the Hessian from S(t); bound: from a bound of its norm; auto: exact "
        "where that takes seconds",
    )
    expect: Verdicts | None = Field(default=None, description="The verdicts that this spec may get")
    population: Population | None = Field(
        default=None, description="The data are a sample of a distribution that is spoken of too"
    )


class _SchemaGenerator(GenerateJsonSchema):
    """Without what helps nobody in an editor: titles that repeat keys, null for what is left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        optional = "default" in schema and schema["default"] is None
        return self.generate_inner(schema["schema"]) if optional else super().default_schema(schema)


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of the spec (draft 2020-12), in one piece."""
    schema = Spec.model_json_schema(schema_generator=_SchemaGenerator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
