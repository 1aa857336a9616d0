"""How many thread blocks of a kernel an SM holds at a time, and what stops it from holding more.

Limits per compute capability: CUDA C++ Programming Guide, "Compute Capabilities"; rounding of registers and shared
memory as in NVIDIA's occupancy calculator (CUDA's ``cuda_occupancy.h``).
"""

import math
from dataclasses import dataclass
from typing import Literal

Limiter = Literal["blocks", "warps", "registers", "shared memory"]

WARP = 32
_REGISTERS_PER_SM = 65_536
_REGISTER_UNIT = 256  # registers are given to a warp in such portions
_WARPS_PER_GRANT = 4  # and to a multiple of so many warps: one for each of the SM's four partitions
_LARGEST_BLOCK = 1024
_MOST_REGISTERS = 255


@dataclass(frozen=True)
class SMLimits:
    """What one SM offers; sizes in bytes.

    Attributes
    ----------
    shared_memory : of the SM, at the largest setting. ``shared_memory_per_block``: that one block may have.
    shared_memory_reserved : the system's own, for each block. ``shared_memory_unit``: requests are rounded up to it.
    """

    blocks: int
    warps: int
    shared_memory: int
    shared_memory_per_block: int
    shared_memory_reserved: int = 1024
    shared_memory_unit: int = 128

    @property
    def threads(self) -> int:
        return self.warps * WARP


_KIB = 1024
SM_LIMITS: dict[str, SMLimits] = {
    "6.0": SMLimits(32, 64, 64 * _KIB, 48 * _KIB, 0, 256),
    "6.1": SMLimits(32, 64, 96 * _KIB, 48 * _KIB, 0, 256),
    "7.0": SMLimits(32, 64, 96 * _KIB, 96 * _KIB, 0, 256),
    "7.5": SMLimits(16, 32, 64 * _KIB, 64 * _KIB, 0, 256),
    "8.0": SMLimits(32, 64, 164 * _KIB, 163 * _KIB),
    "8.6": SMLimits(16, 48, 100 * _KIB, 99 * _KIB),
    "8.7": SMLimits(16, 48, 164 * _KIB, 163 * _KIB),
    "8.9": SMLimits(24, 48, 100 * _KIB, 99 * _KIB),
    "9.0": SMLimits(32, 64, 228 * _KIB, 227 * _KIB),
    "10.0": SMLimits(32, 64, 228 * _KIB, 227 * _KIB),
    "10.3": SMLimits(32, 64, 228 * _KIB, 227 * _KIB),
    "12.0": SMLimits(24, 48, 100 * _KIB, 99 * _KIB),
}


@dataclass(frozen=True)
class Occupancy:
    """Attributes
    ----------
    blocks : resident on an SM at a time; 0 where not even one fits.
    warps : of these blocks. ``share``: of the warps an SM can hold.
    limiters : what allows no further block; several where they agree.
    """

    blocks: int
    warps: int
    share: float
    limiters: tuple[Limiter, ...]


def sm_limits(compute_capability: str) -> SMLimits:
    """Raises ValueError for a compute capability that is not in the table."""
    if compute_capability not in SM_LIMITS:
        known = ", ".join(SM_LIMITS)
        raise ValueError(
            f"no occupancy limits for compute capability {compute_capability}; known are {known}"
        )
    return SM_LIMITS[compute_capability]


def occupancy(
    compute_capability: str,
    threads_per_block: int,
    registers_per_thread: int = 32,
    shared_memory_bytes: int = 0,
) -> Occupancy:
    """Blocks of a kernel that share an SM.

    >>> occupancy("8.9", 256, 40, 2048).share
    1.0

    Raises
    ------
    ValueError : a number that no kernel can be launched with, or an unknown compute capability.
    """
    limits = sm_limits(compute_capability)
    _check("threads per block", threads_per_block, 1, _LARGEST_BLOCK)
    _check("registers per thread", registers_per_thread, 1, _MOST_REGISTERS)
    _check("bytes of shared memory per block", shared_memory_bytes, 0, limits.shared_memory_per_block)
    warps = math.ceil(threads_per_block / WARP)
    allowed: dict[Limiter, int] = {
        "blocks": limits.blocks,
        "warps": limits.warps // warps,
        "registers": _warps_by_registers(registers_per_thread) // warps,
    }
    taken = _round_up(shared_memory_bytes + limits.shared_memory_reserved, limits.shared_memory_unit)
    if taken:
        allowed["shared memory"] = limits.shared_memory // taken
    blocks = min(allowed.values())
    limiters = tuple(name for name, count in allowed.items() if count == blocks)
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limiters)


def _warps_by_registers(registers_per_thread: int) -> int:
    per_warp = _round_up(registers_per_thread * WARP, _REGISTER_UNIT)
    return _REGISTERS_PER_SM // per_warp // _WARPS_PER_GRANT * _WARPS_PER_GRANT


def _round_up(value: int, unit: int) -> int:
    return math.ceil(value / unit) * unit


def _check(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what} must be from {low} to {high}, got {value}")
