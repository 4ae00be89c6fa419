"""PyTorch's networks are captured with their own numbers, or refused with the place where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frameworks import assert_predicts

from resnet_cert import RequestError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
nn: Any = torch.nn


class Block(nn.Module):
    def __init__(self, d: int, k: int, bias: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(d, k), nn.Tanh(), nn.Dropout(0.5))
        self.proj = nn.Linear(k, d, bias=bias)

    def forward(self, x: Any) -> Any:
        return x + self.proj(self.inner(x))


class Net(nn.Module):
    def __init__(self, d0: int = 7, d: int = 5, k: int = 4, q: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(d0, d)
        self.block = Block(d, k, bias)
        self.head = nn.Linear(d, q, bias=bias)

    def forward(self, x: Any) -> Any:
        return self.head(self.block(torch.relu(self.stem(x))))


def data(n: int = 50, d: int = 7, q: int = 3) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, d, generator=generator), torch.randint(q, (n,), generator=generator)


def arrays(model: Any, loader: Any, **parts: Any) -> Any:
    from resnet_cert.capture.torch import captured_arrays
    from resnet_cert.capture.walk import Parts

    return captured_arrays(model, loader, Parts(**parts))


def assert_is(model: Any, x: Any, found: Any) -> None:
    """The arrays predict what the model does in float64, far beyond the tolerance for float32."""
    model.eval()
    with torch.no_grad():
        exact = model.double()(x.double()).numpy()
    assert_predicts(found, exact)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("named", ["by name", "by object", "by default"])
def test_a_block_and_its_head_are_captured(bias: bool, named: str) -> None:
    torch.manual_seed(0)
    model = Net(bias=bias)
    x, y = data()
    parts = {
        "by name": {"block": "block", "V": "block.proj", "head": "head"},
        "by object": {"block": model.block, "V": model.block.proj, "head": model.head},
        "by default": {"block": "block"},
    }[named]
    found = arrays(model, (x, y), **parts)
    assert found.f.shape == (50, 4 + bias)
    assert (found.c is not None) == bias
    np.testing.assert_array_equal(found.W, model.head.weight.detach().numpy())
    np.testing.assert_array_equal(found.V[:, :4], model.block.proj.weight.detach().numpy())
    if bias:
        np.testing.assert_array_equal(found.f[:, 4], 1.0)
    assert_is(model, x, found)


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = Net()
    model.block.inner[2].eval()
    modes = [module.training for module in model.modules()]
    arrays(model, data(), block="block")
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_loader_gives_what_its_arrays_give() -> None:
    torch.manual_seed(0)
    model = Net()
    x, y = data()
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    for name in ("x", "f", "y"):
        one, other = (getattr(arrays(model, loader, block="block"), name) for loader in (batches, (x, y)))
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_without_a_block_x_is_the_input_of_the_model() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Sequential(nn.Linear(7, 4), nn.Tanh())
            self.V = nn.Linear(4, 7, bias=False)
            self.w = nn.Linear(7, 1)

        def forward(self, x: Any) -> Any:
            return self.w(x + self.V(self.theta(x)))[:, 0]

    torch.manual_seed(0)
    model = Plain()
    x, y = data()
    found = arrays(model, (x, y))
    np.testing.assert_array_equal(found.x, x.numpy())
    assert_is(model, x, found)


def test_a_head_that_reads_more_than_the_block_has_bypass_inputs() -> None:
    class Wide(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5 + 7, 3)

        def forward(self, x: Any) -> Any:
            return self.head(torch.cat([self.block(torch.relu(self.stem(x))), x], dim=1))

    torch.manual_seed(0)
    model = Wide()
    x, y = data()
    found = arrays(model, (x, y), block="block")
    np.testing.assert_array_equal(found.bypass, x.numpy())
    assert_is(model, x, found)


class Convolutional(nn.Module):
    """A pre-activation block of images with BatchNorms, and a head that reads the mean over all positions."""

    def __init__(self, padding: Any, stride: int, last: int, shortcut: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, stride=stride)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, last, padding=padding)
        self.bn2 = nn.BatchNorm2d(4)
        self.shortcut = nn.Conv2d(4, 4, 1, stride=stride) if shortcut else nn.Identity()
        self.bn3 = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 3)
        self.body = nn.Identity()

    def forward(self, image: Any) -> Any:
        x = self.body(torch.relu(self.stem(image)))
        f = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.bn3((self.shortcut(x) + self.bn2(self.conv2(f))).mean(dim=(2, 3))))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("padding", "stride", "last", "shortcut"),
    [(1, 1, 3, False), ("same", 1, 3, False), (0, 1, 1, False), (1, 2, 3, True), ("same", 1, 2, True)],
)
def test_a_convolutional_block_is_captured_through_the_mean_of_its_positions(
    padding: Any, stride: int, last: int, shortcut: bool
) -> None:
    torch.manual_seed(0)
    model = Convolutional(padding, stride, last, shortcut)
    images, y = torch.randn(40, 1, 6, 5), torch.randint(3, (40,))
    model.train()
    for _ in range(3):  # statistics of its own
        model(images)
    found = arrays(model, (images, y), block="body", skip="shortcut", V=["conv2", "bn2"], norm="bn3")
    assert found.x.shape == (40, 4)
    assert found.V.shape == (4, 6 * last**2 + 1)
    assert_is(model, images, found)


@pytest.mark.parametrize("pick", [0, -1])
def test_a_block_of_tokens_is_captured_through_the_token_that_the_head_reads(pick: int) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(5, 4, True)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.block(x)[:, pick])

    torch.manual_seed(0)
    model = Tokens()
    x, y = torch.randn(20, 6, 5), torch.randint(3, (20,))
    found = arrays(model, (x, y), block="block")
    np.testing.assert_array_equal(found.x, x[:, pick].numpy())
    assert_is(model, x, found)


class AfterAddition(Net):
    """The block of the first residual networks: an activation after the addition."""

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.block(torch.relu(self.stem(x)))))


class AfterHead(Net):
    def forward(self, x: Any) -> Any:
        return torch.softmax(super().forward(x), dim=1)


class Scaled(Net):
    def forward(self, x: Any) -> Any:
        x = torch.relu(self.stem(x))
        return self.head(x + 0.999 * (self.block(x) - x))


@pytest.mark.parametrize(
    ("kind", "where"),
    [(AfterAddition, "the head reads"), (AfterHead, "the network gives"), (Scaled, "the head reads")],
)
def test_what_is_not_of_the_form_is_refused_with_the_place_and_the_difference(kind: Any, where: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(RequestError, match=rf"not p = W\(x \+ V f\) \+ c: sample \d+, component \d: {where}"):
        arrays(kind(), data(), block="block")


def test_a_wrong_weight_of_one_part_in_a_thousand_is_found() -> None:
    torch.manual_seed(0)
    model = Net()
    model.head.register_forward_hook(lambda *call: call[2] * 1.001)
    with pytest.raises(RequestError, match="the network gives"):
        arrays(model, data(), block="block")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"block": "blok"}, "expected the name of a layer, got 'blok'; did you mean 'block'"),
        ({"block": nn.Linear(2, 2)}, "expected a layer of the network, got another Linear"),
        ({"block": "block", "V": "block.inner.1"}, "expected an affine layer, got another kind of layer"),
        ({"block": "block", "norm": "stem"}, "expected a normalisation by stored statistics"),
        (
            {"block": "stem"},
            "expected a block that adds V f to its input x: V gives 5 numbers, x has 7; here x is",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_named(parts: dict[str, Any], message: str) -> None:
    torch.manual_seed(0)
    if parts["block"] == "stem":
        parts = {**parts, "V": "block.proj"}
    with pytest.raises(RequestError) as refused:
        arrays(Net(), data(), **parts)
    assert message in str(refused.value)


def test_an_empty_loader_and_batches_of_another_form_are_refused() -> None:
    with pytest.raises(RequestError, match="empty loader"):
        arrays(Net(), [], block="block")
    with pytest.raises(RequestError, match=r"batches \(inputs, targets\)"):
        arrays(Net(), [data()[0]], block="block")


def test_capture_makes_the_problem_of_the_trained_head() -> None:
    from resnet_cert.capture.torch import capture

    torch.manual_seed(0)
    model = Net()
    x, y = data()
    problem = capture(
        model,
        (x, y),
        loss="cross_entropy",
        block="block",
        compare={"pixels": "input", "stem": "stem"},
        weight_decay=1e-3,
        name="net",
    )
    assert (problem.n, problem.d1, problem.d, problem.k, problem.q) == (50, 5, 6, 5, 3)
    assert problem.objective.l2 == 5e-4
    assert {name: rows.shape for name, rows in problem.comparators.items()} == {
        "pixels": (50, 7),
        "stem": (50, 5),
    }
    assert problem.name == "net"
