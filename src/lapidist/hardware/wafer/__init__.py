"""Wafer-scale meshes: the PLMR device, algorithms that run on it for real numbers, and what they cost."""
