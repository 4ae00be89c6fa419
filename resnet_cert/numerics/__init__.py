"""Numbers with proven bounds, and what they are made of: knows nothing of networks."""
