"""Features from a device: computed once and kept, or a clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from resnet_cert.cli import cli
from resnet_cert.numerics.jax64 import float64_scope
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


SPEC = """version: 1
data: {x: [[1.0], [2.0]], y: [1.0, -1.0]}
loss: squared
network: {kind: mlp, activation: tanh, widths: [2], seed: 0}
point: {w: [1.0], V: [[0.5, 0.0]]}
epsilon: 0.5
"""
SAYS_WHERE = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print("platforms:", repr(os.environ.get("JAX_PLATFORMS")), file=sys.stderr)

sys.meta_path.insert(0, Watch())
from resnet_cert.cli import main
main()
"""
"""What JAX finds in the environment when it is first imported."""
TWO_DEVICES = """
import sys
import jax
from click.testing import CliRunner

processor, other = jax.devices()
jax.config.update("jax_default_device", other)
seen, devices, jit = {processor: set(), other: set()}, jax.devices, jax.jit
jax.devices = lambda kind=None: [other] if kind == "gpu" else devices(kind)

def watched(function, **options):
    compiled = jit(function, **options)
    def called(*arguments):
        values = compiled(*arguments)
        for leaf in jax.tree.leaves(values):
            for device in leaf.devices():
                seen[device].add(function.__name__)
        return values
    return called

jax.jit = watched
from resnet_cert.cli import cli

done = CliRunner().invoke(cli, ["check", *sys.argv[1:], "-q", "--fail-on", "never"])
print(done.exit_code, sorted(seen[processor]), sorted(seen[other]), jax.numpy.ones(1).devices() == {other})
print(done.output)
"""
"""What runs where, if JAX's own choice is a second device, which stands for a GPU."""


def said_by(code: str, folder: Path, *arguments: str, **environment: str) -> list[str]:
    (folder / "s.yaml").write_text(SPEC)
    around = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=around | environment,
        cwd=folder,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("device", "environment", "seen"),
    [
        ("cpu", {}, "cpu"),
        ("cpu", {"JAX_PLATFORMS": ""}, ""),
        ("gpu", {}, None),
        ("gpu", {"JAX_PLATFORMS": "cpu"}, None),  # an option goes before a variable
    ],
)
def test_jax_looks_for_other_devices_only_if_it_is_asked_for_one(
    device: str, environment: dict[str, str], seen: str | None, tmp_path: Path
) -> None:
    said = said_by(SAYS_WHERE, tmp_path, "check", "s.yaml", "--device", device, **environment)
    assert said[0] == f"platforms: {seen!r}"


@pytest.mark.parametrize(("device", "others"), [("cpu", []), ("gpu", ["forward"])])
def test_all_but_features_is_computed_on_the_processor(
    device: str, others: list[str], tmp_path: Path
) -> None:
    flags = "--xla_force_host_platform_device_count=2"
    said = said_by(TWO_DEVICES, tmp_path, "s.yaml", "--device", device, XLA_FLAGS=flags)
    here = ["derivatives", "forward"]  # a spec's features are looked at where it is read
    assert said[0] == f"0 {here} {others} True"


def test_features_from_a_device_stay_on_its_machine(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    asked = ["check", str(tmp_path / "s.yaml"), "--device", "gpu", "--cluster", "tcp://elsewhere:8786"]
    refused = CliRunner().invoke(cli, asked)
    assert refused.exit_code == 2
    assert "expected --cluster local:N beside --device gpu" in refused.stderr
    assert "got 'tcp://elsewhere:8786': leave --device out" in refused.stderr


def test_jax_without_a_processor_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    def none_of_them(backend: str) -> None:
        raise RuntimeError(f"Unknown backend: {backend!r} requested")

    monkeypatch.setattr(jax, "local_devices", none_of_them)
    monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
    with pytest.raises(RequestError, match="JAX_PLATFORMS, or set it to cuda,cpu"), float64_scope():
        pass
