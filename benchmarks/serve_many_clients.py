"""Many streaming clients at once: does the server lose any of them, and how long does the last one wait?

    python -m benchmarks.serve_many_clients --clients 200

The server is a process of its own; the clients are plain sockets in one other process, because two hundred of
the official clients would need more processor time than the server. All of them ask at the same moment, so
most wait for a place in the batch. The claim: no error, and none starves: the largest time to the first token
is at most five times the median.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.result_file import write_result


@dataclass(frozen=True)
class Outcome:
    """What one client saw; times in seconds since all of them were let go."""

    first_token: float
    last_token: float
    tokens: int
    events: int


async def stream(host: str, port: int, body: dict[str, Any], start: asyncio.Event) -> Outcome:
    """One client. Raises ``RuntimeError`` if it does not get a complete stream."""
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(host, port)
    await start.wait()
    begin = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status.decode().strip()}: {(await reader.read()).decode()}")
    await reader.readuntil(b"\r\n\r\n")
    received = await reader.read(65536)
    first_token = time.perf_counter() - begin
    while piece := await reader.read(65536):
        received += piece
    last_token = time.perf_counter() - begin
    writer.close()
    usage = re.search(rb'"completion_tokens":(\d+)', received)
    if b"data: [DONE]" not in received or b'"error"' in received or usage is None:
        raise RuntimeError(f"the stream broke off: ...{received[-300:].decode(errors='replace')}")
    return Outcome(first_token, last_token, int(usage[1]), received.count(b"data: ") - 1)


async def run_clients(
    url: str, model: str, clients: int, max_tokens: int
) -> tuple[list[Outcome], list[str], float]:
    """Outcomes of the clients that got theirs, errors of the others, and the seconds it all took."""
    host, port = url.removeprefix("http://").split(":")
    start = asyncio.Event()
    bodies = [
        {
            "model": model,
            "messages": [{"role": "user", "content": f"Tell me story number {index}, please."}],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for index in range(clients)
    ]
    tasks = [asyncio.create_task(stream(host, int(port), body, start)) for body in bodies]
    await asyncio.sleep(0.5)  # all are connected
    begin = time.perf_counter()
    start.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    seconds = time.perf_counter() - begin
    errors = [str(outcome) for outcome in found if isinstance(outcome, BaseException)]
    return [outcome for outcome in found if isinstance(outcome, Outcome)], errors, seconds


def summarize(outcomes: list[Outcome], errors: list[str], seconds: float) -> dict[str, Any]:
    first = sorted(outcome.first_token for outcome in outcomes)
    tokens = sum(outcome.tokens for outcome in outcomes)
    ratio = first[-1] / statistics.median(first)
    return {
        "errors": len(errors),
        "first_errors": errors[:3],
        "tokens": tokens,
        "events": sum(outcome.events for outcome in outcomes),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "ttft_seconds": {
            "min": first[0],
            "median": statistics.median(first),
            "p90": first[int(0.9 * (len(first) - 1))],
            "max": first[-1],
        },
        "end_to_end_seconds_max": max(outcome.last_token for outcome in outcomes),
        "ttft_max_over_median": ratio,
        "claim": "errors == 0 and ttft_max_over_median <= 5",
        "met": not errors and ratio <= 5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="checkpoint to serve; default: the bundled model")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens each client asks for")
    parser.add_argument("--no-result-file", action="store_true", help="print only")
    args = parser.parse_args()

    command = [sys.executable, "-m", "lapidist.cli.main", "serve", args.model, "--port", "0"]
    with subprocess.Popen(
        [*command, "--served-model-name", "model"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        try:
            url = ready.removeprefix("ready on ").strip()
            if url == ready.strip():
                raise SystemExit("the server did not start; its message is above")
            asyncio.run(run_clients(url, "model", 8, 8))  # warm up
            measured = asyncio.run(run_clients(url, "model", args.clients, args.max_tokens))
        finally:
            server.terminate()
    result = {
        "model": args.model,
        "clients": args.clients,
        "max_tokens": args.max_tokens,
        **summarize(*measured),
        "server_exit_status": server.returncode,
    }
    print(json.dumps(result, indent=2))
    if not args.no_result_file:
        print(f"written to {write_result('serve_many_clients', result)}")


if __name__ == "__main__":
    main()
