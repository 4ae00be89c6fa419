"""The models of `network`: the features f_θ, in all forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, Tag

from resnet_cert.spec.entries import Matrix, Vector
from resnet_cert.spec.section import Section, chosen_by, meant
from resnet_cert.spec.values import (
    UNKNOWN_KIND,
    ArrayFile,
    ArrayName,
    Count,
    Function,
    OneOf,
    Seed,
)


def _activations() -> Iterable[str]:
    from resnet_cert.problem.networks import ACTIVATIONS

    return ACTIVATIONS


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
