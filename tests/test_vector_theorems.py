"""The theorems for several outputs as inequalities between plain numbers, sought to be violated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from vector_autodiff import derivatives
from vector_families import CORNERS, LOSSES, draw
from vector_oracle import VectorSample

from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.numerics.matrices import largest_singular_value
from resnet_cert.vector import theorems
from resnet_cert.vector.consequences import local_lemma
from resnet_cert.vector.hessian import reduction
from resnet_cert.vector.losses import named_loss
from resnet_cert.vector.moments import observe

exact = Enclosure.exact
TOLERANCE = 1e-9


class Plain:
    """The quantities of the theorems at a sample, in float64."""

    def __init__(self, sample: VectorSample, W_star: np.ndarray) -> None:
        W, V, n = sample.W, sample.V, len(sample.x)
        self.sample, self.W, self.V, self.W_star = sample, W, V, W_star
        self.F, gradient, hessian = derivatives(sample, W, V)
        self.gradient_norm = float(np.linalg.norm(gradient))
        self.g_W = gradient[: W.size].reshape(W.shape)
        omega = np.ones_like(sample.y) if sample.omega is None else sample.omega
        pi = np.full(n, 1.0 / n) if sample.probabilities is None else sample.probabilities
        self.h = sample.x + sample.f @ V.T
        loss = named_loss(sample.loss)
        at = loss.derivatives(self.h @ W.T, np.zeros(n), sample.y, omega)
        self.pi = pi
        self.A_f = np.einsum("i,ia,il->al", pi, at.first, sample.f)
        second = at.second
        if second.ndim == 1:
            second = second[:, None] * np.ones(len(W))
        self.second = second if second.ndim == 3 else np.einsum("ia,ab->iab", second, np.eye(len(W)))
        self.m = max(0.0, -float(np.linalg.eigvalsh(hessian)[0]))
        F_lin = loss.derivatives(sample.x @ W_star.T, np.zeros(n), sample.y, omega).value
        self.gap = self.F - float(pi @ F_lin)
        self.norm_W_star = float(np.linalg.norm(W_star))
        self.distance = float(np.linalg.norm(W - W_star))
        self.norm_V = float(np.linalg.norm(V, 2))

    def beta(self, u: np.ndarray, e: np.ndarray) -> float:
        return float(np.einsum("i,i,a,iab,b->", self.pi, (self.h @ e) ** 2, u, self.second, u))

    def kappa(self, t: np.ndarray, e: np.ndarray) -> float:
        We = self.W @ e
        return float(np.einsum("i,i,a,iab,b->", self.pi, (self.sample.f @ t) ** 2, We, self.second, We))


SHAPES = (
    {"d": 3, "k": 2, "q": 2, "n": 5},
    {"d": 2, "k": 2, "q": 3, "n": 5},
    {"d": 2, "k": 3, "q": 2, "n": 5},
    {"d": 3, "k": 1, "q": 3, "n": 5},
)
"""One for each loss, so that JAX compiles few objectives."""


def random_plain(seed: int, corner: str = "generic", **sizes: int) -> Plain:
    sample = draw(seed, corner, LOSSES[seed % 4], **(SHAPES[seed % 4] | sizes))
    rng = np.random.default_rng(seed)
    return Plain(sample, rng.normal(size=sample.W.shape) * rng.choice([0.1, 1.0, 3.0]))


SEEDS = st.integers(0, 10**6)
SIZES = {"d": st.integers(1, 4), "k": st.integers(1, 3), "q": st.integers(1, 3)}


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_gap_is_below_the_linear_functional(corner: str, seed: int) -> None:
    at = random_plain(seed, corner)
    functional = np.sum((at.W - at.W_star) * at.g_W) + np.sum((at.W_star @ at.V) * at.A_f)
    assert at.gap <= functional + TOLERANCE * (1.0 + abs(at.F))


@pytest.mark.parametrize(("d", "k", "q"), [(3, 2, 2), (2, 2, 2), (4, 1, 3), (2, 3, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_theorem_1_holds_for_matrices_of_full_row_rank(d: int, k: int, q: int, seed: int) -> None:
    at = random_plain(seed, d=d, k=k, q=q)
    X = np.linalg.pinv(at.W) @ at.W_star @ at.V
    sigma = float(np.linalg.svd(at.W, compute_uv=False)[-1])
    paper = theorems.theorem1(
        exact(at.gap),
        *(exact(float(np.linalg.norm(M))) for M in (at.W, at.W_star)),
        exact(at.norm_V),
        exact(sigma),
    )
    refined = theorems.theorem1_refined(exact(at.gap), exact(at.distance), exact(float(np.linalg.norm(X))))
    for bound in (paper, refined):
        assert bound.lower <= at.gradient_norm * (1 + TOLERANCE) + TOLERANCE
    if at.gap > 0.0:
        assert paper.lower <= refined.upper


@pytest.mark.parametrize("seed", range(8))
def test_theorem_2_holds_at_zero(seed: int) -> None:
    at = random_plain(seed, "W = 0")
    q, d = at.W.shape
    A = np.einsum("i,iab,ij,il->ajbl", at.pi, at.second, at.h, at.h).reshape(q * d, q * d)
    rank = min(q, d, at.V.shape[1])
    left, right = theorems.theorem2(
        exact(at.gap),
        exact(at.norm_W_star),
        exact(at.gradient_norm),
        exact(-at.m),
        exact(at.norm_V),
        exact(float(np.linalg.norm(A, 2))),
        rank,
    )
    assert left.upper >= right.lower - TOLERANCE


@given(seed=SEEDS, **SIZES)
def test_the_second_order_lemma_holds_for_all_unit_vectors(seed: int, d: int, k: int, q: int) -> None:
    rng = np.random.default_rng(seed)
    x, f, y = rng.normal(size=(3, d)), rng.normal(size=(3, k)), rng.normal(size=(3, q))
    W, V = rng.normal(size=(q, d)) * rng.choice([0.0, 0.1, 1.0]), rng.normal(size=(d, k))
    p, pi = (x + f @ V.T) @ W.T, np.full(3, 1.0 / 3.0)
    u, e, t = (v / np.linalg.norm(v) for v in (rng.normal(size=s) for s in (q, d, k)))
    # The Hessian along the two directions of the proof, and its smallest eigenvalue on them, is enough.
    h, A_f = x + f @ V.T, np.einsum("i,ia,il->al", pi, p - y, f)
    beta = float(pi @ (h @ e) ** 2)
    kappa = float(pi @ (f @ t) ** 2 * np.sum((W @ e) ** 2))
    off = -float(pi @ ((h @ e) * (f @ t))) * float(u @ W @ e) - float(u @ A_f @ t)
    m = max(0.0, -float(np.linalg.eigvalsh(np.array([[beta, off], [off, kappa]]))[0]))
    left, right = float(u @ A_f @ t), math.sqrt((beta + m) * (kappa + m)) + math.sqrt(beta * kappa)
    assert left <= right * (1 + TOLERANCE) + TOLERANCE


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_second_order_lemma_bounds_the_norm_of_A_f(corner: str, seed: int) -> None:
    at = random_plain(seed, corner)
    parts = reduction(observe(at.sample.problem(), 1.0).here, at.W)
    top = largest_singular_value(parts.A_f)
    found = local_lemma(parts, top, exact(at.m))
    norm = float(np.linalg.norm(at.A_f, 2))
    assert found.upper >= norm - TOLERANCE
    if np.linalg.matrix_rank(at.W) < at.W.shape[1]:  # then it is √(m² + mβ), β on the kernel of W
        X = np.linalg.svd(at.A_f)[0]
        kernel = np.linalg.svd(at.W)[2][np.linalg.matrix_rank(at.W) :]
        M = np.einsum("i,a,iab,b,ij,il->jl", at.pi, X[:, 0], at.second, X[:, 0], at.h, at.h)
        beta = float(np.linalg.eigvalsh(kernel @ M @ kernel.T)[0])
        assert found.value == pytest.approx(math.sqrt(at.m**2 + at.m * max(beta, 0.0)), abs=1e-6)


@pytest.mark.parametrize(("d", "q"), [(1, 1), (2, 2), (3, 2), (2, 1), (3, 3)])
def test_second_order_stationary_points_do_no_worse_than_linear_predictors_for_d_at_least_q(
    d: int, q: int
) -> None:
    """Points found by minimising F from random starts, some of them near W = 0 or of low rank."""
    for seed in range(6):
        rng = np.random.default_rng([seed, d, q])
        sample = draw(seed, "generic", ("squared", "weighted_squared")[seed % 2], d=d, k=1, q=q, n=4)
        start = np.concatenate([sample.W.ravel() * rng.choice([1e-3, 1.0]), sample.V.ravel()])

        def split(z: np.ndarray, size: int = q * d, shape: tuple[int, int] = (q, d)):
            return z[:size].reshape(shape), z[size:].reshape(shape[1], -1)

        def value(z: np.ndarray, sample: VectorSample = sample) -> tuple[float, np.ndarray]:
            return derivatives(sample, *split(z))[:2]

        found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
        W, V = split(found.x)
        F, gradient, hessian = derivatives(sample, W, V)
        if np.linalg.norm(gradient) > 1e-6 or np.linalg.eigvalsh(hessian)[0] < -1e-6:
            continue
        linear = minimize(lambda w, s=sample: value_of_linear(s, w), np.zeros(q * d), method="BFGS", jac=True)
        assert linear.fun >= F - 1e-4


def value_of_linear(sample: VectorSample, w: np.ndarray) -> tuple[float, np.ndarray]:
    W = w.reshape(sample.W.shape)
    F, gradient, _ = derivatives(sample, W, np.zeros_like(sample.V))
    return F, gradient[: w.size]


# --- Adversarial search: data, weights, point and comparator are chosen to violate an inequality ----------


ROUNDING = 1e-14
"""What the gap and λ_min may be off by, relatively: the search must not feed on it."""


def losses_of(z: dict, p: jax.Array) -> jax.Array:
    """ℓ (n,) at p (n, q), its targets and weights free within what the loss allows."""
    if z["loss"] == "weighted_squared":
        return named_loss("weighted_squared").value(p, z["y"], jnp.exp(z["omega"]))
    y = jax.nn.softmax(z["y"], axis=1) if z["loss"] == "softmax" else jax.nn.sigmoid(z["y"])
    return named_loss(z["loss"]).value(p, y, None)


def objective(z: dict, W: jax.Array, V: jax.Array) -> jax.Array:
    return jax.nn.softmax(z["pi"]) @ losses_of(z, (z["x"] + z["f"] @ V.T) @ W.T)


def moments(z: dict) -> dict:
    """g_W, A_f, ∇²ℓ, the gap, h and the probabilities, as JAX expressions of the arrays in z."""
    h, pi = z["x"] + z["f"] @ z["V"].T, jax.nn.softmax(z["pi"])
    p = h @ z["W"].T
    slope = jax.grad(lambda p: losses_of(z, p).sum())(p)

    def along(u: jax.Array) -> jax.Array:
        """∇²ℓ u, (n, q), of each sample."""
        return jax.jvp(jax.grad(lambda p: losses_of(z, p).sum()), (p,), (jnp.broadcast_to(u, p.shape),))[1]

    F, F_lin = objective(z, z["W"], z["V"]), objective(z, z["W_star"], jnp.zeros_like(z["V"]))
    return {
        "g_W": jnp.einsum("i,ia,ij->aj", pi, slope, h),
        "A_f": jnp.einsum("i,ia,il->al", pi, slope, z["f"]),
        "gap": F - F_lin - ROUNDING * (F + F_lin),
        "second": jax.vmap(along, out_axes=1)(jnp.eye(p.shape[1])),
        "h": h,
        "pi": pi,
    }


def hessian_m(z: dict) -> jax.Array:
    """m = max(0, −λ_min(∇²F))."""
    flat, shapes = jax.flatten_util.ravel_pytree((z["W"], z["V"]))
    H = jax.hessian(lambda v: objective(z, *shapes(v)))(flat)
    return jnp.maximum(0.0, -jnp.linalg.eigvalsh(H)[0]) + ROUNDING * norm(H)


def norm(M: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(M**2) + 1e-300)


def gradient_norm(at: dict, z: dict) -> jax.Array:
    return jnp.sqrt(norm(at["g_W"]) ** 2 + norm(z["W"].T @ at["A_f"]) ** 2)


def first_order_refined(z: dict) -> jax.Array:
    at = moments(z)
    W = z["W"]
    X = W.T @ jnp.linalg.solve(W @ W.T, z["W_star"] @ z["V"])
    return at["gap"] / (jnp.sqrt(norm(W - z["W_star"]) ** 2 + norm(X) ** 2) * gradient_norm(at, z))


def first_order_paper(z: dict) -> jax.Array:
    at = moments(z)
    W, V, star = z["W"], z["V"], z["W_star"]
    sigma = jnp.linalg.svd(W, compute_uv=False)[-1]
    root = 2 * norm(W) ** 2 + norm(star) ** 2 * (2 + jnp.linalg.norm(V, 2) ** 2 / sigma**2)
    return at["gap"] / (jnp.sqrt(root) * gradient_norm(at, z))


def bend(at: dict, u: jax.Array, e: jax.Array) -> jax.Array:
    """E[(eᵀh)² uᵀ∇²ℓ u]."""
    return jnp.einsum("i,iab,a,b,i->", at["pi"], at["second"], u, u, (at["h"] @ e) ** 2)


def kernel_beta(at: dict, z: dict) -> jax.Array:
    """β for q = 2, d = 3: the rows of W leave one direction."""
    u = jnp.linalg.eigh(at["A_f"] @ at["A_f"].T)[1][:, -1]
    e = jnp.cross(z["W"][0], z["W"][1])
    return bend(at, u, e / norm(e))


def second_order(z: dict) -> jax.Array:
    """gap against ‖W − W*‖‖g_W‖ + ‖W*V‖_*√(m² + mβ), for d > q."""
    at, m = moments(z), hessian_m(z)
    nuclear = jnp.sum(jnp.linalg.svd(z["W_star"] @ z["V"], compute_uv=False))
    lemma = jnp.sqrt(m**2 + m * kernel_beta(at, z) + 1e-300)
    return at["gap"] / (norm(z["W"] - z["W_star"]) * norm(at["g_W"]) + nuclear * lemma)


def kernel_lemma(z: dict) -> jax.Array:
    """‖A_f‖ against √(m² + mβ), for d > q."""
    at, m = moments(z), hessian_m(z)
    top = jnp.linalg.svd(at["A_f"], compute_uv=False)[0]
    return top / jnp.sqrt(m**2 + m * kernel_beta(at, z) + 1e-300)


def full_rank_lemma(z: dict) -> jax.Array:
    """uᵀA_f t against √((β + m)(κ + m)) + √(βκ), for d = q, where no e has We = 0."""
    at, m = moments(z), hessian_m(z)
    U, S, T = jnp.linalg.svd(at["A_f"])
    e = jnp.linalg.eigh(z["W"].T @ z["W"])[1][:, 0]
    We, ft = z["W"] @ e, z["f"] @ T[0]
    beta = bend(at, U[:, 0], e)
    kappa = jnp.einsum("i,iab,a,b,i->", at["pi"], at["second"], We, We, ft**2)
    return S[0] / (jnp.sqrt((beta + m) * (kappa + m) + 1e-300) + jnp.sqrt(beta * kappa + 1e-300))


def first_order_bound(z: dict) -> jax.Array:
    """gap against ‖W − W*‖_F‖g_W‖_F + min(‖W*V‖_F‖A_f‖_F, ‖W*V‖_*‖A_f‖)."""
    at, turned = moments(z), z["W_star"] @ z["V"]
    nuclear, top = jnp.sum(jnp.linalg.svd(turned, compute_uv=False)), jnp.linalg.norm(at["A_f"], 2)
    rest = jnp.minimum(norm(turned) * norm(at["A_f"]), nuclear * top)
    return at["gap"] / (norm(z["W"] - z["W_star"]) * norm(at["g_W"]) + rest)


def at_zero(z: dict) -> jax.Array:
    """Theorem 2 with several outputs."""
    z = {**z, "W": jnp.zeros_like(z["W"])}
    at, m = moments(z), hessian_m(z)
    A = jnp.einsum("i,iab,ij,il->ajbl", at["pi"], at["second"], at["h"], at["h"])
    norm_A = jnp.linalg.eigvalsh(A.reshape(z["W"].size, -1))[-1]
    rank = min(*z["W"].shape, z["V"].shape[1])
    curved = math.sqrt(rank) * jnp.linalg.norm(z["V"], 2) * jnp.sqrt(m * norm_A + m**2 + 1e-300)
    return at["gap"] / (norm(z["W_star"]) * (norm(at["g_W"]) + curved))


INEQUALITIES: dict[str, tuple[Callable[[dict], jax.Array], int]] = {
    "first order, refined": (first_order_refined, 2),
    "first order, paper": (first_order_paper, 2),
    "first-order bound of the gap": (first_order_bound, 2),
    "second order, W of full rank": (full_rank_lemma, 2),
    "second order, on the kernel": (kernel_lemma, 3),
    "second order, the gap": (second_order, 3),
    "at W = 0": (at_zero, 3),
}
"""The ratio left/right and the d for q = 2."""
SEARCHED = ("weighted_squared", "softmax", "logistic")


@pytest.mark.long
@pytest.mark.parametrize("loss", SEARCHED)
@pytest.mark.parametrize("name", INEQUALITIES)
def test_no_data_weights_and_comparator_violate_the_inequality(
    name: str, loss: str, record_ratio: Callable[[str, float], None]
) -> None:
    ratio, d = INEQUALITIES[name]
    best = max(climbed(ratio, d, seed, loss) for seed in range(4))
    record_ratio(f"several outputs, {name}, {loss}", best)
    assert 0.7 <= best <= 1.0  # with less it would be no search


def climbed(ratio: Callable[[dict], jax.Array], d: int, seed: int, loss: str = "weighted_squared") -> float:
    """The largest ratio on the way of BFGS uphill from a random start."""
    from jax.flatten_util import ravel_pytree

    n, k, q = 3, 2, 2
    rng = np.random.default_rng(seed)
    shapes = {"x": (n, d), "f": (n, k), "y": (n, q), "W": (q, d), "V": (d, k), "W_star": (q, d)}
    shapes |= {"omega": (n, q), "pi": (n,)}
    start, unravel = ravel_pytree(
        {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    )
    value_and_grad = jax.jit(jax.value_and_grad(lambda v: -ratio({**unravel(v), "loss": loss})))
    best = -math.inf

    def downhill(v: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        value, gradient = value_and_grad(v)
        if math.isfinite(float(value)):
            best = max(best, -float(value))
        if not (math.isfinite(float(value)) and np.isfinite(np.asarray(gradient)).all()):
            return 10.0, np.zeros_like(v)
        return float(value), np.asarray(gradient)

    minimize(downhill, np.asarray(start), jac=True, method="BFGS", options={"maxiter": 1000, "gtol": 1e-10})
    return best


def test_the_search_finds_violations_of_what_is_false() -> None:
    """With half the right side the same search succeeds: it is one that can."""
    assert climbed(lambda z: 2.0 * first_order_refined(z), 2, 0) > 1.0


def test_theorem_1_for_V_0_needs_no_rank() -> None:
    at = random_plain(2, "V = 0", d=1, k=2, q=3)
    bound = theorems.theorem1_refined(exact(at.gap), exact(at.distance), exact(0.0))
    assert bound.lower <= at.gradient_norm * (1 + TOLERANCE) + TOLERANCE
    assert Ball(at.A_f, 0.0).norm().lower >= 0.0
