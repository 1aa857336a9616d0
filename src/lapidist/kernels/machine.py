"""What measurements need to know about the machine: its name and the size of its cache."""

import platform
import re
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# The best of these names the instruction set; generic models of virtual machines differ in it.
_INSTRUCTION_SETS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
_TYPICAL_CACHE_BYTES = 32 << 20


def machine_name(device: torch.device) -> str:
    """What timings depend on: processor, instruction set and threads, or the name of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = _cpuinfo("flags").split()
    best = next((name for name in _INSTRUCTION_SETS if name in instructions), None)
    model = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{model}, {best or torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def machine_slug(device: torch.device) -> str:
    """``machine_name`` as a file name, such as ``amd-epyc-avx512-bf16-2-threads``."""
    return re.sub(r"[^a-z0-9]+", "-", machine_name(device).lower()).strip("-")


def last_level_cache_bytes() -> int:
    """Of the first core's largest cache; 32 MiB where the machine does not tell."""
    sizes = []
    for file in _CACHES.glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KMG]?)", file.read_text().strip())
        if match is not None:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes, default=_TYPICAL_CACHE_BYTES)


def _cpuinfo(key: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
