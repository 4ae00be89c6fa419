"""Data in many files, on a cluster, and of a distribution: the command line as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from resnet_cert.cli import cli

SPEC = """version: 1
data: {{{data}}}
loss: squared
network: {{kind: given}}
point: {{w: [0.8, 0, 0], V: [[0.5, 0], [0, 0], [0, 0]]}}
epsilon: 0.3
population: {{confidence: 0.99, bounds: {{x: {x}, f: 1.5, y: 1.7}}}}
"""
N = 1500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x, f = rng.uniform(-1, 1, (N, 3)), rng.uniform(-1, 1, (N, 2))
    arrays = {"x": x, "f": f, "y": x[:, 0] + 0.5 * f[:, 0] + 0.1 * rng.uniform(-1, 1, N)}
    np.savez(tmp_path / "all.npz", allow_pickle=False, **arrays)
    for i, (start, stop) in enumerate([(0, 700), (700, 701), (701, N)]):
        part = {name: array[start:stop] for name, array in arrays.items()}
        np.savez(tmp_path / f"part-{i}.npz", allow_pickle=False, **part)
    for name, data in (("whole", "file: all.npz"), ("shards", "shards: part-*.npz")):
        (tmp_path / f"{name}.yaml").write_text(SPEC.format(data=data, x=1.8), encoding="utf-8")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def report(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["reports"]
    return {key: value for key, value in found.items() if key not in ("seconds", "spec", "name")}


def test_shards_and_a_cluster_give_the_report_of_one_file(folder: Path) -> None:
    whole = report(str(folder / "whole.yaml"))
    assert report(str(folder / "shards.yaml")) == whole
    pytest.importorskip("distributed", reason="a cluster needs the package distributed")
    assert report(str(folder / "shards.yaml"), "--cluster", "local:1") == whole


def test_statistical_statements_have_a_section_of_their_own(folder: Path) -> None:
    said = report(str(folder / "whole.yaml"))["population"]
    assert said["rigor"] == "statistical"
    assert said["confidence"] == 0.99
    spec = str(folder / "whole.yaml")
    text = run(spec).stdout
    before, section = text.split("\n  On the distribution of the data\n")
    start = "Statistical: with confidence 0.99 and under the bounds you state,"
    assert "Statistical" not in before
    assert section.count(start) == 2
    assert "On the sample the point is an ε-second-order stationary point" in section
    ends = {"text": "\n", "markdown": "\n", "html": "</p>", "github": "%0A", "sarif": "\\n"}
    for form, end in ends.items():
        paragraphs = run(spec, "--format", form).stdout.split(end)
        found = [paragraph for paragraph in paragraphs if "Statistical:" in paragraph]
        assert found, form
        assert not any("prove" in paragraph or "Certified" in paragraph for paragraph in found), form


def test_a_sample_outside_of_the_stated_bounds_is_a_wrong_request(folder: Path) -> None:
    spec = folder / "narrow.yaml"
    spec.write_text(SPEC.format(data="file: all.npz", x=0.5), encoding="utf-8")
    refused = run(str(spec))
    assert refused.exit_code == 2
    assert "expected ‖x‖ ≤ 0.5" in refused.stderr
    assert "row " in refused.stderr


def test_a_truncated_shard_is_a_wrong_request(folder: Path) -> None:
    victim = folder / "part-2.npz"
    victim.write_bytes(victim.read_bytes()[:-2000])
    refused = run(str(folder / "shards.yaml"))
    assert refused.exit_code == 2
    assert "part-2.npz" in refused.stderr


def test_a_device_that_is_not_there_is_a_wrong_request(folder: Path) -> None:
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("there is another device here")
    refused = run(str(folder / "whole.yaml"), "--device", "gpu")
    assert refused.exit_code == 2
    assert "expected a device of the kind gpu" in refused.stderr
