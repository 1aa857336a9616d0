"""Public measurements of whole serving runs, and the same runs simulated.

aiconfigurator's ``e2e_silicon`` table (ai-dynamo/aiconfigurator, Apache-2.0) tells of every run the model, the GPUs,
the engine, the clients and the lengths. How the clients sent and how the engine was set up decide the time to first
token, and are known of one family of series only:

*InferenceMAX* (SemiAnalysis; scripts public under Apache-2.0): ten requests per client, all clients starting at once;
prompts and answers drawn evenly from 80 % to all of the stated lengths; means over all requests; fp8 KV caches of
Llama-3.1-70B; vLLM with 8192 tokens a step; TensorRT-LLM with steps as long as the longest sequence (16384 tokens in
fp8 on B200, 20000 for gpt-oss), and with prompts that wait up to 20 steps for others where 1024 tokens are answered by
1024 on fewer than 8 GPUs.

*The other series* were made with aiconfigurator's own tools. Their load generator sends equal lengths, ten requests per
client; taken is that all requests count. What the engines were told is not public. Assumed is, with the errors in view,
one prompt a step, and of SGLang its default of 8192 tokens, in 0.5.6 with prompts beside decodes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lapidist.hardware.estimate import Hardware
from lapidist.hardware.gpu.attention_store import BUNDLED as ATTENTION
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_store import BUNDLED as GEMMS
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_predictor import BUNDLED as EXPERTS
from lapidist.hardware.gpu.serving_overhead import NONE, ServingOverhead
from lapidist.models.config import ModelConfig
from lapidist.planner.batching import BATCHING_BY_BACKEND, MIXED, Batching
from lapidist.planner.memory_fit import fit_memory
from lapidist.planner.recipes import plan_recipe
from lapidist.planner.simulation import ServingSettings, Simulation
from lapidist.planner.step_cost import Cost, Floats, TabledStepCost
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import Uniform
from lapidist.workload.lowering import DecoderShape
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep
from lapidist.workload.trace import Trace

# Hub name in the table: our shape's name.
DENSE = {
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
}
# Runs of deployments with several workers, whose concurrency per worker the table does not tell.
SEVERAL_WORKERS = "gtl_task_id|nvidia_Llama-3.1-8B-Instruct-FP8"
REQUESTS_PER_CLIENT = 10
MEMORY_SHARE = 0.9
PAGE = 128  # coarse pages simulate faster; 16 gives the same times
_LONGEST_PREFIX = 200  # tokens that InferenceMAX leaves beside prompt and answer
_QUANTIZATIONS = (4e-6, 8e-6)  # seconds; the cost of a step is all but straight between them


@dataclass(frozen=True)
class Protocol:
    """How a series was measured.

    Attributes
    ----------
    shortest : lengths are drawn evenly from this share of the stated one to all of it.
    step_tokens, batching : of the engine.
    """

    shortest: float
    step_tokens: int
    batching: Batching


@dataclass(frozen=True)
class Run:
    """One measured configuration; times in seconds."""

    model: str
    system: str
    backend: str
    version: str
    campaign: str
    recipe: str
    ranks: int
    expert_ranks: int
    clients: int
    prompt_tokens: int
    output_tokens: int
    ttft_seconds: float
    tpot_seconds: float

    @property
    def protocol(self) -> Protocol:
        clients, prompt, output = self.clients, self.prompt_tokens, self.output_tokens
        batching = BATCHING_BY_BACKEND.get(self.backend, MIXED)
        if self.campaign == "InferenceMAX":
            if self.backend == "trtllm":
                dense = self.model in DENSE
                tokens = prompt + output + _LONGEST_PREFIX if dense else 20_000
                if dense and self.system == "b200_sxm" and self.recipe.startswith("fp8"):
                    tokens = 16_384
                if dense and prompt == output == 1024 and self.ranks < 8:
                    batching = replace(batching, wait_steps=20, wait_share=0.9)
                return Protocol(0.8, tokens, batching)
            return Protocol(0.8, 8192, batching)
        if self.backend == "sglang":
            mixes = self.version.startswith("0.5.6")
            return Protocol(1.0, 8192, MIXED if mixes else batching)
        return Protocol(1.0, prompt + clients, batching)

    def trace(self) -> Trace:
        """All requests, in the order in which clients take them."""
        shortest = self.protocol.shortest
        prompt, output = (
            Uniform(max(1, int(shortest * length)), length)
            for length in (self.prompt_tokens, self.output_tokens)
        )
        return generate_trace(REQUESTS_PER_CLIENT * self.clients, float("inf"), prompt, output)


def kernel_models() -> dict[str, str]:
    """Which fitted models of kernels answered: the beginning of each file's SHA-256."""
    return {path.name: sha256(path.read_bytes()).hexdigest()[:12] for path in (GEMMS, ATTENTION, EXPERTS)}


def read_runs(path: Path, models: Sequence[str]) -> list[Run]:
    """Runs of one worker each, of these models and on GPUs that have a data sheet, in the table's order."""
    table = pd.read_parquet(path)
    table = table[(table["mode"] == "agg") & table["model_path"].isin(models)]
    several = table["silicon_data_source"].str.contains(SEVERAL_WORKERS)
    several |= (table["attention_dp_size"].fillna(1) > 1) | (table["tp_size"] > 8)
    # Experts over more ranks than attention has: the attention is copied, and its workers share the clients.
    several |= table["moe_tp_size"] * table["moe_ep_size"] > table["tp_size"]
    unknown = ~several & ~table["system"].map(_has_sheet)
    print(
        f"{len(table)} runs; left out are {int(several.sum())} of several workers and {int(unknown.sum())} on GPUs "
        "without a data sheet"
    )
    return [_run(row) for row in table[~several & ~unknown].to_dict("records")]


@cache
def _has_sheet(system: str) -> bool:
    try:
        load_data_sheet(system)
    except ValueError:
        return False
    return True


def _run(row: dict[str, Any]) -> Run:
    campaign = _campaign(row["silicon_data_source"])
    expert_ranks = row["moe_ep_size"]
    return Run(
        row["model_path"],
        row["system"],
        row["backend"],
        str(row["backend_version"]),
        campaign,
        _recipe_name(str(row["precision"]), row["backend"], campaign),
        int(row["tp_size"]),
        max(1, int(expert_ranks)) if expert_ranks == expert_ranks else 1,
        int(row["batch_size"]),
        int(row["isl"]),
        int(row["osl"]),
        row["silicon_ttft_ms"] / 1e3,
        row["silicon_tpot_ms"] / 1e3,
    )


def _campaign(source: str) -> str:
    """The load generator's series: the folder of engine and version, or InferenceMAX."""
    folders = re.search(r"data/(\w+/\w+/[^/]+)/", source)
    return folders[1] if folders else "InferenceMAX"


def _recipe_name(precision: str, backend: str, campaign: str) -> str:
    """TensorRT-LLM quantizes the cache too, and InferenceMAX asks vLLM to."""
    names = {"fp4": "nvfp4", "fp8": "fp8"}
    if precision not in names:
        return "bf16"
    return names[precision] + ("-kv8" if backend == "trtllm" or campaign == "InferenceMAX" else "")


class Served:
    """A model on a machine, its steps priced once without any overhead; overheads are then tried at no cost."""

    def __init__(
        self,
        shape: DecoderShape,
        recipe: Recipe,
        ranks: int,
        hardware: Sequence[Hardware],
        num_pages: Callable[[int, int], int],
        expert_ranks: int = 1,
    ) -> None:
        """``num_pages`` of so many sequences at most, and tokens a step; see ``MemoryFit``."""
        self.num_pages, self._layers = num_pages, shape.num_layers
        self._tables = [TabledStepCost(each, shape, recipe, ranks, expert_ranks) for each in hardware]

    def cost(self, overhead: ServingOverhead) -> "_Overheads":
        """Of steps, for a simulation."""
        return _Overheads(self._tables, self._layers, overhead)


@dataclass
class _Overheads:
    """Costs of steps with an engine's overhead, which is what ``GPU`` adds on its own."""

    tables: Sequence[TabledStepCost]
    layers: int
    overhead: ServingOverhead

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        bare = self._between([table.step(decodes, chunks, logit_rows)[0] for table in self.tables])
        return bare + self.overhead.seconds(self.layers, len(decodes) + len(chunks), bool(chunks)), 0.0

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        bare = self._between([table.decode_run(kv_lengths, steps)[0] for table in self.tables])
        return bare + self.overhead.seconds(self.layers, len(kv_lengths), False), np.zeros(steps)

    def _between(self, found: Sequence[Any]) -> Any:
        low, high = _QUANTIZATIONS
        weight = (self.overhead.quantization_seconds - low) / (high - low)
        return found[0] + weight * (found[-1] - found[0]) if len(found) > 1 else found[0]


@cache
def gpus(system: str, backend: str) -> tuple[GPU, ...]:
    """Without overhead but for two guesses of what quantizing inputs takes."""
    return tuple(
        GPU(system, backend, overhead=replace(NONE, quantization_seconds=each)) for each in _QUANTIZATIONS
    )


@cache
def dense(model: str, system: str, backend: str, recipe_name: str, ranks: int) -> Served:
    config = ModelConfig.of_shape(DENSE[model])
    recipe = plan_recipe(recipe_name, config)
    hardware = gpus(system, backend)[: 1 if recipe_name == "bf16" else 2]
    memory = int(MEMORY_SHARE * hardware[0].sheet.memory_bytes)

    def num_pages(sequences: int, tokens: int) -> int:
        found = fit_memory(
            config,
            recipe,
            ranks,
            memory,
            max_num_seqs=sequences,
            max_num_batched_tokens=tokens,
            page_size=PAGE,
        )
        return found.num_pages

    return Served(config, recipe, ranks, hardware, num_pages)


def simulate(run: Run, served: Served, overhead: ServingOverhead) -> tuple[float, float]:
    """Mean TTFT and TPOT in seconds."""
    protocol = run.protocol
    tokens = max(protocol.step_tokens, run.clients)
    # One request always fits: the run was measured.
    one = -(-(run.prompt_tokens + run.output_tokens) // PAGE)
    settings = ServingSettings(
        max(served.num_pages(run.clients, tokens), one),
        PAGE,
        run.clients,
        tokens,
        enable_prefix_caching=False,
        request_seconds=overhead.request_seconds,
        batching=protocol.batching,
    )
    records = Simulation(run.trace(), settings, served.cost(overhead), concurrency=run.clients).run().records
    paces = [record.seconds_per_output_token for record in records]
    return (
        float(np.mean([record.first_token_seconds for record in records])),
        float(np.mean([pace for pace in paces if pace is not None])),
    )


def error_row(run: Run, ttft_seconds: float, tpot_seconds: float) -> dict[str, Any]:
    """A forecast of a run beside its measurement; ratios are forecast over measured."""
    ratios = {"ttft": ttft_seconds / run.ttft_seconds, "tpot": tpot_seconds / run.tpot_seconds}
    return {
        "gpu": run.system.removesuffix("_sxm"),
        "backend": run.backend,
        "recipe": run.recipe,
        "ranks": run.ranks,
        **{f"{name}_ratio": ratio for name, ratio in ratios.items()},
        **{name: abs(ratio - 1) for name, ratio in ratios.items()},
    }


def medians(found: pd.DataFrame, by: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Median errors and ratios per group, of all without a group."""
    groups = found.groupby(list(by)) if by else [((), found)]
    return [
        {
            **dict(zip(by, key, strict=True)),
            "runs": len(part),
            **{name: float(part[name].median()) for name in ("ttft", "tpot", "ttft_ratio", "tpot_ratio")},
        }
        for key, part in groups
    ]
