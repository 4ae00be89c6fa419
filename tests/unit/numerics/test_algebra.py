"""Decompositions that do not exist are NaN, and only the numerics ask LAPACK for one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import resnet_cert
from resnet_cert.numerics import algebra

PACKAGE = Path(resnet_cert.__file__).parent
RAW = re.compile(r"linalg\.(eigh|eigvalsh|svd|lstsq|solve|pinv|eig)\b")


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_what_lapack_does_not_find_is_nan(entry):
    S = np.full((3, 3), entry)
    for part in (*algebra.eigh(S), algebra.eigvalsh(S), *algebra.svd(S), algebra.lstsq(S, np.ones((3, 2)))):
        assert np.isnan(part).all()
    assert algebra.svd(S[:2], full_matrices=True)[2].shape == (3, 3)
    assert algebra.lowest(S)[1].shape == (3, 1)
    assert np.isnan(algebra.pinv(S[:2])).all()
    assert algebra.pinv(S[:2]).shape == (3, 2)


def test_decompositions_are_those_of_lapack():
    S = np.diag([3.0, -1.0, 2.0])
    assert algebra.eigvalsh(S).tolist() == [-1.0, 2.0, 3.0]
    assert algebra.eigh(np.stack([S, 2.0 * S]))[0][1].tolist() == [-2.0, 4.0, 6.0]
    assert np.allclose(algebra.lowest(S)[0], [-1.0])
    assert np.allclose(algebra.svd(S)[1], [3.0, 2.0, 1.0])
    assert np.allclose(algebra.solve(S, np.ones(3)), [1.0 / 3.0, -1.0, 0.5])
    assert np.allclose(algebra.solve(np.diag([1.0, 0.0]), np.ones(2)), [1.0, 0.0])  # singular


@pytest.mark.parametrize("room", ["decide", "compare", "moments", "problem", "search", "theory"])
def test_no_other_room_asks_lapack_itself(room):
    for path in (PACKAGE / room).glob("*.py"):
        assert not RAW.search(path.read_text("utf-8")), path
