"""The recipe behind the bundled model: its tokenizer, its generated tasks, resumption, and the exported
files.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lapidist.evaluation.needle_facts import draw_needle
from recipes.tiny import corpus, export, facts, retrieval, schedule, tasks, train, words
from recipes.tiny.batches import make_batches
from recipes.tiny.model import ModelConfig, TinyLlama
from recipes.tiny.rows import Materials, Part
from recipes.tiny.tokenizer import BOS, encode, save_tokenizer, train_tokenizer

MICRO = ModelConfig(
    vocab_size=400, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32,
    intermediate_size=96, max_positions=2048,
)  # fmt: skip


def prose(seed: int, sentences: int = 400) -> str:
    """Sentences of random words: text enough to train a tokenizer on and to hide needles in."""
    rng = np.random.default_rng(seed)
    vocabulary = [facts.thing(rng) for _ in range(60)]
    lines = (
        " ".join(facts.pick(rng, vocabulary) for _ in range(6)).capitalize() + "." for _ in range(sentences)
    )
    return " ".join(lines) + "\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([prose(0)], vocab_size=MICRO.vocab_size)


@pytest.fixture(scope="module")
def materials(tokenizer: Tokenizer) -> Materials:
    tokens = np.asarray(encode(tokenizer, prose(1)), dtype=np.uint16)
    source = corpus.Source("prose", tokens, corpus.sentence_starts(tokens, tokenizer), 1.0)
    return Materials(tokenizer, [source], words.NOUNS)


@given(st.text())
def test_tokenizer_gives_any_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text), skip_special_tokens=False) == text


@given(st.integers(0, 10**12))
def test_every_digit_is_one_token(tokenizer: Tokenizer, value: int) -> None:
    assert [tokenizer.decode([token]) for token in encode(tokenizer, str(value))] == list(str(value))


def test_tokenizer_prepends_bos_only_when_asked(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("river").ids == [tokenizer.token_to_id(BOS), *encode(tokenizer, "river")]


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(64, 700), task=st.sampled_from(sorted(tasks.TASKS)))
@settings(deadline=None, max_examples=60)
def test_rows_have_the_length_asked_for(materials: Materials, seed: int, length: int, task: str) -> None:
    row = tasks.TASKS[task](np.random.default_rng(seed), length, materials)
    assert len(row.tokens) == len(row.parts) == length
    assert max(row.tokens) < MICRO.vocab_size


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_facts_state_their_answer_after_their_subject(seed: int) -> None:
    for fact in facts.random_facts(np.random.default_rng(seed), 5):
        assert fact.statement.rstrip(".").endswith(fact.answer) or fact.subject == "pass key"
        assert f"{fact.lead.split()[-1]}{fact.answer}." in fact.statement or fact.subject.startswith("magic")


def answers(row_tokens: list[int], row_parts: list[int], part: Part) -> list[tuple[int, int]]:
    """Spans [start, end) of consecutive tokens of `part`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(row_parts) == part, [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_needle_answer_stands_in_the_haystack(materials: Materials, seed: int) -> None:
    row = tasks.needle_row(np.random.default_rng(seed), 600, materials)
    spans = answers(row.tokens, row.parts, Part.NEEDLE)
    assert spans
    for start, end in spans[:-1]:  # the last may be cut by the row's end
        answer = materials.tokenizer.decode(row.tokens[start:end])
        before = materials.tokenizer.decode(row.tokens[:start])
        assert answer in before, answer


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_lookup_gives_the_value_the_table_gives(materials: Materials, seed: int) -> None:
    row = tasks.key_value_row(np.random.default_rng(seed), 400, materials)
    lines = materials.tokenizer.decode(row.tokens).split("\n")
    for _, end in answers(row.tokens, row.parts, Part.KEY_VALUE)[:-1]:
        lookup = materials.tokenizer.decode(row.tokens[:end]).split("\n")[-1]
        assert any(line and lookup.endswith(line) for line in lines[1:]), lookup


@given(
    seed=st.integers(0, 2**32 - 1), length=st.integers(800, 1500), depth=st.floats(0, 1),
    style=st.sampled_from(retrieval.STYLES),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_probes_hide_the_answer_near_their_depth(
    materials: Materials, seed: int, length: int, depth: float, style: str
) -> None:
    haystack = retrieval.haystack_of(prose(2, 100), materials.tokenizer)
    rng = np.random.default_rng(seed)
    probe = retrieval.make_probe(rng, haystack, length, depth, materials.tokenizer, style)
    text, answer = materials.tokenizer.decode(probe.prompt), materials.tokenizer.decode(probe.answer)
    assert len(probe.prompt) + len(probe.answer) == length
    lead = text.rsplit("?", 1)[1].removeprefix("<|end|><|assistant|>").strip()
    assert text.count(f"{lead}{answer}.") == 1
    # The nearest sentence start is at most a sentence away; needle and question take up to 200 tokens of
    # the length.
    before = len(encode(materials.tokenizer, text[: text.index(lead)]))
    assert abs(before - depth * length) < 250


def test_prompt_and_answer_tokenize_as_one_text(materials: Materials) -> None:
    rng = np.random.default_rng()
    for style in retrieval.STYLES:
        needle = draw_needle(rng, style)
        apart = encode(materials.tokenizer, needle.lead) + encode(materials.tokenizer, needle.answer)
        assert encode(materials.tokenizer, needle.lead + needle.answer) == apart


def test_exact_match_is_what_greedy_decoding_gives(materials: Materials) -> None:
    model = TinyLlama(MICRO, seed=int(np.random.default_rng().integers(2**31)))
    prompt = materials.encode(prose(3, 1))
    greedy = list(prompt)
    for _ in range(4):
        greedy.append(int(model(torch.tensor([greedy]))[0, -1].argmax()))
    right, wrong = greedy[len(prompt) :], greedy[len(prompt) :]
    wrong = [*wrong[:-1], (wrong[-1] + 1) % MICRO.vocab_size]
    probes = [retrieval.Probe(prompt, right), retrieval.Probe(prompt, wrong)]
    assert retrieval.exact_matches(model, probes) == [True, False]


def test_batches_depend_on_seed_and_step_alone(materials: Materials) -> None:
    first, again, other = (make_batches(7, step, 0, 1024, materials) for step in (3, 3, 4))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a.inputs, b.inputs) for a, b in zip(first, other, strict=True))


def test_resumed_run_equals_uninterrupted_run(materials: Materials, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    options = train.Options(steps=6, micro_tokens=1024, compile=False)
    haystack = retrieval.haystack_of(prose(2), materials.tokenizer)

    def run(folder: Path, steps_before_kill: int | None) -> TinyLlama:
        folder.mkdir()
        trainer = train.Trainer(MICRO, options, materials)
        if steps_before_kill is not None:
            for _ in range(steps_before_kill):
                trainer.step()
            train.save_checkpoint(folder / "checkpoint.pt", trainer.model, trainer.optimizers, trainer.state)
            trainer = train.Trainer(MICRO, replace(options, seed=options.seed), materials)
        train.train(trainer, folder, haystack, lambda line: None)
        assert trainer.state.step == 6
        return trainer.model

    whole, resumed = run(tmp_path / "whole", None), run(tmp_path / "resumed", 3)
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@torch.no_grad()
def test_held_out_loss_is_the_mean_over_windows(materials: Materials) -> None:
    trainer = train.Trainer(MICRO, train.Options(steps=1, compile=False), materials)
    tokens = np.random.default_rng().integers(0, MICRO.vocab_size, 200)
    length = schedule.STAGES[0].length
    losses = [
        torch.nn.functional.cross_entropy(
            trainer.model(torch.tensor(window[None, :-1]))[0], torch.tensor(window[1:]), reduction="none"
        )
        for window in np.split(tokens, range(length + 1, len(tokens), length + 1))
    ]
    assert trainer.held_out_loss(tokens) == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_the_best_checkpoint_is_exported(materials: Materials, tmp_path: Path) -> None:
    trainer = train.Trainer(MICRO, train.Options(steps=2, compile=False), materials)
    trainer.state.stage = len(schedule.STAGES) - 1
    materials.tokenizer.save(str(tmp_path / "tokenizer.json"))
    train.train(trainer, tmp_path, retrieval.haystack_of(prose(2), materials.tokenizer), lambda line: None)
    assert trainer.state.least_held_out is not None
    best = TinyLlama(MICRO, seed=5)
    train.save_checkpoint(tmp_path / "best.pt", best, [], trainer.state)
    exported, _ = export.load_run(tmp_path)
    assert torch.equal(exported.embedding.weight, best.embedding.weight)
    (tmp_path / "best.pt").unlink()
    exported, _ = export.load_run(tmp_path)
    assert torch.equal(exported.embedding.weight, trainer.model.embedding.weight)


def test_pauses_do_not_count_as_training_time() -> None:
    state = train.RunState()
    for _ in range(20):
        state.add_duration(1.0)
    state.add_duration(3600.0)
    assert state.seconds == pytest.approx(30.0)


def test_log_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = train.Log(path, 0)
    for step in (10, 20, 30):
        log.add({"step": step})
    train.Log(path, 20)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]


def test_export_loads_in_transformers_with_the_same_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = TinyLlama(MICRO, seed=1)
    export.export(model, tokenizer, tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())  # what the file holds
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(MICRO.vocab_size, (2, 70))
    assert torch.allclose(theirs(tokens).logits, model(tokens), atol=1e-4)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chat = loaded.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|bos|><|user|>Hi<|end|><|assistant|>"
    assert theirs.generation_config.eos_token_id == [
        tokenizer.token_to_id("<|eos|>"),
        tokenizer.token_to_id("<|end|>"),
    ]


def test_tail_is_held_out_and_nothing_is_lost(tmp_path: Path) -> None:
    article = " \n = Title = \n \n Some text , a 1 @,@ 000 words . \n"
    head, tail = corpus.split_wikitext(article * 200)
    assert head + tail == article * 200
    assert 0.07 < len(tail) / len(article * 200) <= 0.1
    assert tail.startswith(" = Title = ")


def test_evaluation_texts_are_not_trained_on() -> None:
    assert not {"wikitext2_test", "needle_haystack_essays", "wikitext2_valid"} & set(corpus.SOURCE_WEIGHTS)


def test_missing_data_is_one_clear_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--data", str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "no training text at" in message
    assert "--data" in message
    assert len(message.strip().splitlines()) == 1


def test_detokenized_text_reads_as_prose() -> None:
    assert (
        corpus.detokenize(' He said : " It \'s 1 @,@ 000 ( or so ) . " \n')
        == 'He said: "It\'s 1,000 (or so)."\n'
    )


def test_texts_are_read_as_they_are(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "sample.txt.gz", "wb") as file:
        file.write("a\r\nb é".encode())
    assert corpus.read_text(tmp_path, "sample") == "a\r\nb é"


def test_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, 256)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).to_str() == tokenizer.to_str()
