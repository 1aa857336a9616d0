"""``lapidist serve``: an OpenAI-compatible server."""

import logging
import os
from typing import Annotated

import typer

from lapidist.cli import options

_KEY_VARIABLE = "LAPIDIST_API_KEY"


def serve(
    model: options.Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Key that clients must send as Authorization: Bearer KEY. Prefer the environment variable: "
            "other users of the machine can read command lines.",
            envvar=_KEY_VARIABLE,
        ),
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(help="Name that requests use; may be given several times (default: the directory's)."),
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    max_model_len: options.MaxModelLen = None,
    kv_cache_gib: Annotated[
        float | None,
        typer.Option(help="KV cache in GiB (default: what full batches can use).", min=0.0, metavar="GIB"),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Sequences computed at once.", min=1)] = 64,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens computed per step; longer prompts are cut into chunks.", min=1)
    ] = 512,
    max_queue: Annotated[
        int, typer.Option(help="Requests that may wait; more are answered with 429.", min=1)
    ] = 256,
    max_body_mib: Annotated[float, typer.Option(help="Largest request body in MiB.", min=0.001)] = 4.0,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Longest prompt in tokens (default: the context).", min=1)
    ] = None,
    max_completion_tokens: Annotated[
        int | None,
        typer.Option(help="Most tokens that a completion may ask for (default: the context).", min=1),
    ] = None,
    max_n: Annotated[int, typer.Option(help="Most completions per prompt.", min=1)] = 16,
    max_prompts: Annotated[int, typer.Option(help="Most prompts per request.", min=1)] = 64,
    max_stop_strings: Annotated[int, typer.Option(help="Most stop strings per request.", min=1)] = 16,
    request_timeout_seconds: Annotated[
        float, typer.Option(help="Time a client may take to send a request.", min=0.1)
    ] = 30.0,
    drain_timeout_seconds: Annotated[
        float, typer.Option(help="On SIGTERM, time that requests in flight get to finish.", min=0.0)
    ] = 30.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web origin whose pages may call the server; may be given several times."),
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log a line per request, without its text.")
    ] = False,
    attention_softmax: options.AttentionSoftmax = "auto",
    record: options.Record = None,
) -> None:
    """Serve MODEL through an OpenAI-compatible HTTP API.

    Example: lapidist serve tiny --port 8000
    """
    from lapidist.server.listener import bind, url_of
    from lapidist.server.settings import ServerSettings

    settings = ServerSettings(
        served_model_names=tuple(served_model_name or ()),
        # typer takes an empty variable for an unset one; here it is a mistake that would leave the server open.
        api_key=os.environ.get(_KEY_VARIABLE) if api_key is None else api_key,
        allowed_origins=tuple(cors_origin or ()),
        max_body_bytes=int(max_body_mib * 2**20),
        request_timeout_seconds=request_timeout_seconds,
        max_prompt_tokens=max_prompt_tokens,
        max_completion_tokens=max_completion_tokens,
        max_n=max_n,
        max_prompts=max_prompts,
        max_stop_strings=max_stop_strings,
        drain_timeout_seconds=drain_timeout_seconds,
        log_requests=log_requests,
    )
    try:
        listener = bind(host, port)  # before the model is loaded: a port in use is known at once
    except OSError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    _configure_logging()

    from lapidist.bundled import resolve_model
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.server.http_server import HttpServer

    engine = AsyncLLM(
        resolve_model(model),
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        kv_cache_bytes=None if kv_cache_gib is None else int(kv_cache_gib * 2**30),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_queue=max_queue,
        attention_softmax=attention_softmax,
        record=record,
    )
    try:
        ready = f"ready on {url_of(listener)}"
        HttpServer(engine, settings, on_ready=lambda: print(ready, flush=True)).run([listener])
    finally:
        engine.shutdown()


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # uvicorn tells at this level about its own start and end, which the ready line and the exit status do.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
