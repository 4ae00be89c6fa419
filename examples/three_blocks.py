"""Is each block of a deep network better than every linear readout of what comes before it?

    python examples/three_blocks.py DIRECTORY                    # needs torch, scikit-learn
    resnet-cert check DIRECTORY/block*.yaml --format chain

Three residual blocks are trained on the digits; the last one is captured, and the best linear predictors on
the pixels and on the output of every earlier layer are compared with the network.  An earlier block is
captured with a head of its own, a probe that is trained on its output; the second line prints one table of
all.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import datasets

from resnet_cert import Problem, check

DECAY = 1e-2
WIDTH, FEATURES, BLOCKS = 24, 12, 3


def network(torch: Any, d: int, q: int) -> Any:
    """stem, block1, …, block3, head."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(WIDTH, FEATURES), nn.GELU())
            self.V = nn.Linear(FEATURES, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            return x + self.V(self.inner(x))

    blocks = [(f"block{number}", Block()) for number in range(1, BLOCKS + 1)]
    layers = [("stem", nn.Linear(d, WIDTH)), *blocks, ("head", nn.Linear(WIDTH, q))]
    return nn.Sequential(OrderedDict(layers))


def probe(torch: Any, model: Any, number: int) -> Any:
    """The layers up to a block, shared with the model, and a head of its own."""
    layers = [*model.named_children()][: number + 1]
    head = torch.nn.Linear(model.head.in_features, model.head.out_features)
    return torch.nn.Sequential(OrderedDict([*layers, ("head", head)]))


def train(torch: Any, model: Any, parameters: Any, data: datasets.Dataset, epochs: int) -> None:
    parameters = list(parameters)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            penalty = sum((p**2).sum() for p in parameters) * (DECAY / 2.0)
            (torch.nn.functional.cross_entropy(model(x[rows]), y[rows]) + penalty).backward()
            optimizer.step()


def captured(model: Any, data: datasets.Dataset) -> Problem:
    """Its last block, against readouts of the pixels and of every layer before it."""
    from resnet_cert.capture.torch import capture

    *earlier, block, _ = (name for name, _ in model.named_children())
    return capture(
        model,
        (data.x, data.y),
        loss="cross_entropy",
        block=block,
        compare={"pixels": "input"} | {name: name for name in earlier},
        weight_decay=DECAY,
        epsilon=1e-2,
        name=block,
    )


def main(arguments: list[str], epochs: int = 60) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python examples/three_blocks.py DIRECTORY")
    try:
        import torch
    except ImportError:
        sys.exit("this example trains with PyTorch, which is not installed: pip install torch")
    data = datasets.load("digits")
    torch.manual_seed(0)
    model = network(torch, data.x.shape[1], data.q)
    train(torch, model, model.parameters(), data, epochs)
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(1, BLOCKS):
        shorter = probe(torch, model, number)
        train(torch, shorter, shorter.head.parameters(), data, epochs)
        captured(shorter, data).save(directory / f"block{number}.npz")
    problem = captured(model, data)
    problem.save(directory / f"{problem.name}.npz")
    for other in check(problem).comparators:
        sys.stdout.write(f"{other.name}: F − min F_lin in [{other.gap.lower:.4g}, {other.gap.upper:.4g}]\n")


if __name__ == "__main__":
    main(sys.argv[1:])
