"""A forger at work: certificates and specs changed in every way, every hash renewed, against the oracle.

What is accepted with a verdict must be true of the spec that it names, in every number and in the verdict.
A few hundred mutants by default, 100,000 with --long, none of which may end without an answer, take longer
than its budget allows, or 2 GB.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import forger
import numpy as np
import pytest
from families import draw
from flint import arb
from heads import Head, HeadTruth

from resnet_cert import RequestError
from resnet_cert.certificate.cost import Limits
from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.supervision import verify
from resnet_cert.certificate.verification import Verification
from resnet_cert.outcomes import Verdict

BUDGET = 10.0
KINDS: list[dict[str, Any]] = [
    {"loss": "squared", "q": 1, "d2": 0, "bias": False},
    {"loss": "squared", "q": 2, "d1": 2, "d2": 1, "bias": True},
    {"loss": "softmax", "q": 3, "d1": 2, "bias": True},
    {"loss": "logistic", "q": 1, "d2": 0, "bias": False},
    {"loss": "logistic", "q": 3, "d1": 3, "d2": 1, "bias": True},
    {"loss": "poisson", "q": 1},
    {"loss": "pseudo_huber", "q": 3, "d2": 1},
    {"loss": "weighted_squared", "q": 2, "d1": 2, "l2": 0.05, "bias": True},
    {"loss": "softmax", "q": 2, "l2": 0.1, "bias": True},
]
CONSTRAINED = 1
"""The kind whose points lie inside a ball."""


@dataclass(frozen=True)
class Base:
    """A true certificate beside its spec, and what is true of that."""

    case: forger.Case
    document: forger.Document
    arrays: forger.Arrays
    truth: HeadTruth
    first_format: bool = False


def bases(folder: Path) -> list[Base]:
    found = []
    for seed, kind in enumerate(KINDS):
        corner = ("weights", "generic", "rank 1")[seed % 3]
        head = draw(seed, corner, **kind)
        truth = head.truth
        for verdict in ("CERTIFIED", "gradient", "curvature"):
            slack, mu2 = (
                (1.001, 1.0) if verdict == "CERTIFIED" else (0.5, 1e3 if verdict == "gradient" else 1e-3)
            )
            case = forger.at_threshold(head, slack, mu2)
            by_gradient = truth.norm > case.epsilon
            if verdict == "CERTIFIED":
                document, arrays = forger.certified(case)
            elif by_gradient:
                document, arrays = forger.refuted_by_gradient(case)
            else:
                document, arrays = forger.refuted_by_curvature(case)
            if seed == CONSTRAINED:
                norm = 1.0 + 2.0 * float(np.hypot(np.linalg.norm(head.head), np.linalg.norm(head.V)))
                case = replace(case, extra=f"constraint: {{norm: {norm!r}}}")
                document = forger.changed(document, ("claim", "objective", "norm"), norm.hex())
            found.append(Base(case, document, arrays, truth))
            if head.q == 1 and head.c is None and head.bypass is None and not head.l2:
                found.append(Base(case, *forger.as_format_1(document, arrays), truth, True))
    return found


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        keys = value if isinstance(value, dict) else range(len(value))
        return [leaf for key in keys for leaf in leaves(value[key], (*at, key))]
    return [at]


def get(document: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        document = document[key]
    return document


def other_value(leaf: Any, rng: np.random.Generator) -> Any:
    """Another number, another word, another type."""
    if rng.random() < 0.1:
        return [None, True, False, 0, 1, -1, 1.5, "", "0x1.0p+0", [], {}, [leaf], "\ud800", 2**41, 10**30][
            int(rng.integers(15))
        ]
    if isinstance(leaf, str) and leaf.lstrip("-").startswith("0x"):
        return other_number(float.fromhex(leaf), rng).hex()
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        return leaf + int(rng.integers(-2, 3))
    if isinstance(leaf, str):
        words = [
            "CERTIFIED",
            "REFUTED",
            "UNDECIDED",
            "computed",
            "given",
            "missing",
            "squared",
            "softmax",
            "../x",
        ]
        return str(rng.choice([*words, leaf + "x", leaf[:-1]]))
    return str(rng.choice(["0x1.0000000000000p+0", "-0x1.0000000000000p+0", "x"]))


def other_number(number: float, rng: np.random.Generator) -> float:
    how = int(rng.integers(7))
    if how == 0:
        return -number
    if how == 1:
        return math.nextafter(number, math.inf if rng.random() < 0.5 else -math.inf)
    if how == 2:
        return number * 2.0 ** int(rng.integers(-3, 4))
    if how == 3:
        return number * (1.0 + float(rng.normal()) * 10.0 ** int(rng.integers(-14, 0)))
    if how == 4:
        return number * 2.0 ** int(rng.integers(-900, 900))
    return float(rng.choice([0.0, 1.0, 5e-324, 1.7e308, number + 1.0]))


def mutant(base: Base, rng: np.random.Generator) -> tuple[forger.Document, forger.Arrays]:
    """One to three changes of the document, of the arrays, or of both."""
    document, arrays = base.document, dict(base.arrays)
    for _ in range(int(rng.integers(1, 4))):
        how = rng.random()
        if how < 0.55:
            places = leaves({key: value for key, value in document.items() if key != "sha256"})
            at = places[int(rng.integers(len(places)))]
            document = forger.changed(document, at, other_value(get(document, at), rng))
        elif how < 0.85:
            name = str(rng.choice(sorted(arrays)))
            array = arrays[name].copy()
            if array.size:
                index = int(rng.integers(array.size))
                array.flat[index] = other_number(float(array.flat[index]), rng)
            arrays[name] = array
        elif how < 0.9:
            arrays.pop(str(rng.choice(["probabilities", "omega", "dW", "dV", "dw", "x"])), None)
        elif how < 0.95:
            one, two = rng.choice(sorted(arrays), 2)
            if arrays[one].shape == arrays[two].shape:
                arrays[one], arrays[two] = arrays[two], arrays[one]
        else:
            overrides = [
                [],
                ["epsilon=1e6"],
                ["name=x"],
                ["lipschitz.mu2=1e9"],
                ["point.w=[0]"],
                ["x"],
                ["epsilon="],
            ]
            if isinstance(document.get("spec"), dict):
                document = forger.changed(document, ("spec", "overrides"), overrides[int(rng.integers(7))])
    return document, arrays


def resealed(base: Base, document: forger.Document, arrays: forger.Arrays) -> forger.Document:
    if not base.first_format and isinstance(document.get("inputs"), dict):
        return forger.sealed(document, arrays)
    if isinstance(document.get("inputs"), dict):
        names = ("x", "y", "probabilities", "f", "w", "V", "dw", "dV")
        hashes = {name: forger.array_hash(arrays[name]) if name in arrays else None for name in names}
        document = {**document, "inputs": {**document["inputs"], **hashes}}
    return forger.sealed(document)


def is_true(base: Base, document: forger.Document) -> bool:
    """Everything that the certificate claims, of the spec with the overrides, by the oracle."""
    epsilon, mu2 = base.case.epsilon, base.case.mu2
    for setting in document["spec"]["overrides"]:
        key, _, value = setting.partition("=")
        if key == "epsilon":
            epsilon = float(value)
        elif key == "lipschitz.mu2":
            mu2 = float(value)
        elif key != "name":
            return False
    assert mu2 is not None
    claim, truth = document["claim"], base.truth
    if float.fromhex(claim["epsilon"]) != epsilon or float.fromhex(claim["mu2"]["value"]) != mu2:
        return False
    for name, true in (("F", truth.F), ("gradient_norm", truth.norm), ("lambda_min", truth.lambda_min)):
        lower, upper = (document["bounds"][name][end] for end in ("lower", "upper"))
        if lower is not None and not true >= arb(float.fromhex(lower)):
            return False
        if upper is not None and not true <= arb(float.fromhex(upper)):
            return False
    stationary = truth.is_stationary(epsilon, mu2)
    return {"CERTIFIED": stationary is True, "REFUTED": stationary is False}.get(claim["verdict"], True)


def spread(folder: Path) -> list[tuple[Base, Path]]:
    """The bases, each in a folder with its spec, and accepted there."""
    found: list[tuple[Base, Path]] = []
    for index, base in enumerate(bases(folder)):
        place = folder / str(index)
        place.mkdir()
        named = forger.named(forger.spec(place, base.case))
        base = replace(base, document={**base.document, "spec": named})
        assert decide(forger.write(place, resealed(base, base.document, base.arrays), base.arrays)).accepted
        found.append((base, place))
    return found


def fault_of(
    seed: int, folders: list[tuple[Base, Path]], answer: Callable[[Path], Verification]
) -> str | None:
    """What is wrong with the answer to one mutant: false, late, or none."""
    rng = np.random.default_rng([seed, 3])
    base, folder = folders[int(rng.integers(len(folders)))]
    document, arrays = mutant(base, rng)
    try:
        path = forger.write(folder, resealed(base, document, arrays), arrays)
    except (TypeError, ValueError):  # no certificate can be written of it
        return None
    started = time.monotonic()
    try:
        found = answer(path)
    except RequestError:
        return None  # it names a file that is not there
    except Exception as fault:
        return f"no answer: {fault!r}"
    if time.monotonic() - started > BUDGET + 10.0:
        return "too long"
    if any("SIG" in reason or "GB of memory" in reason for reason in found.reasons):
        return f"the process was ended: {found.reasons}"
    if found.verdict in (None, Verdict.UNDECIDED) or is_true(base, json.loads(path.read_text())):
        return None
    return f"accepted: {document}, {found}"


def here(path: Path) -> Verification:
    return decide(path, limits=Limits.within(BUDGET))


def test_no_mutant_is_accepted_that_is_false_of_the_spec(tmp_path: Path, longer: int) -> None:
    folders = spread(tmp_path)
    for seed in range(100 * longer):
        assert fault_of(seed, folders, here) is None, seed


@pytest.mark.long
def test_no_mutant_of_a_hundred_thousand_is_accepted(tmp_path: Path, seeds: Callable[[int], range]) -> None:
    """With --first and --count a part of them.  One of 200 as the command has it: in a process of its own."""
    folders, wrong = spread(tmp_path), {}
    for seed in seeds(100_000):
        in_child = seed % 200 == 0
        fault = fault_of(seed, folders, (lambda path: verify(path, budget=BUDGET)) if in_child else here)
        if fault is not None:
            wrong[seed] = fault
            print(seed, fault, flush=True)
        if seed % 1000 == 999:
            print(f"up to {seed}: {len(wrong)} wrong", flush=True)
    assert not wrong
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        assert resource.getrusage(who).ru_maxrss < 2e6  # KiB: 2 GB


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"1e400", b"NaN", b"\xff\xfe", b"[" * 100_000, b"9" * 5000]
)
def test_what_is_no_certificate_is_rejected(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "certificate.json").write_bytes(raw)
    assert decide(tmp_path / "certificate.json").exit_code == 30


@pytest.mark.parametrize(
    ("at", "value"),
    [(("inputs", "file"), name) for name in ("", ".", "..", "a/b", "/", "../x")]
    + [(("spec",), {"path": "p.yaml", "sha256": "0", "overrides": ["epsilon=1.0"] * 1001})],
)
def test_names_that_are_none_and_settings_without_end_are_rejected(
    tmp_path: Path, at: tuple[str, ...], value: Any
) -> None:
    document, arrays = forger.certified(forger.at_threshold(draw(0), 1.1))
    path = forger.write(tmp_path, forger.sealed(forger.changed(document, at, value)), arrays)
    assert decide(path).exit_code == 30


def test_a_truncated_certificate_or_data_file_is_rejected(tmp_path: Path) -> None:
    made = forger.certified(forger.at_threshold(draw(0), 1.1))
    path = forger.write(tmp_path, *made)
    for file in (path, path.with_name(f"{path.name}.data")):
        raw = file.read_bytes()
        for length in range(0, len(raw), max(1, len(raw) // 50)):
            file.write_bytes(raw[:length])
            assert decide(path).exit_code == 30
        file.write_bytes(raw)
    assert decide(path).verdict is Verdict.CERTIFIED


def test_every_bit_of_the_data_is_bound(tmp_path: Path) -> None:
    path = forger.write(tmp_path, *forger.certified(forger.at_threshold(draw(0), 1.1)))
    data = path.with_name(f"{path.name}.data")
    raw = data.read_bytes()
    for position in range(0, len(raw), 5):
        data.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        assert decide(path).exit_code == 30


def test_an_entry_that_is_removed_added_or_doubled_is_rejected(tmp_path: Path) -> None:
    document, arrays = forger.certified(forger.at_threshold(draw(0), 1.1))
    for at in leaves(document):
        if not isinstance(at[-1], str) or at == ("sha256",):
            continue
        fewer = forger.changed(document, at, None)
        del get(fewer, at[:-1])[at[-1]]
        more = forger.changed(document, (*at[:-1], at[-1] + "_"), 1)
        for mutated in (fewer, more):
            assert decide(forger.write(tmp_path, forger.sealed(mutated), arrays)).exit_code == 30
        key = f"{json.dumps(at[-1])}: "
        doubled = json.dumps(document).replace(key, f"{key}null, {key}", 1)
        assert decide(forger.write(tmp_path, doubled, arrays)).exit_code == 30


def test_another_models_proof_is_rejected(tmp_path: Path) -> None:
    here, there = (draw(seed, "generic", "squared", q=2, d1=2, d2=0, bias=False) for seed in (0, 1))
    n, k = min(len(here.x), len(there.x)), min(here.f.shape[1], there.f.shape[1])

    def cut(head: Head) -> Head:
        return replace(head, x=head.x[:n], y=head.y[:n], f=head.f[:n, :k], V=head.V[:, :k])

    document, arrays = forger.certified(forger.at_threshold(cut(here), 1.0 + 1e-6))
    _, others = forger.certified(forger.at_threshold(cut(there), 1.0 + 1e-6))
    for name in arrays:
        mixed = {**arrays, name: others[name]}
        assert decide(forger.write(tmp_path, forger.sealed(document, mixed), mixed)).exit_code == 30
