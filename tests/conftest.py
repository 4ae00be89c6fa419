"""Settings of every test: one BLAS thread, strict JAX, and the long runs only when asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: small matrices are slower with more
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred processes would compile the package anew

# As the commands do: what is compiled is kept for the next run.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compilations")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pytest

SHORT_EXAMPLES, LONG_EXAMPLES = 25, 2000
LONGER = 4
"""How many times as many starts, and steps from each, a long search has."""
RATIOS = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests too, with more random problems")
    parser.addoption("--count", type=int, help="how many random problems a long test draws")
    parser.addoption("--first", type=int, default=10_000, help="the first of their seeds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = {}
    # To rewrite the asserts of all modules takes each worker five seconds: the values in them are shown where
    # files are asked for by name.
    hook: Any = config.pluginmanager.rewrite_hook
    hook.fnpats = []
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import jax  # which whoever only hands the tests out does not need
        from hypothesis import settings

        examples = LONG_EXAMPLES if config.getoption("--long") else SHORT_EXAMPLES
        settings.register_profile("ours", deadline=None, max_examples=examples)
        settings.load_profile("ours")
        jax.config.update("jax_numpy_rank_promotion", "raise")
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        # What is compiled is found again whatever lines of the tests and the package led to it.
        jax.config.update("jax_traceback_in_locations_limit", 0)


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[[int], range]:
    """The seeds of a long test that draws so many problems if nothing else is said: --first and --count."""
    first, count = (request.config.getoption(name) for name in ("--first", "--count"))
    return lambda usual: range(first, first + (usual if count is None else count))


@pytest.fixture
def longer(request: pytest.FixtureRequest) -> int:
    return LONGER if request.config.getoption("--long") else 1


@pytest.fixture
def record_ratio(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Show at the end of a long run how near a search came to breaking an inequality."""
    return request.config.stash[RATIOS].__setitem__


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--long") and config.stash[RATIOS]:
        terminalreporter.section("largest ratio of the two sides that the search came to: at most 1")
        for name, ratio in config.stash[RATIOS].items():
            terminalreporter.write_line(f"{ratio:.12f}  {name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long runs are left out, not skipped: telling of each takes as long as a quick test."""
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_collection_finish() -> None:
    """The tests and what they import live as long as the run: the collector need not look at them again."""
    gc.collect()
    gc.freeze()
