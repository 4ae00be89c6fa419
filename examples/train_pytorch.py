"""Train a residual network in PyTorch, capture its last block, check it, polish it, certify it.

python examples/train_pytorch.py digits DIRECTORY            # or breast-cancer; needs torch, scikit-learn
resnet-cert check DIRECTORY/digits-polished.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import finish

from resnet_cert import Problem

DECAY = 1e-2
WIDTH = 16


def network(torch: Any, d: int, q: int) -> Any:
    """x ↦ W(x + V f(x)) + c, f a small network."""
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(d, WIDTH), nn.ReLU())
            self.V = nn.Linear(WIDTH, d, bias=False)
            self.head = nn.Linear(d, q)

        def forward(self, x: Any) -> Any:
            return self.head(x + self.V(self.inner(x)))

    return Residual()


def trained(torch: Any, data: datasets.Dataset, epochs: int) -> Any:
    """The network after some epochs of Adam on cross-entropy with weight decay of V and the head."""
    torch.manual_seed(0)
    model = network(torch, data.x.shape[1], data.q)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            decayed = [model.V.weight, model.head.weight, model.head.bias]
            penalty = sum((p**2).sum() for p in decayed) * (DECAY / 2.0)
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows]) + penalty
            loss.backward()
            optimizer.step()
    return model


def captured(model: Any, data: datasets.Dataset) -> Problem:
    """The problem of the trained block and head."""
    from resnet_cert.capture.torch import capture

    return capture(
        model,
        (data.x, data.y),
        loss="cross_entropy",
        V="V",
        head="head",
        weight_decay=DECAY,
        epsilon=1e-8,
        name=data.name,
    )


def main(arguments: list[str], epochs: int = 60) -> None:
    if len(arguments) != 2:
        sys.exit("usage: python examples/train_pytorch.py digits|breast-cancer DIRECTORY")
    try:
        import torch
    except ImportError:
        sys.exit("this example trains with PyTorch, which is not installed: pip install torch")
    data = datasets.load(arguments[0])
    finish.finish(captured(trained(torch, data, epochs), data), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
