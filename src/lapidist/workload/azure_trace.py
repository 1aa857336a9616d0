"""The CSV format of the Azure LLM inference traces.

Source: Azure Public Dataset, ``AzureLLMInferenceDataset2023`` (Splitwise, arXiv 2311.18677); the 2024 files
have the same columns with a time zone behind the time.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from lapidist.workload.text_files import read_lines
from lapidist.workload.trace import Trace, TraceRequest

_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
# datetime takes six digits of a fraction at most and the files have seven, so the fraction is read apart.
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?")


def read_azure_trace(path: Path) -> Trace:
    """Requests in order of arrival; the earliest is at 0 seconds.

    Raises
    ------
    ValueError : the header or a row is not of the format; the message names file and line.
    """
    lines = enumerate(read_lines(path), start=1)
    _, header = next(lines, (1, ""))
    if header.strip() != _HEADER:
        raise ValueError(f"{path}, line 1: expected the header {_HEADER}, got {header.strip()[:80]!r}")
    rows: list[tuple[int, int, int]] = []
    for number, line in lines:
        if line.strip():
            try:
                rows.append(_parse(line.strip()))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    rows.sort(key=lambda row: row[0])
    return tuple(
        TraceRequest((nanoseconds - rows[0][0]) / 1e9, prompt_tokens, output_tokens)
        for nanoseconds, prompt_tokens, output_tokens in rows
    )


def _parse(line: str) -> tuple[int, int, int]:
    """Nanoseconds since 1970, prompt tokens, output tokens."""
    fields = line.split(",")
    if len(fields) != 3:
        raise ValueError(f"expected 3 fields, got {len(fields)}")
    counts = [int(field) if field.isascii() and field.isdigit() else 0 for field in fields[1:]]
    if min(counts) < 1:
        raise ValueError(f"token counts must be integers from 1, got {fields[1]!r} and {fields[2]!r}")
    return _nanoseconds(fields[0]), counts[0], counts[1]


def _nanoseconds(text: str) -> int:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a time like 2023-11-16 18:15:46.6805900, got {text!r}")
    whole, fraction, zone = match.groups()
    seconds = datetime.fromisoformat(whole + (zone or "+00:00"))
    since_1970 = seconds - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_1970.days * 86400 + since_1970.seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))
