"""The report of a check as plain frozen data: the fields of the JSON document, in its order.

`Enclosure | None`: None where a quantity is not defined or nothing is known about it.  A plain float is
a value that is shown but not proven, or an input of the check.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import resnet_cert
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict


@dataclass(frozen=True)
class Source:
    """The spec a report is about; both None for a problem made in Python."""

    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Size:
    """n samples, x ∈ R^d, f ∈ R^k, d(1+k) parameters (w, V), and where the point lies.

    outputs: q for predictions in R^q, with d(q+k) parameters (W, V); None for one output, wᵀ(x + V f).
    """

    n: int
    d: int
    k: int
    parameters: int
    loss: str
    norm_w: float
    norm_V: float
    outputs: int | None = None


@dataclass(frozen=True)
class Objective:
    """F at the point against min F_lin over ‖w‖ ≤ r; gap = F − F_lin_min."""

    F: Enclosure
    F_lin_min: Enclosure
    gap: Enclosure
    norm_w_star: float
    attained: bool


@dataclass(frozen=True)
class Gradient:
    """‖∇F‖ and its two parts; the verdict on ‖∇F‖ ≤ ε."""

    norm: Enclosure
    norm_w: Enclosure
    norm_V: Enclosure
    verdict: Verdict


@dataclass(frozen=True)
class Hessian:
    """λ_min(∇²F) and −threshold = −√(μ2 ε); the verdict on λ_min ≥ −threshold."""

    lambda_min: Enclosure
    threshold: Enclosure | None
    zero_multiplicity: int
    method: str
    verdict: Verdict


@dataclass(frozen=True)
class Constants:
    """The domain and the Lipschitz constants that the verdict and the bounds speak of."""

    b: float
    r: float
    mu0: float | None
    mu1: float | None
    mu2: float | None
    source: dict[str, str]  # of b, r, mu0, mu1, mu2: "computed" or "given"; "missing" where None


@dataclass(frozen=True)
class Theorem1:
    """‖∇F‖ ≥ lower_bound (paper) and ≥ lower_bound_refined; applies iff w ≠ 0."""

    applies: bool
    lower_bound: Enclosure | None
    lower_bound_refined: Enclosure | None
    holds: bool | None
    reason: str | None = None


@dataclass(frozen=True)
class Theorem2:
    """At (0, V, θ): left = ‖∇F‖ + ‖V‖√(|λ_min|·‖∂²F/∂w²‖ + λ_min²) ≥ right = (F(0,V) − F_lin(w*))/‖w*‖.

    applies: False for another objective than F, and then there is a reason; else None.
    """

    gradient_norm: Enclosure | None
    lambda_min: Enclosure | None
    left: Enclosure | None
    right: Enclosure | None
    holds: bool | None
    applies: bool | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Theorem3:
    """F ≤ F_upper = F_lin_min + bound at a certified ε-SOPSP; see `BoundRow` for the four forms."""

    applies: bool
    bound: Enclosure | None
    threshold_form: float | None
    threshold: float | None
    polynomial_form: float | None
    refined_form: float | None
    refined_polynomial_form: float | None
    F_upper: Enclosure | None
    holds: bool | None
    reason: str | None = None


@dataclass(frozen=True)
class Corollary1:
    """F ≤ min F_lin: CERTIFIED iff gap.upper ≤ 0, REFUTED iff gap.lower > 0.

    reason: with several outputs, whether it holds at every second-order stationary point.
    """

    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True)
class GapBounds:
    """Upper bounds of F − F_lin_min measured at the point, without Lipschitz constants, tightest first."""

    linear_functional: Enclosure
    first_order: Enclosure
    local: Enclosure


@dataclass(frozen=True)
class Augmented:
    """Against the best linear predictor on (x, f_θ(x)): minimum = min E[ℓ(uᵀx + zᵀf)] over ‖(u, z)‖ ≤ r.

    gap = F − minimum ≤ linear_functional; lower_bound of ‖∇F‖ (Theorem 1 with this gap), None at w = 0 and
    for another objective than F.  norm: ‖(u, z)‖ of the best one.  r: 1.01·norm if the infimum over all
    (u, z) is attained, else 1.01·‖(w, Vᵀw)‖, or 1 at w = 0.
    """

    minimum: Enclosure
    gap: Enclosure
    linear_functional: Enclosure
    lower_bound: Enclosure | None
    holds: bool | None
    r: float
    norm: float
    attained: bool


@dataclass(frozen=True)
class Regularized:
    """What Definition 1 is about instead of F: F + l2·(‖w‖² + ‖V‖_F²), on ‖(w, V)‖ ≤ norm.

    objective: its value at the point.  objective_lin_min: the least value at V = 0.  active: the point counts
    as on the boundary; multiplier: its μ then.  proposition_R: an upper bound of F − F_lin_min.
    """

    l2: float
    norm: float | None
    norm_point: Enclosure
    objective: Enclosure
    objective_lin_min: Enclosure
    active: bool
    multiplier: Enclosure | None
    proposition_R: Enclosure | None


@dataclass(frozen=True)
class CrossCheck:
    """The same numbers by plain JAX autodiff of the objective as written."""

    gradient_norm: float
    curvature_along_witness: float
    lambda_min: float | None
    method: str = "autodiff"


@dataclass(frozen=True)
class Seconds:
    total: float


@dataclass(frozen=True)
class Report:
    """What `check` found out about one problem.

    expect: the verdicts that the spec says it must get, if it says so.
    """

    name: str
    spec: Source
    versions: dict[str, str]
    problem: Size
    epsilon: float
    verdict: Verdict
    reasons: tuple[str, ...]
    objective: Objective
    gradient: Gradient
    hessian: Hessian
    smallest_epsilon: Enclosure | None
    constants: Constants
    theorem1: Theorem1
    theorem2: Theorem2
    theorem3: Theorem3
    corollary1: Corollary1
    gap_bounds: GapBounds
    crosscheck: CrossCheck
    regularized: Regularized | None = None
    augmented: Augmented | None = None
    expect: tuple[Verdict, ...] | None = None
    seconds: Seconds = field(default_factory=lambda: Seconds(0.0))

    def __str__(self) -> str:
        """The text report."""
        from resnet_cert.report import Style, formatter

        return formatter("text").check([self], Style()).rstrip("\n")

    def to_dict(self) -> dict[str, Any]:
        """The report as in the JSON document, every enclosure as {"value", "lower", "upper"}."""
        from resnet_cert.report.json import plain

        return plain(self)

    def to_json(self) -> str:
        """The JSON document resnet-cert/check/1 with this report alone."""
        from resnet_cert.report import Style, formatter

        return formatter("json").check([self], Style())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from resnet_cert.report.html import fragment

        return fragment(self)


@dataclass(frozen=True)
class BoundRow:
    """Theorem 3 at one ε: each form bounds F − min F_lin at any ε-SOPSP; `bound` is the smaller sharp one."""

    eps: float
    threshold_form: float
    threshold: float
    polynomial_form: float
    refined_form: float
    refined_polynomial_form: float
    bound: Enclosure
    F_upper: Enclosure | None


@dataclass(frozen=True)
class BoundConstants:
    b: float
    r: float
    mu0: float
    mu1: float
    mu2: float
    d: int


@dataclass(frozen=True)
class BoundTable:
    """Theorem 3 over several ε; target_eps: the largest ε whose bound is at most target_gap."""

    constants: BoundConstants
    F_lin_min: Enclosure | None
    rows: tuple[BoundRow, ...]
    target_gap: float | None = None
    target_eps: float | None = None


@dataclass(frozen=True)
class SgdConstants:
    """Theorem 4 on ‖(w, v)‖ ≤ b: ℓ is l-Lipschitz and |ℓ| ≤ r there, and D ≥ ‖z_1 − (u*, 0)‖."""

    b: float
    l: float
    r: float
    D: float


@dataclass(frozen=True)
class Repeats:
    """Of n runs the fraction whose average objective is within the bound; required: 1 − δ, in expectation."""

    n: int
    within_bound: float
    required: float


@dataclass(frozen=True)
class Sgd:
    """A run of SGD against Theorem 4.

    average_objective, best_objective: over the `evaluated` steps at which F was evaluated, evenly spaced.
    holds: average_objective ≤ bound; None where that average is not over all steps.
    """

    steps: int
    delta: float
    seed: int
    eta: float
    constants: SgdConstants
    F_lin_min: float
    average_objective: float
    best_objective: float
    bound: float
    holds: bool | None
    theta: str
    evaluated: int
    name: str
    repeats: Repeats | None = None


@dataclass(frozen=True)
class Solved:
    """What `solve` found: the file of its point, and the check of what is in that file."""

    iterations: int
    point: str
    report: Report


def versions(arithmetic: str) -> dict[str, str]:
    """What computed this report; python_flint only where ball arithmetic had a part in it."""
    import jax
    import numpy

    names = {"resnet_cert": resnet_cert.__version__, "jax": jax.__version__, "numpy": numpy.__version__}
    if arithmetic == "ball":
        import flint

        names["python_flint"] = flint.__version__
    return names
