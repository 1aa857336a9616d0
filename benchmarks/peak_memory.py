"""Peak memory of loading and serving, against weights plus KV cache.

    python -m benchmarks.peak_memory --checkpoint llama-1b

A fresh process loads the checkpoint and runs enough requests to fill the KV cache. Its peak resident memory,
less what a process that has only imported Lapidist takes, is compared with the weights plus the KV cache.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.result_file import write_result

# The peak of resident memory; ru_maxrss would inherit the parent's peak across fork.
_PEAK = """
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
"""
_IMPORT_ONLY = _PEAK + "import lapidist.engine.llm; print(peak())"
_SERVE = (
    _PEAK
    + """
import sys
from lapidist import LLM, SamplingParams
path, kv_bytes, requests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = LLM(path, kv_cache_bytes=kv_bytes, max_num_seqs=requests, max_model_len=1024)
length = min(1000, llm.engine.pool.num_pages * llm.engine.pool.page_size // requests)
prompts = [{"prompt_token_ids": [(i + j) % 256 for j in range(length - 8)]} for i in range(requests)]
llm.generate(prompts, SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
print(peak())
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--kv-cache-bytes", type=int, default=256 << 20)
    parser.add_argument("--requests", type=int, default=16)
    args = parser.parse_args()

    weights = sum(file.stat().st_size for file in args.checkpoint.glob("*.safetensors"))
    base = _run(_IMPORT_ONLY)
    peak = _run(_SERVE, str(args.checkpoint), str(args.kv_cache_bytes), str(args.requests))
    budget = weights + args.kv_cache_bytes
    result = {
        "weights_bytes": weights,
        "kv_cache_bytes": args.kv_cache_bytes,
        "import_only_bytes": base,
        "peak_bytes": peak,
        "ratio": (peak - base) / budget,
        "claim": "ratio <= 1.10",
        "met": (peak - base) / budget <= 1.10,
    }
    print(json.dumps(result, indent=2))
    print(f"written to {write_result('peak_memory', result)}")


def _run(code: str, *args: str) -> int:
    found = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[-1])


if __name__ == "__main__":
    main()
