"""How fast the device reads its memory: the denominator of every share of bandwidth.

python -m benchmarks.gpu.read_bandwidth
"""

from functools import partial

import torch
import triton
import triton.language as tl

from benchmarks.gpu.gpu_timing import describe_gpu, interleaved_seconds, require_gpu
from benchmarks.result_file import write_result

_BYTES = 2 << 30
_BLOCKS = (2048, 4096, 8192)


@triton.jit
def _read(source, sums, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums + tl.program_id(0), tl.sum(tl.load(source + place), 0))


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second of the fastest of a few plain reading kernels, over 2 GiB."""
    source = torch.zeros(_BYTES // 4, dtype=torch.int32, device=device)
    sums = torch.empty(len(source) // min(_BLOCKS), dtype=torch.int32, device=device)

    def call(block: int) -> None:
        _read[(len(source) // block,)](source, sums, BLOCK=block, num_warps=8)

    contenders = {str(block): [partial(call, block)] for block in _BLOCKS}
    return _BYTES / min(interleaved_seconds(contenders).values())


def main() -> None:
    device = require_gpu()
    result = {**describe_gpu(device), "bytes_per_second": read_bandwidth(device)}
    print(result)
    print(f"written to {write_result('gpu_read_bandwidth', result)}")


if __name__ == "__main__":
    main()
