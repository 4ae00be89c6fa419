"""A trained network of another framework as a `Problem`: a module for each framework, with `capture`."""
