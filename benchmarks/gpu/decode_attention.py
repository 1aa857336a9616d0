"""Decode attention: share of the measured read bandwidth, and the time beside PyTorch, FlashAttention and FlashInfer.

python -m benchmarks.gpu.decode_attention

Claims to check: at least 85 % of the read bandwidth, and no slower than the fastest peer.
"""

from typing import Any

import torch

from benchmarks.gpu.decode_peers import peer_calls
from benchmarks.gpu.decode_setting import DecodeData, DecodeSetting
from benchmarks.gpu.gpu_timing import describe_gpu, interleaved_seconds, require_gpu
from benchmarks.gpu.read_bandwidth import read_bandwidth
from benchmarks.result_file import write_result
from lapidist.kernels.softmax import SoftmaxMode

SETTINGS = (DecodeSetting(1, 131072), DecodeSetting(32, 8192))


def main() -> None:
    device = require_gpu()
    bandwidth = read_bandwidth(device)
    rows = [_measure(setting, device, bandwidth) for setting in SETTINGS]
    for row in rows:
        print(row)
    result = {
        **describe_gpu(device),
        "read_bytes_per_second": bandwidth,
        "settings": rows,
        "claim": "share_of_read_bandwidth >= 0.85 and time_of_fastest_peer >= 1",
        "met": all(
            row["share_of_read_bandwidth"] >= 0.85 and row["time_of_fastest_peer"] >= 1 for row in rows
        ),
    }
    print(f"written to {write_result('gpu_decode_attention', result)}")


def _measure(setting: DecodeSetting, device: torch.device, bandwidth: float) -> dict[str, Any]:
    data = DecodeData.random(setting, device)
    peers, missing = peer_calls(data)
    seconds = interleaved_seconds({"lapidist": data.calls(SoftmaxMode.UNIFIED), **peers})
    ours = seconds["lapidist"]
    return {
        "setting": str(setting),
        "kv_bytes": setting.kv_bytes,
        "seconds": seconds,
        "missing_peers": missing,
        "share_of_read_bandwidth": setting.kv_bytes / ours / bandwidth,
        "time_of_fastest_peer": min(seconds[name] for name in peers) / ours,
    }


if __name__ == "__main__":
    main()
