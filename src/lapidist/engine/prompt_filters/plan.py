"""Before a filter runs: its layer, its number of tokens, and whether the prompt can be served with it at all."""

from dataclasses import dataclass

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters.adaptive import layer_range
from lapidist.engine.prompt_filters.config import Adaptive, FastKV, GemFilter, Keep, PromptFilter
from lapidist.engine.prompt_filters.forecast import gain, token_propagation_gain
from lapidist.engine.prompt_filters.selection import kept_tokens
from lapidist.models.config import ModelConfig


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
    """

    options: PromptFilter
    tokens: int
    kept: int
    layer: int | None = None
    bypassed: str | None = None
    forecast_gain: float | None = None
    can_be_plain: bool = True

    @property
    def filter_layer(self) -> int:
        assert self.layer is not None
        return self.layer

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
    options: PromptFilter, tokens: int, config: ModelConfig, lengths: Lengths, to_generate: int = 1
) -> FilterPlan:
    """
    Parameters
    ----------
    tokens : of the prompt.
    to_generate : tokens that the adaptive filter leaves room for, if it can.

    Raises
    ------
    InvalidRequestError : the model has no such layer, its attention does not allow the method, or the prompt is too
        long even for the filter.
    """
    plan = _plan(options, tokens, config, lengths, to_generate)
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
    _check_attention(options, config)
    layer = _layer(options, config)
    if tokens < options.threshold:
        reason = f"the prompt is shorter than the threshold of {options.threshold} tokens"
        return FilterPlan(options, tokens, tokens, layer, reason)
    if isinstance(options, Adaptive):
        return _plan_adaptive(options, tokens, config, lengths, to_generate)
    kept = kept_tokens(_keep(options, config), tokens)
    if kept == tokens:
        return FilterPlan(options, tokens, kept, layer, "all tokens would be kept")
    forecast = 1.0
    if isinstance(options, GemFilter) and layer is not None:
        forecast = gain(config, tokens, kept, layer)
    elif isinstance(options, FastKV) and layer is not None:
        going_on = min(tokens, max(kept, round(options.propagate * tokens)))
        forecast = token_propagation_gain(config, tokens, going_on, layer)
    return FilterPlan(options, tokens, kept, layer, forecast_gain=forecast)


def _plan_adaptive(
    options: Adaptive, tokens: int, config: ModelConfig, lengths: Lengths, to_generate: int
) -> FilterPlan:
    keep = 0.5 if options.keep is None else options.keep
    fits_whole = tokens < lengths.cached
    most = kept_tokens(keep, tokens)
    able = layer_range(options, config)
    least = min(most, max(options.least, options.keep_first + options.keep_last))
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


def _check_attention(options: PromptFilter, config: ModelConfig) -> None:
    """A sliding window counts places in the cache, which are positions only as long as none is missing."""
    keeps_places = isinstance(options, Adaptive) or (
        isinstance(options, GemFilter) and options.positions == "fresh"
    )
    if not keeps_places and any(window is not None for window in config.sliding_windows):
        raise InvalidRequestError(
            f"prompt_filter: {options.method} cannot leave gaps between positions in a model with sliding-window "
            "attention; use gemfilter or adaptive with fresh positions"
        )
