"""The losses by the names that frameworks have for them, as losses of this project.

Each name stands for the number in a training log:

    mse               mean over samples and outputs of (p − y)², without ½: squared at scale 2/q
    bce_with_logits   mean over samples and outputs of log(1 + e^p) − yp, y ∈ [0, 1]: logistic at scale 1/q
    cross_entropy     softmax, of the smoothed targets t = (1 − s)·onehot + s/q and with class weights ω_c
                      Σ_i Σ_c ω_c t_ic·(−log softmax(p_i)_c) / Σ_i ω_{y_i}

The last is softmax of the targets ω_c t_ic/Y_i with the weights Y_i = Σ_c ω_c t_ic of the samples, times
ΣY_i/Σω_{y_i}, which is 1 without smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.loss_words import meant_loss
from resnet_cert.problem.losses import LOSSES, BuiltinLoss, named_loss

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss
    from resnet_cert.problem.problem import Distribution

FRAMEWORK_NAMES = ("mse", "cross_entropy", "bce_with_logits")


def with_loss(data: Distribution, loss: str | Mapping[str, Any] | Loss, q: int) -> tuple[Distribution, Loss]:
    """The data and the loss that a name, or a mapping as in a spec, stands for.

    Raises:
        RequestError: there is no such loss, or it has no such entry.
    """
    if not isinstance(loss, (str, Mapping)):
        if not (isinstance(loss, BuiltinLoss) or hasattr(loss, "target_fault")):
            wanted = "a loss by its name, or a mapping as in a spec"
            raise RequestError(f"loss: expected {wanted}, got {type(loss).__name__}", id="wrong-value")
        return data, loss
    given: dict[str, Any] = {"kind": loss} if isinstance(loss, str) else dict(loss)
    kind, scale = str(given.pop("kind", "")), float(given.pop("scale", 1.0))
    smoothing = float(given.pop("label_smoothing", 0.0))
    weights = given.pop("class_weights", None)
    given.pop("weights", None)
    if given:
        raise RequestError(f"loss: unknown {', '.join(map(repr, given))} of {kind}", id="unknown-name")
    if (smoothing or weights is not None) and kind != "cross_entropy":
        raise RequestError(
            f"loss: label_smoothing and class_weights are those of cross_entropy, not of {kind}",
            id="wrong-value",
        )
    if kind == "cross_entropy":
        return cross_entropy(data, q, scale, smoothing, weights)
    return data, framework_loss(kind, scale, q)


def framework_loss(kind: str, scale: float, q: int) -> BuiltinLoss:
    """A loss by its name here or in a framework, times a positive factor."""
    if kind == "mse":
        return replace(named_loss("squared", scale * 2.0 / q), called=_called(kind, scale))
    if kind == "bce_with_logits":
        return replace(named_loss("logistic", scale / q), called=_called(kind, scale), signed=False)
    if kind not in LOSSES:
        meant = meant_loss(kind)
        known = ", ".join([*LOSSES, *FRAMEWORK_NAMES])
        hint = f"did you mean {meant}?" if meant else f"expected one of {known}"
        raise RequestError(f"loss: unknown loss {kind!r}; {hint}", id="unknown-name")
    return named_loss(kind, scale)


def _called(kind: str, scale: float) -> str:
    return kind if scale == 1.0 else f"{scale:g}·{kind}"


def cross_entropy(
    data: Distribution, q: int, scale: float, smoothing: float, class_weights: Sequence[float] | None
) -> tuple[Distribution, BuiltinLoss]:
    """Softmax of smoothed targets, with weighted classes.

    Raises:
        RequestError: a smoothing outside [0, 1), or weights that are not q positive numbers.
    """
    loss = replace(named_loss("softmax", scale), called=_called("cross_entropy", scale))
    if not 0.0 <= smoothing < 1.0:
        raise RequestError(
            f"loss.label_smoothing: expected a number in [0, 1), got {smoothing!r}", id="wrong-value"
        )
    if not smoothing and class_weights is None:
        return data, loss
    y = np.asarray(data.y[slice(None)], dtype=np.float64)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    labelled = y.ndim == 1
    onehot = loss.targets(y, q)
    targets = (1.0 - smoothing) * onehot + smoothing / q if smoothing else onehot
    if class_weights is None:
        return replace(data, y=targets), loss
    weights = np.asarray(class_weights, dtype=np.float64)
    if weights.shape != (q,) or not (np.isfinite(weights) & (weights > 0.0)).all():
        raise RequestError(
            f"loss.class_weights: expected {q} finite numbers > 0, got {class_weights!r}", id="wrong-value"
        )
    weighted = targets * weights
    mass = weighted.sum(axis=1)
    pi: Array = np.full(len(y), 1.0 / len(y))
    if data.probabilities is not None:
        pi = np.asarray(data.probabilities[slice(None)], dtype=np.float64)
    shares = pi * mass
    # Frameworks divide by the weights of the labels; with targets that are no labels, by the samples.
    norm = float(pi @ weights[y.astype(np.intp)]) if labelled else float(np.sum(pi))
    factor = float(np.sum(shares)) / norm
    factor = 1.0 if labelled and not smoothing else factor
    data = replace(data, y=weighted / mass[:, None], probabilities=shares / np.sum(shares))
    return data, replace(loss, scale=scale * factor)
