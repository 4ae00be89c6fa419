"""Definition 1: gradient, λ_min, verdict; the second opinions."""
