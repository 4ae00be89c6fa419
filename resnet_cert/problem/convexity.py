"""Assumption 1 of a user's loss, proven: ℓ''(p; y) ≥ 0 for every p that the statements use.

Shamir 2018, Assumption 1: for every y, ℓ(p; y) is twice differentiable and convex in p.  The statements use
|p| ≤ P_i = ρ(‖x_i‖ + b‖f_i‖) with ρ = max(b, r): the predictions of every point of the domain and of every
linear predictor that it is compared with.  What is said of all W needs more (`Loss.convex`).  [−P_i, P_i] is
cut into boxes, on each of which the program of ℓ'' is read in interval arithmetic; a box that is not decided
is cut in two.

A sum of smooth pieces proves nothing where they are joined: |p|, max, where and the like are followed, and a
box in which one of them may change its piece is never proven.  Derivatives are JAX's; where a rule is the
user's own, or a stop_gradient hides a part, nothing is proven or refuted.

As long as a proof can come of it, the narrowest boxes are read first: a joint ends that after as many
halvings as it takes to see it.  Then the widest are, some thousands more, for the sake of a counterexample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics import jaxpr
from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.forms import enclose_forms
from resnet_cert.numerics.intervals import Interval
from resnet_cert.numerics.jaxpr import UnsupportedPrimitive, enclose
from resnet_cert.numerics.radius import NOTHING, Array, Radius, hypot
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.results import Assumption1

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Problem

Integers = npt.NDArray[np.intp]

BATCH, WIDEST_BATCH = 2**9, 2**13
"""Boxes that are read at a time: few as long as one of them may end the search, more where they go on."""
MOST_BOXES = 2**17
"""Boxes that are read before a proof is given up,"""
MOST_BOXES_AFTER = 2**12
"""and, once there is no proof to be had, before the search for a counterexample is."""
MOST_TARGETS = 2**16
"""Distinct targets that are held at a time."""
NARROW, NARROW_JOINT = 2.0**-40, 2.0**-24
"""Relative widths of boxes that are not cut again; a joint does not go away by cutting."""
FAR = 64.0
"""Beyond so many times 1 + |y| a loss is read in one box."""
FALL = 2.0**-20
"""A smaller fall of ℓ' over a joint, relative to ℓ', passes for rounding between pieces of a formula."""


def assumption1(problem: Problem, b: float, r: float, augmented: float = 0.0) -> Assumption1:
    """What is known of ℓ on |p| ≤ P_i = max(b, r)(‖x_i‖ + b‖f_i‖), for each y_i.

    Args:
        augmented: the radius of the ball of linear predictors on (x, f), if there are such: then P_i is at
            least as large as their predictions, too.
    Raises:
        RequestError: it is proven that ℓ(·; y_i) is not convex there.
    """
    loss = problem.loss
    if not isinstance(loss, CustomLoss):
        return Assumption1("proven")
    largest, reasons = 0.0, list[str]()
    for y, reach, samples in _distinct_targets(
        problem, Radius.of(max(b, r)), Radius.of(b), Radius.of(augmented) if augmented else NOTHING
    ):
        largest = max(largest, float(np.max(reach)))
        reason = prove_convex(loss, y, reach, samples)
        if reason is not None:
            reasons.append(reason)
    everywhere = "claimed" if loss.convex else "unknown"
    if not reasons:
        return Assumption1("proven", largest, everywhere=everywhere)
    return Assumption1(everywhere, largest, reasons[0], everywhere)


def with_assumption1(
    problem: Problem, b: float, r: float, augmented: float = 0.0
) -> tuple[Problem, Assumption1]:
    """The problem with a loss that says whether it is convex on the domain, and what is known; see
    `assumption1`."""
    known = assumption1(problem, b, r, augmented)
    if isinstance(problem.loss, CustomLoss):
        if known.status == "proven" and not problem.loss.convex and convex_everywhere(problem):
            known = replace(known, everywhere="proven")
        everywhere = known.everywhere == "proven"
        problem = replace(problem, loss=problem.loss.with_range(known.status == "proven", everywhere))
    return problem, known


def convex_everywhere(problem: Problem) -> bool:
    """ℓ(·; y_i) is twice differentiable and convex for every p and every y_i: by formula, the user's word, or
    proof.

    By boxes up to FAR(1 + |y_i|), and one box on either side beyond: there a formula such as 1 − tanh²(p − y)
    shows its sign, and one such as e^p/(1 + e^p)², of which intervals know no more than ∞/∞, does not.
    """
    loss = problem.loss
    if not isinstance(loss, CustomLoss) or loss.convex:
        return loss.convex
    if loss.why_unknown() is not None or why_untrusted(loss.function) is not None:
        return False
    return all(
        _convex_everywhere(loss, y, samples)
        for y, _, samples in _distinct_targets(problem, NOTHING, NOTHING, NOTHING)
    )


@QUIET
def _convex_everywhere(loss: CustomLoss, y: Array, samples: Integers) -> bool:
    value, _, second, _ = loss.derivative_functions
    reach, beyond = FAR * (1.0 + np.abs(y)), np.full(len(y), np.inf)
    tails = Interval(np.concatenate([reach, -beyond]), np.concatenate([beyond, -reach]))
    targets = Interval.exact(np.tile(y, 2))
    if joints(value, tails, targets).any() or (_finest(second, tails, targets, _has_sign).lower < 0.0).any():
        return False
    try:
        return prove_convex(loss, y, reach, samples) is None
    except RequestError:  # not convex, beyond what anything was said of
        return False


def _distinct_targets(
    problem: Problem, ball: Radius, b: Radius, augmented: Radius
) -> Iterator[tuple[Array, Array, Integers]]:
    """Targets, the largest P_i of each, and a sample of each, MOST_TARGETS or some more at a time."""
    y, reach, samples = np.empty(0), np.empty(0), np.empty(0, dtype=np.intp)
    first = 0
    for chunk in problem.chunks():
        x_norm, f_norm = Radius.row_norms(chunk.x), Radius.row_norms(chunk.f)
        here = ball * (x_norm + b * f_norm)
        if not augmented.exact:
            here = Radius.of(np.maximum(here.upper, (augmented * hypot(x_norm, f_norm)).upper))
        reach = np.concatenate([reach, np.broadcast_to(here.upper, len(chunk.x))])
        y = np.concatenate([y, chunk.y[:, 0]])
        samples = np.concatenate([samples, np.arange(first, first + len(chunk.x))])
        first += len(chunk.x)
        order = np.lexsort([-reach, y])
        last = order[np.unique(y[order], return_index=True)[1]]  # of equal targets that of largest reach
        y, reach, samples = y[last], reach[last], samples[last]
        if len(y) > MOST_TARGETS:
            yield y, reach, samples
            y, reach, samples = y[:0], reach[:0], samples[:0]
    if len(y):
        yield y, reach, samples


@dataclass(frozen=True)
class Targets:
    """Targets in increasing order, halved again and again: node 1 holds all, node k those of 2k and 2k + 1.

    lower, upper, reach: (2·leaves,) the least and the largest target of a node, and the largest reach.
    order: (m,) the given numbers of the targets in that order, the first of them the leaf `leaves`.
    """

    lower: Array
    upper: Array
    reach: Array
    order: Integers

    @staticmethod
    def of(y: Array, reach: Array) -> Targets:
        order = np.argsort(y, kind="stable")
        filling = (1 << (len(y) - 1).bit_length()) - len(y)  # repeats the last one
        leaves = [np.pad(column[order], (0, filling), mode="edge") for column in (y, y, reach)]
        levels = [leaves]
        while len(leaves[0]) > 1:
            low, high, far = leaves
            leaves = [low[::2], high[1::2], np.maximum(far[::2], far[1::2])]
            levels.append(leaves)
        lower, upper, far = (np.concatenate([[0.0], *parts]) for parts in zip(*levels[::-1], strict=True))
        return Targets(lower, upper, far, order)

    @property
    def leaves(self) -> int:
        return len(self.lower) // 2

    def among(self, node: Integers) -> Integers:
        """A leaf of each node: its last."""
        while (node < self.leaves).any():
            node = np.where(node < self.leaves, 2 * node + 1, node)
        return node

    def number(self, leaf: Any) -> int:
        return int(self.order[min(int(leaf) - self.leaves, len(self.order) - 1)])


class Boxes(NamedTuple):
    """[lower, upper] of p (m,), and a node of the targets for each (m,)."""

    lower: Array
    upper: Array
    node: Integers

    @staticmethod
    def joined(parts: Sequence[Boxes]) -> Boxes:
        return Boxes(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def part(self, rows: Any) -> Boxes:
        return Boxes(self.lower[rows], self.upper[rows], self.node[rows])

    def within(self, targets: Targets) -> Boxes:
        """As far as their targets ask for them; slightly more, so that no end is where pieces meet."""
        reach = np.nextafter(targets.reach[self.node], np.inf)
        cut = Boxes(np.maximum(self.lower, -reach), np.minimum(self.upper, reach), self.node)
        return cut.part(cut.lower < cut.upper)

    def targets(self, targets: Targets) -> Interval:
        return Interval(targets.lower[self.node], targets.upper[self.node])

    @property
    def middle(self) -> Array:
        return 0.5 * self.lower + 0.5 * self.upper

    def halves(self, targets: Targets) -> Boxes:
        """Each cut in two along its longer side."""
        by_target = targets.upper[self.node] - targets.lower[self.node] > self.upper - self.lower
        middle, node = self.middle, np.where(by_target, 2 * self.node, self.node)
        first = Boxes(self.lower, np.where(by_target, self.upper, middle), node)
        second = Boxes(np.where(by_target, self.lower, middle), self.upper, node + by_target)
        return Boxes.joined([first, second]).within(targets)


@QUIET
def prove_convex(loss: CustomLoss, y: Array, reach: Array, samples: Sequence[int] | Integers) -> str | None:
    """None: ℓ(·; y_i) is twice differentiable and convex on |p| ≤ reach_i, for every i; else why it is open.

    Args:
        y: (m,) targets;  reach: (m,) ≥ 0;  samples: (m,) their numbers in the data, for messages.
    Raises:
        RequestError: it is proven that one of them is not convex: with p, y and the sample.
    """
    unknown = loss.why_unknown() or why_untrusted(loss.function)
    if unknown is not None:
        return unknown
    targets = Targets.of(y, reach)
    search = _Search(loss, targets, np.asarray(samples))
    boxes = Boxes(np.array([-np.inf]), np.array([np.inf]), np.ones(1, dtype=np.intp)).within(targets)
    read, most, batch = 0, MOST_BOXES, BATCH
    while len(boxes.lower):
        if search.stuck is not None and most == MOST_BOXES:
            most = min(most, read + MOST_BOXES_AFTER)
        if read > most or not np.isfinite(boxes.upper).all():
            where = search.place(boxes.middle[-1], targets.among(boxes.node[-1:])[0])
            return search.stuck or f"that the loss {loss.name} is convex is not decided at {where}"
        # The narrowest first, which may end the search; once a proof is out of reach the widest.
        now = slice(-batch, None) if search.stuck is None else slice(batch)
        rest = slice(-batch) if search.stuck is None else slice(batch, None)
        part = boxes.part(now)
        read += len(part.lower)
        boxes = Boxes.joined([boxes.part(rest), search.open_boxes(part).halves(targets)])
        batch = min(2 * batch, WIDEST_BATCH)
    return search.stuck


@dataclass
class _Search:
    """stuck: the first box that stays open however narrow it is, in words."""

    loss: CustomLoss
    targets: Targets
    samples: Integers
    stuck: str | None = None

    def open_boxes(self, boxes: Boxes) -> Boxes:
        """Those that have to be cut."""
        value, first, second, _ = self.loss.derivative_functions
        over, y = Interval(boxes.lower, boxes.upper), boxes.targets(self.targets)
        jointed, bent = joints(value, over, y), _finest(second, over, y, _has_sign)
        left = (bent.lower < 0.0) | jointed
        if not left.any():
            return boxes.part(left)
        boxes, jointed, convex = boxes.part(left), jointed[left], bent.lower[left] >= 0.0
        leaf = self.targets.among(boxes.node)
        reach, of = self.targets.reach[leaf], self.targets.lower[leaf]
        p = np.clip(boxes.middle, -reach, reach)
        at = _finest(second, _near(p), Interval.exact(of), _has_sign)
        i = int(np.argmax(at.unknown))
        if at.unknown[i]:
            self._require_value(p[i], leaf[i])
        i = int(np.argmin(at.upper))
        if at.upper[i] < 0.0:
            self._require_value(p[i], leaf[i])
            raise RequestError(
                f"loss {self.loss.name} is not convex: second derivative ≤ {at.upper[i]:.6g} at "
                f"{self.place(p[i], leaf[i])}; Assumption 1 needs a convex loss",
                id="not-convex",
            )
        limit = np.where(jointed & convex, NARROW_JOINT, NARROW)
        size = np.maximum(1.0, np.maximum(np.abs(boxes.lower), np.abs(boxes.upper)))
        single = self.targets.lower[boxes.node] == self.targets.upper[boxes.node]
        narrow = single & (boxes.upper - boxes.lower <= limit * size)
        if narrow.any():
            self._look_at(boxes.part(narrow), jointed[narrow], first)
        return boxes.part(~narrow)

    def _look_at(self, boxes: Boxes, jointed: Any, first: Callable[..., Any]) -> None:
        """Refuse an ℓ' that falls over a box; else note why it stays open."""
        y, leaf = boxes.targets(self.targets), self.targets.among(boxes.node)
        left, right = (enclose(first, _near(p), y) for p in (boxes.lower, boxes.upper))
        fall = left.lower - right.upper
        for i in np.flatnonzero(fall > FALL * np.maximum(np.abs(left.lower), np.abs(right.upper)))[:1]:
            for p in (boxes.lower[i], boxes.upper[i]):
                self._require_value(p, leaf[i])
            raise RequestError(
                f"loss {self.loss.name} is not convex (Assumption 1): first derivative falls by "
                f"{fall[i]:.6g} at {self.place(boxes.middle[i], leaf[i])}",
                id="not-convex",
            )
        i = int(np.argmax(jointed))  # a joint, if there is one
        if self.stuck is None:
            where = self.place(boxes.middle[i], leaf[i])
            self.stuck = (
                f"the loss {self.loss.name} is joined of pieces at {where}: "
                "that it is twice differentiable there is not proven"
                if jointed[i]
                else f"that the loss {self.loss.name} is convex is not decided at {where}"
            )

    def _require_value(self, p: Any, leaf: Any) -> None:
        """Refuse a loss that has no value at a p that it has to have one at."""
        y = self.targets.lower[leaf]
        if np.isfinite(self.loss.approximate(np.array([p]), np.array([y]))[0]).all():
            return
        raise RequestError(
            f"loss {self.loss.name} has no finite value at {self.place(p, leaf)}; Assumption 1 needs a loss "
            "that is defined, and convex, for every prediction",
            id="not-convex",
        )

    def place(self, p: Any, leaf: Any) -> str:
        sample = self.samples[self.targets.number(leaf)]
        return f"p = {p:.9g}, y = {self.targets.lower[leaf]:.6g} (sample {sample})"


def _near(p: Array) -> Interval:
    """p and its neighbours: where pieces meet exactly at p, JAX's derivative is that of neither."""
    return Interval.around(p, 0.0)


def _has_sign(x: Interval) -> Any:
    return (x.lower >= 0.0) | (x.upper < 0.0)


def _finest(
    function: Callable[..., Any], p: Interval, y: Interval, is_enough: Callable[[Interval], Any]
) -> Interval:
    """Bounds of function(p, y): plain ones, with forms where those are not enough."""
    plain = enclose(function, p, y)
    rows = np.flatnonzero(~is_enough(plain))
    if not rows.size:
        return plain
    narrower = [Interval(x.lower[rows], x.upper[rows]) for x in (p, y)]
    finer = enclose_forms(function, *narrower)
    lower, upper = plain.lower.copy(), plain.upper.copy()
    lower[rows], upper[rows] = finer.lower, finer.upper
    return Interval(lower, upper)


def joints(function: Callable[..., Any], *arguments: Interval) -> npt.NDArray[np.bool_]:
    """(n,): in which boxes the program may go from one of its pieces to another."""
    found = np.zeros(len(arguments[0].lower), dtype=bool)

    def watch(equation: Any, inputs: Sequence[Interval]) -> None:
        mask = np.asarray(jaxpr.undecided(equation, inputs))
        if mask.ndim > 1:
            mask = mask.any(axis=tuple(range(1, mask.ndim)))
        np.logical_or(found, mask, out=found)

    enclose(function, *arguments, watch=watch)
    return found


def why_untrusted(function: Callable[..., Any]) -> str | None:
    """Why JAX's derivatives of a program may not be those of the function that it computes.

    A rule of the user's own is taken as a claim, not as a proof; a stop_gradient leaves something out.
    """
    reasons: list[str] = []

    def watch(equation: Any, inputs: Sequence[Interval]) -> None:
        if jaxpr.has_own_rule(equation) and not jaxpr.is_jax_call(equation):
            rule = equation.params["call_jaxpr"].jaxpr.debug_info.func_name
            reasons.append(f"the derivative rule of {rule} is its author's, not proven")
        elif equation.primitive.name == "stop_gradient":
            reasons.append("its derivative leaves out what a stop_gradient hides, as that of logsumexp does")

    one = Interval.exact(np.ones(1))
    try:
        enclose(function, one, one, watch=watch)
    except UnsupportedPrimitive:
        return None
    return reasons[0] if reasons else None


# Suprema.

GRID = np.concatenate([-(0.5 ** np.arange(7)), [0.0], 0.5 ** np.arange(6, -1, -1)])
"""Where [−1, 1] is cut first: a loss bends on a scale of its own, which may be small beside the reach."""
CUTS, BOXES_A_CELL, FEWEST_BOXES = 14, 64, 2**14
"""A supremum is sought by so many halvings at the most, in so many boxes a cell, and in so many in all."""
TIGHT = 1.0 + 2.0**-3
"""A supremum is sought until its bound is within so much of a value that is reached."""
EXACT_CELLS = 128
"""So many pairs of reach and target are bounded one by one; of more,"""
MOST_JOINTED = 8
"""Boxes of a cell in which pieces may meet; of more, it is not cut further, and nothing is known."""
CELLS = 16
"""so many classes by reach, of so many by target each: the largest reach and the hull of the targets."""


@QUIET
def suprema(loss: CustomLoss, reach: Array, y: Array) -> list[Array]:
    """Upper bounds (m,) of the first three derivatives' sizes over |p| ≤ reach (m,); infinite where unknown.

    Over a joint each derivative is bounded on both sides of it, which says nothing of a jump of the one
    before: unless it is claimed otherwise (`CustomLoss.convex`), nothing is known where pieces may meet.
    """
    pairs, whose = np.unique(np.stack([reach, y], axis=1), axis=0, return_inverse=True)
    cell = _cells(pairs)
    count = int(cell.max()) + 1
    far, low, high = np.zeros(count), np.full(count, np.inf), np.full(count, -np.inf)
    np.maximum.at(far, cell, pairs[:, 0])
    np.minimum.at(low, cell, pairs[:, 1])
    np.maximum.at(high, cell, pairs[:, 1])
    targets = Interval(low, high)
    bounds = [_supremum(function, far, targets) for function in loss.derivative_functions[1:]]
    if not loss.convex:
        unknown = _are_joined(loss, far, targets) | (why_untrusted(loss.function) is not None)
        bounds = [np.where(unknown, np.inf, bound) for bound in bounds]
    return [bound[cell[whose.reshape(-1)]] for bound in bounds]


def _are_joined(loss: CustomLoss, reach: Array, y: Interval) -> npt.NDArray[np.bool_]:
    """(m,): pieces of the program may meet somewhere in |p| ≤ reach, for some y in an interval."""
    found = np.zeros(len(reach), dtype=bool)
    lower, upper, cell = -reach, reach, np.arange(len(reach))
    while len(lower):
        jointed = joints(loss.function, Interval(lower, upper), Interval(y.lower[cell], y.upper[cell]))
        narrow = upper - lower <= NARROW_JOINT * np.maximum(1.0, np.maximum(np.abs(lower), np.abs(upper)))
        found[cell[jointed & narrow]] = True
        # Where targets lie between others the joints of all of them make a band, which cutting p leaves.
        found |= np.bincount(cell[jointed], minlength=len(reach)) > MOST_JOINTED
        left = jointed & ~found[cell]
        lower, upper, cell = lower[left], upper[left], cell[left]
        middle = 0.5 * lower + 0.5 * upper
        lower, upper = np.concatenate([lower, middle]), np.concatenate([middle, upper])
        cell = np.tile(cell, 2)
    return found


def _cells(pairs: Array) -> Integers:
    """(m,) the class of each pair of `pairs` (m, 2), which are sorted by reach; none is empty."""
    if len(pairs) <= EXACT_CELLS:
        return np.arange(len(pairs))
    cell = np.empty(len(pairs), dtype=np.intp)
    for group, rows in enumerate(np.array_split(np.arange(len(pairs)), CELLS)):
        by_target = rows[np.argsort(pairs[rows, 1], kind="stable")]
        for part, members in enumerate(np.array_split(by_target, min(CELLS, len(rows)))):
            cell[members] = group * CELLS + part
    return np.unique(cell, return_inverse=True)[1]


def _supremum(function: Callable[..., Any], reach: Array, y: Interval) -> Array:
    """Of |function(p, y)| over |p| ≤ reach and y in an interval, (m,) each."""
    grid = reach[:, None] * GRID
    lower, upper = grid[:, :-1].ravel(), grid[:, 1:].ravel()
    cell = np.repeat(np.arange(len(reach)), len(GRID) - 1)
    reached, settled = np.zeros(len(reach)), np.zeros(len(reach))
    for end in (-reach, reach):
        at = enclose(function, Interval.exact(end), Interval.exact(y.upper))
        reached = np.maximum(reached, _least_size(at))
    read = 0
    for cuts_left in range(CUTS, -1, -1):
        goal = TIGHT * reached[cell]
        over = _finest(
            function,
            Interval(lower, upper),
            Interval(y.lower[cell], y.upper[cell]),
            lambda x, goal=goal: np.maximum(-x.lower, x.upper) <= goal,
        )
        most, middle = np.maximum(-over.lower, over.upper), 0.5 * lower + 0.5 * upper
        at = enclose(function, Interval.exact(middle), Interval.exact(y.upper[cell]))
        np.maximum.at(reached, cell, _least_size(at))
        read += len(lower)
        done = most <= TIGHT * reached[cell]
        if not cuts_left or read > max(BOXES_A_CELL * len(reach), FEWEST_BOXES):
            done[:] = True
        np.maximum.at(settled, cell[done], most[done])
        left = ~done & (most > settled[cell])
        if not left.any():
            break
        lower, middle, upper, cell = lower[left], middle[left], upper[left], np.tile(cell[left], 2)
        lower, upper = np.concatenate([lower, middle]), np.concatenate([middle, upper])
    return settled


def _least_size(x: Interval) -> Array:
    return np.maximum(0.0, np.maximum(x.lower, -x.upper))
