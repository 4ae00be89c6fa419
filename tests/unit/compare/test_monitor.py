"""What the monitor says of a point is what the check proves of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from selections import first

from resnet_cert import Enclosure, Monitor, Problem, RequestError, check


def arrays(q: int, bias: bool, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n, d, k = 40, 3, 4
    y = rng.normal(size=(n, q)) if q != 3 else rng.integers(q, size=n)
    found = {"x": rng.normal(size=(n, d)), "f": rng.normal(size=(n, k)), "y": y}
    point = {"W": rng.normal(size=(q, d)), "V": 0.3 * rng.normal(size=(d, k))}
    return found | point | ({"c": rng.normal(size=q)} if bias else {})


def meets(one: Enclosure, other: Enclosure) -> bool:
    return one.lower <= other.upper and other.lower <= one.upper


CASES = [
    (1, False, "squared", {}),
    (2, True, "mse", {"weight_decay": 0.1}),
    (3, True, "cross_entropy", {"weight_decay": 0.1, "decay_bias": False}),
    (3, False, "softmax", {"mu2": 50.0}),
]


@pytest.mark.parametrize(("q", "bias", "loss", "options"), first(3, CASES))
def test_the_numbers_are_those_of_the_check(
    q: int, bias: bool, loss: str, options: dict[str, Any], longer: int
) -> None:
    a = arrays(q, bias)
    monitor = Monitor(a["x"], a["y"], loss=loss, b=10.0, r=5.0, **options)
    for scale in (1.0, 0.0, 0.5)[: 1 + longer]:
        point = {name: scale * a[name] for name in ("W", "V", "c") if name in a}
        seen = monitor(**point, f=a["f"])
        problem = Problem.from_arrays(
            x=a["x"], y=a["y"], f=a["f"], loss=loss, b=10.0, r=5.0, hessian="exact", **point, **options
        )
        report = check(problem)
        assert meets(seen.gradient_norm, report.gradient.norm)
        assert meets(seen.F, report.objective.F)
        assert meets(seen.gap, report.objective.gap)
        assert seen.gap.upper - seen.gap.lower < 1e-6
        exact = report.hessian.lambda_min
        assert seen.lambda_min.lower <= exact.upper
        assert seen.lambda_min.upper >= exact.lower
        assert report.smallest_epsilon is not None
        assert seen.epsilon is not None
        assert seen.mu2 == pytest.approx(report.constants.mu2, rel=1e-9)
        assert seen.epsilon.lower <= report.smallest_epsilon.upper
        assert seen.epsilon.upper >= report.smallest_epsilon.lower
        certified = check(replace(problem, epsilon=seen.epsilon.upper * 1.000001))
        assert certified.verdict.value == "CERTIFIED"


def test_the_domain_is_fixed_at_the_first_call_and_doubles_where_the_point_leaves_it() -> None:
    a = arrays(1, False)
    monitor = Monitor(a["x"], a["y"], f=lambda x: a["f"])
    first, second = monitor(a["W"], a["V"]), monitor(0.5 * a["W"], a["V"])
    assert (first.b, first.mu2) == (second.b, second.mu2)
    assert first.b == pytest.approx(4.0 * max(np.linalg.norm(a["W"], 2), 1.0), rel=1e-9)
    far = monitor(5.0 * a["W"], a["V"])
    assert far.b == 2.0 * first.b
    assert far.mu2 is not None
    assert first.mu2 is not None
    assert far.mu2 > first.mu2


def test_features_that_change_are_evaluated_anew() -> None:
    a = arrays(1, False)
    scale = [1.0]
    monitor = Monitor(a["x"], a["y"], f=lambda x: scale[0] * a["f"], b=10.0)
    first = monitor(a["W"], a["V"])
    scale[0] = 2.0
    second = monitor(a["W"], a["V"])
    assert second.mu2 != first.mu2
    assert second.F.value == pytest.approx(monitor(a["W"], a["V"], f=2.0 * a["f"]).F.value, rel=1e-12)


def test_w_may_be_a_vector_and_the_progress_reads_as_a_line_and_as_numbers() -> None:
    a = arrays(1, False)
    seen = Monitor(a["x"], a["y"])(a["W"][0], a["V"], f=a["f"])
    assert str(seen).startswith("ε* ≤ ")
    assert seen.to_dict()["gap"] == seen.gap.upper
    assert set(seen.to_dict()) == {"epsilon", "gradient_norm", "lambda_min", "gap", "F"}


def test_missing_features_and_unfit_shapes_are_refused() -> None:
    a = arrays(1, False)
    with pytest.raises(RequestError, match="expected the features f"):
        Monitor(a["x"], a["y"])(a["W"], a["V"])
    with pytest.raises(RequestError):
        Monitor(a["x"], a["y"])(a["W"], a["V"][:, :2], f=a["f"])


def test_a_loop_may_write_into_its_own_arrays() -> None:
    """μ2 follows the features of each call, though the array is the same one; the data stay as they were."""
    a = arrays(2, bias=False)
    x, f = a["x"].copy(), a["f"].copy()
    monitor = Monitor(x, a["y"], b=10.0, r=5.0)
    before = monitor(a["W"], a["V"], f=f)
    f *= 3.0
    x[:] = 0.0
    after = monitor(a["W"], a["V"], f=f)
    fresh = Monitor(a["x"], a["y"], b=10.0, r=5.0)(a["W"], a["V"], f=3.0 * a["f"])
    assert before.mu2 is not None
    assert after.mu2 is not None
    assert after.mu2 > before.mu2
    assert after.mu2 == fresh.mu2
    assert (after.F.lower, after.F.upper) == (fresh.F.lower, fresh.F.upper)
