"""A GPU as a machine that runs the operators of a step: ``GPU("h200").step(lower(config, recipe, step))``."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapidist.hardware.estimate import Bound, Estimate
from lapidist.hardware.gpu.attention_group import AttentionGroup, group_attention
from lapidist.hardware.gpu.attention_law import AttentionShapes
from lapidist.hardware.gpu.attention_predictor import AttentionPredictor, attention_predictor
from lapidist.hardware.gpu.collective_law import CollectiveLaw
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.expert_overhead import ExpertOverhead, expert_overhead
from lapidist.hardware.gpu.gemm_format import GEMM_FORMATS
from lapidist.hardware.gpu.gemm_predictor import GemmPredictor, gemm_predictor
from lapidist.hardware.gpu.gpu_format import expert_kernel, gemm_kernels
from lapidist.hardware.gpu.latent_attention import HALF_WIDTH, NOTE, latent_decode_seconds
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.hardware.gpu.power_predictor import PowerPredictor, power_predictor
from lapidist.hardware.gpu.serving_overhead import BY_BACKEND, TYPICAL, ServingOverhead
from lapidist.hardware.gpu.stream_law import StreamLaw
from lapidist.workload.operators import GEMM, Attention, Collective, ExpertMLP, Operator

OVERHEAD = "step_overhead"
_BACKENDS = {"trtllm": "TRTLLM", "vllm": "VLLM", "sglang": "SGLang"}
_CACHED = 1 << 16
_ROUTING_SKEW = 1.01  # exponent of the power law that experts are chosen by
_Kernel = GEMM | AttentionGroup | ExpertMLP
_Key = tuple[float | str, ...]


@dataclass(frozen=True)
class _Part:
    """One kind of operator in a step, all its runs."""

    name: str
    seconds: float
    joules: float
    half_width: float
    bound: Bound


class GPU:
    """One GPU of a tensor-parallel group, with the kernels and the overhead of a backend.

    Parameters
    ----------
    gpu : name, data sheet, or YAML file of one.
    backend : ``trtllm``, ``vllm`` or ``sglang``; None takes the best measured kernels and a typical overhead.
    limit_watts : the power limit; that of the data sheet by default.
    overhead, experts : of the serving engine; by default the backend's.

    Raises
    ------
    ValueError : unknown GPU or backend, or an impossible limit.
    """

    def __init__(
        self,
        gpu: str | Path | DataSheet,
        backend: str | None = None,
        limit_watts: float | None = None,
        overhead: ServingOverhead | None = None,
        experts: ExpertOverhead | None = None,
    ) -> None:
        if backend is not None and backend.casefold() not in _BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; known are {', '.join(_BACKENDS)}")
        self.sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
        self.backend = backend.casefold() if backend else None
        self.overhead = overhead or BY_BACKEND.get(self.backend or "", TYPICAL)
        self.experts = experts or expert_overhead(self.backend, self.sheet.architecture)
        self.collectives, self.streams = CollectiveLaw(), StreamLaw()
        self._power: PowerPredictor = power_predictor(self.sheet, limit_watts)
        self._attention: AttentionPredictor = self._measured_attention()
        self._gemms: dict[str, GemmPredictor] = {}
        self._costs: dict[_Key, tuple[float, float, float, tuple[str, ...]]] = {}

    @property
    def name(self) -> str:
        return self.sheet.name

    def step(self, operators: Sequence[Operator]) -> Estimate:
        """Cost of one step as ``workload.lower`` gives it; attention operators of one phase run as one kernel.

        A step without operators costs the engine's overhead alone.

        Raises
        ------
        ValueError : the GPU cannot compute in an operator's number types.
        """
        notes: set[str] = set()
        parts = [*self._operator_parts(operators, notes), self._overhead(operators)]
        seconds = sum(part.seconds for part in parts)
        breakdown: dict[str, float] = defaultdict(float)
        by_bound: dict[Bound, float] = defaultdict(float)
        for part in parts:
            breakdown[part.name] += part.seconds
            by_bound[part.bound] += part.seconds
        # Kernels of one kind err together, those of different kinds less so.
        spread = sum(part.seconds * part.half_width for part in parts) / max(seconds, 1e-12)
        return Estimate(
            seconds=seconds,
            joules=sum(part.joules for part in parts),
            bound=max(by_bound, key=lambda bound: by_bound[bound]),
            breakdown=dict(breakdown),
            interval_seconds=(seconds * float(np.exp(-spread)), seconds * float(np.exp(spread))),
            low_confidence=tuple(sorted(notes)),
        )

    def _operator_parts(self, operators: Sequence[Operator], notes: set[str]) -> Iterator[_Part]:
        gemms = [operator for operator in operators if isinstance(operator, GEMM)]
        groups = group_attention([operator for operator in operators if isinstance(operator, Attention)])
        experts = [operator for operator in operators if isinstance(operator, ExpertMLP)]
        self._fill_costs(gemms, groups, experts)
        kernels: list[_Kernel] = [*gemms, *groups, *experts]
        for item in kernels:
            seconds, watts, width, found = self._costs[_key(item)]
            notes.update(found)
            time = seconds * item.count
            yield _Part(item.name, time, time * watts, width, self._bound(item, seconds))
        for operator in operators:
            if isinstance(operator, GEMM | Attention | ExpertMLP):
                continue
            if isinstance(operator, Collective):
                seconds, bound = self.collectives.seconds(operator, self.sheet), "communication"
            else:
                seconds, bound = self.streams.seconds(operator, self.sheet), "memory"
            if seconds > 0:
                watts = self._stream_watts(operator.minimum_bytes, seconds)
                time = seconds * operator.count
                yield _Part(operator.name, time, time * watts, 0.4, bound)  # type: ignore[arg-type]

    def _overhead(self, operators: Sequence[Operator]) -> _Part:
        layers = max((operator.count for operator in operators if isinstance(operator, GEMM)), default=0)
        attention = [operator for operator in operators if isinstance(operator, Attention)]
        windows = len({operator.window for operator in attention})
        prefill = any(operator.query_length > 1 for operator in attention)
        seconds = self.overhead.seconds(layers, len(attention) / max(1, windows), prefill)
        if prefill:
            experts = sum(operator.count for operator in operators if isinstance(operator, ExpertMLP))
            seconds += experts * self.experts.prefill_seconds
        return _Part(OVERHEAD, seconds, seconds * self._stream_watts(1.0, 1.0), 0.5, "overhead")

    def _fill_costs(
        self, gemms: Sequence[GEMM], groups: Sequence[AttentionGroup], experts: Sequence[ExpertMLP]
    ) -> None:
        """Predict what was not asked for before, all kernels of one kind in one call."""
        if len(self._costs) > _CACHED:
            self._costs.clear()
        by_format: dict[tuple[str, ...], list[GEMM]] = defaultdict(list)
        for gemm in gemms:
            if _key(gemm) not in self._costs:
                by_format[gemm_kernels(gemm, self.sheet)].append(gemm)
        for formats, some in by_format.items():
            self._predict_gemms(formats, some)
        new = [group for group in groups if _key(group) not in self._costs]
        for phase in (True, False):
            plain = [group for group in new if group.decoding == phase and not (phase and group.is_latent)]
            self._predict_attention(plain)
        for group in new:
            if group.decoding and group.is_latent:
                seconds = latent_decode_seconds(group, self.sheet)
                watts = self._stream_watts(group.minimum_bytes, seconds)
                self._costs[_key(group)] = (seconds, watts, HALF_WIDTH, (NOTE,))
        for each in experts:
            if _key(each) not in self._costs:
                self._costs[_key(each)] = self._expert_cost(each)

    def _predict_gemms(self, formats: tuple[str, ...], gemms: Sequence[GEMM]) -> None:
        m, n, k = (np.array([getattr(gemm, size) for gemm in gemms]) for size in "mnk")
        answers = [self._gemm(name).predict(m, n, k) for name in formats]
        # 4-bit weights by 8-bit activations were not measured: in memory-bound GEMMs they move what 4-bit weights move,
        # in compute-bound ones they run at the 8-bit rate, so the faster of the two kernels stands for them.
        best = np.argmin([answer.seconds for answer in answers], axis=0)
        plain = (
            self._gemm("bf16").predict(m, n, k).seconds if any(map(self._quantizes_input, formats)) else None
        )
        for row, gemm in enumerate(gemms):
            answer = answers[best[row]]
            seconds = float(answer.seconds[row])
            if plain is not None and self._quantizes_input(formats[best[row]]):
                seconds = self._in_engine(seconds, float(plain[row]))
            width = float(np.log(answer.high[row] / answer.low[row]) / 2)
            notes = answer.notes if answer.low_confidence[row] else ()
            if len(formats) > 1:
                notes = (
                    *notes,
                    f"{gemm.weight.number} by {gemm.input.number} was not measured on {self.name}",
                )
            power = self._power.gemm(gemm.m, gemm.n, gemm.k, seconds, formats[best[row]])
            self._costs[_key(gemm)] = (seconds, float(power.watts), width, tuple(notes))

    def quantizes_input(self, gemm: GEMM) -> bool:
        """Whether its measured time includes quantizing its input, as in TensorRT-LLM's fp8 and fp4 tables."""
        return self._quantizes_input(gemm_kernels(gemm, self.sheet)[0])

    def _quantizes_input(self, kernel: str) -> bool:
        return GEMM_FORMATS[kernel].quantizes_input and self._gemm(kernel).backend == "TRTLLM"

    def _in_engine(self, seconds: float, plain_seconds: float) -> float:
        """Without quantizing the input, which engines fuse into the kernel before.

        A GEMM keeps most of its time, but takes no longer than that of bf16, which multiplies slower and reads more.
        """
        kept = max(seconds - self.overhead.quantization_seconds, 0.4 * seconds)
        return min(kept, max(plain_seconds, 0.4 * seconds))

    def _predict_attention(self, groups: Sequence[AttentionGroup]) -> None:
        if not groups:
            return
        shapes = AttentionShapes.of(*np.array([group.shape() for group in groups]).T)
        answer = self._attention.predict_shapes(shapes)
        watts = self._power.attention(shapes, answer.seconds).watts
        for row, group in enumerate(groups):
            width = float(np.log(answer.high[row] / answer.low[row]) / 2)
            notes = answer.notes if answer.low_confidence[row] else ()
            self._costs[_key(group)] = (float(answer.seconds[row]), float(watts[row]), width, notes)

    def _expert_cost(self, experts: ExpertMLP) -> tuple[float, float, float, tuple[str, ...]]:
        kernel, note = expert_kernel(experts, self.sheet)
        answer = moe_predictor(self.sheet).predict(
            experts.tokens,
            experts.hidden,
            experts.inner,
            experts.top_k,
            experts.experts,
            experts.tensor_parallel,
            experts.expert_parallel,
            _ROUTING_SKEW,
            kernel,
        )
        rows = experts.tokens * experts.top_k / experts.experts
        seconds = self.experts.seconds(
            float(answer.seconds[0]), experts.tokens, rows, experts.weight.number == "fp4"
        )
        width = float(np.log(answer.high[0] / answer.low[0]) / 2)
        watts = self._stream_watts(experts.minimum_bytes, seconds)
        return seconds, watts, width, (*answer.notes, *([note] if note else []))

    def _bound(self, item: _Kernel, seconds: float) -> Bound:
        memory = item.minimum_bytes / self.sheet.memory_bytes_per_second
        return (
            "memory"
            if memory > 0.5 * seconds or (isinstance(item, AttentionGroup) and item.decoding)
            else "compute"
        )

    def _stream_watts(self, moved_bytes: float, seconds: float) -> float:
        law, sheet = self._power.law, self.sheet
        share = min(1.0, moved_bytes / sheet.memory_bytes_per_second / seconds)
        return float(law.watts(0.0, share, sheet, self._power.limit_watts))

    def _gemm(self, name: str) -> GemmPredictor:
        if name not in self._gemms:
            backend = _BACKENDS.get(self.backend or "")
            try:
                self._gemms[name] = gemm_predictor(self.sheet, name, backend)
            except ValueError:
                # Not every backend's kernels were measured in every format; the data sheet's own error stands.
                self._gemms[name] = gemm_predictor(self.sheet, name)
        return self._gemms[name]

    def _measured_attention(self) -> AttentionPredictor:
        backend = _BACKENDS.get(self.backend or "")
        try:
            return attention_predictor(self.sheet, backend)
        except ValueError:
            return attention_predictor(self.sheet)


def _key(item: _Kernel) -> _Key:
    """What its cost depends on: not its name, nor how often it runs."""
    if isinstance(item, AttentionGroup):
        return item.shape()
    if isinstance(item, ExpertMLP):
        return ("experts", item.tokens, item.hidden, item.inner, item.top_k, item.experts, item.tensor_parallel,
                item.expert_parallel, item.input.number, item.weight.number)  # fmt: skip
    return (item.m, item.n, item.k, item.input.number, item.weight.number)
