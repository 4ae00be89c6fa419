"""Accept or reject a certificate, and decide again.

There is one way to an accepted certificate: to the last line of `_decide`, past every claim.  A fault in
the certificate raises `Rejected`, which is caught in one place and carries no verdict; any other
exception is nobody's verdict either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from flint import ctx

from resnet_cert.certificate.binding import bind
from resnet_cert.certificate.proofs import (
    BALLS,
    RATIONALS,
    Facts,
    Field,
    curvature_along,
    curvature_at_least,
    encloses,
    encloses_root,
    evaluate,
    inside,
    lipschitz_is,
)
from resnet_cert.certificate.reading import Array, Certificate, Rejected, read_certificate, read_data
from resnet_cert.outcomes import RequestError, Verdict

SCHEMA = "resnet-cert/verify/1"
EXIT_REJECTED = 30
PRECISIONS = (128, 256, 512, 1024)
WORK_LIMIT = 10**10
"""Largest n(d+k)² that is recomputed."""
EXACT_WORK_LIMIT = 10**7
"""Largest n(d+k)² that is recomputed in rational numbers."""


@dataclass(frozen=True)
class Verification:
    """What the verifier found: the certificate's verdict if it is accepted, else why not."""

    accepted: bool
    verdict: Verdict | None
    reasons: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_REJECTED if self.verdict is None else self.verdict.exit_code

    def document(self) -> dict[str, Any]:
        """The JSON document of `verify --format json`."""
        verdict = None if self.verdict is None else self.verdict.value
        return {
            "schema": SCHEMA,
            "accepted": self.accepted,
            "verdict": verdict,
            "reasons": list(self.reasons),
        }


def verify(path: str | Path) -> Verification:
    """Decides again what the certificate at `path` claims, from the files that it names.

    Raises:
        RequestError: there is no such file, or it cannot be read.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as fault:
        raise RequestError(f"cannot read {path}: {fault.strerror}") from fault
    try:
        return _decide(raw, path.parent)
    except Rejected as fault:
        return Verification(False, None, (str(fault),))


def _decide(raw: bytes, folder: Path) -> Verification:
    certificate = read_certificate(raw)
    data = read_data(certificate, folder)
    notes = bind(certificate, data, folder)
    work = certificate.n * (certificate.d + certificate.k) ** 2
    if work > WORK_LIMIT:
        reason = f"n(d+k)² = {work} is more than the {WORK_LIMIT} that are recomputed: nothing is decided"
        return Verification(True, Verdict.UNDECIDED, (*notes, reason))
    claims = _claims(certificate, data)
    for field, precision in _fields(certificate, work):
        with precision:
            facts = evaluate(field, certificate, data)
            claims = {claim: proven for claim, proven in claims.items() if not proven(facts)}
        if not claims:
            return Verification(True, certificate.verdict, notes)
    raise Rejected(f"not confirmed: {'; '.join(claims)}")


def _claims(certificate: Certificate, data: dict[str, Array]) -> dict[str, Callable[[Facts], bool]]:
    """Everything that has to be proven, by the name of its place in the certificate."""
    lower, upper = certificate.lambda_min.lower, certificate.lambda_min.upper
    claims: dict[str, Callable[[Facts], bool]] = {
        "bounds.F": lambda facts: encloses(certificate.F, facts.F, facts.field.number),
        "bounds.gradient_norm": lambda facts: encloses_root(
            certificate.gradient_norm, facts.gradient_squared, facts.field.number
        ),
        "claim.b: ‖w‖ < b, ‖V‖ < b": lambda facts: inside(certificate.b, data["w"], data["V"]),
    }
    if lower is not None:
        claims["bounds.lambda_min.lower"] = lambda facts: curvature_at_least(
            facts, -facts.field.number(lower)
        )
    if upper is not None:
        claims["bounds.lambda_min.upper"] = lambda facts: _curvature_at_most(facts, data, upper)
    if certificate.mu2_source == "computed":
        claims["claim.mu2"] = lambda facts: lipschitz_is(certificate, data)
    return claims | _verdict_claims(certificate, data)


def _verdict_claims(certificate: Certificate, data: dict[str, Array]) -> dict[str, Callable[[Facts], bool]]:
    """Definition 1, or one of its two conditions violated."""
    epsilon, mu2 = certificate.epsilon, certificate.mu2
    # √(μ2 ε) is 0 at ε = 0, whatever μ2 is; for all that is known without μ2 it is 0 at the least.
    known = mu2 is not None or epsilon == 0.0
    square = Fraction(mu2 or 0.0) * Fraction(epsilon)
    if certificate.verdict is Verdict.CERTIFIED:
        return {
            "‖∇F‖ ≤ ε": lambda facts: facts.gradient_squared <= facts.field.number(epsilon) ** 2,
            "λ_min ≥ −√(μ2 ε)": lambda facts: (
                (t := facts.field.root(square)) is not None and curvature_at_least(facts, t)
            ),
        }
    if certificate.verdict is Verdict.REFUTED:
        return {
            "‖∇F‖ > ε or λ_min < −√(μ2 ε)": lambda facts: (
                facts.gradient_squared > facts.field.number(epsilon) ** 2
                or (known and "dw" in data and _curvature_below(facts, data, square))
            )
        }
    return {}


def _curvature_at_most(facts: Facts, data: dict[str, Array], upper: float) -> bool:
    """λ_min ≤ upper by the direction of the certificate, which must not be 0."""
    form, size = curvature_along(facts, data["dw"], data["dV"])
    return bool(size > 0 and form <= facts.field.number(upper) * size)


def _curvature_below(facts: Facts, data: dict[str, Array], square: Fraction) -> bool:
    """λ_min < −√square by the direction of the certificate."""
    t = facts.field.root(square)
    form, size = curvature_along(facts, data["dw"], data["dV"])
    return t is not None and bool(form < -t * size)


def _fields(certificate: Certificate, work: int) -> list[tuple[Field, AbstractContextManager[Any]]]:
    """Balls at rising precision; at last the rational numbers, where the loss and the size allow it."""
    fields: list[tuple[Field, AbstractContextManager[Any]]] = [
        (BALLS, ctx.workprec(bits)) for bits in PRECISIONS
    ]
    if certificate.loss == "squared" and work <= EXACT_WORK_LIMIT:
        fields.append((RATIONALS, nullcontext()))
    return fields
