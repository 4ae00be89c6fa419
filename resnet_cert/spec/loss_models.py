"""The models of `loss`: built-in ones by name, those with further keys, and the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, Tag

from resnet_cert.problem.loss_words import LOSS_WORDS
from resnet_cert.spec.entries import Vector
from resnet_cert.spec.section import Section, chosen_by, meant
from resnet_cert.spec.values import (
    UNKNOWN_KIND,
    Convex,
    Function,
    OneOf,
    Positive,
    Share,
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
        default="auto",
        description="auto: proven on the range that is used, or for every p; true: your claim of every p",
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
