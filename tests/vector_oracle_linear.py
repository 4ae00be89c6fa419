"""min F_lin for several outputs by Newton's method in 60 digits, the derivatives written out by hand."""

from __future__ import annotations

import mpmath
from mpmath import mpf
from vector_oracle import VectorSample

DIGITS = 60


def sigmoid(p: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-p))


def loss_terms(kind: str, p: list[mpf], y: list[mpf], omega: list[mpf]):
    """ℓ, ∇ℓ, ∇²ℓ."""
    q = len(p)
    if kind in ("squared", "weighted_squared"):
        value = sum(c * (a - b) ** 2 for a, b, c in zip(p, y, omega, strict=True)) / 2
        slope = [c * (a - b) for a, b, c in zip(p, y, omega, strict=True)]
        return value, slope, [[omega[a] if a == b else mpf(0) for b in range(q)] for a in range(q)]
    if kind == "logistic":
        value = sum(mpmath.log1p(mpmath.exp(a)) - b * a for a, b in zip(p, y, strict=True))
        bend = [sigmoid(a) * sigmoid(-a) for a in p]
        slope = [sigmoid(a) - b for a, b in zip(p, y, strict=True)]
        return value, slope, [[bend[a] if a == b else mpf(0) for b in range(q)] for a in range(q)]
    total = sum(mpmath.exp(a) for a in p)
    s, Y = [mpmath.exp(a) / total for a in p], sum(y)
    value = sum(b * (mpmath.log(total) - a) for a, b in zip(p, y, strict=True))
    slope = [Y * s[a] - y[a] for a in range(q)]
    return value, slope, [[Y * (s[a] * (a == b) - s[a] * s[b]) for b in range(q)] for a in range(q)]


def linear_terms(sample: VectorSample, W: mpmath.matrix):
    """F_lin, its gradient and its Hessian in the entries of W row by row."""
    (n, d), q = sample.x.shape, len(sample.W)
    F, g, H = mpf(0), mpmath.zeros(q * d, 1), mpmath.zeros(q * d)
    pi = [mpf(1) / n] * n
    if sample.probabilities is not None:
        total = sum(mpf(float(c)) for c in sample.probabilities)
        pi = [mpf(float(c)) / total for c in sample.probabilities]
    for i in range(n):
        x = [mpf(float(e)) for e in sample.x[i]]
        p = [sum(W[a * d + j] * x[j] for j in range(d)) for a in range(q)]
        omega = [mpf(1)] * q if sample.omega is None else [mpf(float(e)) for e in sample.omega[i]]
        value, slope, bend = loss_terms(sample.loss, p, [mpf(float(e)) for e in sample.y[i]], omega)
        F += pi[i] * value
        for a in range(q):
            for j in range(d):
                g[a * d + j] += pi[i] * slope[a] * x[j]
                for c in range(q):
                    for l in range(d):
                        H[a * d + j, c * d + l] += pi[i] * bend[a][c] * x[j] * x[l]
    return F, g, H


def regularised_minimiser(sample: VectorSample, lam: mpf) -> mpmath.matrix:
    """argmin F_lin + λ/2‖W‖_F², λ > 0, by Newton's method with halved steps."""
    size = sample.W.size
    W = mpmath.zeros(size, 1)
    identity = mpmath.eye(size)

    def at(point: mpmath.matrix):
        F, g, H = linear_terms(sample, point)
        return F + lam * mpmath.norm(point) ** 2 / 2, g + lam * point, H + lam * identity

    value, g, H = at(W)
    for _ in range(200):
        if mpmath.norm(g) < mpf(10) ** -50:
            return W
        step = -mpmath.lu_solve(H, g)
        t = mpf(1)
        while at(W + t * step)[0] > value + mpf(10) ** -55:
            t /= 2
        W = W + t * step
        value, g, H = at(W)
    raise ArithmeticError("expected Newton's method to converge")


def minimum_on_ball(sample: VectorSample, r: float) -> tuple[mpf, mpmath.matrix]:
    """min F_lin and its minimiser, where the ball is active: λ > 0 with ‖W_λ‖ = r."""

    def excess(log_lam: mpf) -> mpf:
        return mpmath.norm(regularised_minimiser(sample, mpmath.exp(log_lam))) - mpf(r)

    low, high = mpf(-20), mpf(8)
    assert excess(low) > 0 > excess(high)
    log_lam = mpmath.findroot(excess, (low, high), solver="anderson", tol=mpf(10) ** -80, maxsteps=200)
    W = regularised_minimiser(sample, mpmath.exp(log_lam))
    return linear_terms(sample, W)[0], W
