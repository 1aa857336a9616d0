"""Scripts behind the numbers that Lapidist claims; each writes its JSON to ``results/``."""
