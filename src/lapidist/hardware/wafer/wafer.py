"""A wafer as a machine that steps of ``workload.lower`` run on: seconds and joules of any model and batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lapidist.hardware.estimate import Bound, Estimate
from lapidist.hardware.wafer.communications import Broadcast
from lapidist.hardware.wafer.cost import COMMUNICATION, COMPUTE, Cost, CostModel
from lapidist.hardware.wafer.cost_constants import CostConstants, calibrated_constants
from lapidist.hardware.wafer.cost_terms import VECTOR, Program
from lapidist.hardware.wafer.decode_layer import DecodePlan, decode_attention
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.device import Device, load_device
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, mesh_gemm, mesh_gemm_transposed
from lapidist.hardware.wafer.gemv_algorithms import k_tree_allreduce, mesh_gemv, pipeline_allreduce
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.reduction_tree import tree_group_sizes
from lapidist.hardware.wafer.regions import Grid, require_on_wafer
from lapidist.hardware.wafer.steps import Pointwise
from lapidist.workload.operators import (
    GEMM,
    Attention,
    ElementWise,
    Embedding,
    ExpertMLP,
    Normalization,
    Operator,
)
from lapidist.workload.tensor_format import TensorFormat

_ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
_PHASES = 2


@dataclass(frozen=True)
class _HeadsAlone:
    """Shape of a layer of which only attention matters."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int = 1
    intermediate_size: int = 1


@dataclass(frozen=True)
class Wafer:
    """Costs steps on one wafer; each operator runs on the grid that suits it better.

    Parameters
    ----------
    device : the mesh, its clock and power.
    model : the calibrated cost model.
    prefill_grid, decode_grid : regions for steps of many tokens and of few.
    """

    device: Device
    model: CostModel
    prefill_grid: Grid
    decode_grid: Grid

    def __post_init__(self) -> None:
        require_on_wafer(self.device, self.prefill_grid)
        require_on_wafer(self.device, self.decode_grid)

    @staticmethod
    def named(
        device: str, prefill_grid: Grid, decode_grid: Grid, constants: CostConstants | None = None
    ) -> "Wafer":
        """A wafer by its device's name or file; raises ValueError if it is unknown or has no calibrated constants."""
        found = load_device(device)
        cycles = constants or calibrated_constants(found.name)
        return Wafer(found, CostModel(cycles, found.link_bytes_per_cycle), prefill_grid, decode_grid)

    @property
    def name(self) -> str:
        return self.device.name

    def step(self, operators: Sequence[Operator]) -> Estimate:
        """Cost of a step; the whole device draws its power while it runs (NaN joules if that is not stated).

        The interval is as wide as forecasts of whole models have been off (``CostConstants.relative_error``); there is
        none where that is unknown or the step is none of those that constants were calibrated for.

        Raises
        ------
        ValueError : an operator's numbers are none that cores compute with, or it exchanges data between devices.
        """
        costs = [(operator, self._cost(operator)) for operator in operators]
        breakdown: dict[str, float] = {}
        for operator, cost in costs:
            seconds = operator.count * cost.cycles / self.device.clock_hz
            breakdown[operator.name] = breakdown.get(operator.name, 0.0) + seconds
        total = sum(breakdown.values())
        watts = math.nan if self.device.watts is None else self.device.watts
        doubts = self._doubts(operators)
        interval = None if doubts else self.model.interval(total)
        return Estimate(total, total * watts, _bound(costs), breakdown, interval, doubts)

    def _doubts(self, operators: Sequence[Operator]) -> tuple[str, ...]:
        doubts = []
        held = sum(each.count * (each.weight_bytes + each.kv_bytes) for each in operators)
        memory = self.device.rows * self.device.cols * self.device.usable_bytes_per_core
        if held > memory:
            doubts.append(
                f"the step's weights and KV cache of {held / 1e9:.1f} GB exceed the {memory / 1e9:.1f} GB of one "
                f"{self.device.title}; it is costed as if on several, without what lies between them"
            )
        if any(_numbers(each) == "fp32" for each in operators):
            doubts.append(
                "cost constants were measured in fp16; fp32 is costed as fp16 with twice the traffic"
            )
        return tuple(doubts)

    def _cost(self, operator: Operator) -> Cost:
        element_bytes = _element_bytes(operator)
        if isinstance(operator, GEMM):
            options = _gemm_programs(operator, self.prefill_grid, self.decode_grid, element_bytes)
        elif isinstance(operator, Attention):
            options = _attention_programs(operator, self.prefill_grid, self.decode_grid, element_bytes)
        elif isinstance(operator, ExpertMLP):
            raise ValueError("a wafer forecast knows no mixture of experts")
        else:
            grids = dict.fromkeys((self.prefill_grid, self.decode_grid))
            options = tuple(_spread(operator, grid, element_bytes) for grid in grids)
        return min((self.model.program_cost(program) for program in options), key=lambda cost: cost.cycles)


@lru_cache(maxsize=4096)
def _gemm_programs(operator: GEMM, prefill: Grid, decode: Grid, element_bytes: int) -> tuple[Program, ...]:
    m, k, n = operator.m, operator.k, operator.n
    vector = mesh_gemv(k, n, decode.rows, decode.cols, batch=m, element_bytes=element_bytes)
    product = mesh_gemm(GEMMShape(m, k, n), prefill.rows, prefill.cols, element_bytes)
    return ((vector, 1),), ((product, 1),)


@lru_cache(maxsize=4096)
def _attention_programs(
    operator: Attention, prefill: Grid, decode: Grid, element_bytes: int
) -> tuple[Program, ...]:
    heads = _HeadsAlone(operator.heads, operator.kv_heads, operator.head_dim)
    queries, tokens = operator.query_length, operator.visible_kv
    plan = DecodePlan(heads, decode.rows, decode.cols, -(-tokens // decode.rows), phases=_PHASES)
    one = Description("attention", decode.rows, decode.cols, {}, decode_attention(plan), element_bytes)
    one_by_one: Program = ((one, queries),)
    if queries < VECTOR:
        return (one_by_one,)
    rows, cols, width = prefill.rows, prefill.cols, operator.heads * operator.head_dim
    per_row = operator.heads * -(-queries // rows)
    scores = per_row * -(-tokens // cols)
    statistics = pipeline_allreduce("statistics", per_row, Line("x", cols), root="middle")
    softmax = Description(
        "softmax",
        rows,
        cols,
        {},
        (
            Pointwise("mask", (), (), scores),
            *statistics,
            Pointwise("softmax", (), (), scores),
            *statistics,
            Pointwise("scale", (), (), scores),
        ),
        element_bytes,
    )
    blocked: Program = (
        (mesh_gemm_transposed(GEMMShape(queries, width, tokens), rows, cols, element_bytes), 1),
        (softmax, 1),
        (mesh_gemm(GEMMShape(queries, tokens, width), rows, cols, element_bytes), 1),
    )
    return one_by_one, blocked


def _spread(operator: Operator, grid: Grid, element_bytes: int) -> Program:
    """Element-wise work over all cores, a norm's sum over a line of them, embedding rows from the edge."""
    steps: tuple[Pointwise | Broadcast, ...]
    if isinstance(operator, Embedding):
        elements = -(-operator.tokens * operator.columns // grid.rows)
        steps = (Broadcast("x", "x", elements, Line("x", grid.cols), 0),)
    elif isinstance(operator, Normalization):
        return _norm(operator, grid, element_bytes)
    elif isinstance(operator, ElementWise):
        operations = _share(operator.rows, operator.columns, grid) * operator.operations_per_element
        steps = (Pointwise("add", (), (), operations),)
    else:
        raise ValueError(
            f"{operator.name}: a wafer has no other devices to exchange data with; use tensor_parallel 1"
        )
    return ((Description(operator.name, grid.rows, grid.cols, {}, steps, element_bytes), 1),)


def _norm(operator: Normalization, grid: Grid, element_bytes: int) -> Program:
    sums = -(-operator.rows // grid.rows)
    elements = _share(operator.rows, operator.columns, grid)
    steps = (
        Pointwise("square_sum", (), (), elements),
        *k_tree_allreduce("sums", sums, Line("x", grid.cols), tree_group_sizes(grid.cols, _PHASES)),
        Pointwise("normalize", (), (), elements),
    )
    return ((Description(operator.name, grid.rows, grid.cols, {}, steps, element_bytes), 1),)


def _share(rows: int, columns: int, grid: Grid) -> int:
    """Elements of a core: rows cut over rows of cores, columns over columns; one row lies along a line of cores."""
    if rows < VECTOR:
        return rows * -(-columns // grid.rows)
    return -(-rows // grid.rows) * -(-columns // grid.cols)


def _numbers(operator: Operator) -> str:
    form = _format(operator)
    return "fp16" if form is None else form.number


def _format(operator: Operator) -> TensorFormat | None:
    if isinstance(operator, Attention):
        return operator.hidden
    if isinstance(operator, Embedding):
        return operator.table
    if isinstance(operator, GEMM | ElementWise | Normalization):
        return operator.input
    return None


def _element_bytes(operator: Operator) -> int:
    used = {
        GEMM: ("input", "weight"),
        Attention: ("hidden", "kv"),
        ElementWise: ("input",),
        Normalization: ("input",),
        Embedding: ("table",),
    }
    for field in used.get(type(operator), ()):
        number = getattr(operator, field).number
        if number not in _ELEMENT_BYTES:
            raise ValueError(
                f"{operator.name}: the wafer's kernels compute with {', '.join(_ELEMENT_BYTES)}, "
                f"not with {number} ({field}); use the recipe fp16"
            )
    return _ELEMENT_BYTES[_numbers(operator)]


def _bound(costs: Sequence[tuple[Operator, Cost]]) -> Bound:
    parts: dict[Bound, float] = {"compute": 0.0, "communication": 0.0, "overhead": 0.0}
    for operator, cost in costs:
        cycles = operator.count * cost.cycles
        compute, communication = cost.share(COMPUTE) * cycles, cost.share(COMMUNICATION) * cycles
        parts["compute"] += compute
        parts["communication"] += communication
        parts["overhead"] += cycles - compute - communication
    return max(parts, key=lambda name: parts[name])
