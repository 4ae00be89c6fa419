"""What the library sets for itself, it gives back: JAX's precision and the threads of linear algebra."""

from __future__ import annotations

import threading

import jax
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_cert.numerics import jax64
from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.threads import SMALL, in_order, small_algebra
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


def test_pieces_inside_of_small_algebra_have_the_threads_that_it_took():
    with threadpool_limits(2, user_api="blas"), small_algebra() as free:
        assert free == 2
        workers = in_order(lambda _: threading.current_thread(), range(5), 5)
        assert threading.current_thread() not in set(workers)
        assert blas_threads() == {1}


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


def test_pieces_are_worked_on_by_the_threads_that_a_blas_would_take_and_come_in_order():
    together = threading.Barrier(2, timeout=10.0)
    seen: list[tuple[set[int], str]] = []

    def task(piece: int) -> int:
        if piece < 2:
            together.wait()  # the first two are worked on at once
        seen.append((blas_threads(), np.geterr()["over"]))
        return piece * piece

    with threadpool_limits(2, user_api="blas"), np.errstate(over="raise"):
        assert list(in_order(task, iter(range(7)), 7)) == [0, 1, 4, 9, 16, 25, 36]
        assert blas_threads() == {2}
    assert seen == [({1}, "raise")] * 7


@pytest.mark.parametrize(("threads", "count"), [(1, 7), (2, 1)])
def test_one_thread_or_one_piece_stays_on_the_calling_thread(threads: int, count: int):
    with threadpool_limits(threads, user_api="blas"):
        workers = in_order(lambda _: threading.current_thread(), range(count), count)
        assert set(workers) == {threading.current_thread()}


def test_a_piece_that_fails_ends_the_work_and_gives_the_threads_back():
    def task(piece: int) -> float:
        return 1 / (3 - piece)

    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ZeroDivisionError):
            list(in_order(task, range(9), 9))
        assert blas_threads() == {2}
