"""Lapidist cuts large language models to fit the hardware that serves them."""
