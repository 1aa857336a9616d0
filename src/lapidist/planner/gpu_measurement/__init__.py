"""Measuring a GPU's operators: a grid of kernels, a timer, a power meter, and a session that can be resumed.

Written against PyTorch's CUDA interface and NVML and tested on a CPU with a wall clock; not yet run on a GPU.
"""
