"""Certificates, and the verifier, which shares nothing with what made them."""
