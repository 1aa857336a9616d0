"""Quantized weights of random integers, in each of the three forms."""

import torch

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight, pack_nibbles

FORMS = ("groups", "channel", "8 bits")


def random_weight(form: str, outputs: int, columns: int) -> QuantizedWeight:
    """Any codes, and with groups any parameters that keep the integers within eight signed bits."""
    scales = (torch.rand(outputs) * 0.01 + 1e-3).half()
    if form == "8 bits":
        codes = torch.randint(-128, 128, (outputs, columns), dtype=torch.int8)
        return QuantizedWeight(8, columns, codes, scales)
    codes = pack_nibbles(torch.randint(0, 16, (outputs, columns), dtype=torch.uint8))
    if form == "channel":
        return QuantizedWeight(4, columns, codes, scales, zeros=scales * (torch.rand(outputs) * 15).half())
    groups = -(-columns // GROUP_SIZE)
    group_scales = torch.randint(1, 17, (outputs, groups), dtype=torch.uint8)
    # code * scale - zero lies between -zero and 15 * scale - zero.
    least = (15 * group_scales.short() - 127).clamp(min=-128)
    zeros = least + (torch.rand(outputs, groups) * (128 - least)).short()
    return QuantizedWeight(
        4, columns, codes, scales, group_scales=group_scales, group_zeros=zeros.clamp(max=127).to(torch.int8)
    )
