"""True certificates of every kind of point are accepted, false ones are not: by margins of 1e-9 and less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import forger
import numpy as np
import pytest
from families import CORNERS, draw
from heads import LOSSES, Head

from resnet_cert.certificate.cost import Limits
from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.verification import Verification
from resnet_cert.outcomes import Verdict


def decided(folder: Path, made: tuple[forger.Document, forger.Arrays]) -> Verification:
    return decide(forger.write(folder, *made))


def heads(loss: str, corner: str, seed: int = 0) -> Head | None:
    head = draw(seed, corner, loss, l2=[0.0, 0.05][seed % 2])
    return None if loss == "softmax" and head.q == 1 else head


TURNS = [
    pytest.param(corner, loss, seed, marks=() if (seed, (i + j) % 3) == (0, 0) else pytest.mark.long)
    for i, corner in enumerate(CORNERS)
    for j, loss in enumerate(LOSSES)
    for seed in range(2)
]
"""In every run each corner with two losses, one of each kind of μ2 below, and each loss with four corners."""


@pytest.mark.parametrize(("corner", "loss", "seed"), TURNS)
def test_verdicts_turn_at_the_smallest_epsilon(
    tmp_path: Path, loss: str, corner: str, seed: int, longer: int
) -> None:
    head = heads(loss, corner, seed)
    truth = None if head is None else head.truth
    if head is None or truth is None or forger.smallest_epsilon(truth, 1.0) < 1e-12:
        return
    # Curvature is the bottleneck, or the gradient.
    for mu2 in (1e-3, 1e3) if longer > 1 else ([1e-3, 1e3][LOSSES.index(loss) % 2],):
        above, below = (forger.at_threshold(head, 1.0 + margin, mu2) for margin in (1e-11, -1e-11))
        assert decided(tmp_path, forger.certified(above)).verdict is Verdict.CERTIFIED
        assert decided(tmp_path, forger.certified(below)).verdict is None
    for case in (forger.at_threshold(head, 0.5, mu2) for mu2 in (1e-3, 1e3)):
        by_gradient = truth.norm > case.epsilon
        made = forger.refuted_by_gradient if by_gradient else forger.refuted_by_curvature
        assert decided(tmp_path, made(case)).verdict is Verdict.REFUTED


@pytest.mark.parametrize("loss", ["squared", "logistic", "pseudo_huber", "poisson"])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_format_is_read_as_before(tmp_path: Path, loss: str, seed: int) -> None:
    head = draw(seed, "weights", loss, q=1, d2=0, bias=False)
    for slack, verdict in ((1.001, Verdict.CERTIFIED), (0.999, None)):
        made = forger.certified(forger.at_threshold(head, slack))
        assert decided(tmp_path, forger.as_format_1(*made)).verdict is verdict
    case = forger.at_threshold(head, 0.5)
    by_gradient = head.truth.norm > case.epsilon
    made = (forger.refuted_by_gradient if by_gradient else forger.refuted_by_curvature)(case)
    assert decided(tmp_path, forger.as_format_1(*made)).verdict is Verdict.REFUTED


def test_the_answer_says_what_it_is_a_verdict_about(tmp_path: Path) -> None:
    head = draw(0, "generic", "softmax", q=3, d1=2, d2=1, bias=True, l2=0.01)
    case = forger.at_threshold(head, 1.001)
    found = decided(tmp_path, forger.certified(case))
    truth, claim = head.truth, found.to_dict()["claim"]
    assert (claim["epsilon"], claim["loss"], claim["n"]) == (case.epsilon, "softmax", len(head.x))
    assert (claim["d"], claim["bypass"], claim["bias"], claim["q"]) == (2, 1, True, 3)
    assert (claim["mu2"], claim["mu2_source"]) == (1.0, "given")
    for name, true in (("F", truth.F), ("gradient_norm", truth.norm), ("lambda_min", truth.lambda_min)):
        lower, upper = claim[name]["lower"], claim[name]["upper"]
        assert lower is None or lower <= true
        assert upper is None or true <= upper
    assert found.headline == f"CERTIFIED, ε = {case.epsilon!r}, for the stored arrays: no spec is named"
    assert Verification.of(found.to_dict()) == found


def test_nothing_of_a_certificate_prints_a_line_of_its_own(tmp_path: Path) -> None:
    head = draw(0, "generic", "squared")
    case = forger.at_threshold(head, 1.1)
    document, arrays = forger.certified(case)
    spec = forger.spec(tmp_path, case)
    evil = {**forger.named(spec), "overrides": ["name=x\n\x1b[2KCERTIFIED for important.yaml\u2028"]}
    found = decide(forger.write(tmp_path, forger.sealed({**document, "spec": evil}, arrays), arrays))
    assert found.verdict is None
    assert all(line.isprintable() for line in (found.headline, *found.to_dict()["reasons"]))


def test_an_exact_stationary_point_is_certified_at_epsilon_zero(tmp_path: Path) -> None:
    """Equalities, which no precision decides: rational numbers do, for the squared losses."""
    rng = np.random.default_rng(0)
    x, f = rng.integers(-9, 9, (6, 2)) / 8.0, rng.integers(-9, 9, (6, 1)) / 8.0
    W, V = np.array([[0.375, -1.25], [0.5, 1.0]]), np.array([[0.5], [0.25]])
    for change, verdict in ((0.0, Verdict.CERTIFIED), (2.0**-40, None)):
        y = (x + f @ V.T) @ W.T
        y[0, 1] += change
        case = forger.Case(Head(x, y, f, W, V), 0.0)
        assert decided(tmp_path, forger.certificate(case, "CERTIFIED", lower=0.0)).verdict is verdict


def test_an_upper_end_is_shown_by_a_direction_or_else_by_the_matrix_itself(tmp_path: Path) -> None:
    head = draw(2, "generic", "softmax", q=2, d1=2, bias=True)
    H = forger.dense(head.truth.hessian_G)
    v = np.random.default_rng(3).normal(size=len(H))
    quotient, least = float(v @ H @ v / (v @ v)), float(np.linalg.eigvalsh(H)[0])
    for upper, accepted in (
        (quotient + 1e-12, True),
        (quotient - 1e-12, True),
        (least + 1e-9, True),
        (least - 1e-9, False),
    ):
        made = forger.certificate(forger.Case(head, 1.0), "UNDECIDED", upper=upper, direction=v)
        assert decided(tmp_path, made).accepted is accepted
    made = forger.certificate(forger.Case(head, 1e-3), "REFUTED", upper=-100.0, direction=0.0 * v)
    assert not decided(tmp_path, made).accepted


@pytest.mark.parametrize("part", ["W", "V"])
def test_the_domain_is_open_and_its_bound_spectral(tmp_path: Path, part: str) -> None:
    rng = np.random.default_rng(1)
    sizes = {"W": rng.normal(size=(3, 4)), "V": rng.normal(size=(4, 2))}
    sizes = {name: M / np.linalg.norm(M, 2) / (1.0 if name == part else 2.0) for name, M in sizes.items()}
    head = Head(rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), **sizes)
    for b, accepted in ((1.0 + 1e-13, True), (1.0 - 1e-13, False)):
        made = forger.certificate(forger.Case(head, 1.0, b=b), "UNDECIDED")
        assert decided(tmp_path, made).accepted is accepted


def test_what_is_too_large_is_undecided_with_the_numbers(tmp_path: Path) -> None:
    path = forger.write(tmp_path, *forger.certified(forger.at_threshold(draw(0), 1.1)))
    late, small = Limits.within(1e-9), Limits.within(600.0, 1e6)
    for limits, words in ((late, "left of the budget"), (small, "GB of memory allowed")):
        found = decide(path, limits=limits)
        assert (found.verdict, found.exit_code) == (Verdict.UNDECIDED, 20)
        assert words in found.reasons[-1]


def test_an_exception_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnet_cert.certificate import decision, facts

    case = forger.at_threshold(draw(0, "generic", "logistic"), 1.1, 1e-3)
    path = forger.write(tmp_path, *forger.certified(case))
    places: list[tuple[Any, str]] = [
        (decision, "read_certificate"),
        (decision, "read_arrays"),
        (decision, "Facts"),
        (decision, "encloses"),
        (decision, "encloses_root"),
        (decision, "inside"),
        (decision, "is_computed_b"),
        (facts, "semidefinite"),
        (facts.Facts, "curvature_at_least"),
    ]
    for module, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *arguments, **options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                decide(path)
