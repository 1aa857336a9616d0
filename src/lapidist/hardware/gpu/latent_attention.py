"""Decoding by latent attention on a GPU: a law alone, since no public table of kernels is at hand.

All heads of a rank share one vector per cached token as key and value (DeepSeek-V2, arXiv 2405.04434), so that tensor
cores work as hard as memory. FlashMLA's authors measured 3,000 GB/s of H800's 3,350 where memory bounds and 660 of its
989 TFLOP/s where arithmetic does (github.com/deepseek-ai/FlashMLA); a kernel that splits the context and one that joins
the parts are launched.
"""

import numpy as np

from lapidist.hardware.gpu.attention_group import AttentionGroup
from lapidist.hardware.gpu.data_sheet import DataSheet

_MEMORY_SHARE, _TENSOR_SHARE = 3000 / 3350, 660 / 989
_LAUNCH_SECONDS = 8e-6
HALF_WIDTH = 0.4
NOTE = "decoding by latent attention was not measured: a law by FlashMLA's published rates"


def latent_decode_seconds(group: AttentionGroup, sheet: DataSheet) -> float:
    """Of one run over all sequences of a step."""
    arithmetic = group.flops / (_TENSOR_SHARE * sheet.operations_per_second("bf16"))
    memory = group.minimum_bytes / (_MEMORY_SHARE * sheet.memory_bytes_per_second)
    return _LAUNCH_SECONDS + float(np.hypot(arithmetic, memory))
