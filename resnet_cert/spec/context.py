"""What the parts of a spec need to know beside themselves, and the samples that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cert.problem.problem import Rows
from resnet_cert.spec.faults import Fault, Refused
from resnet_cert.spec.faults import Path as Place

if TYPE_CHECKING:
    pass

MAX_DRAWN = 2**28  # numbers, 2 GiB


@dataclass(frozen=True)
class Stored:
    """What a verifier has already: nothing is drawn or built of another size, no network is evaluated, and no
    code is run.

    d: columns of x.  f: (n, k) the features.  drawable: how many numbers it may draw for a network.
    """

    d: int
    f: Rows
    drawable: int

    def require(self, sizes: dict[str, int], place: Place) -> None:
        """Refuses what would have other sizes."""
        known = {"n": self.f.shape[0], "d": self.d, "k": self.f.shape[1]}
        for name, size in sizes.items():
            if size != known[name]:
                raise Refused(
                    [Fault(place, f"expected {name} = {known[name]} as stored, got {size}", "shape")]
                )


@dataclass(frozen=True)
class Context:
    """What the parts of a spec need to know beside themselves.

    given: whether the features come with the data; None where the spec does not say what they are.
    weighted: whether the loss takes weights of the outputs from the data; None where it is not known.
    stored: what is known already, where nothing is to be evaluated.
    """

    folder: Path
    allow_code: bool
    given: bool | None
    weighted: bool | None = None
    stored: Stored | None = None


@dataclass(frozen=True)
class Samples:
    """The arrays of the data; nothing is known yet about their shapes.

    compare: of each comparator the arrays that stand side by side, or the names x, f, bypass of these here.
    column: the name of the column that y is, in a table.
    """

    x: Rows
    y: Rows
    f: Rows | None = None
    probabilities: Rows | None = None
    omega: Rows | None = None
    bypass: Rows | None = None
    compare: Mapping[str, tuple[Rows | str, ...]] = field(default_factory=dict)
    column: str | None = None


def require_drawable(count: int, place: Place, most: int = MAX_DRAWN) -> None:
    """Refuse to draw more numbers than fit."""
    if count > most:
        raise Refused([Fault(place, f"expected at most {most} drawn numbers, got {count}", "too-large")])
