"""Train a residual block in PyTorch and hand it to `resnet-cert check`: the features travel as data.

    python examples/from_pytorch.py DIRECTORY             # needs PyTorch
    resnet-cert check DIRECTORY/pytorch.yaml

The theorems hold for any f_θ, so a network need not be translated: its outputs f = f_θ(x) on the samples,
written beside x and y, are all that the check asks for.  `write_problem` works for any framework whose arrays
NumPy can read; the rest of this file is one ordinary PyTorch model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SPEC = """\
version: 1
data: {{file: {name}.npz}}                 # arrays x, y, f
loss: {loss}
network: {{kind: given}}
point: {{file: {name}.npz}}                # arrays {w}, V
epsilon: {epsilon!r}
"""


def write_problem(
    directory: Path,
    name: str,
    *,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    f: npt.ArrayLike,
    w: npt.ArrayLike,
    V: npt.ArrayLike,
    loss: str,
    epsilon: float,
) -> Path:
    """Write name.npz and name.yaml and return the path of the spec.

    Args:
        x: (n, d) inputs;  y: (n,) targets;  f: (n, k) outputs of the network.
        w: (d,);  V: (d, k): the prediction is wᵀ(x + V f).
            Or W (q, d), as the weight of a torch.nn.Linear(d, q), for q outputs W(x + V f); then y is (n, q),
            or (n,) class labels.
        loss: squared, logistic, pseudo_huber or poisson; of several outputs squared, logistic or softmax.
        epsilon: ε of the question "is (w, V) an ε-second-order partial stationary point?".
    """
    directory.mkdir(parents=True, exist_ok=True)
    weight = "w" if np.ndim(w) == 1 else "W"
    arrays = {"x": x, "y": y, "f": f, weight: w, "V": V}
    np.savez(directory / f"{name}.npz", **{key: np.asarray(a, np.float64) for key, a in arrays.items()})
    spec = directory / f"{name}.yaml"
    spec.write_text(SPEC.format(name=name, w=weight, loss=loss, epsilon=epsilon), encoding="utf-8")
    return spec


def train(torch: Any, n: int = 200, d: int = 3, k: int = 4) -> dict[str, Any]:
    """A block trained on y = sin(3 x_1) + x_2 in float64: the arguments of `write_problem`."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    x = torch.randn(n, d)
    y = torch.sin(3.0 * x[:, 0]) + x[:, 1]

    theta = torch.nn.Sequential(torch.nn.Linear(d, 16), torch.nn.Tanh(), torch.nn.Linear(16, k))
    V = torch.nn.Linear(k, d, bias=False)  # its weight is d×k, as V is here
    w = torch.nn.Linear(d, 1, bias=False)

    def objective() -> Any:
        return 0.5 * torch.mean((w(x + V(theta(x)))[:, 0] - y) ** 2)

    def minimise(parameters: list[Any], steps: int) -> None:
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=steps,
            tolerance_grad=1e-10,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Any:
            optimizer.zero_grad()
            value = objective()
            value.backward()
            return value

        optimizer.step(closure)

    head = [*w.parameters(), *V.parameters()]
    minimise([*theta.parameters(), *head], steps=100)
    minimise(head, steps=1000)  # θ stays: the definition speaks of (w, V)
    arrays = {"x": x, "y": y, "f": theta(x), "w": w.weight[0], "V": V.weight}
    return {name: tensor.detach() for name, tensor in arrays.items()}


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python examples/from_pytorch.py DIRECTORY")
    try:
        import torch
    except ImportError:
        sys.exit("this example trains with PyTorch, which is not installed: pip install torch")
    spec = write_problem(Path(arguments[0]), "pytorch", **train(torch), loss="squared", epsilon=1e-6)
    sys.stdout.write(f"wrote {spec}; now run: resnet-cert check {spec}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
