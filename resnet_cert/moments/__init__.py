"""One pass over the data: the moments that hold F, ∇F and ∇²F, and the Lipschitz constants."""
