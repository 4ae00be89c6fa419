"""The spec as pydantic models: what may stand where, in every form that the parts of a spec have.

The messages, the defaults and the JSON Schema all come from here.  A part with several forms is a union whose
form is chosen by the keys that are there, so that a fault is told in terms of the form that was meant; a
new form is one model and one line in the function that chooses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Tag
from pydantic.json_schema import GenerateJsonSchema

from resnet_cert.spec.data_models import Data
from resnet_cert.spec.section import Section, chosen_by, meant
from resnet_cert.spec.values import (
    UNKNOWN_KIND,
    ArrayName,
    AutoNonNegative,
    AutoPositive,
    Count,
    Function,
    Matrix,
    NonNegative,
    NpzFile,
    OneOf,
    Positive,
    Seed,
    Text,
    Vector,
    Version,
)


def _losses() -> Iterable[str]:
    """The losses of one output and of several, except those with weights, which have a form of their own."""
    from resnet_cert.problem.losses import LOSSES
    from resnet_cert.vector.losses import LOSSES as VECTOR_LOSSES

    return dict.fromkeys([*LOSSES, *(kind for kind, loss in VECTOR_LOSSES.items() if not loss.weighted)])


def _weighted_losses() -> Iterable[str]:
    from resnet_cert.vector.losses import LOSSES

    return [kind for kind, loss in LOSSES.items() if loss.weighted]


def _activations() -> Iterable[str]:
    from resnet_cert.problem.networks import ACTIVATIONS

    return ACTIVATIONS


# loss


class NamedLoss(Section):
    """A built-in loss times a positive factor."""

    form = "a built-in loss"
    kind: Annotated[str, OneOf("loss", _losses, UNKNOWN_KIND)]
    scale: Positive = Field(default=1.0, description="A positive factor")


class WeightedLoss(Section):
    """½Σ_i ω_i(p_i − y_i)², of several outputs, times a positive factor."""

    form = "a weighted loss"
    kind: Annotated[str, OneOf("loss", _weighted_losses, UNKNOWN_KIND)]
    weights: Annotated[str, OneOf("array of weights", lambda: ("omega",))] = Field(
        description="The array of the weights in the data: omega"
    )
    scale: Positive = Field(default=1.0, description="A positive factor")


class PythonLoss(Section):
    """A loss of one's own, in Python (needs --allow-code)."""

    form = "a loss in Python"
    python: Function = Field(description="FILE.py:FUNCTION, a function of (p, y) that JAX can trace")


LOSS_NAME = "a loss by its name"

LossName = Annotated[
    str,
    OneOf("loss", _losses),
    Field(
        description="squared: ½(p−y)²; logistic: log(1+exp(−yp)), y = ±1; pseudo_huber: √(1+(p−y)²)−1; "
        "poisson: exp(p) − yp; with several outputs squared: ½‖p−y‖²; logistic: Σ log(1+exp(p_i)) − y_i p_i, "
        "0 ≤ y_i ≤ 1; softmax: the cross-entropy of class labels or probabilities"
    ),
]


def _loss_form(value: Any) -> str | None:
    if isinstance(value, str):
        return WeightedLoss.form if value in _weighted_losses() else LOSS_NAME
    if not isinstance(value, dict):
        return None
    keys = meant(value, NamedLoss, WeightedLoss, PythonLoss)
    if "python" in keys:
        return PythonLoss.form
    kind = value.get("kind")
    weighted = "weights" in keys or (isinstance(kind, str) and kind in _weighted_losses())
    return WeightedLoss.form if weighted else NamedLoss.form


Loss = Annotated[
    Annotated[LossName, Tag(LOSS_NAME)]
    | Annotated[NamedLoss, Tag(NamedLoss.form)]
    | Annotated[WeightedLoss, Tag(WeightedLoss.form)]
    | Annotated[PythonLoss, Tag(PythonLoss.form)],
    chosen_by(_loss_form, "the name of a loss, {kind: ...} or {python: ...}"),
]


# network


def _kind(only: str) -> OneOf:
    return OneOf("network", lambda: NETWORK_KINDS, UNKNOWN_KIND, only)


class LinearNetwork(Section):
    """f(x) = weight·x + bias."""

    form = "a linear network"
    kind: Annotated[str, _kind("linear")]
    weight: Matrix = Field(description="k rows of d numbers, as in PyTorch")
    bias: Vector | None = Field(default=None, description="k numbers; 0 by default")


class IdentityNetwork(Section):
    """f(x) = x."""

    form = "an identity network"
    kind: Annotated[str, _kind("identity")]


class GivenNetwork(Section):
    """The features come with the data: the array f beside x and y."""

    form = "a given network"
    kind: Annotated[str, _kind("given")]


Activation = Annotated[
    str,
    OneOf("activation", _activations),
    Field(description="Applied between the layers, not after the last one"),
]


class Layer(Section):
    """weight·x + bias."""

    weight: Matrix = Field(description="One row for each output, as in PyTorch")
    bias: Vector | None = Field(default=None, description="0 by default")


class LayerNames(Section):
    """A layer by the names of its arrays."""

    weight: ArrayName = Field(description="The array of the weights, one row for each output")
    bias: ArrayName | None = Field(default=None, description="The array of the biases; 0 by default")


class MlpNetwork(Section):
    """A multilayer perceptron with its weights in the spec."""

    form = "an mlp with its layers in the spec"
    kind: Annotated[str, _kind("mlp")]
    activation: Activation
    layers: list[Layer] = Field(min_length=1, description="The layers in order; k is the rows of the last")


class MlpFileNetwork(Section):
    """A multilayer perceptron with its weights in a .npz file."""

    form = "an mlp from a file"
    kind: Annotated[str, _kind("mlp")]
    activation: Activation
    file: NpzFile = Field(description="A .npz file, relative to the folder of the spec")
    layers: list[LayerNames] = Field(
        min_length=1, description="The layers in order; k is the rows of the last"
    )


class DrawnMlpNetwork(Section):
    """A multilayer perceptron with weights drawn by NumPy's PCG64, normal of variance 1/fan_in; biases 0."""

    form = "an mlp with drawn weights"
    kind: Annotated[str, _kind("mlp")]
    activation: Activation
    widths: list[Count] = Field(min_length=1, description="Outputs of each layer; k is the last one")
    seed: Seed = Field(default=0, description="Seed of the generator: the same seed draws the same weights")


class PythonNetwork(Section):
    """A network of one's own, in Python (needs --allow-code)."""

    form = "a network in Python"
    python: Function = Field(
        description="FILE.py:FUNCTION, a function of x (n, d) with values (n, k) that JAX can trace"
    )


_FORMS_OF_KIND = {
    "linear": LinearNetwork,
    "identity": IdentityNetwork,
    "given": GivenNetwork,
    "mlp": MlpNetwork,
}
_MLP_FORMS = {"widths": DrawnMlpNetwork, "file": MlpFileNetwork, "layers": MlpNetwork}
NETWORK_KINDS = tuple(_FORMS_OF_KIND)


def _network_form(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    keys = meant(value, *_FORMS_OF_KIND.values(), *_MLP_FORMS.values(), PythonNetwork)
    if "python" in keys:
        return PythonNetwork.form
    kind = value.get("kind")
    # Without a kind that is known any form will do: its `kind` is the one fault that is reported.
    form = _FORMS_OF_KIND.get(kind, LinearNetwork) if isinstance(kind, str) else LinearNetwork
    if form is MlpNetwork:
        form = next((_MLP_FORMS[key] for key in _MLP_FORMS if key in keys), MlpNetwork)
    return form.form


Network = Annotated[
    Annotated[LinearNetwork, Tag(LinearNetwork.form)]
    | Annotated[IdentityNetwork, Tag(IdentityNetwork.form)]
    | Annotated[GivenNetwork, Tag(GivenNetwork.form)]
    | Annotated[MlpNetwork, Tag(MlpNetwork.form)]
    | Annotated[MlpFileNetwork, Tag(MlpFileNetwork.form)]
    | Annotated[DrawnMlpNetwork, Tag(DrawnMlpNetwork.form)]
    | Annotated[PythonNetwork, Tag(PythonNetwork.form)],
    chosen_by(_network_form, "a mapping with kind or with python"),
]


# point, domain, Lipschitz constants


class InlineMatrices(Section):
    """The point (W, V) of several outputs in the spec."""

    form = "a point of several outputs"
    W: Matrix = Field(description="q rows of d numbers")
    V: Matrix = Field(description="d rows of k numbers")


class InlinePoint(Section):
    """The point (w, V) in the spec."""

    form = "a point in the spec"
    w: Vector = Field(description="d numbers")
    V: Matrix = Field(description="d rows of k numbers")


class FilePoint(Section):
    """The arrays w and V of a .npz file, or W and V for several outputs."""

    form = "a point from a file"
    file: NpzFile = Field(
        description="A .npz file with arrays w (d,), or W (q, d), and V (d, k), relative to the spec's folder"
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
    chosen_by(_point_form, "a mapping with w and V, or with file"),
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
    """The objective is F + l2·(‖w‖² + ‖V‖²), with the Frobenius norm of V."""

    l2: NonNegative = Field(description="Coefficient of ‖w‖² + ‖V‖²")


class Constraint(Section):
    """The point (w, V) is sought on a ball."""

    norm: Positive = Field(description="‖(w, V)‖ = √(‖w‖² + ‖V‖²) is at most this (Frobenius norm of V)")


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
    regularizer: Regularizer | None = Field(default=None, description="Added to F; nothing by default")
    constraint: Constraint | None = Field(default=None, description="On (w, V); none by default")


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
