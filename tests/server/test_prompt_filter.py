"""``prompt_filter`` of a request, over HTTP."""

import json
from typing import Any

import pytest

MODEL = "random-llama"
PROMPT = [(7 * i) % 300 for i in range(200)]
GEMFILTER = {"method": "gemfilter", "layer": 1, "keep": 50}
COMPLETION = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "ignore_eos": True}


def test_answer_tells_what_the_filter_did(served) -> None:
    with served.http() as http:
        answer = http.post("/v1/completions", json={**COMPLETION, "prompt_filter": GEMFILTER}).json()
    [report] = answer["prompt_filter"]
    assert (report["prompt_tokens"], report["kept_tokens"], report["layer"]) == (200, 50, 1)
    assert "kept" not in report
    assert "spans" not in report
    assert answer["usage"]["prompt_tokens"] == 200


def test_explained(served) -> None:
    body = {**COMPLETION, "prompt_filter": {**GEMFILTER, "explain": True}}
    with served.http() as http:
        [report] = http.post("/v1/completions", json=body).json()["prompt_filter"]
    assert len(report["kept"]) == 50
    assert len(report["scores"]) == 200
    covered = [place for span in report["spans"] for place in range(span["start"], span["end"])]
    assert covered == report["kept"]
    assert all(span["text"] for span in report["spans"])


def test_without_a_filter_there_is_no_report(served) -> None:
    with served.http() as http:
        assert "prompt_filter" not in http.post("/v1/completions", json=COMPLETION).json()


@pytest.mark.parametrize("usage", [True, False])
def test_streams_report_once(served, usage: bool) -> None:
    chat = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "the cat sat on the mat " * 20}],
        "max_tokens": 3,
        "n": 2,
        "ignore_eos": True,
    }
    with served.http() as http:
        for path, body in (("/v1/chat/completions", chat), ("/v1/completions", {**COMPLETION, "n": 2})):
            body = {
                **body,
                "stream": True,
                "prompt_filter": GEMFILTER,
                "stream_options": {"include_usage": usage},
            }
            lines = http.post(path, json=body).text.split("\n\n")[:-2]
            chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
            reports = [chunk["prompt_filter"] for chunk in chunks if "prompt_filter" in chunk]
            assert len(reports) == 1
            assert "kept_tokens" in str(reports)


def test_openai_client_passes_it_in_extra_body(served) -> None:
    extra = {"prompt_filter": GEMFILTER, "ignore_eos": True}
    client = served.openai_sync()
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, extra_body=extra)
    assert answer.prompt_filter[0]["kept_tokens"] == 50


@pytest.mark.parametrize(
    ("prompt_filter", "named"),
    [
        ({"method": "oracle"}, "gemfilter"),
        ({}, "method"),
        ({"method": "gemfilter", "kep": 3}, "kep"),
        ({"method": "gemfilter", "keep": 1.5}, "keep"),
        ({"method": "gemfilter", "layer": 99}, "layer"),
        ("gemfilter", "prompt_filter"),
    ],
)
def test_bad_filters_get_one_sentence(served, prompt_filter: Any, named: str) -> None:
    with served.http() as http:
        response = http.post("/v1/completions", json={**COMPLETION, "prompt_filter": prompt_filter})
    assert response.status_code == 400
    assert named in response.json()["error"]["message"] + str(response.json()["error"]["param"])


def test_prompt_logprobs_are_refused(served) -> None:
    body = {**COMPLETION, "echo": True, "logprobs": 1, "prompt_filter": GEMFILTER}
    with served.http() as http:
        response = http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt_filter"


def test_metrics_count_filtered_tokens(served) -> None:
    with served.http() as http:
        http.post("/v1/completions", json={**COMPLETION, "prompt_filter": GEMFILTER})
        text = http.get("/metrics").text
    assert "lapidist_filtered_prompt_tokens_total" in text
    assert "lapidist_filtering_sequences 0.0" in text
