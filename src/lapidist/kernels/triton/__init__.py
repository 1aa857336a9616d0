"""Attention and linear layers on a GPU, in Triton.

Nothing here is imported unless it is used: Triton is an optional dependency.
"""
