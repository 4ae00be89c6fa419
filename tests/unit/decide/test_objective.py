"""The objective as the paper writes it: autodiff of any head against the oracle, and its compilations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from families import CORNERS, draw
from heads import LOSSES
from selections import first

from resnet_cert import Problem
from resnet_cert.decide import objective
from resnet_cert.decide.objective import DENSE_PARAMETERS, Objective, flat, unflat
from resnet_cert.problem import problem as problems
from resnet_cert.problem.losses import named_loss


def direction_of(problem: Problem, seed: int = 0):
    vector = np.random.default_rng(seed).normal(size=problem.parameters)
    return unflat(vector, problem.W.shape, problem.V.shape)


@pytest.mark.parametrize(
    ("loss", "l2"), first(len(LOSSES) + 1, [(loss, l2) for l2 in (0.3, 0.0) for loss in LOSSES])
)
def test_derivatives_are_the_exact_ones(loss: str, l2: float) -> None:
    for q, corner in ((2, "generic"), (2, "weights")):
        head = draw(LOSSES.index(loss), corner, loss, q=q, d1=2, d2=1, bias=True, l2=l2)
        problem, truth = head.problem(), head.truth
        u = direction_of(problem)
        found = Objective(problem).along(u)
        H = np.array([[float(entry) for entry in row] for row in truth.hessian_G])
        size = max(1.0, float(np.abs(H).max()))
        np.testing.assert_allclose(
            flat(found.gradient), [float(g) for g in truth.gradient_G], atol=1e-12 * size
        )
        np.testing.assert_allclose(flat(found.product), H @ flat(u), atol=1e-11 * size)
        dense = Objective(problem).dense_hessian()
        assert dense is not None
        np.testing.assert_allclose(dense, H, atol=1e-11 * size)
        plain = Objective(problem, regularized=False).along(u)
        assert plain.value == pytest.approx(float(truth.F), rel=1e-12)
        np.testing.assert_allclose(
            flat(plain.gradient), [float(g) for g in truth.gradient], atol=1e-12 * size
        )


@pytest.mark.parametrize("corner", CORNERS)
def test_no_corner_is_an_exception(corner: str) -> None:
    head = draw(3, corner, "squared")
    found = Objective(head.problem()).along(direction_of(head.problem()))
    truth = [float(g) for g in head.truth.gradient]
    np.testing.assert_allclose(flat(found.gradient), truth, atol=1e-11)


def test_one_compilation_serves_all_problems_of_a_size() -> None:
    objective._compiled.cache_clear()
    for n, d1, k, scale in ((33, 9, 5, 1.0), (40, 12, 7, 1e-9), (64, 16, 8, 3.0)):
        rng = np.random.default_rng(n)
        problem = Problem.from_arrays(
            x=rng.normal(size=(n, d1)), y=rng.normal(size=n), f=rng.normal(size=(n, k)),
            w=rng.normal(size=d1), V=rng.normal(size=(d1, k)), loss=named_loss("squared", scale),
        )  # fmt: skip
        Objective(problem).along(direction_of(problem))
    loss, _ = objective.plain(problem.loss)
    assert objective._compiled(loss, True)._cache_size() == 1


def test_chunks_and_padding_do_not_change_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n, d, k = 1300, 3, 2
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d)), y=rng.poisson(1.0, n).astype(float), f=rng.normal(size=(n, k)), w=0.1 *
        rng.normal(size=d), V=rng.normal(size=(d, k)), loss="poisson",
        probabilities=rng.dirichlet(np.ones(n)),
    )  # fmt: skip
    u = direction_of(problem)
    whole = Objective(problem).along(u)
    monkeypatch.setattr(problems, "CHUNK_BYTES", 1)
    assert problem.chunk_rows == problems.BLOCK_ROWS
    parts = Objective(problem).along(u)
    np.testing.assert_allclose(flat(parts.product), flat(whole.product), rtol=1e-12)
    assert parts.value == pytest.approx(whole.value, rel=1e-13)


def test_the_hessian_is_dense_only_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw(1, "generic", "squared", q=2).problem()
    assert Objective(problem).dense_hessian() is not None
    monkeypatch.setattr(objective, "DENSE_WORK", 1)
    assert Objective(problem).dense_hessian() is None
    large = Problem.from_arrays(
        x=np.ones((1, DENSE_PARAMETERS)),
        y=[0.0],
        f=[[1.0]],
        w=np.ones(DENSE_PARAMETERS),
        V=np.ones((DENSE_PARAMETERS, 1)),
    )
    assert Objective(large).dense_hessian() is None


def test_flat_and_back() -> None:
    u = direction_of(draw(1, "generic", "squared", q=2, d2=1).problem())
    again = unflat(flat(u), u.dW.shape, u.dV.shape)
    assert np.array_equal(again.dW, u.dW)
    assert np.array_equal(again.dV, u.dV)


def test_what_evaluates_the_proofs_is_no_part_of_the_compiled_function() -> None:
    from resnet_cert.decide.ball import elementary

    loss = draw(1, "generic", "logistic", q=2).problem().loss
    assert objective.plain(replace(loss, functions=elementary())) == objective.plain(loss)
