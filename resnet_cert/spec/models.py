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
    ArrayFile,
    ArrayName,
    AutoNonNegative,
    AutoPositive,
    Convex,
    Count,
    Flag,
    Function,
    Head,
    Matrix,
    NonNegative,
    Numbers,
    OneOf,
    Positive,
    Probability,
    Seed,
    Share,
    Text,
    Vector,
    Verdicts,
    Version,
)


def _losses() -> Iterable[str]:
    """All losses but those with further keys, which have forms of their own."""
    from resnet_cert.problem.losses import LOSSES, weighted_losses
    from resnet_cert.problem.targets import FRAMEWORK_NAMES

    weighted = weighted_losses()
    return [*(kind for kind in LOSSES if kind not in weighted), *FRAMEWORK_NAMES]


def _kinds() -> Iterable[str]:
    return [*_losses(), *_weighted_losses()]


def _plain_losses() -> Iterable[str]:
    return [kind for kind in _losses() if kind != "cross_entropy"]


def _weighted_losses() -> Iterable[str]:
    from resnet_cert.problem.losses import weighted_losses

    return weighted_losses()


def _activations() -> Iterable[str]:
    from resnet_cert.problem.networks import ACTIVATIONS

    return ACTIVATIONS


# loss

_MSE = "'mse' (without ½), or 'squared' (with it)"
_CROSS_ENTROPY = "'cross_entropy' (softmax of the outputs, and class labels or probabilities)"
_BCE = "'bce_with_logits' (targets in [0, 1]), or 'logistic' (labels −1 and 1); the outputs are logits"
_HUBER = "'pseudo_huber' (√(1+(p−y)²)−1, which is twice differentiable)"
LOSS_WORDS = {
    **dict.fromkeys(("mse", "meansquarederror", "l2", "leastsquares", "rmse", "quadratic", "ols"), _MSE),
    **dict.fromkeys(
        (
            "ce", "xent", "crossentropy", "nll", "negativeloglikelihood", "categoricalcrossentropy",
            "sparsecategoricalcrossentropy", "softmaxcrossentropy", "logsoftmax", "multinomial",
        ),
        _CROSS_ENTROPY,
    ),
    **dict.fromkeys(
        ("bce", "binarycrossentropy", "logloss", "log", "sigmoid", "bcewithlogits", "binary"), _BCE
    ),
    **dict.fromkeys(("huber", "smoothl1", "l1", "mae", "logcosh", "meanabsoluteerror"), _HUBER),
    **dict.fromkeys(("hinge", "svm"), "'logistic' (a hinge has a kink)"),
    "poissonnll": "'poisson' (the output is the logarithm of the rate)",
}  # fmt: skip
"""The field's own words, without what joins them."""


class NamedLoss(Section):
    """A built-in loss by name, times a positive factor."""

    form = "a built-in loss"
    kind: Annotated[str, OneOf("loss", _kinds, UNKNOWN_KIND, _plain_losses, LOSS_WORDS)]
    scale: Positive = Field(default=1.0, description="A positive factor")


class CrossEntropyLoss(Section):
    """Cross-entropy as frameworks have it, with smoothed labels and weighted classes."""

    form = "a cross-entropy"
    kind: Annotated[str, OneOf("loss", _kinds, UNKNOWN_KIND, lambda: ["cross_entropy"])]
    scale: Positive = Field(default=1.0, description="A positive factor")
    label_smoothing: Share = Field(default=0.0, description="s of the targets (1−s)·onehot + s/q")
    class_weights: Vector | None = Field(
        default=None, description="q positive weights: the loss is the weighted mean over the samples"
    )


class WeightedLoss(Section):
    """½Σ_i ω_i(p_i − y_i)², of several outputs, times a positive factor."""

    form = "a weighted loss"
    kind: Annotated[str, OneOf("loss", _kinds, UNKNOWN_KIND, _weighted_losses)]
    weights: Annotated[str, OneOf("array of weights", lambda: ("omega",))] = Field(
        description="The array of the weights in the data: omega"
    )
    scale: Positive = Field(default=1.0, description="A positive factor")


class PythonLoss(Section):
    """A loss of one's own, in Python (needs --allow-code)."""

    form = "a loss in Python"
    python: Function = Field(description="FILE.py:FUNCTION, a function of (p, y) that JAX can trace")
    convex: Convex = Field(
        default="auto", description="auto: proven on the range that is used; true: the user's claim"
    )


LOSS_NAME = "a loss by its name"

LossName = Annotated[
    str,
    OneOf("loss", _losses, words=LOSS_WORDS),
    Field(
        description="squared: ½‖p−y‖²; logistic: log(1+exp(−yp)), y = ±1, and with several outputs "
        "Σ log(1+exp(p_i)) − y_i p_i, 0 ≤ y_i ≤ 1; pseudo_huber: Σ √(1+(p_i−y_i)²)−1; poisson: "
        "Σ exp(p_i) − y_i p_i; softmax, cross_entropy: the cross-entropy of class labels or probabilities; "
        "mse: the mean of (p_i−y_i)² over the outputs; bce_with_logits: that of log(1+exp(p_i)) − y_i p_i"
    ),
]


def _loss_form(value: Any) -> str | None:
    if isinstance(value, str):
        return WeightedLoss.form if value in _weighted_losses() else LOSS_NAME
    if not isinstance(value, dict):
        return None
    kind = value.get("kind")
    if kind == "cross_entropy":
        return CrossEntropyLoss.form
    keys = meant(value, NamedLoss, WeightedLoss, PythonLoss)
    if "python" in keys:
        return PythonLoss.form
    if "weights" in keys or (isinstance(kind, str) and kind in _weighted_losses()):
        return WeightedLoss.form
    return NamedLoss.form


Loss = Annotated[
    Annotated[LossName, Tag(LOSS_NAME)]
    | Annotated[NamedLoss, Tag(NamedLoss.form)]
    | Annotated[CrossEntropyLoss, Tag(CrossEntropyLoss.form)]
    | Annotated[WeightedLoss, Tag(WeightedLoss.form)]
    | Annotated[PythonLoss, Tag(PythonLoss.form)],
    chosen_by(_loss_form, "the name of a loss, {kind: ...} or {python: ...}"),
]


# network


NETWORK_WORDS = {
    **dict.fromkeys(("precomputed", "features", "array", "external", "f"), "'given' (f is in the data)"),
    **dict.fromkeys(("dense", "fc", "feedforward", "sequential", "nn", "neuralnetwork"), "'mlp'"),
    **dict.fromkeys(("none", "id", "skip"), "'identity'"),
    "affine": "'linear'",
}


def _kind(only: str) -> OneOf:
    return OneOf("network", lambda: NETWORK_KINDS, UNKNOWN_KIND, lambda: [only], NETWORK_WORDS)


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


ACTIVATION_WORDS = {
    "swish": "'silu'",
    **dict.fromkeys(("gelunew", "geluapproximate", "gelufast", "gelupytorchtanh"), "'gelu_tanh'"),
    "geluexact": "'gelu'",
    **dict.fromkeys(("lrelu", "leaky", "prelu", "rrelu"), "'leaky_relu' (slope 0.01 for x < 0)"),
    **dict.fromkeys(("logistic", "sigm"), "'sigmoid'"),
    **dict.fromkeys(("identity", "linear", "none"), "network: {kind: linear}"),
}

Activation = Annotated[
    str,
    OneOf("activation", _activations, words=ACTIVATION_WORDS),
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
    """A multilayer perceptron with its weights in a .npz or .safetensors file."""

    form = "an mlp from a file"
    kind: Annotated[str, _kind("mlp")]
    activation: Activation
    file: ArrayFile = Field(description="A .npz or .safetensors file, relative to the folder of the spec")
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
    W: Matrix = Field(description="q rows of d numbers (with bypass inputs of d + d2)")
    V: Matrix = Field(description="d rows of k numbers")
    c: Numbers | None = Field(default=None, description="The head's bias, q numbers; none by default")


class InlinePoint(Section):
    """The point (w, V) in the spec."""

    form = "a point in the spec"
    w: Head = Field(description="d numbers (with bypass inputs d + d2), or one row of them")
    V: Matrix = Field(description="d rows of k numbers")
    c: Numbers | None = Field(default=None, description="The head's bias, one number; none by default")


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

    x: Positive = Field(description="‖x‖ is at most this")
    f: Positive = Field(description="‖f‖ is at most this")
    y: Positive = Field(description="|y| is at most this")


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
