"""A certificate that names a spec is about that spec: whatever either says otherwise is not accepted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forger
import numpy as np
import pytest
from families import draw
from heads import Head
from selections import first

from resnet_cert import RequestError
from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.verification import Verification
from resnet_cert.outcomes import Verdict
from resnet_cert.spec import load_spec

BASE = (
    "version: 1\ndata: {x: [[1]], y: [1]}\nloss: squared\nnetwork: {kind: identity}\n"
    "point: {w: [0.0], V: [[0.0]]}\nepsilon: 2.0\ndomain: {b: 1.0}\nlipschitz: {mu2: 4.0}\n"
)
ONE = np.ones((1, 1))


def small(**changes: Any) -> tuple[forger.Document, forger.Arrays]:
    """A true certificate of BASE."""
    head = Head(ONE, ONE, ONE, 0.0 * ONE, 0.0 * ONE, **changes)
    return forger.certified(forger.Case(head, 2.0, 4.0, b=1.0))


def answer(
    folder: Path, text: str, made: tuple[forger.Document, forger.Arrays], overrides: list[str] | None = None
) -> Verification:
    """What the verifier says of a certificate that names this spec, every hash renewed."""
    path, (document, arrays) = folder / "problem.yaml", made
    path.write_text(text)
    whole = forger.sealed({**document, "spec": forger.named(path, overrides)}, arrays)
    return decide(forger.write(folder, whole, arrays))


def test_the_spec_is_named_and_so_is_how_its_features_are_bound(tmp_path: Path) -> None:
    found = answer(tmp_path, BASE, small())
    assert (found.verdict, found.features) == (Verdict.CERTIFIED, "bitwise")
    assert found.spec is not None
    assert found.spec.path == str(tmp_path / "problem.yaml")
    found = answer(tmp_path, BASE, small(), ["epsilon=2.0"])
    assert found.headline == f"CERTIFIED, ε = 2.0, for {tmp_path / 'problem.yaml'} with --set epsilon=2.0"
    found = answer(tmp_path, BASE.replace("w: [0.0]", "w: [0.5]"), small())
    assert found.headline == f"REJECTED, ε = 2.0, for {tmp_path / 'problem.yaml'}"
    (tmp_path / "certificate.json").write_text("{}")
    assert decide(tmp_path / "certificate.json").headline == "REJECTED: no certificate could be read"


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("epsilon: 2.0", "epsilon: 1.0", "claim.epsilon"),
        ("loss: squared", "loss: {kind: squared, scale: 2}", "claim.loss.scale"),
        ("loss: squared", "loss: pseudo_huber", "claim.loss.kind"),
        ("loss: squared", "loss: {python: loss.py:f}", "spec"),
        ("b: 1.0", "b: 2.0", "claim.b"),
        ("b: 1.0", "b: auto", "claim.b"),
        ("mu2: 4.0", "mu2: 5.0", "claim.mu2"),
        ("mu2: 4.0", "mu2: auto", "claim.mu2"),
        ("w: [0.0]", "w: [0.5]", "inputs.W"),
        ("V: [[0.0]]", "V: [[0.5]]", "inputs.V"),
        ("x: [[1]]", "x: [[1.0000000000000002]]", "inputs.x"),
        ("y: [1]", "y: [1.0000000000000002]", "inputs.y"),
        ("y: [1]", "y: [1], probabilities: [1.0]", "inputs.probabilities"),
        ("{kind: identity}", "{kind: linear, weight: [[1.0000000000000002]]}", "inputs.f"),
        ("{kind: identity}", "{kind: linear, weight: [[1.0], [1.0]]}", "spec"),
        ("epsilon: 2.0", "epsilon: 2.0\nregularizer: {l2: 0.25}", "claim.objective.l2"),
        ("epsilon: 2.0", "epsilon: 2.0\nconstraint: {norm: 1.0}", "claim.objective.norm"),
        ("V: [[0.0]]", "V: [[0.0]], c: [0.0]", "claim.bias"),
        ("network:", "# network:", "spec"),
        ("version: 1", "version: [", "spec"),
        # What `check` refuses
        ("y: [1]", "y: [1], probabilities: [4.0]", "spec"),
        ("y: [1]", "y: [1], f: [[1.0]]", "spec"),
        ("y: [1]", "y: [1], omega: [[1.0]]", "spec"),
        ("data: {x: [[1]], y: [1]}", "data: {sample: {n: 268435456, d: 1, y: {teacher: linear}}}", "spec"),
        ("epsilon: 2.0", "epsilon: 0x" + "f" * 256, "spec"),
    ],
)
def test_a_certificate_of_another_spec_is_rejected_though_every_hash_fits(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    assert BASE.count(old) == 1
    (tmp_path / "loss.py").write_text("raise SystemExit('run')\n")
    found = answer(tmp_path, BASE.replace(old, new), small())
    assert (found.accepted, found.exit_code) == (False, 30)
    assert found.reasons[0].startswith(place), found.reasons


@pytest.mark.parametrize("loss", ["squared", "softmax", "weighted_squared", "logistic", "poisson"])
def test_every_array_of_the_spec_is_bound_bit_for_bit(tmp_path: Path, loss: str, longer: int) -> None:
    head = draw(1, "weights", loss, q=2, d1=2, d2=1, bias=True, l2=0.0)
    case = forger.at_threshold(head, 1.5)
    path = forger.bound(tmp_path, case, forger.certified(case))
    assert decide(path).verdict is Verdict.CERTIFIED
    document, arrays = forger.certified(case)
    spec = forger.named(forger.spec(tmp_path, case))
    for name in arrays:
        for index in range(arrays[name].size) if longer > 1 else {0, arrays[name].size - 1}:
            other = arrays[name].copy()
            other.flat[index] = np.nextafter(other.flat[index], 9.0)
            mutant = {**arrays, name: other}
            path = forger.write(tmp_path, forger.sealed({**document, "spec": spec}, mutant), mutant)
            assert decide(path).verdict is not Verdict.CERTIFIED, (name, index)


def certificate_of(folder: Path, case: forger.Case, f: np.ndarray[Any, Any]) -> Verification:
    """Of a spec with a network, with the features f."""
    made = forger.certificate(replace(case, head=replace(case.head, f=f)), "CERTIFIED")
    return decide(forger.bound(folder, case, made))


@pytest.mark.parametrize(
    "activation", first(4, ["tanh", "relu", "gelu", "softplus", "mish", "selu", "gelu_tanh"])
)
def test_features_are_those_of_the_network_to_within_what_floats_may_be_off(
    tmp_path: Path, activation: str, longer: int
) -> None:
    head = draw(4, "generic", "squared", q=2, d1=2, d2=0, bias=False)
    network = f"{{kind: mlp, activation: {activation}, widths: [3, {head.f.shape[1]}], seed: 1}}"
    case = forger.Case(head, 1.0, network=network)
    f = load_spec(forger.spec(tmp_path, case)).problem.with_features_held().chunk(slice(0, 9**9)).f
    case = replace(forger.at_threshold(replace(head, f=f), 1.0 + 1e-6), network=network)
    found = certificate_of(tmp_path, case, f)
    assert found.verdict is Verdict.CERTIFIED
    assert isinstance(found.features, float)
    assert 0.0 < found.features < 1e-11
    for index in range(f.size) if longer > 1 else (0, f.size - 1):
        forged = f.copy()
        forged.flat[index] += 1e-10 * np.max(np.abs(f))  # was allowed once
        assert not certificate_of(tmp_path, case, forged).accepted
    case = replace(forger.at_threshold(replace(head, f=f), 1.0 + 1e-15), network=network)
    found = certificate_of(tmp_path, case, f)  # true of the stored features, and not known of others
    assert (found.accepted, found.verdict) == (True, Verdict.UNDECIDED)
    assert "another evaluation" in found.reasons[-1]


def test_a_large_entry_lends_nothing_to_a_small_one(tmp_path: Path) -> None:
    """x = (1e12, 1) with f_2 = 301 in place of 1 was accepted once."""
    x = np.array([[1e12], [1.0]])
    text = BASE.replace("x: [[1]], y: [1]", "x: [[1e12], [1]], y: [0, 0]")
    for second, verdict in ((1.0, Verdict.CERTIFIED), (301.0, None)):
        f = np.array([[1e12], [second]])
        head = Head(x, np.zeros((2, 1)), f, 0.0 * ONE, 0.0 * ONE)
        made = forger.certified(forger.Case(head, 2.0, 4.0, b=1.0))
        for network in ("identity}", "linear, weight: [[1.0]]}"):
            assert answer(tmp_path, text.replace("identity}", network), made).verdict is verdict


def test_code_is_not_run_and_the_answer_says_so(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("raise SystemExit('run')\n")
    found = answer(tmp_path, BASE.replace("{kind: identity}", "{python: net.py:features}"), small())
    assert (found.verdict, found.features) == (Verdict.CERTIFIED, "as stored")
    assert "not run" in found.reasons[0]


@pytest.mark.parametrize("epsilon", ["9007199254740993", "0x20000000000001", "9007199254740992.9"])
def test_honest_numbers_that_no_float_is_are_accepted(tmp_path: Path, epsilon: str) -> None:
    head = Head(ONE, ONE, ONE, 0.0 * ONE, 0.0 * ONE)
    number = float(epsilon) if "." in epsilon else float(int(epsilon, 0))
    made = forger.certified(forger.Case(head, number, 4.0, b=1.0))
    assert answer(tmp_path, BASE.replace("2.0\ndomain", f"{epsilon}\ndomain"), made).verdict is not None


def test_a_spec_behind_a_link_has_its_data_beside_the_link(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0), 1.5)
    path = forger.bound(tmp_path, case, forger.certified(case))
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "problem.yaml").rename(away / "other.yaml")
    (tmp_path / "problem.yaml").symlink_to(away / "other.yaml")
    assert decide(path).verdict is Verdict.CERTIFIED


def test_a_certificate_and_its_data_may_be_renamed_together(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0), 1.5)
    path = forger.bound(tmp_path, case, forger.certified(case))
    path = path.rename(tmp_path / "proof.json")
    (tmp_path / f"{forger.NAME}.data").rename(tmp_path / "proof.json.data")
    assert decide(path).verdict is Verdict.CERTIFIED


def test_missing_files_are_all_named_at_once(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0), 1.5)
    path = forger.bound(tmp_path, case, forger.certified(case))
    names = ("data.npz", "point.npz", f"{forger.NAME}.data")
    for name in names:
        os.unlink(tmp_path / name)
    with pytest.raises(RequestError) as raised:
        decide(path)
    assert {Path(fault.file or "").name for fault in raised.value.diagnostics} == set(names)
    os.unlink(tmp_path / "problem.yaml")
    with pytest.raises(RequestError, match=r"problem\.yaml"):
        decide(path)


@pytest.mark.parametrize("change", [1.0 - 1e-10, 1.0 + 1e-10, 100.0])
def test_a_computed_b_is_no_choice_of_the_certificate(tmp_path: Path, change: float) -> None:
    for seed, scale in ((0, 1.0), (1, 1e-310)):
        head = draw(seed, "generic", "squared", q=2, d2=0, bias=False)
        head = replace(head, W=scale * head.W, V=scale * head.V)
        document, arrays = forger.certificate(forger.Case(head, 1.0), "UNDECIDED")
        assert decide(forger.write(tmp_path, document, arrays)).accepted
        b = float.fromhex(document["claim"]["b"]["value"])
        mutant = forger.changed(document, ("claim", "b", "value"), (b * change).hex())
        assert not decide(forger.write(tmp_path, forger.sealed(mutant), arrays)).accepted


Formula = Callable[[Head, float], float]


def per_sample(head: Head, b: float) -> float:
    """E[L3 J³ + 3 L2 J‖f‖], for the losses with constant bounds."""
    norm_f, norm_x = np.linalg.norm(head.f, axis=1), np.linalg.norm(head.inputs, axis=1)
    J = np.hypot(norm_x + b * norm_f, b * norm_f)
    second, third = {"squared": (1.0, 0.0), "softmax": (0.5, np.sqrt(6.0) / 9.0)}[head.loss]
    return float(np.mean(third * J**3 + 3.0 * second * J * norm_f))


def matrix(head: Head, b: float) -> float:
    z = np.hstack([head.inputs, head.f])
    norm_f, norm_x = np.linalg.norm(head.f, axis=1), np.linalg.norm(head.inputs, axis=1)
    J = np.hypot(norm_x + b * norm_f, b * norm_f)
    second, third = {"squared": (1.0, 0.0), "softmax": (0.5, np.sqrt(6.0) / 9.0)}[head.loss]

    def largest(rows: Any, weights: Any) -> float:
        return float(np.linalg.eigvalsh((rows.T * weights) @ rows / len(rows))[-1])

    kappa = np.linalg.eigvalsh(np.array([[1 + b * b, b * b], [b * b, b * b]]))[-1]
    pair = largest(z, np.full(len(z), second)) * largest(head.f, np.full(len(z), second))
    return kappa * largest(z, third * J) + 3.0 * np.sqrt(kappa * pair)


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize("n", [3, 60])
def test_a_computed_mu2_is_the_least_of_its_formulas(tmp_path: Path, loss: str, n: int) -> None:
    head, rng = draw(0, "generic", loss, q=2, d1=3, d2=1, bias=True), np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, n)] if loss == "softmax" else rng.normal(size=(n, 2))
    x, f, bypass = (rng.normal(size=(n, size)) for size in (3, 3, 1))
    head = replace(head, x=x, y=y, f=f, bypass=bypass, V=rng.normal(size=(3, 3)))
    b = forger.computed_b(head)
    least = min(per_sample(head, b), matrix(head, b))
    for factor, accepted in ((1e-9, True), (-1e-9, False), (1e-7, False), (1.0, False)):
        case = forger.Case(head, 1.0, least * (1.0 + factor))
        made = forger.certificate(case, "UNDECIDED", source="computed")
        assert decide(forger.write(tmp_path, *made)).accepted is accepted
    made = forger.certificate(forger.Case(head, 1.0, least / 2.0), "UNDECIDED", source="given")
    assert decide(forger.write(tmp_path, *made)).accepted


def damaged(text: str, rng: np.random.Generator) -> str:
    """A spec with one thing wrong, or none: a piece that is lost, comes twice, or is another."""
    start = int(rng.integers(len(text)))
    stop = min(len(text), start + int(rng.integers(1, 12)))
    other = rng.choice(
        ["", "1", "-1", "0", "1e400", ".nan", "[]", "{}", "null", "x", "kind: ", "\n", " ", "f: "]
    )
    return text[:start] + str(rng.choice([other, 2 * text[start:stop], text[start:stop][::-1]])) + text[stop:]


def test_the_first_format_says_which_mu2_it_has(tmp_path: Path) -> None:
    """By the first formula alone, which may be larger than what a spec that leaves it open has now."""
    rng, n = np.random.default_rng(0), 60
    x, f = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    head = Head(x, rng.normal(size=(n, 1)), f, rng.normal(size=(1, 3)), rng.normal(size=(3, 2)))
    mu2 = per_sample(head, forger.computed_b(head))
    assert matrix(head, forger.computed_b(head)) < 0.9 * mu2
    for factor, accepted in ((1e-9, True), (1e-7, False), (-1e-9, False)):
        made = forger.certificate(
            forger.Case(head, 1.0, mu2 * (1.0 + factor)), "UNDECIDED", source="computed"
        )
        found = decide(forger.write(tmp_path, *forger.as_format_1(*made)))
        assert found.accepted is accepted
        assert not accepted or "format 1" in found.reasons[0]
        assert not decide(forger.write(tmp_path, *made)).accepted


def test_whatever_check_refuses_the_verifier_does_not_accept(tmp_path: Path, longer: int) -> None:
    rng, made, refused = np.random.default_rng(0), small(), 0
    for _ in range(150 * longer**3):
        text = damaged(BASE, rng)
        (tmp_path / "problem.yaml").write_text(text)
        try:
            load_spec(tmp_path / "problem.yaml")
        except RequestError:
            refused += 1
            try:
                assert answer(tmp_path, text, made).verdict in (None, Verdict.UNDECIDED), text
            except RequestError:
                continue  # a file that is missing: not accepted either
    assert refused > 50
