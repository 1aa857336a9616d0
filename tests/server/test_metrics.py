"""What Prometheus reads adds up with what clients were told."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from lapidist.models.checkpoint_parts import checkpoint_parts

COMPLETION = {"model": "random-llama", "max_tokens": 5, "ignore_eos": True}
LASTING = {"model": "random-llama", "prompt": "the cat", "max_tokens": 60_000, "ignore_eos": True}


def samples(http) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value."""
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_counts(start) -> None:
    with start() as served, served.http() as http:
        usage = [
            http.post("/v1/completions", json={**COMPLETION, "prompt": prompt, "n": 2}).json()["usage"]
            for prompt in ("the cat", "the cat sat on the mat, and the dog ran", ["a", "b"])
        ]
        assert http.post("/v1/completions", json={**COMPLETION, "prompt": 5}).status_code == 400
        assert http.get("/some/address").status_code == 404
        with served.send("/v1/completions", LASTING):
            served.wait_until(lambda stats: stats.running == 1, "a running request")
        served.assert_idle()
        found = samples(http)

    generated = sum(each["completion_tokens"] for each in usage)
    assert generated == 4 * 2 * 5
    assert found["lapidist_generated_tokens_total",] >= generated
    assert found["lapidist_prompt_tokens_total",] >= sum(each["prompt_tokens"] for each in usage)
    assert found["lapidist_http_requests_total", "/v1/completions", "200"] == 3
    assert found["lapidist_http_requests_total", "/v1/completions", "400"] == 1
    assert found["lapidist_http_requests_total", "/v1/completions", "499"] == 1
    assert found["lapidist_http_requests_total", "other", "404"] == 1
    assert found["lapidist_completions_total", "length"] == 8
    assert found["lapidist_time_to_first_token_seconds_count",] == 4  # one per prompt
    assert found["lapidist_time_per_output_token_seconds_count",] == 4
    assert found["lapidist_request_duration_seconds_count",] == 4
    assert (
        found["lapidist_request_duration_seconds_sum",]
        > found["lapidist_time_to_first_token_seconds_sum",]
        > 0
    )
    assert found["lapidist_running_sequences",] == 0
    assert found["lapidist_waiting_sequences",] == 0
    assert found["lapidist_kv_pages_used",] == 0
    assert found["lapidist_kv_pages_total",] == served.engine.stats().pages_total
    assert found["lapidist_preemptions_total",] == 0
    assert found["lapidist_prefix_cache_queried_tokens_total",] > 0


def test_rows_of_attention(start) -> None:
    with start(attention_softmax="unified") as served, served.http() as http:
        assert samples(http)["lapidist_attention_rows_total",] == 0
        answer = http.post(
            "/v1/completions", json={**COMPLETION, "prompt": "the cat", "temperature": 0}
        ).json()
        served.assert_idle()
        found = samples(http)
    usage = answer["usage"]
    # One layer of four heads; the last token is not computed.
    assert found["lapidist_attention_rows_total",] == 4 * (usage["total_tokens"] - 1)
    assert found["lapidist_attention_rows_recomputed_total", "0"] == 0


def test_bytes_by_part(start, long_llama_directory: Path) -> None:
    with start() as served, served.http() as http:
        found = samples(http)
    parts = checkpoint_parts(long_llama_directory)
    assert found["lapidist_checkpoint_bytes", "weights"] == parts.byte_counts["weights"]
    assert sum(value for name, value in found.items() if "lapidist_checkpoint_bytes" in name) == parts.total
    assert found["lapidist_kv_bytes_per_token",] == parts.kv_bytes_per_token


def test_gauges_while_running(start) -> None:
    with start(max_num_seqs=1) as served, served.http() as http:
        with served.send("/v1/completions", LASTING), served.send("/v1/completions", LASTING):
            served.wait_until(lambda stats: stats.running == 1 and stats.waiting == 1, "a queue")
            found = samples(http)
        assert found["lapidist_running_sequences",] == 1
        assert found["lapidist_waiting_sequences",] == 1
        assert found["lapidist_kv_pages_used",] >= 1


def test_two_servers_in_a_process_do_not_mix(start) -> None:
    with start() as one, start() as other, one.http() as http, other.http() as other_http:
        http.get("/health")
        assert samples(http)["lapidist_http_requests_total", "/health", "200"] == 1
        assert ("lapidist_http_requests_total", "/health", "200") not in samples(other_http)
