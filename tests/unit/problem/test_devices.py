"""Features from a device: computed once and kept, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from resnet_cert.outcomes import RequestError
from resnet_cert.problem.devices import with_features_on
from resnet_cert.problem.networks import Layer, NetworkFeatures
from resnet_cert.problem.problem import Distribution, GivenFeatures, Point, Problem
from resnet_cert.problem.targets import with_loss


def networked() -> Problem:
    rng = np.random.default_rng(0)
    data, loss = with_loss(Distribution(rng.normal(size=(700, 3)), rng.normal(size=700)), "squared", 1)
    network = NetworkFeatures((Layer(rng.normal(size=(2, 3)), np.ones(2)),))
    return Problem(data, loss, network, Point(np.ones((1, 3)), np.ones((3, 2))))


def test_on_the_processor_the_features_are_those_of_the_network(tmp_path: Path) -> None:
    problem = networked()
    held = with_features_on(problem, "cpu", tmp_path)
    assert isinstance(held.features, GivenFeatures)
    np.testing.assert_array_equal(held.chunk(slice(0, 700)).f, problem.chunk(slice(0, 700)).f)
    again = with_features_on(held, "cpu", tmp_path)  # from the network, not from what is held
    np.testing.assert_array_equal(again.chunk(slice(0, 700)).f, problem.chunk(slice(0, 700)).f)


def test_features_that_come_with_the_data_stay(tmp_path: Path) -> None:
    problem = networked()
    given = Problem(problem.distribution, problem.loss, GivenFeatures(np.ones((700, 2))), problem.point)
    assert with_features_on(given, "cpu", tmp_path) is given


def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("there is another device here")
    with pytest.raises(RequestError, match="expected a device of the kind gpu, JAX has cpu here"):
        with_features_on(networked(), "gpu", tmp_path)
