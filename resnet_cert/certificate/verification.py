"""What the verifier answers, as plain data: never a bare verdict, always what it is a verdict about."""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resnet_cert.outcomes import Verdict, printable

SCHEMA = "resnet-cert/verify/1"
EXIT_REJECTED = 30

ENCLOSED = ("F", "gradient_norm", "lambda_min", "break_even_radius")
"""What the verifier encloses itself, or proves as it is claimed."""

BITWISE, AS_STORED = "bitwise", "as stored"


@dataclass(frozen=True)
class Bounds:
    """lower ≤ true value ≤ upper, proven; None: that end is not known."""

    lower: float | None = None
    upper: float | None = None

    def document(self) -> dict[str, float | None]:
        ends = [end for end in (self.lower, self.upper) if end is not None and math.isfinite(end)]
        middle = sum(end / len(ends) for end in ends) if ends else None
        return {"value": middle, "lower": self.lower, "upper": self.upper}


@dataclass(frozen=True)
class Claim:
    """What a certificate speaks of; F, gradient_norm and lambda_min as the verifier encloses them."""

    epsilon: float
    loss: str
    n: int
    d: int
    k: int
    q: int
    bypass: int
    bias: bool
    l2: float
    norm: float | None
    b: float
    b_source: str | None
    mu2: float | None
    mu2_source: str
    F: Bounds = Bounds()
    gradient_norm: Bounds = Bounds()
    lambda_min: Bounds = Bounds()
    break_even_radius: Bounds = Bounds()


@dataclass(frozen=True)
class Spec:
    """The spec that a certificate names: its path as it was found, its hash, the settings beside it."""

    path: str
    sha256: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What the verifier found: the certificate's verdict if it is accepted, else why not.

    verdict: None iff it is rejected.  spec: None: the answer is about the stored arrays alone; beside a
    verdict it was read again, and says the same.  features: "bitwise" those of the spec; a
    number: within it; "as stored"; None where it did not come to that.
    arrays_only: asked for no more than the stored arrays.
    """

    accepted: bool
    verdict: Verdict | None
    reasons: tuple[str, ...]
    claim: Claim | None = None
    spec: Spec | None = None
    features: str | float | None = None
    arrays_only: bool = False

    @property
    def exit_code(self) -> int:
        return EXIT_REJECTED if self.verdict is None else self.verdict.exit_code

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `verify --format json`."""
        claim: dict[str, Any] | None = None
        if self.claim is not None:
            claim = {**asdict(self.claim)}
            for name in ENCLOSED:
                claim[name] = getattr(self.claim, name).document()
        within = isinstance(self.features, float)
        return {
            "schema": SCHEMA,
            "accepted": self.accepted,
            "verdict": None if self.verdict is None else self.verdict.value,
            "reasons": [printable(reason) for reason in self.reasons],
            "claim": claim,
            "spec": None
            if self.spec is None
            else {
                "path": self.spec.path,
                "sha256": self.spec.sha256,
                "overrides": list(self.spec.overrides),
            },
            "features": {"within": self.features} if within else self.features,
            "arrays_only": self.arrays_only,
        }

    @staticmethod
    def of(document: dict[str, Any]) -> Verification:
        """The same from its document, as the verifier's process hands it over."""
        claim, spec, features = document["claim"], document["spec"], document["features"]
        if claim is not None:
            ends = {name: Bounds(claim[name]["lower"], claim[name]["upper"]) for name in ENCLOSED}
            claim = Claim(**{**claim, **ends})
        verdict = document["verdict"]
        return Verification(
            document["accepted"],
            None if verdict is None else Verdict(verdict),
            tuple(document["reasons"]),
            claim,
            None if spec is None else Spec(spec["path"], spec["sha256"], tuple(spec["overrides"])),
            features["within"] if isinstance(features, dict) else features,
            document["arrays_only"],
        )

    def save(self, path: str | Path) -> None:
        """The JSON document, as a file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def _repr_html_(self) -> str:
        """For notebooks: what the answer is about, and what it proves."""
        reasons = tuple(printable(reason) for reason in self.reasons)
        lines = (self.headline, *reasons, *self.statements)
        return "<br>".join(html.escape(line) for line in lines)

    def undecided(self, reason: str) -> Verification:
        """The same, but for a verdict that was not reached."""
        return replace(self, accepted=True, verdict=Verdict.UNDECIDED, reasons=(*self.reasons, reason))

    @property
    def headline(self) -> str:
        """Verdict, ε, and what it is a verdict about, in one line."""
        word = "REJECTED" if self.verdict is None else self.verdict.value
        if self.claim is not None:
            word += f", ε = {self.claim.epsilon!r}"
        if self.arrays_only:
            return f"ARRAYS ONLY: {word}, for the stored arrays, not for a spec"
        if self.claim is None:
            return f"{word}: no certificate could be read"
        if self.spec is None:
            return f"{word}, for the stored arrays: no spec is named"
        settings = "".join(f" --set {printable(setting)}" for setting in self.spec.overrides)
        return f"{word}, for {printable(self.spec.path)}" + (f" with{settings}" if settings else "")

    @property
    def statements(self) -> tuple[str, ...]:
        """What is proven, what is assumed, and what is neither, in the documentation's own sentences."""
        if self.verdict is None or self.claim is None:
            return ()
        said = [PROVEN[self.verdict]]
        if self.verdict is Verdict.UNDECIDED:
            return (PROVEN[self.verdict],)
        if self.claim.l2 or self.claim.norm is not None:
            said.append(OF_OBJECTIVE)
        if self.spec is None:
            said.append(OF_ARRAYS)
        elif self.features == BITWISE:
            said.append(OF_SPEC)
        else:
            said.append(OF_SPEC_BUT_FEATURES if self.features == AS_STORED else OF_SPEC_AND_NEAR)
        if self.claim.break_even_radius.lower is not None:
            said.append(PROVEN_OF_LINEAR)
        said.append(ASSUMED)
        if isinstance(self.features, float):
            said.append(ASSUMED_OF_FEATURES)
        if self.claim.mu2_source == "given":
            said.append(ASSUMED_OF_MU2)
        if self.claim.b_source == "given":
            said.append(ASSUMED_OF_B)
        return (*said, NOT_OF_THEOREMS, NOT_OF_INTENTION)


PROVEN = {
    Verdict.CERTIFIED: "Proven: ‖∇F‖ ≤ ε and λ_min(∇²F) ≥ −√(μ2 ε) at this point.",
    Verdict.REFUTED: "Proven: ‖∇F‖ > ε or λ_min(∇²F) < −√(μ2 ε) at this point.",
    Verdict.UNDECIDED: "Proven: nothing of ‖∇F‖ ≤ ε and λ_min(∇²F) ≥ −√(μ2 ε), in either direction.",
}
OF_OBJECTIVE = (
    "∇F and ∇²F are those of F with its decay, on a sphere that binds of the Lagrangian, along the sphere."
)
OF_ARRAYS = "It is proven of the arrays in the certificate's data file, and not that any spec means them."
OF_SPEC = "It is proven of the spec's own numbers, bit for bit, features included."
OF_SPEC_AND_NEAR = (
    "It is proven of the spec's own numbers, and of all features that a float64 evaluation may return."
)
OF_SPEC_BUT_FEATURES = (
    "It is proven of the spec's own numbers, but of the features as stored: they may be no network's."
)
PROVEN_OF_LINEAR = (
    "Proven: no linear predictor smaller than r° (Frobenius) has a lesser loss than this point."
)
ASSUMED = "Assumed: Python, NumPy's reading of files, FLINT's ball arithmetic and this computer work."
ASSUMED_OF_FEATURES = (
    "Assumed: float64 evaluations of the network round as the documentation says, activation by activation."
)
ASSUMED_OF_MU2 = "Assumed: the given μ2 is a Lipschitz constant of ∇²F on the domain."
ASSUMED_OF_B = "Assumed: the given b bounds the domain that is meant."
NOT_OF_THEOREMS = "Not proven: anything else of min F_lin, of the gap, or of the theorems' bounds."
NOT_OF_INTENTION = "Not proven: who made the certificate, or that the spec says what anybody meant."
