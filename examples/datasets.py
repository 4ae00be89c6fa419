"""The data of the training examples: scikit-learn's digits and breast cancer, which it ships."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Dataset:
    """x (n, d) in float32 and the class labels y (n,) of q classes."""

    name: str
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    q: int


def load(name: str) -> Dataset:
    """The data set "digits" (n = 1797, d = 64, q = 10) or "breast-cancer" (n = 569, d = 30, q = 2)."""
    try:
        from sklearn import datasets
    except ImportError:
        sys.exit("this example takes its data from scikit-learn: pip install 'resnet-cert[examples]'")
    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        x = x / 16.0
    elif name == "breast-cancer":
        x, y = datasets.load_breast_cancer(return_X_y=True)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    else:
        sys.exit(f"expected digits or breast-cancer, got {name!r}")
    return Dataset(name, x.astype(np.float32), y.astype(np.int64), int(y.max()) + 1)
