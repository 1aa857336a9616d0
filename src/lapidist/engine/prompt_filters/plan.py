"""Before a filter runs: its layer, its number of tokens, and whether the prompt can be served with it at all."""

from dataclasses import dataclass, replace

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters.adaptive import forced_ends, layer_range, most_tokens
from lapidist.engine.prompt_filters.config import Adaptive, FastKV, GemFilter, Keep, PromptFilter
from lapidist.engine.prompt_filters.forecast import gain, token_propagation_gain
from lapidist.engine.prompt_filters.policy import adaptive_policy, gemfilter_policy
from lapidist.engine.prompt_filters.selection import kept_tokens
from lapidist.models.config import ModelConfig
from lapidist.models.filter_config import AdaptivePolicy, GemFilterPolicy


@dataclass(frozen=True)
class Lengths:
    """What the engine has room for.

    Attributes
    ----------
    context : positions that the model may be run at.
    cached : tokens of one sequence in the KV cache.
    """

    context: int
    cached: int


@dataclass(frozen=True)
class FilterPlan:
    """How one prompt will be filtered.

    Attributes
    ----------
    tokens : of the prompt.
    kept : how many of them the filter keeps, or may keep at the most.
    layer : that will choose; None where all or none do, or the filter finds it.
    bypassed : why the prompt is run plainly, None if it is filtered.
    forecast_gain : times less arithmetic in the prompt phase; None where the filter finds out.
    can_be_plain : the whole prompt fits into the KV cache.
    policy : of the methods that have one, all of it.
    positions : that prompt and generated tokens take at the most.
    """

    options: PromptFilter
    tokens: int
    kept: int
    layer: int | None = None
    bypassed: str | None = None
    forecast_gain: float | None = None
    can_be_plain: bool = True
    policy: GemFilterPolicy | AdaptivePolicy | None = None
    positions: int = 0

    @property
    def filter_layer(self) -> int:
        assert self.layer is not None
        return self.layer

    @property
    def gemfilter_policy(self) -> GemFilterPolicy:
        assert isinstance(self.policy, GemFilterPolicy)
        return self.policy

    @property
    def adaptive_policy(self) -> AdaptivePolicy:
        assert isinstance(self.policy, AdaptivePolicy)
        return self.policy

    @property
    def keeps_positions(self) -> bool:
        """Whether what follows the prompt is counted from its whole length."""
        if isinstance(self.options, GemFilter | Adaptive):
            return isinstance(self.options, GemFilter) and self.options.positions == "original"
        return True

    def room(self, kept: int, lengths: Lengths) -> int:
        """Tokens that can be generated after ``kept`` ones."""
        room = lengths.cached - kept
        return min(room, lengths.context - self.tokens) if self.keeps_positions else room


def plan_filter(
    options: PromptFilter, tokens: int, config: ModelConfig, lengths: Lengths, max_tokens: int | None = None
) -> FilterPlan:
    """
    Parameters
    ----------
    tokens : of the prompt.
    max_tokens : to generate; None is as many as there is room for. The adaptive filter leaves room for them if it can.

    Raises
    ------
    InvalidRequestError : the model has no such layer, its attention does not allow the method, or the prompt is too
        long even for the filter.
    """
    longest = lengths.context if max_tokens is None else min(lengths.context, tokens + max_tokens)
    _check_attention(options, config, longest)
    plan = replace(_plan(options, tokens, config, lengths, max_tokens or 1), positions=longest)
    if tokens > lengths.context:
        raise InvalidRequestError(
            f"the prompt has {tokens} tokens and the model's context is {lengths.context}: a filter reads the whole "
            "prompt, shorten it"
        )
    if plan.room(plan.kept, lengths) < 1:
        if plan.bypassed is None:
            what = f"the filter keeps {plan.kept} of the prompt's {tokens} tokens"
        else:
            what = f"the prompt has {tokens} tokens and would not be filtered ({plan.bypassed})"
        limit = min(lengths.cached, lengths.context)
        raise InvalidRequestError(
            f"{what}; with at least one generated token it exceeds the maximum length of {limit} tokens: "
            "lower prompt_filter.keep"
        )
    return plan


def _plan(
    options: PromptFilter, tokens: int, config: ModelConfig, lengths: Lengths, to_generate: int
) -> FilterPlan:
    layer = _layer(options, config)
    own = gemfilter_policy(options, config.prompt_filter) if isinstance(options, GemFilter) else None
    if tokens < options.threshold:
        reason = f"the prompt is shorter than the threshold of {options.threshold} tokens"
        return FilterPlan(options, tokens, tokens, layer, reason)
    if isinstance(options, Adaptive):
        policy = adaptive_policy(options, config.prompt_filter)
        plan = _plan_adaptive(options, policy, tokens, config, lengths, to_generate)
        return replace(plan, policy=policy)
    kept = kept_tokens(_keep(options, config), tokens)
    if kept == tokens:
        return FilterPlan(options, tokens, kept, layer, "all tokens would be kept")
    forecast = 1.0
    if isinstance(options, GemFilter) and layer is not None:
        forecast = gain(config, tokens, kept, layer)
    elif isinstance(options, FastKV) and layer is not None:
        going_on = min(tokens, max(kept, round(options.propagate * tokens)))
        forecast = token_propagation_gain(config, tokens, going_on, layer)
    return FilterPlan(options, tokens, kept, layer, forecast_gain=forecast, policy=own)


def _plan_adaptive(
    options: Adaptive,
    policy: AdaptivePolicy,
    tokens: int,
    config: ModelConfig,
    lengths: Lengths,
    to_generate: int,
) -> FilterPlan:
    fits_whole = tokens < lengths.cached
    most = most_tokens(options.keep, policy, tokens)
    able = layer_range(options, config)
    least = min(most, max(policy.least, sum(forced_ends(policy, most))))
    best = gain(config, tokens, least, able.start)
    if fits_whole and (most == tokens or best < options.gain):
        reason = (
            f"filtering would gain {best:.2f}x at the best"
            if best < options.gain
            else "all tokens would be kept"
        )
        return FilterPlan(options, tokens, tokens, None, reason, best)
    fitting = max(lengths.cached - to_generate, min(least, lengths.cached - 1))
    return FilterPlan(options, tokens, min(most, fitting), can_be_plain=fits_whole)


def _keep(options: PromptFilter, config: ModelConfig) -> Keep:
    if options.keep is None and config.prompt_filter is not None:
        return config.prompt_filter.keep
    return options.keep


def _layer(options: PromptFilter, config: ModelConfig) -> int | None:
    """Of GemFilter and FastKV: the calibrated one, or at the depth that their papers give for Llama 3.1."""
    if not isinstance(options, GemFilter | FastKV):
        return None
    if options.layer is None and config.prompt_filter is not None:
        return config.prompt_filter.layer
    depth = 13 if isinstance(options, GemFilter) else 15
    layer = config.num_layers * depth // 32 if options.layer is None else options.layer
    if layer >= config.num_layers:
        raise InvalidRequestError(
            f"prompt_filter.layer is {layer}, and the model's {config.num_layers} layers count from 0 to "
            f"{config.num_layers - 1}"
        )
    return layer


def _check_attention(options: PromptFilter, config: ModelConfig, longest: int) -> None:
    """A sliding window counts places, which are positions only as long as no token between is missing. While the model
    runs on tokens with gaps between them, the window must not hide any."""
    runs_on_gaps = isinstance(options, FastKV) or (
        isinstance(options, GemFilter) and options.positions == "original"
    )
    shortest = min((window for window in config.sliding_windows if window is not None), default=longest)
    if runs_on_gaps and shortest < longest:
        what = f"{options.method} with original positions" if isinstance(options, GemFilter) else "fastkv"
        raise InvalidRequestError(
            f"prompt_filter: {what} leaves gaps between tokens, which the model's sliding windows of {shortest} tokens "
            f"do not allow where prompt and reply may take {longest}; use another method, or lower max_tokens"
        )
