"""Accept or reject a certificate, and decide again.

There is one way to an accepted certificate with a verdict: to the last line of `decide`, past every claim.  A
fault in the certificate raises `Rejected`, which is caught in one place and carries no verdict; what cannot
be recomputed here raises `Undecided`, the reason of that verdict; any other exception is nobody's verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from flint import arb, ctx

from resnet_cert.certificate import cost
from resnet_cert.certificate.arrays import read_arrays
from resnet_cert.certificate.binding import bind, require_files, shortest
from resnet_cert.certificate.bundle import ENDING, unpack
from resnet_cert.certificate.constants import inside, is_computed_b, is_computed_mu2, threshold_squared
from resnet_cert.certificate.cost import Cost, Limits
from resnet_cert.certificate.facts import BOUNDARY_WIDTH, Data, Facts
from resnet_cert.certificate.fields import BALLS, RATIONALS, Field, squares
from resnet_cert.certificate.files import Undecided, read_file
from resnet_cert.certificate.losses import LOSSES
from resnet_cert.certificate.reading import FORMATS, Certificate, Interval, Rejected, read_certificate
from resnet_cert.certificate.verification import AS_STORED, ENCLOSED, Bounds, Claim, Spec, Verification
from resnet_cert.outcomes import Verdict

PRECISIONS = (128, 256, 512, 1024, 4096)
EXACT_WORK = 10**7
"""Largest n·q²(d+k)² that is recomputed in rational numbers."""


Progress = Callable[[Verification], None]
"""Told what is known so far, for the case that the work is cut short."""


def decide_file(
    path: Path, folder: Path, *, arrays_only: bool, limits: Limits, progress: Progress
) -> Verification:
    """`decide`, of a certificate or of a bundle, which is unpacked into `folder`."""
    if path.suffix == ENDING:
        try:
            path = unpack(path, folder)
        except Rejected as fault:
            return Verification(False, None, (str(fault),), arrays_only=arrays_only)
        except Undecided as reason:
            so_far = Verification(True, Verdict.UNDECIDED, (), arrays_only=arrays_only)
            return so_far.undecided(f"nothing is decided: {reason}")
    return decide(path, arrays_only=arrays_only, limits=limits, progress=progress)


def decide(
    path: Path, *, arrays_only: bool = False, limits: Limits | None = None, progress: Progress | None = None
) -> Verification:
    """Decides again what the certificate at `path` claims, from the files that it names.

    Raises:
        RequestError: a file cannot be read, with all of those that are missing.
    """
    limits = limits or Limits.within()
    progress = progress or (lambda verification: None)
    so_far = Verification(True, Verdict.UNDECIDED, (), arrays_only=arrays_only)
    try:
        certificate = read_certificate(read_file(path, LARGEST_CERTIFICATE))
        so_far = replace(so_far, claim=_claim(certificate))
        progress(so_far)
        named = None if arrays_only else certificate.spec
        if named is not None:
            so_far = replace(
                so_far, spec=Spec(shortest(path.parent / named.path), named.sha256, named.overrides)
            )
            progress(so_far)
        require_files(certificate, named, path)
        limits.require("the stored arrays", Cost(0.0, cost.data_bytes(certificate)))
        limits.require("one pass over the data", cost.first_pass(certificate))
        stored = read_arrays(certificate, path)
        data = _data(certificate, stored)
        _require_allowed(data)
        if named is not None:
            bound = bind(certificate, named, data, path.parent, limits)
            so_far = replace(so_far, spec=bound.spec, features=bound.features, reasons=bound.notes)
            data = replace(data, radius=bound.radius)
            certificate = replace(certificate, b_source=bound.b_source)
            progress(so_far)
        else:
            so_far = replace(so_far, features=AS_STORED)
        if certificate.format == FORMATS[0] and certificate.mu2_source == "computed":
            so_far = replace(so_far, reasons=(*so_far.reasons, MU2_OF_FORMAT_1))
        return _decided(certificate, data, so_far, limits)
    except Rejected as fault:
        return replace(so_far, accepted=False, verdict=None, reasons=(str(fault),))
    except Undecided as reason:
        return so_far.undecided(f"nothing is decided: {reason}")


MU2_OF_FORMAT_1 = "μ2 is computed as format 1 has it, sample by sample: a check may take a smaller one now"
LARGEST_CERTIFICATE = 2**26
"""Bytes of a certificate without its arrays."""


def _claim(certificate: Certificate) -> Claim:
    names = (field.name for field in fields(Claim) if field.name not in ENCLOSED)
    claim = {name: getattr(certificate, name) for name in names}
    if certificate.scale != 1.0:
        claim["loss"] = f"{certificate.scale!r}·{certificate.loss}"
    return Claim(**claim)


def _data(certificate: Certificate, stored: dict[str, Any]) -> Data:
    """The stored arrays as a problem."""
    c = certificate
    x, decayed = stored["x"], None
    if c.bias:
        x = np.hstack([x, np.ones((c.n, 1))])
        if not c.decays_bias:
            decayed = np.append(np.ones(c.columns - 1), 0.0)
    y, W = stored["y"].reshape(c.n, c.q), stored["W"].reshape(c.q, c.columns)
    if c.format == FORMATS[0] and c.loss == "logistic":
        if not (np.abs(y) == 1.0).all():
            raise Rejected("inputs.y: expected -1 or 1 for the logistic loss")
        y = (1.0 + y) / 2.0
    direction, predictor = None, stored.get("U")
    if "dW" in stored:
        direction = stored["dW"].reshape(c.q, c.columns), stored["dV"]
    optional = {"omega": stored.get("omega"), "weights": stored.get("probabilities")}
    objective = {"l2": c.l2, "norm": c.norm, "decayed": decayed, "direction": direction}
    objective["predictor"] = predictor
    return Data(c.loss, c.scale, x, y, stored["f"], W, stored["V"], **optional, **objective)


def _require_allowed(data: Data) -> None:
    """Targets and weights that a problem of this loss may have."""
    loss = LOSSES[data.loss]
    if not all(map(loss.allowed, np.unique(data.y).tolist())):
        raise Rejected(f"inputs.y: expected {loss.words} for the {data.loss} loss")
    if data.weights is not None and not (data.weights > 0.0).all():
        raise Rejected("inputs.probabilities: expected positive numbers")
    if data.omega is not None and not (data.omega >= 0.0).all():
        raise Rejected("inputs.omega: expected nonnegative numbers")
    if data.norm is not None and not _keeps_to(data, data.norm):
        raise Rejected("claim.objective.norm: expected a point with ‖(W, V)‖ at most this")


def _keeps_to(data: Data, norm: float) -> bool:
    point = squares(map(arb, [*data.seen_W.ravel().tolist(), *data.V.ravel().tolist()]), arb(0))
    return bool(point <= (arb(norm) * arb(1.0 + BOUNDARY_WIDTH)) ** 2)


# Claims

Proof = Callable[[Facts], bool]
NOTHING = Cost()


@dataclass(frozen=True)
class Statement:
    """Something to be proven, and what its proof takes."""

    proof: Proof
    cost: Cost = NOTHING


def _decided(certificate: Certificate, data: Data, so_far: Verification, limits: Limits) -> Verification:
    stored = replace(data, radius=None)
    enclosed, skipped = _prove(certificate, stored, _claims(certificate, stored, limits), limits)
    so_far = replace(so_far, claim=replace(_claim(certificate), **enclosed))
    if skipped:
        return so_far.undecided(f"nothing is decided: {'; '.join(dict.fromkeys(skipped))}")
    if data.radius is not None:
        # The features are known to within their radius: the verdict must hold for all of them.
        try:
            _, skipped = _prove(certificate, data, _of_features(certificate, data, limits), limits)
            why = "; ".join(dict.fromkeys(skipped))
        except Rejected as fault:
            why = str(fault)
        if why:
            return so_far.undecided(
                f"{certificate.verdict.value} holds for the stored features, but not for all within "
                f"{float(np.max(data.radius)):.3g} of them, as another evaluation may return them: {why}"
            )
    return replace(so_far, verdict=certificate.verdict)


def _prove(
    certificate: Certificate, data: Data, claims: dict[str, Statement], limits: Limits
) -> tuple[dict[str, Bounds], list[str]]:
    """The verifier's own bounds, and why the claims that were too large to try were not.

    Raises:
        Rejected: some other claim is not proven.
    """
    enclosed: dict[str, Bounds] = {}
    skipped: list[str] = []
    for field, precision in _fields(certificate, data):
        limits.require("one pass over the data", cost.first_pass(certificate))
        with precision:
            facts = Facts(field, data)
            enclosed = enclosed or _enclosed(certificate, facts)
            for name, statement in list(claims.items()):
                try:
                    limits.require(name, statement.cost)
                    if statement.proof(facts):
                        del claims[name]
                except Undecided as reason:
                    skipped.append(str(reason))
                    del claims[name]
        if not claims:
            lower, upper = certificate.lambda_min.lower, enclosed["lambda_min"].lower
            if not skipped and lower is not None and (upper is None or lower > upper):
                enclosed["lambda_min"] = replace(enclosed["lambda_min"], lower=lower)
            if not skipped:
                even = certificate.break_even_radius
                enclosed["break_even_radius"] = Bounds(even.lower, even.upper)
            return enclosed, skipped
    raise Rejected(f"not confirmed: {'; '.join(claims)}")


def _fields(certificate: Certificate, data: Data) -> list[tuple[Field, AbstractContextManager[Any]]]:
    """Balls at rising precision; at last the rational numbers, where the loss and the size allow it."""
    fields: list[tuple[Field, AbstractContextManager[Any]]] = [
        (BALLS, ctx.workprec(bits)) for bits in PRECISIONS
    ]
    if data.radius is not None:
        return fields[:2]  # the radius of the features is all that is left there
    work = certificate.n * (certificate.q * (certificate.columns + certificate.k)) ** 2
    if LOSSES[certificate.loss].rational and certificate.norm is None and work <= EXACT_WORK:
        fields.append((RATIONALS, nullcontext()))
    return fields


def _claims(certificate: Certificate, data: Data, limits: Limits) -> dict[str, Statement]:
    """Everything that has to be proven, by the name of its place in the certificate."""
    c, lower, upper = certificate, certificate.lambda_min.lower, certificate.lambda_min.upper
    claims = {
        "bounds.F": Statement(lambda facts: encloses(c.F, facts.F, facts.field)),
        "bounds.gradient_norm": Statement(
            lambda facts: encloses_root(c.gradient_norm, facts.gradient_squared, facts.field)
        ),
        "claim.b: ‖W‖ < b, ‖V‖ < b": Statement(lambda facts: inside(arb(c.b), data), cost.domain(c)),
    }
    if c.b_source == "computed":
        claims["claim.b: 1.01·max(‖W‖, ‖V‖)"] = Statement(
            lambda facts: is_computed_b(c.b, data), cost.domain(c) + cost.domain(c)
        )
    if lower is not None:
        claims["bounds.lambda_min.lower"] = _curvature_at_least(
            c, limits, lambda facts: -facts.field.number(lower)
        )
    if upper is not None:
        claims["bounds.lambda_min.upper"] = Statement(
            lambda facts: (
                _curvature_at_most(facts, facts.field.number(upper))
                or _curvature_below(c, limits, facts, -facts.field.number(upper))
            ),
            cost.direction(c),
        )
    if c.mu2_source == "computed" and c.mu2 is not None:
        mu2, scalar = c.mu2, c.format == FORMATS[0]
        claims["claim.mu2"] = Statement(
            lambda facts: is_computed_mu2(mu2, c.b, data, per_sample_only=scalar), cost.constants(c)
        )
    return claims | _of_features(certificate, data, limits)


def _of_features(certificate: Certificate, data: Data, limits: Limits) -> dict[str, Statement]:
    """What must hold for all features that are known to be near: the verdict, and the break-even radius."""
    even = certificate.break_even_radius
    claims = _verdict(certificate, data, limits)
    if even != Interval(None, None):
        claims["bounds.break_even_radius"] = Statement(
            lambda facts: facts.breaks_even_between(even.lower, even.upper), cost.direction(certificate)
        )
    return claims


def _verdict(certificate: Certificate, data: Data, limits: Limits) -> dict[str, Statement]:
    """Definition 1, or one of its two conditions violated."""
    epsilon = certificate.epsilon
    # √(μ2 ε) is 0 at ε = 0, whatever μ2 is; for all that is known without μ2 it is 0 at the least.
    square = threshold_squared(certificate.mu2, epsilon)
    at_least = square if square is not None else threshold_squared(0.0, epsilon)
    assert at_least is not None
    if certificate.verdict is Verdict.CERTIFIED:
        return {
            "‖∇L‖ ≤ ε": Statement(lambda facts: facts.gradient_squared <= facts.field.number(epsilon) ** 2),
            "λ_min ≥ −√(μ2 ε)": _curvature_at_least(
                certificate, limits, lambda facts: facts.field.root(at_least)
            ),
        }
    if certificate.verdict is Verdict.REFUTED:

        def refuted(facts: Facts) -> bool:
            if facts.gradient_squared > facts.field.number(epsilon) ** 2:
                return True
            t = None if square is None else facts.field.root(square)
            return t is not None and _curvature_below(certificate, limits, facts, t)

        return {"‖∇L‖ > ε or λ_min < −√(μ2 ε)": Statement(refuted, cost.direction(certificate))}
    return {}


def _curvature_at_least(certificate: Certificate, limits: Limits, t: Callable[[Facts], Any]) -> Statement:
    """λ_min ≥ −t: by ‖A_f‖, and else by S(t) if there is time for it."""

    def proof(facts: Facts) -> bool:
        bound = t(facts)
        if bound is None:
            return False
        if facts.curvature_at_least(bound, exact=False):
            return True
        limits.require("S(t)", cost.exact(certificate, facts.multiplier is not None))
        return facts.curvature_at_least(bound)

    return Statement(proof)


def encloses(interval: Interval, true: Any, field: Field) -> bool:
    """lower ≤ true value ≤ upper."""
    above = interval.lower is None or true >= field.number(interval.lower)
    return bool(above and (interval.upper is None or true <= field.number(interval.upper)))


def encloses_root(interval: Interval, square: Any, field: Field) -> bool:
    """lower ≤ √square ≤ upper."""
    lower, upper = interval.lower, interval.upper
    above = lower is None or lower <= 0.0 or square >= field.number(lower) ** 2
    return bool(above and (upper is None or (upper >= 0.0 and square <= field.number(upper) ** 2)))


def _curvature_at_most(facts: Facts, upper: Any) -> bool:
    """λ_min ≤ upper by the direction of the certificate, which must not be 0."""
    form, size = facts.form
    return bool(size > 0 and form <= upper * size)


def _curvature_below(certificate: Certificate, limits: Limits, facts: Facts, t: Any) -> bool:
    """λ_min < −t: by the direction of the certificate, and where that is not it by S(t), if there is time."""
    if facts.data.direction is not None:
        form, size = facts.form
        if size > 0 and form < -t * size:
            return True
    step = cost.exact(certificate, facts.multiplier is not None)
    if ctx.prec < PRECISIONS[-1] and limits.excess(step):
        return False  # the direction may do, at a higher precision
    limits.require("S(t)", step)
    return facts.curvature_below(t)


def _enclosed(certificate: Certificate, facts: Facts) -> dict[str, Bounds]:
    """The verifier's own enclosures, in balls; that of λ_min is what −‖A_f‖_F and the direction show."""
    least = facts.least_curvature
    lower = _floats(least).lower
    upper = None
    if facts.data.direction is not None and certificate.n:
        form, size = facts.form
        upper = _floats(form / size).upper if size > 0 else None
    return {
        "F": _floats(facts.F),
        "gradient_norm": _root(facts.gradient_squared),
        "lambda_min": Bounds(lower, upper),
    }


def _floats(x: arb) -> Bounds:
    """Floats below and above a ball, the nearest ones; None beyond them."""
    ends = []
    for end, away in ((x.lower(), -np.inf), (x.upper(), np.inf)):
        number = float(end)
        if not (arb(number) <= end if away < 0 else arb(number) >= end):
            number = float(np.nextafter(number, away))
        ends.append(number if np.isfinite(number) else None)
    return Bounds(*ends)


def _root(square: arb) -> Bounds:
    """√square, of a number known to be ≥ 0."""
    ends = _floats(square.nonnegative_part().sqrt())
    return Bounds(max(ends.lower or 0.0, 0.0), ends.upper)
