"""What the library sets for itself, it gives back: JAX's precision and the threads of linear algebra."""

from __future__ import annotations

import threading

import jax
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_cert.numerics import jax64
from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.threads import SMALL, small_algebra
from resnet_cert.outcomes import InternalError


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_jax_computes_in_float64_inside_and_as_before_outside():
    before = jax.numpy.ones(1).dtype
    with float64_scope():
        assert jax64.jnp.ones(1).dtype == np.float64
        assert jax.grad(jax64.jnp.sum)(np.ones(2)).dtype == np.float64
    assert jax.numpy.ones(1).dtype == before == np.float32


def test_a_program_compiled_inside_is_not_the_one_that_runs_outside():
    double = jax.jit(lambda x: 2 * x)
    with float64_scope():
        assert double(np.ones(1)).dtype == np.float64
    assert double(np.ones(1)).dtype == np.float32


@pytest.mark.parametrize("use", [lambda: jax64.jnp.ones(1), lambda: jax64.jax.grad])
def test_jax_is_not_touched_outside_of_a_scope(use):
    with pytest.raises(InternalError, match="outside of float64_scope"):
        use()


def test_a_scope_is_that_of_one_thread():
    seen = []
    with float64_scope():
        thread = threading.Thread(target=lambda: seen.append(jax.numpy.ones(1).dtype))
        thread.start()
        thread.join()
    assert seen == [np.float32]


def test_a_scope_ends_with_an_exception():
    with pytest.raises(RuntimeError, match="inside"), float64_scope():
        raise RuntimeError("inside")
    assert jax.numpy.ones(1).dtype == np.float32


def test_small_algebra_has_one_thread_and_gives_back_the_caller_s():
    with threadpool_limits(2, user_api="blas"):
        with small_algebra(100):
            assert blas_threads() == {1}
            with small_algebra(3):
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        with small_algebra(SMALL + 1):
            assert blas_threads() == {2}


def test_two_threads_that_overlap_give_back_what_the_first_one_found():
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with small_algebra():
            inside.set()
            leave.wait(10.0)

    with threadpool_limits(2, user_api="blas"):
        thread = threading.Thread(target=other)
        with small_algebra():
            thread.start()
            inside.wait(10.0)
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        leave.set()
        thread.join()
        assert blas_threads() == {2}
        with small_algebra():
            assert blas_threads() == {1}
