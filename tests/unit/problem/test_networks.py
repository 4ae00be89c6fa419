"""The features f_θ against NumPy and closed forms, in batches of every size."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.problem import networks
from resnet_cert.problem.networks import (
    ACTIVATIONS,
    CustomFeatures,
    IdentityFeatures,
    Layer,
    NetworkFeatures,
    draw_layers,
    feature_shape,
)

SELU_ALPHA = mpmath.mpf(1.6732632423543772848170429916717)
SELU_SCALE = mpmath.mpf(1.0507009873554804934193349852946)
REFERENCES: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "tanh": mpmath.tanh,
    "relu": lambda z: z if z > 0 else mpmath.mpf(0),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: (
        z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)))
    ),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "mish": lambda z: z * mpmath.tanh(mpmath.log(1 + mpmath.exp(z))),
    "leaky_relu": lambda z: z if z > 0 else z / 100,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "selu": lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * mpmath.expm1(z)),
}


def features(network: NetworkFeatures | IdentityFeatures | CustomFeatures, x: np.ndarray) -> np.ndarray:
    return network.rows(slice(0, len(x)), x, len(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_function_it_names(name: str) -> None:
    z = np.array([[-30.0], [-3.25], [-1.0], [-1e-3], [0.0], [0.5], [2.0], [40.0]])
    one = Layer(np.ones((1, 1)))
    f = features(NetworkFeatures((one, one), name), z)
    with mpmath.workdps(40):
        expected = [[float(REFERENCES[name](mpmath.mpf(float(entry[0]))))] for entry in z]
    np.testing.assert_allclose(f, expected, rtol=1e-13, atol=1e-14)


# By torch 2.13.0, float64, at Z.
Z = [-3.0, -1.0, -0.25, 0.0, 0.5, 2.0]
TORCH = {
    "tanh": [-0.9950547536867305, -0.7615941559557649, -0.24491866240370913, 0.0, 0.46211715726000974,
             0.9640275800758169],
    "relu": [0.0, 0.0, 0.0, 0.0, 0.5, 2.0],
    "softplus": [0.04858735157374206, 0.31326168751822286, 0.5759394198788436, 0.6931471805599453,
                 0.9740769841801067, 2.1269280110429727],
    "sigmoid": [0.04742587317756678, 0.2689414213699951, 0.43782349911420193, 0.5, 0.6224593312018546,
                0.8807970779778823],
    "gelu": [-0.00404969409489031, -0.15865525393145702, -0.10032341857926907, 0.0, 0.34573123063700656,
             1.9544997361036416],
    "gelu_tanh": [-0.0036373920817729943, -0.15880800939172324, -0.100324649298315, 0.0,
                  0.34571400982514394, 1.954597694087775],
    "silu": [-0.14227761953270035, -0.2689414213699951, -0.10945587477855048, 0.0, 0.3112296656009273,
             1.7615941559557646],
    "mish": [-0.1456474612756246, -0.30340146137410895, -0.129926963679141, 0.0, 0.3752452113048951,
             1.9439589595339946],
    "leaky_relu": [-0.03, -0.01, -0.0025, 0.0, 0.5, 2.0],
    "elu": [-0.950212931632136, -0.6321205588285577, -0.22119921692859512, 0.0, 0.5, 2.0],
    "selu": [-1.6705687287671118, -1.1113307378125625, -0.388890197478119, 0.0, 0.5253504936777402,
             2.101401974710961],
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_that_of_pytorch(name: str) -> None:
    one = Layer(np.ones((1, 1)))
    f = features(NetworkFeatures((one, one), name), np.array(Z)[:, None])
    np.testing.assert_allclose(f[:, 0], TORCH[name], rtol=1e-13, atol=1e-16)


def test_the_table_of_references_is_complete() -> None:
    assert set(REFERENCES) == set(ACTIVATIONS)


@given(
    shape=st.sampled_from(
        [(1, 1, [1]), (4, 3, [2]), (4, 3, [5, 2]), (9, 1, [6, 1, 3]), (1, 5, [2, 2, 2, 2])]
    ),
    seed=st.integers(0, 2**32),
)
def test_a_perceptron_has_its_activation_between_its_layers_only(
    shape: tuple[int, int, list[int]], seed: int
) -> None:
    n, d, widths = shape
    rng = np.random.default_rng(seed)
    layers = tuple(
        Layer(rng.normal(size=(fan_out, fan_in)), rng.normal(size=fan_out) if i != 1 else None)
        for i, (fan_out, fan_in) in enumerate(zip(widths, [d, *widths], strict=False))
    )
    x = rng.normal(size=(n, d))
    expected = x
    for i, layer in enumerate(layers):
        expected = (np.maximum(expected, 0.0) if i else expected) @ layer.weight.T
        expected = expected if layer.bias is None else expected + layer.bias
    network = NetworkFeatures(layers, "relu")
    f = features(network, x)
    assert network.k == f.shape[1] == widths[-1]
    assert type(f) is np.ndarray
    assert f.dtype == np.float64
    np.testing.assert_allclose(f, expected, rtol=1e-12, atol=1e-12)


def test_the_identity_is_x_itself() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2))
    network = IdentityFeatures(2)
    assert network.k == 2
    np.testing.assert_array_equal(features(network, x), x)


@pytest.mark.parametrize("network", [
    NetworkFeatures(draw_layers(3, [5, 2], 0), "tanh"),
    CustomFeatures(lambda x: x[:, :2] ** 2, 2),
])  # fmt: skip
@pytest.mark.parametrize(("n", "pad_to"), [(1, 1), (1, 8), (7, 8), (8, 8)])
def test_what_fills_a_batch_changes_nothing(
    network: NetworkFeatures | CustomFeatures, n: int, pad_to: int
) -> None:
    x = np.random.default_rng(1).normal(size=(8, 3))
    whole = network.rows(slice(0, 8), x, 8)
    part = network.rows(slice(0, n), x[:n], pad_to)
    assert part.shape == (n, 2)
    np.testing.assert_allclose(part, whole[:n], rtol=1e-14)


def test_a_wide_network_is_evaluated_in_small_batches_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkFeatures(draw_layers(3, [40, 2], 0), "sigmoid")
    x = np.random.default_rng(2).normal(size=(50, 3))
    whole = features(network, x)
    compiled = networks._perceptron("sigmoid")
    compiled.clear_cache()
    monkeypatch.setattr(networks, "CHUNK_BYTES", 8 * 40 * 16)
    monkeypatch.setattr(networks, "BLOCK_ROWS", 1)
    np.testing.assert_allclose(network.rows(slice(0, 50), x, 64), whole, rtol=1e-14)
    assert compiled._cache_size() == 1  # 16 rows, four times


def test_networks_of_one_architecture_share_one_program() -> None:
    with float64_scope():
        compiled = networks._perceptron("silu")
    compiled.clear_cache()
    x = np.ones((4, 3))
    results = [features(NetworkFeatures(draw_layers(3, [5, 2], seed), "silu"), x) for seed in range(5)]
    assert compiled._cache_size() == 1
    assert len({result.tobytes() for result in results}) == 5


def test_drawn_weights_have_the_distribution_that_is_documented() -> None:
    layers = draw_layers(50, [400, 100], 3)
    assert [layer.weight.shape for layer in layers] == [(400, 50), (100, 400)]
    for layer, fan_in in zip(layers, (50, 400), strict=True):
        assert layer.bias is not None
        np.testing.assert_array_equal(layer.bias, 0.0)
        scaled = layer.weight.ravel() * math.sqrt(fan_in)
        assert abs(scaled.mean()) < 4 / math.sqrt(scaled.size)
        assert scaled.var() == pytest.approx(1.0, abs=0.05)
        # The empirical distribution function of a standard normal sample (Kolmogorov–Smirnov, level 1e-4).
        ordered = np.sort(scaled)
        normal = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in ordered])
        assert np.abs(normal - np.arange(1, len(ordered) + 1) / len(ordered)).max() < 2.2 / math.sqrt(
            scaled.size
        )


def test_a_seed_fixes_every_weight() -> None:
    first, again, other = (draw_layers(3, [4, 2], seed) for seed in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        assert not np.array_equal(a.weight, c.weight)


def test_the_shape_of_features_is_found_without_computing_them() -> None:
    shape, dtype = feature_shape(lambda x: x[:, :1] > 0.0, 1_000_000_000_000, 2)
    assert shape == (1_000_000_000_000, 1)
    assert dtype.kind == "b"
