"""The operator's limits on one request."""

from lapidist.engine.async_llm import AsyncLLM
from lapidist.server.errors import ApiError
from lapidist.server.protocol.sampling import SamplingFields
from lapidist.server.settings import ServerSettings


def served_names(engine: AsyncLLM, settings: ServerSettings) -> tuple[str, ...]:
    """The names of the model, the one it shows under first."""
    return settings.served_model_names or (engine.model_name,)


def check_model(name: str, names: tuple[str, ...]) -> None:
    """Raises
    ------
    ApiError : 404, the model is not served here.
    """
    if name not in names:
        shown = name if len(name) <= 100 else name[:100] + "..."
        message = f"the model {shown!r} is not served here; this server has {', '.join(names)}"
        raise ApiError(404, message, param="model", code="model_not_found")


def check_limits(request: SamplingFields, num_prompts: int, settings: ServerSettings) -> None:
    """Raises
    ------
    ApiError : 400, the request asks for more than this server gives.
    """
    n = request.n or 1
    if num_prompts > settings.max_prompts:
        message = f"prompt holds {num_prompts} prompts, the most is {settings.max_prompts}"
        raise ApiError(400, message, param="prompt")
    _check("n", n, settings.max_n)
    if n * num_prompts > settings.max_sequences:
        limit = settings.max_sequences
        message = f"{num_prompts} prompts times n = {n} is more than the {limit} sequences of one request"
        raise ApiError(400, message, param="n")
    if len(request.stop_strings) > settings.max_stop_strings:
        message = f"stop has {len(request.stop_strings)} strings, the most is {settings.max_stop_strings}"
        raise ApiError(400, message, param="stop")
    if any(len(stop) > settings.max_stop_characters for stop in request.stop_strings):
        message = f"a string in stop is longer than {settings.max_stop_characters} characters"
        raise ApiError(400, message, param="stop")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options is allowed only together with stream", param="stream_options")


def check_logprobs(param: str, value: int | None, settings: ServerSettings) -> None:
    """Raises
    ------
    ApiError : 400, more alternatives per token than this server reports.
    """
    _check(param, value or 0, settings.max_logprobs)


def completion_budget(param: str, requested: int | None, settings: ServerSettings) -> int | None:
    """``max_tokens`` for the engine; None is what the context leaves.

    Raises
    ------
    ApiError : 400, the request asks for more tokens than this server gives.
    """
    limit = settings.max_completion_tokens
    if limit is not None and requested is not None:
        _check(param, requested, limit)
    return limit if requested is None else requested


def _check(param: str, value: int, limit: int) -> None:
    if value > limit:
        raise ApiError(400, f"{param} is {value}, the most this server takes is {limit}", param=param)
