"""Who arrives last of the programs that share one result."""

import triton
import triton.language as tl


@triton.jit
def arrives_last(ticket, arrivals):
    """Whether this program is the last of ``arrivals`` to call this; what the others stored before is then visible.

    The last one sets the ticket back to zero, so the next launch finds it as this one did. Other programs' results are
    to be read past the first-level cache (``.cg``).
    """
    # The atomic releases what its own thread has seen: the barrier lets it see the stores of all the others.
    tl.debug_barrier()
    is_last = tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == arrivals - 1
    if is_last:
        tl.store(ticket, tl.zeros([], tl.int64))
    return is_last
