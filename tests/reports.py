"""Reports made by hand, for the tests of what is written about them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnet_cert import results as model
from resnet_cert.certificate import child, supervision
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict

exact = Enclosure.exact


def leave_out_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Automatic differentiation is compiled anew for every shape and loss, and no enclosure depends on it."""
    none = model.CrossCheck(0.0, 0.0, None)
    monkeypatch.setattr(importlib.import_module("resnet_cert.check"), "crosscheck", lambda *_: none)


def verify_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` works in this process: to import all in one of its own takes longer than most of its work."""

    def run(path: Path, folder: str, arrays: bool, budget: float) -> tuple[list[dict[str, Any]], str]:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            child.main(supervision._absolute(path), folder, budget, supervision.MEMORY, arrays)
        return [json.loads(line) for line in said.getvalue().splitlines()], "it came to its end"

    monkeypatch.setattr(child, "_limit", lambda *_: None)
    monkeypatch.setattr(supervision, "_run", run)


def certified(**changes: Any) -> model.Report:
    """A report with every part filled in, the objective below every linear predictor's."""
    report = model.Report(
        name="diabetes",
        spec=model.Source("configs/diabetes.yaml", "ab" * 32),
        versions={"resnet_cert": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6"},
        problem=model.Size(n=442, d=10, k=16, parameters=170, loss="squared", norm_w=0.75, norm_V=1.25),
        epsilon=0.2,
        verdict=Verdict.CERTIFIED,
        reasons=("‖∇F‖ ≤ 0.123 < ε", "λ_min(∇²F) ≥ -0.1 > -√(μ2 ε)"),
        objective=model.Objective(
            F=Enclosure.around(0.1234567890123, 3e-17),
            F_lin_min=Enclosure(0.25, 0.2499999, 0.25),
            gap=Enclosure(-0.126, -0.127, -0.1250004),
            norm_w_star=0.9,
            attained=True,
        ),
        gradient=model.Gradient(
            norm=Enclosure.around(0.12345678901234, 2e-17),
            norm_w=Enclosure.around(0.1, 2e-17),
            norm_V=Enclosure.around(0.07240195, 2e-17),
            verdict=Verdict.CERTIFIED,
        ),
        hessian=model.Hessian(
            lambda_min=Enclosure.around(-0.1, 2.8e-17),
            threshold=Enclosure.around(1.4491376746189437, 3e-16),
            zero_multiplicity=135,
            method="reduced",
            verdict=Verdict.CERTIFIED,
        ),
        smallest_epsilon=Enclosure.around(0.12345678901234, 2e-17),
        constants=model.Constants(
            b=1.2625,
            r=0.909,
            mu0=3.5,
            mu1=7.25,
            mu2=10.5,
            source={"b": "computed", "r": "computed", "mu0": "computed", "mu1": "computed", "mu2": "given"},
        ),
        theorem1=model.Theorem1(True, Enclosure.around(-0.05, 1e-17), Enclosure.around(-0.07, 1e-17), True),
        theorem2=model.Theorem2(exact(0.5), exact(-0.25), exact(1.5), Enclosure.around(0.4, 1e-16), True),
        theorem3=model.Theorem3(
            applies=True,
            bound=Enclosure.around(5.125, 1e-14),
            threshold_form=6.5,
            threshold=0.01,
            polynomial_form=40.0,
            refined_form=5.125,
            refined_polynomial_form=21.0,
            F_upper=Enclosure.around(5.375, 1e-7),
            holds=True,
        ),
        corollary1=model.Corollary1(Verdict.CERTIFIED),
        gap_bounds=model.GapBounds(
            Enclosure.around(-0.1, 1e-16), Enclosure.around(0.2, 1e-16), Enclosure.around(0.3, 1e-16)
        ),
        crosscheck=model.CrossCheck(0.12345678901234, -0.1, -0.1),
        seconds=model.Seconds(0.42),
    )
    return replace(report, **changes)


def refuted(**changes: Any) -> model.Report:
    """At w = 0, a direction of negative curvature, and much that is not known."""
    report = certified(
        name="saddle",
        spec=model.Source("configs/saddle.yaml", "cd" * 32),
        verdict=Verdict.REFUTED,
        reasons=("λ_min(∇²F) ≤ -2 < -√(μ2 ε)",),
        objective=model.Objective(exact(0.5), exact(0.0), exact(0.5), 1.0, False),
        theorem1=model.Theorem1(False, None, None, None, "w = 0"),
        theorem3=model.Theorem3(
            False, None, None, None, None, None, None, None, None, "the point is not a certified ε-SOPSP"
        ),
        corollary1=model.Corollary1(Verdict.REFUTED),
        crosscheck=model.CrossCheck(0.0, -2.0, None),
    )
    hessian = replace(report.hessian, lambda_min=Enclosure.around(-2.0, 1e-15), verdict=Verdict.REFUTED)
    return replace(report, **{"hessian": hessian, **changes})


def undecided(**changes: Any) -> model.Report:
    """A margin that is smaller than the numerical error; a loss without bounds of its derivatives."""
    report = certified(
        name="close",
        spec=model.Source(None, None),
        verdict=Verdict.UNDECIDED,
        reasons=("μ2 is not known: no bound of ℓ''' is known for this loss",),
        smallest_epsilon=None,
        constants=model.Constants(1.0, 1.0, None, None, None, {"b": "given", "r": "given", "mu2": "missing"}),
        theorem3=model.Theorem3(False, None, None, None, None, None, None, None, None, "μ2 is not known"),
    )
    hessian = replace(report.hessian, threshold=None, verdict=Verdict.UNDECIDED)
    return replace(report, **{"hessian": hessian, **changes})


def bound_table(**changes: Any) -> model.BoundTable:
    """Two rows: in the first the refined form is the smaller one, in the second the threshold form."""
    rows = (
        model.BoundRow(
            1e-4,
            0.107101770,
            9.33693e-4,
            0.85085,
            0.100698756,
            0.4004,
            Enclosure.around(0.100698756, 1e-12),
            None,
        ),
        model.BoundRow(
            1e-2, 2.0, 7.49995e-3, 16.637616067, 2.390403063, 6.52, Enclosure.around(2.0, 1e-12), None
        ),
    )
    return replace(model.BoundTable(model.BoundConstants(1.0, 1.0, 1.0, 1.0, 1.0, 2), None, rows), **changes)
