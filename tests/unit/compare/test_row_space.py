"""Unseen directions against exact rationals."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb, ctx
from heads import BITS
from oracle_algebra import dot, norm, rational

from resnet_cert.compare.row_space import Unseen, unseen_directions

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def found(x: Array) -> Unseen | None:
    return unseen_directions(lambda: np.array_split(x, 3))


def is_exactly_unseen(x: Array, z: Array) -> bool:
    return all(not dot([rational(e) for e in row], [rational(e) for e in z]) for row in x)


def categories(rng: np.random.Generator, n: int, count: int) -> Array:
    return np.eye(count)[rng.integers(0, count, n)]


def many_rows(name: str, rng: np.random.Generator) -> tuple[Array, int]:
    """Inputs of at least as many distinct rows as columns, and the dimension of what they do not see."""
    noise = rng.normal(size=(40, 3))
    category, other = categories(rng, 40, 4), categories(rng, 40, 3)
    column = noise[:, :1]
    return {
        "an intercept and a category": (np.hstack([np.ones((40, 1)), category, noise]), 1),
        "an intercept and two categories": (np.hstack([np.ones((40, 1)), category, other, noise]), 2),
        "a slope for each category": (np.hstack([noise, category * column]), 1),
        "a copy": (np.hstack([noise, noise[:, 1:2]]), 1),
        "twice and minus": (np.hstack([noise, 2.0 * column, -column]), 2),
        "nothing but zeros in a column": (np.insert(noise, 1, 0.0, axis=1), 1),
        "hours and minutes": (
            np.hstack([noise, np.arange(40.0)[:, None], 60.0 * np.arange(40.0)[:, None]]),
            1,
        ),
        "columns of all sizes": (np.hstack([noise * [1e-9, 1.0, 1e9], noise[:, 2:] * 1e9]), 1),
        "weekdays and weekends": (np.hstack([category @ [[2.0], [2.0], [0.0], [3.0]], category, noise]), 1),
        "full rank": (noise, 0),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "an intercept and a category",
        "an intercept and two categories",
        "a slope for each category",
        "a copy",
        "twice and minus",
        "nothing but zeros in a column",
        "hours and minutes",
        "columns of all sizes",
        "weekdays and weekends",
        "full rank",
    ],
)
def test_relations_between_columns_are_found_and_exact(name):
    for seed in range(5):
        x, dimension = many_rows(name, np.random.default_rng(seed))
        unseen = found(x)
        if not dimension:
            assert unseen is None
            continue
        assert unseen is not None
        assert unseen.sine == 0.0
        assert np.linalg.matrix_rank(unseen.Z) == unseen.Z.shape[1] == dimension
        assert all(is_exactly_unseen(x, z) for z in unseen.Z.T)


def test_a_relation_that_is_off_in_one_last_place_is_none():
    x, _ = many_rows("a copy", np.random.default_rng(0))
    x[-1, -1] = np.nextafter(x[-1, -1], np.inf)
    assert found(x) is None


@pytest.mark.parametrize("size", [1e-300, 1e-8, 1.0, 1e8, 1e300])
def test_fewer_rows_than_columns_leave_a_complement(size):
    rng = np.random.default_rng(3)
    for n, d in ((1, 2), (2, 3), (3, 7), (5, 6)):
        x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3, (n, 1)) * size
        if n > 1:
            x[1] = x[0] * (1.0 + 1e-6 * rng.normal(size=d))  # almost parallel
        unseen = found(np.concatenate([x, x, np.zeros((2, d))]))
        assert unseen is not None
        assert unseen.Z.shape == (d, d - n)
        assert unseen.sine < 1e-7
        scale = [rational(1.0 / np.max(np.abs(row))) for row in x]
        for _ in range(10):
            c = [rational(e) * s for e, s in zip(rng.normal(size=n), scale, strict=True)]
            if n > 1:
                c[1] = -c[0] * (1 + rational(1e-9) * c[1])  # where rounding tells
            w = [dot(c, [rational(e) for e in column]) for column in x.T]
            seen = norm([arb(dot([rational(e) for e in z], w)) for z in unseen.Z.T])
            assert not seen > arb(unseen.sine) * norm([arb(e) for e in w])


@pytest.mark.parametrize("exact", [True, False])
def test_rows_that_depend_on_each_other_leave_the_kernel(exact: bool):
    """Three rows whose third is the sum of the others, or about it, and their negatives."""
    x = np.random.default_rng(4).normal(size=(3, 4))
    x[:2] = np.round(x[:2] * 64.0) / 64.0 if exact else x[:2]
    x[2] = x[0] + x[1]
    x = np.concatenate([x, -x])
    unseen = found(x)
    assert unseen is not None
    assert unseen.Z.shape == (4, 2 if exact else 1)
    assert unseen.sine < 1e-14
    for row in x:
        seen = norm([arb(dot([rational(e) for e in row], [rational(e) for e in z])) for z in unseen.Z.T])
        assert not seen > arb(unseen.sine) * norm([arb(rational(e)) for e in row])


def test_without_a_sample_that_is_not_zero_nothing_is_seen():
    unseen = found(np.zeros((4, 3)))
    assert unseen is not None
    assert np.array_equal(unseen.Z, np.eye(3))
