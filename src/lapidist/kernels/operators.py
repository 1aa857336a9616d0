"""The namespace of our own operators in PyTorch: so registered, its FLOP counter and profiler see them."""

import torch

LIBRARY = torch.library.Library("lapidist", "DEF")
