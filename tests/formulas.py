"""The formulas of the pages as they are printed: read, and evaluated on numbers made by plain NumPy.

A value is a float or a matrix; a column is a matrix, and what stands side by side is multiplied.  Names are
those of the page; `E[…]` is the mean over the samples, whose own names stand in `samples`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from resnet_cert import Problem
from resnet_cert.commands.explain import page

Value = Any
Names = Mapping[str, Value]
Term = Callable[[Names], Value]

POWERS = {"²": 2, "³": 3, "⁴": 4, "^¼": 0.25}
NUMBER = re.compile(r"\d+(\.\d+)?|[½¼]")
NORMS = {"_F": "fro", "_nuc": "nuc", "_2": 2, "": 2}


def printed(topic: str, begins: str, which: int = 0) -> str:
    """What stands behind `begins` on a page, as far as it is a formula, with its line breaks gone."""
    text = page(topic).replace(r"\*", "*")
    text = re.sub(r"(?<=\S)\n(?! {4}|\n|- )", " ", text)
    parts = text.split(begins)
    assert len(parts) > which + 1, (topic, begins)
    return re.split(r"\n|(?<=\S) {2,}", parts[which + 1].lstrip(" "))[0]


def evaluated(formula: str, names: Names) -> float:
    """The number that the formula is, read from its beginning as far as it goes."""
    return float(np.squeeze(_Reader(formula, names).sum()(names)))


@dataclass
class _Reader:
    """Recursive descent, products without a sign included; `at` is the place in the text."""

    text: str
    names: Names
    at: int = 0
    bars: list[str] = field(default_factory=list)

    def sum(self) -> Term:
        total = self.product()
        while sign := self.taken("+", "−"):
            total = _combined(np.add if sign == "+" else np.subtract, total, self.product())
        return total

    def product(self) -> Term:
        if self.taken("−"):
            return _combined(np.negative, self.product())
        total = self.factor()
        assert total is not None, self.text[self.at :]
        while True:
            start = self.at
            sign = self.taken("·", "/")
            right = self.factor()
            if right is None:
                self.at = start
                return total
            total = _combined(_quotient if sign == "/" else _times, total, right)

    def factor(self) -> Term | None:
        atom = self.atom()
        while atom is not None:
            if power := self.taken(*POWERS):
                atom = _combined(lambda a, exponent=POWERS[power]: a**exponent, atom)
            elif self.taken("ᵀ"):
                atom = _combined(np.transpose, atom)
            elif self.taken("⁺"):
                atom = _combined(np.linalg.pinv, atom)
            else:
                break
        return atom

    def atom(self) -> Term | None:
        start = self.at
        if self.taken("√"):
            return _combined(np.sqrt, self.needed(self.factor()))
        if extreme := self.taken("max{", "min{", "max(", "min("):
            first = self.closed(",")
            of = max if extreme.startswith("max") else min
            return _combined(of, first, self.closed("}" if extreme.endswith("{") else ")"))
        if name := self.taken(*sorted(self.names, key=len, reverse=True)):
            if callable(self.names[name]):
                argument = self.needed(self.factor())
                return lambda names: names[name](argument(names))
            return lambda names: names[name]
        if self.taken("E["):
            mean = self.closed("]")
            return lambda names: _mean(mean, names)
        if self.taken("E "):
            mean = self.product()
            return lambda names: _mean(mean, names)
        if number := NUMBER.match(self.text, self.spaceless()):
            self.at = number.end()
            value = {"½": 0.5, "¼": 0.25}.get(number[0]) or float(number[0])
            return lambda names: value
        if self.taken("("):
            first = self.opened(None)
            if self.taken(","):
                return _combined(_joined, first, self.closed(")"))
            self.needed(self.taken(")"))
            return first
        if self.taken("⟨"):
            first = self.closed(",")
            return _combined(lambda a, b: np.sum(np.multiply(a, b)), first, self.closed("⟩"))
        for bar, size in (("‖", None), ("|", np.abs)):
            if bar not in self.bars[-1:] and self.taken(bar):
                inner = self.opened(bar)
                self.needed(self.taken(bar))
                return _combined(size or _norm(self.taken("_F", "_nuc", "_2")), inner)
        self.at = start
        return None

    def opened(self, bar: str | None) -> Term:
        self.bars.append(bar or "")
        inner = self.sum()
        self.bars.pop()
        return inner

    def closed(self, by: str) -> Term:
        inner = self.opened(None)
        self.needed(self.taken(by))
        return inner

    def needed(self, found: Any) -> Any:
        assert found, f"{self.text!r} at {self.text[self.at :]!r}"
        return found

    def spaceless(self) -> int:
        return self.at + len(self.text[self.at :]) - len(self.text[self.at :].lstrip(" "))

    def taken(self, *words: str) -> str:
        start = self.spaceless()
        for word in words:
            if self.text.startswith(word, start):
                self.at = start + len(word)
                return word
        return ""


def _norm(kind: str) -> Callable[[Value], Value]:
    return lambda a: np.linalg.norm(np.atleast_2d(a), NORMS[kind])


def _combined(of: Callable[..., Value], *parts: Term) -> Term:
    return lambda names: of(*(part(names) for part in parts))


def _times(a: Value, b: Value) -> Value:
    return np.squeeze(a) * b if np.size(a) == 1 else a * np.squeeze(b) if np.size(b) == 1 else a @ b


def _quotient(a: Value, b: Value) -> Value:
    return a / np.squeeze(b)


def _joined(a: Value, b: Value) -> Value:
    """A pair (a, b) as one column of its entries."""
    return np.concatenate([np.ravel(a), np.ravel(b)])[:, None]


def _mean(of: Term, names: Names) -> Value:
    return sum(weight * of({**names, **sample}) for weight, sample in names["samples"])


# --- The numbers that the pages speak of ------------------------------------------------------------------


def softplus(p: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, p)


def sigmoid(p: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * p))


@dataclass(frozen=True)
class Loss:
    """ℓ(p; y) of one sample with its derivatives of first to third order in p."""

    value: Callable[[np.ndarray, np.ndarray], float]
    first: Callable[[np.ndarray, np.ndarray], np.ndarray]
    second: Callable[[np.ndarray, np.ndarray], np.ndarray]
    third: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda p, y: np.zeros(p.shape)


SQUARED = Loss(
    lambda p, y: 0.5 * float(np.sum((p - y) ** 2)), lambda p, y: p - y, lambda p, y: np.eye(p.shape[0])
)
LOGISTIC = Loss(
    lambda p, y: float(np.sum(softplus(p) - y * p)),
    lambda p, y: sigmoid(p) - y,
    lambda p, y: np.diag(np.ravel(sigmoid(p) * sigmoid(-p))),
    lambda p, y: sigmoid(p) * sigmoid(-p) * (1.0 - 2.0 * sigmoid(p)),
)
PSEUDO_HUBER = Loss(
    lambda p, y: float(np.sum(np.sqrt(1.0 + (p - y) ** 2) - 1.0)),
    lambda p, y: (p - y) / np.sqrt(1.0 + (p - y) ** 2),
    lambda p, y: np.diag(np.ravel((1.0 + (p - y) ** 2) ** -1.5)),
    lambda p, y: -3.0 * (p - y) * (1.0 + (p - y) ** 2) ** -2.5,
)


def softmax_of(p: np.ndarray) -> np.ndarray:
    e = np.exp(p - p.max())
    return e / e.sum()


SOFTMAX = Loss(
    lambda p, y: float(p.max() + np.log(np.exp(p - p.max()).sum()) - np.sum(y * p)),
    lambda p, y: softmax_of(p) - y,
    lambda p, y: np.diag(np.ravel(softmax_of(p))) - softmax_of(p) @ softmax_of(p).T,
)
LOSSES = {"squared": SQUARED, "logistic": LOGISTIC, "pseudo_huber": PSEUDO_HUBER, "softmax": SOFTMAX}


@dataclass(frozen=True)
class Hand:
    """F and its derivatives at a problem's point, or another one of the same data: sums over the samples."""

    problem: Problem
    W: np.ndarray
    V: np.ndarray

    @staticmethod
    def of(problem: Problem) -> Hand:
        return Hand(problem, np.asarray(problem.W), np.asarray(problem.V))

    @cached_property
    def loss(self) -> Loss:
        return LOSSES[self.problem.loss.name]

    @cached_property
    def rows(self) -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each sample its weight, and x with all that the head reads, f and y as columns."""
        found = []
        for chunk in self.problem.chunks(features=True):
            for weight, *columns in zip(chunk.weights, chunk.x, chunk.f, chunk.y, strict=True):
                found.append((float(weight), *(np.array(column)[:, None] for column in columns)))
        total = sum(weight for weight, *_ in found)
        return [(weight / total, x, f, y) for weight, x, f, y in found]

    def h(self, x: np.ndarray, f: np.ndarray) -> np.ndarray:
        moved = np.zeros_like(x)
        moved[: len(self.V)] = self.V @ f
        return x + moved

    def F(self, W: np.ndarray | None = None, V: np.ndarray | None = None) -> float:
        at = Hand(self.problem, self.W if W is None else W, self.V if V is None else V)
        return sum(weight * at.loss.value(at.W @ at.h(x, f), y) for weight, x, f, y in self.rows)

    def F_lin(self, W: np.ndarray) -> float:
        return self.of_linear(np.reshape(W, self.W.shape))

    def linear(self, features: bool = False) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """Weight, what a linear predictor reads (with the features where they count), and y."""
        return [(pi, np.concatenate([x, f]) if features else x, y) for pi, x, f, y in self.rows]

    def best(self, decay: float = 0.0, features: bool = False) -> np.ndarray:
        """argmin of F_lin(U) + decay·‖U‖_F², of least norm; with features of E[ℓ(Ux + Zf)].  By Newton."""
        rows = self.linear(features)
        q, d = len(self.W), len(rows[0][1])
        U = np.zeros((q, d))
        for _ in range(200):
            slope, curvature = 2.0 * decay * U, 2.0 * decay * np.eye(q * d)
            for weight, x, y in rows:
                slope = slope + weight * self.loss.first(U @ x, y) @ x.T
                curvature = curvature + weight * np.kron(self.loss.second(U @ x, y), x @ x.T)
            step = np.linalg.lstsq(curvature, slope.ravel(), rcond=1e-12)[0].reshape(q, d)
            if np.linalg.norm(step) <= 1e-12 * np.linalg.norm(U):
                break
            size, here = 1.0, self.of_linear(U, decay, features) * (1.0 + 1e-14)
            while size > 1e-6 and self.of_linear(U - size * step, decay, features) > here:
                size *= 0.5
            U = U - size * step
        return U

    def of_linear(self, U: np.ndarray, decay: float = 0.0, features: bool = False) -> float:
        """F_lin(U) + decay·‖U‖_F²; with features E[ℓ(Ux + Zf)] of (U, Z)."""
        losses = [weight * self.loss.value(U @ x, y) for weight, x, y in self.linear(features)]
        return sum(losses) + decay * float(np.sum(U * U))

    def least(self, decay: float = 0.0, features: bool = False) -> float:
        """The least of `of_linear`."""
        return self.of_linear(self.best(decay, features), decay, features)

    @cached_property
    def samples(self) -> list[tuple[float, dict[str, np.ndarray]]]:
        """The names under an expectation: x, f, h, y, p and the loss's derivatives at p."""
        found = []
        for weight, x, f, y in self.rows:
            h = self.h(x, f)
            p = self.W @ h
            first = self.loss.first(p, y)
            found.append((weight, {
                "x": x, "f": f, "h": h, "y": y, "p": p, "z": np.concatenate([x, f]), "ℓ′p": first.T @ p,
                "ℓ′": first, "∇ℓ": first, "∇²ℓ": self.loss.second(p, y), "ℓ″": self.loss.second(p, y),
            }))  # fmt: skip
        return found

    def mean(self, of: Callable[[dict[str, np.ndarray]], np.ndarray]) -> np.ndarray:
        return np.asarray(sum(weight * of(sample) for weight, sample in self.samples))

    @cached_property
    def g(self) -> np.ndarray:
        """E[∇ℓ hᵀ]."""
        return self.mean(lambda s: s["∇ℓ"] @ s["h"].T)

    @cached_property
    def A_f(self) -> np.ndarray:
        """E[∇ℓ fᵀ]."""
        return self.mean(lambda s: s["∇ℓ"] @ s["f"].T)

    @property
    def W_1(self) -> np.ndarray:
        return self.W[:, : len(self.V)]

    @cached_property
    def gradient(self) -> np.ndarray:
        return _joined(self.g, self.W_1.T @ self.A_f)

    @cached_property
    def hessian(self) -> np.ndarray:
        """∇²F over (W, V), row by row: the Jacobian of p under ∇²ℓ, and the mixed term."""
        (q, d), (d1, k) = self.W.shape, self.V.shape
        total = np.zeros((q * d + d1 * k,) * 2)
        for weight, s in self.samples:
            J = np.zeros((q, q * d + d1 * k))
            for i in range(q):
                J[i, i * d : (i + 1) * d] = s["h"][:, 0]
                J[i, q * d :] = np.outer(self.W_1[i], s["f"][:, 0]).ravel()
            total += weight * J.T @ s["∇²ℓ"] @ J
        for i in range(q):
            for j in range(d1):
                at = slice(q * d + j * k, q * d + (j + 1) * k)
                total[i * d + j, at] += self.A_f[i]
                total[at, i * d + j] += self.A_f[i]
        return total

    @property
    def lambda_min(self) -> float:
        return float(np.linalg.eigvalsh(self.hessian)[0])

    def names(self, **more: Value) -> dict[str, Value]:
        """What the pages call these numbers, one output and several."""
        q, size = len(self.W), self.W.size
        m = max(0.0, -self.lambda_min)
        names: dict[str, Value] = {
            "samples": self.samples, "F": self.F(), "F_lin": self.F_lin, "W": self.W, "V": self.V,
            "∇F": self.gradient, "λ_min": self.lambda_min, "m": m, "g_W": self.g, "A_f": self.A_f,
            "∂²F/∂W²": self.hessian[:size, :size], "∂²F/∂w²": self.hessian[:size, :size],
            "λ_max": lambda M: float(np.linalg.eigvalsh(np.atleast_2d(M))[-1]), "ln": np.log, "exp": np.exp,
        }  # fmt: skip
        if q == 1:
            names |= {"w": self.W.T, "g_w": self.g.T, "a": self.A_f.T, "A": self.hessian[:size, :size]}
        return dict.fromkeys(self.samples[0][1]) | names | more
