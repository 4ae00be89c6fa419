"""The best linear predictor, and what the theorems say about the point beside it."""
