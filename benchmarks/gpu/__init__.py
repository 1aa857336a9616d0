"""Benchmarks of the Triton kernels; each ends with one sentence where there is no CUDA device."""
