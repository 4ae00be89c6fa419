"""Several outputs: W ∈ R^{q×d}, predictions p = W(x + V f) ∈ R^q, F(W, V, θ) = E[ℓ(p; y)].

The modules mirror those of the scalar case and share with it all that does not depend on q.
"""
