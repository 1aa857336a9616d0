from pathlib import Path

import pytest
from typer.testing import CliRunner

from lapidist.cli.bench import bench
from lapidist.engine.async_llm import AsyncLLM
from lapidist.evaluation.serving.benchmark import Benchmark
from lapidist.evaluation.serving.engine_target import EngineTarget
from lapidist.workload import read_steps
from lapidist.workload.trace_spec import TraceSpec


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_every_request_runs_to_its_length(llama_directory: Path, concurrency: int | None) -> None:
    spec = TraceSpec("poisson:300", requests=12, prompt_length="uniform:1:90", output_length="uniform:1:20")
    llm = AsyncLLM(llama_directory, kv_cache_bytes=1 << 24)
    try:
        result = await Benchmark(spec, concurrency).run(EngineTarget(llm), llm.tokenizer, llm.max_model_len)
    finally:
        llm.shutdown()
    trace, left_out = spec.load(None, 512)
    assert left_out == 0
    assert result.metrics.errors == {}
    for record, request in zip(result.records, trace, strict=True):
        assert (record.prompt_tokens, record.output_tokens) == (request.prompt_tokens, request.output_tokens)
        assert 1 <= len(record.chunk_seconds) <= request.output_tokens


async def test_what_the_engine_refuses_is_counted(llama_directory: Path) -> None:
    spec = TraceSpec("poisson:300", requests=3, prompt_length="600", output_length="4")
    llm = AsyncLLM(llama_directory, kv_cache_bytes=1 << 24)
    try:
        result = await Benchmark(spec).run(EngineTarget(llm), llm.tokenizer)
        stats = llm.stats()
    finally:
        llm.shutdown()
    assert result.metrics.failed == 3
    assert len(result.metrics.errors) == 1
    assert stats.running == 0


def test_the_command_measures_and_records(llama_directory: Path, tmp_path: Path) -> None:
    steps = tmp_path / "steps.jsonl"
    command = ["serve", str(llama_directory), "--trace", "poisson:100", "--requests", "4"]
    lengths = ["--prompt-length", "20", "--output-length", "5", "--record", str(steps)]
    result = CliRunner().invoke(bench, [*command, *lengths])
    assert result.exit_code == 0, result.output
    assert "4 completed" in result.stdout
    recorded = list(read_steps(steps))
    warm_up = (16, 4)
    assert sum(step.logit_rows for step in recorded) == 4 * 5 + warm_up[1]
    assert sum(step.tokens for step in recorded) == 4 * (20 + 4) + warm_up[0] + 3
