"""``lapidist demo``: the bundled model behind the server, asked a few things through its HTTP API."""

import json
import re
import subprocess
import sys
import time

import httpx
import typer

_QUESTIONS = [
    {"messages": [{"role": "user", "content": "Hello! Who are you?"}]},
    {
        "messages": [
            {
                "role": "user",
                "content": "The secret number for the quiet harbour is 48213. The weather was mild and the ships "
                "were late. The secret number for the brave violin is 90577. What is the secret number for the quiet "
                "harbour?",
            }
        ]
    },
]
_PROMPT = "Once upon a time, there was"


def demo() -> None:
    """Start the server on the bundled model, ask it questions over HTTP, show the answers, stop it.

    Example: lapidist demo
    """
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "lapidist.cli.main", "serve", "tiny", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            url = _wait_until_ready(server)
            typer.secho(f"server ready on {url} after {time.monotonic() - start:.1f} s", fg="green")
            with httpx.Client(base_url=url, timeout=60) as client:
                for question in _QUESTIONS:
                    typer.secho(f"\nuser: {question['messages'][-1]['content']}", bold=True)
                    typer.echo("tiny: ", nl=False)
                    _stream(client, "/v1/chat/completions", {**question, "temperature": 0, "max_tokens": 60})
                typer.secho(f"\ncontinue: {_PROMPT}", bold=True)
                _stream(
                    client,
                    "/v1/completions",
                    {"prompt": _PROMPT, "temperature": 0.7, "seed": 1, "max_tokens": 60},
                )
                _show_metrics(client)
        finally:
            server.terminate()
    typer.secho(
        f"\nserver stopped with exit status {server.returncode}",
        fg="green" if server.returncode == 0 else "red",
    )
    typer.echo("Next: `lapidist chat tiny`, `lapidist serve MODEL`, `lapidist --help`.")
    if server.returncode != 0:
        raise typer.Exit(1)


def _wait_until_ready(server: subprocess.Popen[str]) -> str:
    """The URL that the server announces on its standard output."""
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"ready on (http://\S+)", line):
            return found.group(1)
    raise typer.BadParameter("the server ended before it was ready; run `lapidist serve tiny` to see why")


def _stream(client: httpx.Client, path: str, body: dict[str, object]) -> None:
    """Print a streamed answer as it comes."""
    with client.stream("POST", path, json={"model": "tiny", "stream": True, **body}) as response:
        if response.status_code != 200:
            raise typer.BadParameter(f"{path} answered {response.status_code}: {response.read().decode()}")
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                typer.echo(
                    choice["delta"].get("content") or "" if "delta" in choice else choice["text"], nl=False
                )
    typer.echo()


def _show_metrics(client: httpx.Client) -> None:
    typer.secho("\nfrom /metrics:", bold=True)
    for line in client.get("/metrics").text.splitlines():
        if re.match(r"lapidist_\w*(tokens_total|requests_total|_seconds_(sum|count))", line):
            typer.echo(f"  {line}")
