"""A certificate that names a spec is about that spec: whatever either says otherwise is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import sealed

from resnet_cert import Verdict, check
from resnet_cert.certificate import binding
from resnet_cert.certificate.decision import verify
from resnet_cert.certificate.writing import write_certificate
from resnet_cert.results import Source
from resnet_cert.spec import load_spec

DATA = {
    "inline": "data: {x: [[1.0, 0.5], [0.25, -1.0], [2.0, 0.0]], y: [1.0, 0.0, -1.0]}",
    "weighted": "data: {x: [[1.0, 0.5], [0.25, -1.0], [2.0, 0.0]], y: [1, 0, 2], "
    "probabilities: [0.5, 0.25, 0.25]}",
    "npz": "data: {file: data.npz}",
    "csv": "data: {file: data.csv, x: [a, b], y: c}",
    "drawn": "data: {sample: {n: 5000, d: 2, x: gaussian, y: {teacher: linear, noise: 0.1}, seed: 3}}",
}
NETWORKS = {
    "identity": "network: {kind: identity}",
    "linear": "network: {kind: linear, weight: [[0.5, 0.1], [0.1, 0.3]]}",
    "mlp": "network: {kind: mlp, activation: tanh, widths: [4, 2], seed: 1}",
}


def write_spec(folder: Path, data: str, network: str, rest: str = "") -> Path:
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.normal(size=(6, 2)), y=rng.normal(size=6), f=rng.normal(size=(6, 2)))
    (folder / "data.csv").write_text("a,b,c\n1.5,0.25,1\n-1,2,0.5\n")
    (folder / "net.py").write_text("import jax.numpy as jnp\n\n\ndef features(x):\n    return jnp.tanh(x)\n")
    spec = folder / "problem.yaml"
    spec.write_text(
        f"version: 1\n{data}\nloss: {{kind: squared, scale: 2.0}}\n{network}\n"
        f"point: {{w: [0.5, 0.25], V: [[0.5, 0.0], [-0.25, 1.0]]}}\nepsilon: 0.5\n{rest}\n"
    )
    return spec


def certified_spec(spec: Path, overrides: Sequence[str] = (), *, allow_code: bool = False) -> Path:
    """The certificate of a spec, in a folder beside it."""
    loaded = load_spec(spec, overrides=overrides, allow_code=allow_code)
    report = check(loaded.problem, spec=Source(loaded.path, loaded.sha256))
    assert report.verdict is Verdict.REFUTED
    folder = spec.parent / "certificates"
    folder.mkdir(exist_ok=True)
    write_certificate(folder / "problem.json", loaded.problem, report, overrides=overrides)
    return folder / "problem.json"


def forged(path: Path, *at: str, value: Any) -> None:
    """The certificate with another value at a place, and a hash that fits."""
    document = json.loads(path.read_text())
    section = document
    for key in at[:-1]:
        section = section[key]
    section[at[-1]] = value
    path.write_text(json.dumps(sealed(document)))


def rebound(path: Path, spec: Path) -> None:
    """The certificate as one about the spec as it is now."""
    forged(path, "spec", "sha256", value=hashlib.sha256(spec.read_bytes()).hexdigest())


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_certificate_of_a_spec_is_accepted_with_nothing_to_add(
    tmp_path: Path, data: str, network: str
) -> None:
    found = verify(certified_spec(write_spec(tmp_path, data, network)))
    assert (found.verdict, found.reasons) == (Verdict.REFUTED, ())


def test_given_features_are_those_of_the_data(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, DATA["npz"], "network: {kind: given}")
    path = certified_spec(spec)
    assert verify(path).reasons == ()
    arrays = dict(np.load(tmp_path / "data.npz"))
    arrays["f"][3, 1] = np.nextafter(arrays["f"][3, 1], 9.0)
    np.savez(tmp_path / "data.npz", **arrays)
    assert "inputs.f" in verify(path).reasons[0]


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_number_of_a_data_file_that_changed_is_noticed(tmp_path: Path, name: str) -> None:
    path = certified_spec(write_spec(tmp_path, DATA["npz"], NETWORKS["mlp"]))
    arrays = dict(np.load(tmp_path / "data.npz"))
    arrays[name].flat[5] = np.nextafter(arrays[name].flat[5], 9.0)
    np.savez(tmp_path / "data.npz", **arrays)
    found = verify(path)
    assert (found.accepted, found.exit_code) == (False, 30)
    assert f"inputs.{name}" in found.reasons[0]
    (tmp_path / "data.npz").unlink()
    assert not verify(path).accepted


def test_the_spec_must_be_the_same_file(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, DATA["inline"], NETWORKS["linear"])
    path = certified_spec(spec)
    spec.write_text(spec.read_text() + "\n# a remark\n")
    assert not verify(path).accepted
    spec.unlink()
    assert not verify(path).accepted
    spec.mkdir()
    assert not verify(path).accepted


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("epsilon: 0.5", "epsilon: 0.25", "claim.epsilon"),
        ("scale: 2.0", "scale: 3.0", "claim.loss.scale"),
        ("{kind: squared, scale: 2.0}", "pseudo_huber", "claim.loss.kind"),
        ("{kind: squared, scale: 2.0}", "{python: net.py:loss}", "claim.loss.kind"),
        ("b: 4", "b: 3", "claim.b"),
        ("mu2: 9", "mu2: 8", "claim.mu2"),
        ("mu2: 9", "mu2: auto", "claim.mu2"),
        ("w: [0.5, 0.25]", "w: [0.5, 0.125]", "inputs.w"),
        ("[-0.25, 1.0]", "[-0.25, 1.5]", "inputs.V"),
        ("2.0, 0.0]]", "2.0, 0.5]]", "inputs.x"),
        (", [2.0, 0.0]]", "]", "inputs.x"),
        ("y: [1, 0, 2]", "y: [1, 0, 3]", "inputs.y"),
        ("probabilities: [0.5", "probabilities: [0.625", "inputs.probabilities"),
        (", probabilities: [0.5, 0.25, 0.25]", "", "inputs.probabilities"),
        ("weight: [[0.5", "weight: [[0.625", "inputs.f"),
        ("weight: [[0.5, 0.1], ", "weight: [", "inputs.f"),
        ("kind: linear, weight", "kind: linaer, weight", "spec"),
        ("network:", "# network:", "spec"),
        ("version: 1", "version: [", "spec"),
    ],
)
def test_a_certificate_of_another_spec_is_rejected_even_if_forged(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    spec = write_spec(tmp_path, DATA["weighted"], NETWORKS["linear"], "domain: {b: 4}\nlipschitz: {mu2: 9}")
    path = certified_spec(spec)
    assert verify(path).accepted
    text = spec.read_text()
    assert text.count(old) == 1
    spec.write_text(text.replace(old, new))
    rebound(path, spec)
    found = verify(path)
    assert (found.accepted, found.exit_code) == (False, 30)
    assert found.reasons[0].startswith(place)


def test_a_computed_mu2_cannot_be_called_given(tmp_path: Path) -> None:
    path = certified_spec(write_spec(tmp_path, DATA["inline"], NETWORKS["linear"]))
    forged(path, "claim", "mu2", "source", value="given")
    assert verify(path).reasons[0].startswith("claim.mu2")


@pytest.mark.parametrize("b", [1.0 - 1e-5, 1.0 + 1e-5, 100.0])
def test_what_the_spec_leaves_open_is_no_choice_of_the_certificate(tmp_path: Path, b: float) -> None:
    """A larger μ2, or a larger domain, would make a refuted point an ε-SOPSP."""
    path = certified_spec(write_spec(tmp_path, DATA["inline"], NETWORKS["linear"]))
    claim = json.loads(path.read_text())["claim"]
    mu2 = float.fromhex(claim["mu2"]["value"])
    assert verify(path).accepted
    forged(path, "claim", "mu2", "value", value=(mu2 * (1.0 + 1e-5)).hex())
    assert "claim.mu2" in verify(path).reasons[0]
    forged(path, "claim", "mu2", "value", value=(mu2 * 1e6).hex())
    forged(path, "claim", "b", value=(float.fromhex(claim["b"]) * b).hex())
    assert verify(path).reasons[0].startswith("claim.b")


def test_settings_beside_the_spec_are_part_of_it(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, DATA["inline"], NETWORKS["linear"])
    path = certified_spec(spec, ["epsilon=0.125", "point.w=[0.5, 0.375]"])
    assert verify(path).verdict is Verdict.REFUTED
    forged(path, "spec", "overrides", value=["epsilon=0.125"])
    assert verify(path).reasons[0].startswith("inputs.w")
    for fault in ("no setting", "epsilon=[", "epsilon=0.125]", "espilon=0.125"):
        forged(path, "spec", "overrides", value=["epsilon=0.125", "point.w=[0.5, 0.375]", fault])
        assert verify(path).reasons[0].startswith("spec")


@pytest.mark.parametrize(
    ("entry", "accepted"),
    [
        ("regularizer: {l2: 0.25}", False),
        ("constraint: {norm: 100}", False),
        ("regularizer: {l2: 0}", True),
    ],
)
def test_a_spec_of_another_objective_is_rejected(tmp_path: Path, entry: str, accepted: bool) -> None:
    spec = write_spec(tmp_path, DATA["inline"], NETWORKS["linear"])
    path = certified_spec(spec)
    spec.write_text(f"{spec.read_text()}\n{entry}\n")
    load_spec(spec)
    rebound(path, spec)
    found = verify(path)
    assert found.accepted is accepted
    assert accepted or entry.split(":")[0] in found.reasons[0]


@pytest.mark.parametrize(("data", "name"), [("drawn", "x"), ("drawn", "y"), ("inline", "f")])
def test_what_is_computed_may_differ_by_rounding_only(tmp_path: Path, data: str, name: str) -> None:
    """Drawn samples and a network's features, as another machine would compute them."""
    spec = write_spec(tmp_path, DATA[data], NETWORKS["mlp"])
    loaded = load_spec(spec)
    problem = loaded.problem
    for change, accepted in ((1e-12, True), (1e-6, False)):
        arrays = {
            "x": np.array(problem.distribution.x[:]),
            "y": np.array(problem.distribution.y[:]),
            "f": np.concatenate([chunk.f for chunk in problem.chunks()]),
        }
        arrays[name].flat[-1] += change
        other = replace(
            problem,
            distribution=replace(problem.distribution, x=arrays["x"], y=arrays["y"]),
            features=replace(problem.features, f=arrays["f"]),
        )
        path = tmp_path / "certificate.json"
        write_certificate(path, other, check(other, spec=Source(loaded.path, loaded.sha256)))
        assert verify(path).accepted is accepted


def test_code_is_not_run_and_the_answer_says_so(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, DATA["npz"], "network: {python: 'net.py:features'}")
    path = certified_spec(spec, allow_code=True)
    (tmp_path / "net.py").write_text("raise SystemExit(0)\n")
    found = verify(path)
    assert (found.verdict, found.reasons) == (Verdict.REFUTED, (binding.CODE_NOT_RUN,))
    arrays = dict(np.load(tmp_path / "data.npz"))
    np.savez(tmp_path / "data.npz", **{**arrays, "x": arrays["x"][::-1]})
    assert not verify(path).accepted
