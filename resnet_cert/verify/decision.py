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

from resnet_cert.errors import RequestError
from resnet_cert.verdict import Verdict
from resnet_cert.verify.binding import bind
from resnet_cert.verify.proofs import (
    BALLS,
    RATIONALS,
    Facts,
    Field,
    curvature_at_least,
    curvature_at_most,
    encloses,
    encloses_root,
    evaluate,
    inside,
    lipschitz_at_most,
)
from resnet_cert.verify.reading import Array, Certificate, Rejected, read_certificate, read_data

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
        claims["bounds.lambda_min.lower"] = lambda facts: curvature_at_least(facts, lower)
    if upper is not None:
        claims["bounds.lambda_min.upper"] = lambda facts: curvature_at_most(
            facts, upper, data["dw"], data["dV"]
        )
    if certificate.mu2_source == "computed":
        claims["claim.mu2"] = lambda facts: lipschitz_at_most(certificate, data)
    return claims | _verdict_claims(certificate)


def _verdict_claims(certificate: Certificate) -> dict[str, Callable[[Facts], bool]]:
    """What the verdict needs beyond the bounds on λ_min, which are compared with −√(μ2 ε) here, exactly."""
    epsilon, lower, upper = certificate.epsilon, certificate.lambda_min.lower, certificate.lambda_min.upper
    threshold_squared = None if certificate.mu2 is None else Fraction(certificate.mu2) * Fraction(epsilon)
    if epsilon == 0.0:
        threshold_squared = Fraction(0)
    if certificate.verdict is Verdict.CERTIFIED:
        if not _at_least_minus_root(lower, threshold_squared):
            raise Rejected("claim.verdict: CERTIFIED does not follow from bounds.lambda_min.lower")
        return {"‖∇F‖ ≤ ε": lambda facts: facts.gradient_squared <= facts.field.number(epsilon) ** 2}
    if certificate.verdict is Verdict.REFUTED:
        if (
            upper is not None
            and threshold_squared is not None
            and not _at_least_minus_root(upper, threshold_squared)
        ):
            return {}
        return {"‖∇F‖ > ε": lambda facts: facts.gradient_squared > facts.field.number(epsilon) ** 2}
    return {}


def _at_least_minus_root(bound: float | None, square: Fraction | None) -> bool:
    """bound ≥ −√square; an unknown square is no less than 0."""
    if bound is None:
        return False
    return bound >= 0.0 or (square is not None and Fraction(bound) ** 2 <= square)


def _fields(certificate: Certificate, work: int) -> list[tuple[Field, AbstractContextManager[Any]]]:
    """Balls at rising precision; at last the rational numbers, where the loss and the size allow it."""
    fields: list[tuple[Field, AbstractContextManager[Any]]] = [
        (BALLS, ctx.workprec(bits)) for bits in PRECISIONS
    ]
    if certificate.loss == "squared" and work <= EXACT_WORK_LIMIT:
        fields.append((RATIONALS, nullcontext()))
    return fields
