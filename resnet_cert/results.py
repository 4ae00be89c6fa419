"""The report of a check as plain frozen data: the fields of the JSON document, in its order.

`Enclosure | None`: None where a quantity is not defined or nothing is known about it.  A plain float is
a value that is shown but not proven, or an input of the check.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import resnet_cert
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import RequestError, Verdict

UNPUBLISHED = {"published": False}
"""Metadata of a field that the documents leave out: what only a sentence needs."""


class ShownAsText:
    """What a notebook shows as the text that it prints."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True)
class Source:
    """The spec a report is about; both None for a problem made in Python.

    overrides: the settings KEY=VALUE that replaced entries of it, in order.
    reads: the files that it was read from.  fixed: those of them that it names from the root of this
    computer's files.
    """

    path: str | None = None
    sha256: str | None = None
    overrides: tuple[str, ...] = field(default=(), metadata=UNPUBLISHED)
    reads: tuple[str, ...] = field(default=(), metadata=UNPUBLISHED)
    fixed: tuple[str, ...] = field(default=(), metadata=UNPUBLISHED)


@dataclass(frozen=True)
class Assumption1:
    """Is ℓ(·; y) convex and twice differentiable on |p| ≤ range?  By formula, proof, or the user's word.

    status: "proven", "claimed" or "unknown"; reason: why it is not proven.  range: None where it is all of R.
    everywhere: the same of every p; where it is "unknown", nothing is said of all W or all (W, V).
    """

    status: str
    range: float | None = None
    reason: str | None = None
    everywhere: str = "proven"


@dataclass(frozen=True)
class Size:
    """n samples, x ∈ R^d, f ∈ R^k, `outputs` predictions of a head that also reads `bypass` inputs and has a
    bias or not; so many parameters (W, V, c), and where the point lies: spectral norms, ‖W‖ with the bias.

    norm_W_frobenius: ‖W‖_F, to compare with the radius of a ball of linear predictors.
    """

    n: int
    d: int
    k: int
    parameters: int
    loss: str
    norm_w: float
    norm_V: float
    outputs: int = 1
    bypass: int = 0
    bias: bool = False
    norm_W_frobenius: float | None = None
    assumption1: Assumption1 = Assumption1("proven")


@dataclass(frozen=True)
class BreakEvenRadius:
    """inf{r : min F_lin over ‖W‖_F ≤ r is at most F}: how large a linear predictor does as well.

    infinite: proven that none of any size does, and then value and upper are None; None where that is open,
    and an end that is not known is infinite.  margin: then inf F_lin − F at least.
    """

    value: float | None
    lower: float
    upper: float | None
    infinite: bool | None
    margin: float | None = field(default=None, metadata=UNPUBLISHED)


@dataclass(frozen=True)
class Objective:
    """F at the point against min F_lin over ‖W‖_F ≤ r; gap = F − F_lin_min.

    attained: inf F_lin over all W is, or is not; None where neither is proven.  falls_at_rim: F_lin still
    falls beyond ‖W‖_F = r, so that a larger r gives less.  break_even_radius, block_gap: None where not
    computed; block_gap: F minus the infimum of F_θ over all (W, V).
    """

    F: Enclosure
    F_lin_min: Enclosure
    gap: Enclosure
    norm_w_star: float
    attained: bool | None
    falls_at_rim: bool | None = None
    break_even_radius: BreakEvenRadius | None = None
    block_gap: Enclosure | None = None


@dataclass(frozen=True)
class Comparator:
    """F against the best linear predictor on other inputs, over ‖W‖_F ≤ radius; gap = F − F_lin_min."""

    name: str
    F_lin_min: Enclosure
    gap: Enclosure
    radius: float
    attained: bool | None


@dataclass(frozen=True)
class Gradient:
    """‖∇F‖ and its two parts; the verdict on ‖∇F‖ ≤ ε."""

    norm: Enclosure
    norm_w: Enclosure
    norm_V: Enclosure
    verdict: Verdict


@dataclass(frozen=True)
class Hessian:
    """λ_min(∇²F) and −threshold = −√(μ2 ε); the verdict on λ_min ≥ −threshold.

    vacuous: the threshold is at least an upper bound of ‖∇²F‖; informative_below: the ε under which it is
    not.
    """

    lambda_min: Enclosure
    threshold: Enclosure | None
    zero_multiplicity: int
    method: str
    verdict: Verdict
    vacuous: bool | None = None
    informative_below: float | None = None


@dataclass(frozen=True)
class Constants:
    """The domain and the Lipschitz constants that the verdict and the bounds speak of."""

    b: float
    r: float
    mu0: float | None
    mu1: float | None
    mu2: float | None
    source: dict[str, str]  # of b, r, mu0, mu1, mu2: "computed" or "given"; "missing" where None
    form: dict[str, str] = field(default_factory=dict)  # of computed ones: "per-sample" or "matrix"


@dataclass(frozen=True)
class Theorem1:
    """‖∇F‖ ≥ lower_bound (paper) and ≥ lower_bound_refined; applies iff W_1 has full row rank, w ≠ 0."""

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
class AugmentedForm:
    """F ≤ upper = Φ(U, Z) + bound at every ε-SOPSP, Φ(U, Z) = E[ℓ(Ux + Zf)], ‖U‖_F ≤ r and ‖Z‖_F ≤ s.

    (U, Z) is the best predictor on (x, f) that was found, and so about the best that any (W, V) can do with
    these features.
    """

    r: float
    s: float
    bound: Enclosure
    upper: Enclosure


@dataclass(frozen=True)
class Theorem3:
    """F ≤ F_upper = F_lin_min + bound at a certified ε-SOPSP; see `BoundRow` for the forms.

    form: which sharp form gives the bound.  vacuous: F_upper exceeds F(0) = F_lin(0).  augmented: the same
    against the best that head and block can do with these features.
    """

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
    form: str | None = None
    vacuous: bool | None = None
    augmented: AugmentedForm | None = None


@dataclass(frozen=True)
class Corollary1:
    """F ≤ min F_lin: CERTIFIED iff gap.upper ≤ 0, REFUTED iff gap.lower > 0.

    hypothesis: "met" where the point is proven to be a 0-SOPSP of F and d1 ≥ q, "not met" where it is proven
    not to be, else "undecided".  reason: whether the corollary holds for so many outputs.
    """

    verdict: Verdict
    reason: str | None = None
    hypothesis: str | None = None


@dataclass(frozen=True)
class GapBounds:
    """Upper bounds of F − F_lin_min measured at the point, without Lipschitz constants, tightest first."""

    linear_functional: Enclosure
    first_order: Enclosure
    local: Enclosure


@dataclass(frozen=True)
class Augmented:
    """Against the best linear predictor on (x, f_θ(x)): minimum = min E[ℓ(Ux + Zf)] over ‖(U, Z)‖_F ≤ r.

    gap = F − minimum ≤ linear_functional; lower_bound of ‖∇F‖ (Theorem 1 with this gap), None where W_1 has
    not full row rank and for another objective than F.  norm: ‖(U, Z)‖_F of the best one.  r: 1.01·norm if
    the infimum over all (U, Z) is attained, else 1.01·‖(W, W_1V)‖_F, or 1 at W = 0; ten times that where the
    minimiser is as large as rounding is small.
    """

    minimum: Enclosure
    gap: Enclosure
    linear_functional: Enclosure
    lower_bound: Enclosure | None
    holds: bool | None
    r: float
    norm: float
    attained: bool | None


@dataclass(frozen=True)
class RegularizedTheorem3:
    """Theorem 3 with weight decay: G ≤ G_upper = min G_lin over ‖W‖_F ≤ r + bound at every ε-SOPSP of G.

    vacuous: G_upper exceeds G at 0, which is F_lin(0).
    """

    applies: bool
    bound: Enclosure | None
    G_upper: Enclosure | None
    holds: bool | None
    reason: str | None = None
    vacuous: bool | None = field(default=None, metadata=UNPUBLISHED)


@dataclass(frozen=True)
class Regularized:
    """What Definition 1 is about instead of F: G = F + l2·(‖W‖_F² + ‖V‖_F²), on ‖(W, V)‖ ≤ norm.

    objective: its value at the point.  objective_lin_min: the least value at V = 0, min G_lin.  active: the
    point counts as on the boundary; multiplier: its μ then.  proposition_R: an upper bound of F − F_lin_min.
    gap: objective − objective_lin_min.  gap_bound: an upper bound of it, from ∇G and what decay can cost.
    theorem3: None under a constraint.  decays_bias: c counts in both norms.
    """

    l2: float
    norm: float | None
    norm_point: Enclosure
    objective: Enclosure
    objective_lin_min: Enclosure
    active: bool
    multiplier: Enclosure | None
    proposition_R: Enclosure | None
    gap: Enclosure | None = None
    gap_bound: Enclosure | None = None
    theorem3: RegularizedTheorem3 | None = None
    decays_bias: bool = field(default=True, metadata=UNPUBLISHED)


@dataclass(frozen=True)
class Descent:
    """Why a point is refuted, as a fact about another one: the objective is lower there.

    kind: "slope", or "saddle" where the gradient condition holds and the curvature's does not.  decrease: by
    how much, along the witness, at this distance from the point.
    """

    kind: str
    decrease: Enclosure
    distance: float


@dataclass(frozen=True)
class Population:
    """What holds for the distribution that the sample was drawn from, with probability ≥ confidence:
    statistical, and under the bounds that the user states; nothing else in a report is.

    better_than_linear: than every linear predictor with ‖W‖_F ≤ r; None where that is open.
    smallest_epsilon: the point is an ε-SOPSP of the distribution for it; None where there is none.
    """

    confidence: float
    gap_upper: float
    gradient_norm_upper: float
    A_f_norm_upper: float
    better_than_linear: bool | None
    smallest_epsilon: float | None
    rigor: str = "statistical"


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
    comparators: tuple[Comparator, ...] = ()
    population: Population | None = None
    descent: Descent | None = None
    expect: tuple[Verdict, ...] | None = None
    seconds: Seconds = field(default_factory=lambda: Seconds(0.0))
    _made_from: Any = field(default=None, repr=False, compare=False)
    """The examination, for `certificate`; None where the report was made by hand or read from a file."""

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

    def save(self, path: str | Path) -> None:
        """Write the report to a file, in the format of its ending: .txt, .json, .md or .html.

        Raises:
            RequestError: it has another ending, or there is no file to be written there.
        """
        from resnet_cert.problem.files import require_writable, write_whole
        from resnet_cert.report import ENDINGS, Style, formatter

        name = ENDINGS.get(Path(path).suffix)
        if name is None:
            raise RequestError(
                f"expected a file name that ends in {', '.join(ENDINGS)}, got {Path(path).name!r}"
            )
        require_writable(str(path))
        write_whole(str(path), formatter(name).check([self], Style()).encode())

    def certificate(self, path: str | Path) -> None:
        """Write what `resnet-cert verify` decides again; see `certificate.writing.write_certificate`.

        Raises:
            RequestError: the report is not one that `check` returned, or has no certificate: a custom loss.
        """
        from resnet_cert.certificate.writing import write_certificate

        if self._made_from is None:
            raise RequestError("expected a report that check returned, got one that was made in another way")
        made = self._made_from
        write_certificate(
            path,
            made.problem,
            self,
            arithmetic=made.decision.arithmetic,
            direction=made.decision.curvature.direction,
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from resnet_cert.report.html import fragment

        return fragment(self)


@dataclass(frozen=True)
class BoundRow:
    """Theorem 3 at one ε: each form bounds F − min F_lin at any ε-SOPSP; `bound` is the smaller sharp one.

    With weight decay G − min G_lin, by the refined form alone: the others are infinite, F_upper is that of G.
    augmented_form: bounds F − min Φ over ‖U‖_F ≤ r, ‖Z‖_F ≤ s, where s is given.
    """

    eps: float
    threshold_form: float
    threshold: float
    polynomial_form: float
    refined_form: float
    refined_polynomial_form: float
    bound: Enclosure
    F_upper: Enclosure | None
    augmented_form: Enclosure | None = None


@dataclass(frozen=True)
class BoundConstants:
    """What Theorem 3 is about: the domain, Lipschitz constants, and the shape of head and block.

    d: inputs of the block, rows of V.  q, k: outputs, features.  span: dimension of the span of the loss's
    gradients, q in general.  bypass: the head reads more than the block's inputs.  s: ‖Z‖_F of predictors
    Ux + Zf, where the bound against them is wanted.  b: of ‖W‖_F and ‖V‖.  l2, norm_V: weight decay, and
    ‖V‖_F at most.
    """

    b: float
    r: float
    mu0: float
    mu1: float
    mu2: float
    d: int
    q: int = 1
    k: int = 1
    span: int = 1
    bypass: bool = False
    s: float | None = None
    l2: float = 0.0
    norm_V: float | None = None

    @property
    def rank(self) -> int:
        """ρ, the rank of W_1*V at most."""
        return min(self.span, self.k)

    @property
    def whole(self) -> bool:
        """W is the one row w_1."""
        return self.span == 1 and not self.bypass


@dataclass(frozen=True)
class BoundTable(ShownAsText):
    """Theorem 3 over several ε; target_eps: the largest ε whose bound is at most target_gap.

    curve: further rows, ε log-spaced around those of `rows`: what a picture shows.  F_lin_min: with weight
    decay min G_lin.
    """

    constants: BoundConstants
    F_lin_min: Enclosure | None
    rows: tuple[BoundRow, ...]
    target_gap: float | None = None
    target_eps: float | None = None
    curve: tuple[BoundRow, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document resnet-cert/bound/1."""
        from resnet_cert.report.json import bound_document

        return bound_document(self)

    def save(self, path: str | Path) -> None:
        """The JSON document (.json), or the picture (.png, .svg, .pdf)."""
        from resnet_cert.report import Style, formatter
        from resnet_cert.report.curves import bound_figure
        from resnet_cert.theory.bound import with_curve

        _save(path, formatter("json").bound(self, Style()), lambda: bound_figure(with_curve(self)))

    def __str__(self) -> str:
        """The text of the command `bound`."""
        from resnet_cert.report import Style, formatter

        return formatter("text").bound(self, Style()).rstrip("\n")


@dataclass(frozen=True)
class ProfileRow:
    """min F_lin over ‖W‖_F ≤ r."""

    r: float
    F_lin_min: Enclosure


@dataclass(frozen=True)
class Profile(ShownAsText):
    """min F_lin over ‖W‖_F ≤ r against r, log-spaced around the break-even radius, and F at the point.

    norm_W: ‖W‖_F of the point.
    """

    name: str
    F: Enclosure
    break_even_radius: BreakEvenRadius
    rows: tuple[ProfileRow, ...]
    norm_W: float
    comparators: tuple[Comparator, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The document resnet-cert/profile/1."""
        from resnet_cert.report.json import profile_document

        return profile_document(self)

    def save(self, path: str | Path) -> None:
        """The JSON document (.json), or the picture (.png, .svg, .pdf)."""
        from resnet_cert.report import Style, formatter
        from resnet_cert.report.curves import profile_figure

        _save(path, formatter("json").profile(self, Style(), None), lambda: profile_figure(self))

    def __str__(self) -> str:
        """The text of the command `profile`."""
        from resnet_cert.report import Style, formatter

        return formatter("text").profile(self, Style(), None).rstrip("\n")


@dataclass(frozen=True)
class SgdConstants:
    """Theorem 4 on ‖(U, Z)‖ ≤ b, the radius of M1: ℓ is l-Lipschitz, |ℓ| ≤ r there, D ≥ ‖z_1 − (U*, 0)‖.

    Neither is the b or the r of a check.
    """

    b: float
    l: float
    r: float
    D: float


@dataclass(frozen=True)
class Repeats:
    """Of n runs the fraction whose average objective is within the bound; required: 1 − δ, in expectation.

    within_bound: None where F was not evaluated at every step.
    """

    n: int
    within_bound: float | None
    required: float


@dataclass(frozen=True)
class Curve:
    """Of the first run, at some steps: F there, and its average over all evaluated steps up to there."""

    step: tuple[int, ...]
    F: tuple[float, ...]
    average: tuple[float, ...]


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
    outputs: int = 1
    curve: Curve | None = None


@dataclass(frozen=True)
class Solved:
    """What `solve` found: the file of its point, and the check of what is in that file.

    attained: is the infimum of the objective over all (W, V)?  None where that is not proven either way.
    descent: where it is not, a direction along which the objective falls without end.  reason: why.
    start: the check of where it began.
    """

    iterations: int
    point: str
    report: Report
    attained: bool | None = None
    descent: dict[str, Any] | None = None
    reason: str | None = None
    start: Report | None = None


def _save(path: str | Path, document: str, figure: Callable[[], Any]) -> None:
    from resnet_cert.problem.files import write_whole
    from resnet_cert.report.figures import ENDINGS, rendered

    name = str(path)
    if not name.endswith((".json", *ENDINGS)):
        raise RequestError(f"expected a file name that ends in .json, {', '.join(ENDINGS)}, got {name!r}")
    write_whole(name, document.encode() if name.endswith(".json") else rendered(figure(), name))


def versions(arithmetic: str) -> dict[str, str]:
    """What computed this report; python_flint only where ball arithmetic had a part in it."""
    import jax
    import numpy

    names = {"resnet_cert": resnet_cert.__version__, "jax": jax.__version__, "numpy": numpy.__version__}
    if arithmetic == "ball":
        import flint

        names["python_flint"] = flint.__version__
    return names
