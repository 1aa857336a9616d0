"""What the softmax's mode costs in one and the same kernel: online and lazy maximum, and the unified constant.

python -m benchmarks.gpu.softmax_modes

Claim to check: with batch 1 and a context of 1k to 8k, mode unified takes at most 0.85 of the time of mode online,
whose parts are merged by log-sum-exp; merging included, in a single launch.
"""

from typing import Any

import torch

from benchmarks.gpu.decode_setting import DecodeData, DecodeSetting
from benchmarks.gpu.gpu_timing import describe_gpu, interleaved_seconds, require_gpu
from benchmarks.result_file import write_result
from lapidist.kernels.softmax import SoftmaxMode

SMALL = tuple(DecodeSetting(1, context) for context in (1024, 2048, 4096, 8192))
LARGE = (DecodeSetting(8, 8192), DecodeSetting(32, 8192), DecodeSetting(1, 131072))


def main() -> None:
    device = require_gpu()
    small = [_measure(setting, device) for setting in SMALL]
    large = [_measure(setting, device) for setting in LARGE]
    for row in small + large:
        print(row)
    result = {
        **describe_gpu(device),
        "small": small,
        "large": large,
        "claim": "unified_to_online <= 0.85 in every small setting",
        "met": all(row["unified_to_online"] <= 0.85 for row in small),
    }
    print(f"written to {write_result('gpu_softmax_modes', result)}")


def _measure(setting: DecodeSetting, device: torch.device) -> dict[str, Any]:
    data = DecodeData.random(setting, device)
    seconds = interleaved_seconds({mode.name.lower(): data.calls(mode) for mode in SoftmaxMode}, repeats=41)
    return {
        "setting": str(setting),
        "seconds": seconds,
        "unified_to_online": seconds["unified"] / seconds["online"],
        "lazy_to_online": seconds["lazy"] / seconds["online"],
    }


if __name__ == "__main__":
    main()
