"""The flat public API: loaded on first use, and the same whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest
from selections import first

import resnet_cert


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    heavy = '{"numpy", "jax", "rich", "pydantic", "yaml", "click"}'
    assert python(f"import resnet_cert, sys; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("name", resnet_cert.__all__)
def test_every_public_name_is_there(name: str):
    assert getattr(resnet_cert, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        _ = resnet_cert.chekc


@pytest.mark.parametrize("name", ["check", "bound"])
@pytest.mark.parametrize(
    "before",
    first(1, ["import resnet_cert.check; ", "", "from resnet_cert.check import check as c; "]),
)
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str, before: str):
    script = f"{before}from resnet_cert import {name}; import resnet_cert; "
    assert python(script + f"print({name}.__name__, resnet_cert.{name} is {name}, callable({name}))") == (
        f"{name} True True"
    )


def test_a_result_prints_as_its_command_does():
    table = resnet_cert.bound([0.1], b=1.0, r=1.0, mu0=1.0, mu1=1.0, mu2=1.0)
    assert str(table).startswith("Theorem 3: F − min F_lin")
    assert str(table) in table._repr_html_()
