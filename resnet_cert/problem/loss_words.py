"""The losses that are meant by the words of other libraries: hints in messages, no other names."""

from __future__ import annotations

import re

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
            "kldiv", "kullbackleibler",
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


def meant_loss(word: str) -> str | None:
    """The loss that a word stands for elsewhere: nn.MSELoss, binary-cross-entropy, smooth_l1."""
    return LOSS_WORDS.get(re.sub(r"[\s_-]|loss$|withlogitsloss$", "", word.lower().rpartition(".")[2]))
