"""Settings of every test: one BLAS thread, strict JAX, and the long runs only when asked for."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: small matrices are slower with more
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from hypothesis import settings

from resnet_cert.jax64 import jax

LONG_EXAMPLES = 2000

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
settings.register_profile("short", deadline=None)
settings.register_profile("long", deadline=None, max_examples=LONG_EXAMPLES)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests too, with more random problems")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="a long run: --long"))
