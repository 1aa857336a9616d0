"""How one operator runs: the reference and the fast paths."""
