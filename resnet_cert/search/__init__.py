"""Other points: stationary ones, lower ones, all critical ones of a plane, the iterates of SGD."""
