"""One module for each command: it parses, calls, and writes what came back."""
