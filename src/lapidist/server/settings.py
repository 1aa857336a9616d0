"""What the operator of a server decides: names, key, limits, time limits."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ServerSettings:
    """How the HTTP server treats its clients. Every limit is answered with a 4xx that names it.

    Parameters
    ----------
    served_model_names : names that requests may give as ``model``, the first is the one shown; empty is the
        name of the checkpoint's directory.
    api_key : clients must send it as ``Authorization: Bearer KEY``; None lets everybody in.
    allowed_origins : web origins that may call from a browser (CORS); empty sends no CORS headers.
    max_body_bytes : size of a request body.
    request_timeout_seconds : time a client may take to send a request, its head and its body each.
    max_prompt_tokens : length of one prompt; None is what the model's context allows.
    max_completion_tokens : ``max_tokens`` of a request, and its default; None is what the context allows.
    max_n : completions per prompt.
    max_prompts : prompts per completion request.
    max_sequences : prompts times ``n`` of one request.
    max_stop_strings, max_stop_characters : length of the ``stop`` list and of each string in it.
    max_logprobs : likeliest tokens reported per position.
    drain_timeout_seconds : on SIGTERM, time that requests in flight get to finish.
    log_requests : log one line per request (never its text).

    Raises
    ------
    ValueError : a limit is not positive or the key is empty.
    """

    served_model_names: tuple[str, ...] = ()
    api_key: str | None = None
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 2**20
    request_timeout_seconds: float = 30.0
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_n: int = 16
    max_prompts: int = 64
    max_sequences: int = 128
    max_stop_strings: int = 16
    max_stop_characters: int = 256
    max_logprobs: int = 20
    drain_timeout_seconds: float = 30.0
    log_requests: bool = False

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if limit.name.startswith(("max_", "request_")) and value is not None and value <= 0:
                raise ValueError(f"{limit.name} must be greater than 0, got {value}")
        if self.drain_timeout_seconds < 0:
            raise ValueError(f"drain_timeout_seconds must not be negative, got {self.drain_timeout_seconds}")
        if self.api_key is not None and not (self.api_key and _is_header_text(self.api_key)):
            # An empty key is a variable that somebody forgot to set; serving without a lock would be worse.
            raise ValueError(
                "the API key must be ASCII text without spaces around it; unset it to serve without a key"
            )
        if not all(self.served_model_names):
            raise ValueError("a served model name must not be empty")


def _is_header_text(text: str) -> bool:
    """Whether a client can send exactly this in a header."""
    return text.isascii() and text.isprintable() and text == text.strip()
