"""What one request of a replay saw."""

from dataclasses import dataclass, field


@dataclass
class RequestRecord:
    """Times in seconds since the replay began.

    Attributes
    ----------
    due_seconds : when the trace wanted it sent (open loop), or when a place was free (closed loop). Latencies
        count from here, so that a client that falls behind does not flatter the server.
    prompt_tokens : as the trace asks; once finished as the server counted.
    output_tokens : as the server counted; 0 until it has finished.
    chunk_seconds : arrival of each piece of output; a piece is one token unless the server bundles them.
    finished_seconds : None while it runs and when it failed.
    error : why it failed.
    """

    due_seconds: float
    prompt_tokens: int
    output_tokens: int = 0
    chunk_seconds: list[float] = field(default_factory=list)
    finished_seconds: float | None = None
    error: str | None = None

    @property
    def completed(self) -> bool:
        """It finished and wrote something."""
        return self.finished_seconds is not None and bool(self.chunk_seconds)

    @property
    def first_token_seconds(self) -> float:
        """TTFT: time to first token of a completed request."""
        return self.chunk_seconds[0] - self.due_seconds

    @property
    def seconds_per_output_token(self) -> float | None:
        """TPOT: mean time per token after the first; None when there is only one."""
        if self.output_tokens < 2:
            return None
        return (self.chunk_seconds[-1] - self.chunk_seconds[0]) / (self.output_tokens - 1)

    @property
    def inter_token_seconds(self) -> list[float]:
        """ITL: pauses between the pieces of output as they arrived."""
        return [
            later - earlier
            for earlier, later in zip(self.chunk_seconds, self.chunk_seconds[1:], strict=False)
        ]

    @property
    def end_to_end_seconds(self) -> float:
        """From due to the last byte of a completed request."""
        assert self.finished_seconds is not None
        return self.finished_seconds - self.due_seconds
