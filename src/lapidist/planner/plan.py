"""What traffic would cost: one forecast per machine, recipe, tensor-parallel degree and rate."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lapidist.models.config import ModelConfig
from lapidist.planner.machine import Machine
from lapidist.planner.memory_fit import MemoryFit, fit_memory
from lapidist.planner.simulation import ServingSettings, Simulation, SimulationResult
from lapidist.planner.step_cost import TabledStepCost
from lapidist.workload.lowering import lower
from lapidist.workload.recipe import Recipe
from lapidist.workload.serving_metrics import Metrics, Objective, summarize
from lapidist.workload.step import SequenceStep, Step
from lapidist.workload.trace import Trace

Progress = Callable[[str, int, int], None]  # what is simulated, requests finished, requests in all
_HOUR = 3600.0


@dataclass(frozen=True)
class Traffic:
    """Requests to serve.

    Attributes
    ----------
    rate : requests per second on average, for the report; None of an offline trace.
    concurrency : so many clients in a closed loop; the trace's times are ignored.
    """

    trace: Trace
    rate: float | None
    concurrency: int | None = None

    @property
    def label(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} client{'s' * (self.concurrency > 1)}"
        return "offline" if self.rate is None else f"{self.rate:.3g}"


@dataclass(frozen=True)
class Option:
    """One way to serve a model.

    Attributes
    ----------
    tensor_parallel : devices that share the model.
    expert_parallel : so many of these divide the experts of a mixture between them, and the rest each expert.
    """

    machine: Machine
    recipe: Recipe
    tensor_parallel: int
    expert_parallel: int = 1

    @property
    def devices(self) -> str:
        count = f"{self.tensor_parallel} x " if self.tensor_parallel > 1 else ""
        experts = f" (experts over {self.expert_parallel})" if self.expert_parallel > 1 else ""
        return f"{count}{self.machine.name}{experts}"

    @property
    def label(self) -> str:
        return f"{self.devices}, {self.recipe.name}"


@dataclass(frozen=True)
class PlanSettings:
    """How every option is set up.

    Attributes
    ----------
    memory_share : of a device's memory that the engine may use.
    dollars_per_hour : of one device, in place of the machine's own price.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    page_size: int = 16
    shared_prefix: float = 0.0
    memory_share: float = 0.9
    dollars_per_hour: float | None = None
    objective: Objective | None = None

    def __post_init__(self) -> None:
        if not 0 < self.memory_share <= 1:
            raise ValueError(f"the share of memory must be above 0 and at most 1, got {self.memory_share:g}")


@dataclass(frozen=True)
class Forecast:
    """What an option would do with some traffic.

    Attributes
    ----------
    dollars_per_million_output_tokens, dollars_per_million_tokens : at the price of all devices over the whole time,
        idle time included; None without a price. The second counts prompt tokens too.
    joules_per_output_token : of all devices, their idle power between steps included. NaN where the hardware model
        knows no power.
    average_watts : of all devices over the whole time.
    max_batch : sequences of the trace's mean length that the KV cache holds.
    busy_share : of the time in which a step runs.
    seconds_by_part : where the time of the steps goes.
    tpot_interval_seconds : 90 % interval of the median TPOT, as wide in proportion as the hardware model's interval of
        a step of mean size; None where it states none.
    low_confidence : what the hardware model says against its own answers.
    """

    option: Option
    traffic: Traffic
    fit: MemoryFit
    metrics: Metrics
    result: SimulationResult
    dollars_per_million_output_tokens: float | None
    dollars_per_million_tokens: float | None
    joules_per_output_token: float
    average_watts: float
    max_batch: int
    busy_share: float
    seconds_by_part: dict[str, float] = field(default_factory=dict)
    tpot_interval_seconds: tuple[float, float] | None = None
    low_confidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """An option that cannot be, and why."""

    option: Option
    reason: str


def plan(
    config: ModelConfig,
    choices: Iterable[Option],
    traffic: Sequence[Traffic],
    settings: PlanSettings,
    progress: Progress = lambda label, finished, total: None,
) -> tuple[list[Forecast], list[Refusal]]:
    """Forecast every option under every traffic; what cannot be is told apart, with the reason."""
    forecasts: list[Forecast] = []
    refusals: list[Refusal] = []
    for option in choices:
        try:
            fit, cost = _prepare(config, option, settings)
        except ValueError as error:
            refusals.append(Refusal(option, str(error)))
            continue
        for each in traffic:
            forecasts.append(_forecast(config, option, each, fit, cost, settings, progress))
    return forecasts, refusals


def _prepare(config: ModelConfig, option: Option, settings: PlanSettings) -> tuple[MemoryFit, TabledStepCost]:
    """Room and costs; raises ValueError if the model does not fit or the machine cannot compute it."""
    memory_bytes = int(settings.memory_share * option.machine.memory_bytes)
    fit = fit_memory(
        config,
        option.recipe,
        option.tensor_parallel,
        memory_bytes,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        page_size=settings.page_size,
        expert_parallel=option.expert_parallel,
    )
    cost = TabledStepCost(
        option.machine.hardware, config, option.recipe, option.tensor_parallel, option.expert_parallel
    )
    # A number format that the machine lacks is refused here.
    cost.step([1], [SequenceStep(16, 16)], logit_rows=2)
    cost.take_seconds_by_part()
    return fit, cost


def _forecast(
    config: ModelConfig,
    option: Option,
    traffic: Traffic,
    fit: MemoryFit,
    cost: TabledStepCost,
    settings: PlanSettings,
    progress: Progress,
) -> Forecast:
    serving = ServingSettings(
        fit.num_pages,
        settings.page_size,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        shared_prefix=settings.shared_prefix,
        request_seconds=option.machine.request_seconds,
        arrival=option.machine.arrival,
        batching=option.machine.batching,
    )
    result = Simulation(
        traffic.trace,
        serving,
        cost,
        concurrency=traffic.concurrency,
        progress=lambda finished, total: progress(option.label, finished, total),
    ).run()
    metrics = summarize(result.records, result.duration_seconds, settings.objective)
    machine, ranks = option.machine, option.tensor_parallel
    joules = ranks * (
        result.joules + machine.idle_watts * max(0.0, result.duration_seconds - result.busy_seconds)
    )
    price = settings.dollars_per_hour if settings.dollars_per_hour is not None else machine.dollars_per_hour
    dollars = None if price is None else ranks * price * result.duration_seconds / _HOUR
    tokens = metrics.prompt_tokens + metrics.output_tokens
    lengths = [request.prompt_tokens + request.output_tokens for request in traffic.trace]
    return Forecast(
        option,
        traffic,
        fit,
        metrics,
        result,
        dollars_per_million_output_tokens=_per_million(dollars, metrics.output_tokens),
        dollars_per_million_tokens=_per_million(dollars, tokens),
        joules_per_output_token=joules / metrics.output_tokens if metrics.output_tokens else math.nan,
        average_watts=joules / result.duration_seconds if result.duration_seconds else math.nan,
        max_batch=fit.max_batch(sum(lengths) / len(lengths)),
        busy_share=result.busy_seconds / result.duration_seconds if result.duration_seconds else 0.0,
        seconds_by_part=cost.take_seconds_by_part(),
        tpot_interval_seconds=_tpot_interval(config, option, result, metrics),
        low_confidence=tuple(sorted(cost.low_confidence)),
    )


def _tpot_interval(
    config: ModelConfig, option: Option, result: SimulationResult, metrics: Metrics
) -> tuple[float, float] | None:
    if metrics.tpot is None:
        return None
    batch = max(1, round(metrics.output_tokens / result.steps))
    context = round((metrics.prompt_tokens + metrics.output_tokens / 2) / metrics.completed)
    step = Step((SequenceStep(1, context),) * batch, batch)
    operators = lower(config, option.recipe, step, option.tensor_parallel, option.expert_parallel)
    estimate = option.machine.hardware.step(operators)
    if estimate.interval_seconds is None:
        return None
    low, high = (metrics.tpot.p50 * edge / estimate.seconds for edge in estimate.interval_seconds)
    return low, high


def _per_million(dollars: float | None, tokens: int) -> float | None:
    return None if dollars is None or tokens == 0 else 1e6 * dollars / tokens
