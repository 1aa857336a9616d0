"""Orders of magnitude of the cost constants, for a calibration to begin with."""

from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import CostConstants

LINK_BYTES_PER_CYCLE = 4.0
"""One 32-bit message a cycle and link (arXiv 2502.04563, section 2)."""

_GUESS = CostConstants(
    launch=100,
    step=100,
    k_iteration=30,
    fma_call=3,
    fma_mac=0.125,
    moved_element=0.25,
    overlap_slowdown=0.1,
    overlap_window=100,
    hop=1,
    stage=5,
    allreduce_launch=100,
    allreduce_floor=100,
    pass_element=0.25,
    gemv_call=3,
    gemv_mac=0.125,
    pointwise_operation=4,
)
"""Orders of magnitude: one cycle a hop and 2 T_R + 1 a stage (arXiv 2404.15888), vectors of 8, movers of 4 elements;
an element-wise operation loads twice, operates and stores."""


def first_guess() -> CostModel:
    """Orders of magnitude, for a fit to begin with."""
    return CostModel(_GUESS, LINK_BYTES_PER_CYCLE)
