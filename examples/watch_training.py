"""Watch a training run: the least ε for which the point is an ε-SOPSP, and the gap, at every epoch.

    python examples/watch_training.py PICTURE.png                # needs torch, scikit-learn, matplotlib

The monitor finds min F_lin once; each epoch then takes milliseconds.
"""

from __future__ import annotations

import sys
from typing import Any

import datasets
import numpy as np
import train_pytorch

from resnet_cert import Monitor
from resnet_cert.compare.monitor import Progress


def watched(torch: Any, data: datasets.Dataset, epochs: int) -> list[Progress]:
    """What the monitor says after each epoch."""
    torch.manual_seed(0)
    model = train_pytorch.network(torch, data.x.shape[1], data.q)
    monitor = Monitor(data.x, data.y, loss="cross_entropy", weight_decay=train_pytorch.DECAY, r=10.0)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    history = []
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            decayed = [model.V.weight, model.head.weight, model.head.bias]
            penalty = sum((p**2).sum() for p in decayed) * (train_pytorch.DECAY / 2.0)
            (torch.nn.functional.cross_entropy(model(x[rows]), y[rows]) + penalty).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            f = model.inner(x).numpy()
        W, V, c = (p.detach().numpy() for p in (model.head.weight, model.V.weight, model.head.bias))
        history.append(monitor(W, V, c=c, f=f))
    return history


def figure(history: list[Progress]) -> Any:
    """ε* on a logarithmic axis, and the gap, over the epochs."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 4.2), layout="constrained")
    above, below = picture.subplots(2, sharex=True)
    epochs = np.arange(1, len(history) + 1)
    above.semilogy(epochs, [progress.epsilon.upper if progress.epsilon else np.nan for progress in history])
    above.set_ylabel("ε*: an ε-SOPSP\nfor every ε above")
    gaps = [(progress.gap.lower, progress.gap.upper) for progress in history]
    below.fill_between(epochs, *zip(*gaps, strict=True), alpha=0.4)
    below.plot(epochs, [upper for _, upper in gaps])
    below.axhline(0.0, color="black", linewidth=0.8)
    below.set_ylabel("F − min F_lin")
    below.set_xlabel("epoch")
    return picture


def main(arguments: list[str], epochs: int = 40) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python examples/watch_training.py PICTURE.png")
    try:
        import torch
    except ImportError:
        sys.exit("this example trains with PyTorch, which is not installed: pip install torch")
    history = watched(torch, datasets.load("digits"), epochs)
    for epoch, progress in enumerate(history, 1):
        sys.stdout.write(f"epoch {epoch:3}: {progress}\n")
    figure(history).savefig(arguments[0], dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
