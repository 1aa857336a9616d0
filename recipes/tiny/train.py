"""Train the bundled model: `python -m recipes.tiny.train --help`.

A run lives in one folder: tokenizer, checkpoint, metrics. Started again with the same folder it goes on
where it stopped, with the rows it would have seen. Give it time (`--minutes`) or steps (`--steps`);
learning rate and curriculum follow the share of that budget already spent, so the decay happens inside it
on any machine.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from tokenizers import Tokenizer
from torch import Tensor

from recipes.tiny import corpus, schedule
from recipes.tiny.batches import Batch, make_batches
from recipes.tiny.model import ModelConfig, TinyLlama
from recipes.tiny.retrieval import Haystack, accuracy_grid, haystack_of
from recipes.tiny.rows import Materials, Part, whole_words
from recipes.tiny.run_state import BEST, Log, RunState, load_checkpoint, save_checkpoint
from recipes.tiny.tokenizer import save_tokenizer, train_tokenizer

RUNS = Path(__file__).parent / "runs"
DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "text"
DEPTHS = [0.0, 0.25, 0.5, 0.75, 1.0]


@dataclass(frozen=True)
class Options:
    """Everything a run is told."""

    minutes: float | None = None
    steps: int | None = None
    micro_tokens: int = 2048
    matrix_learning_rate: float = 0.02
    other_learning_rate: float = 0.003
    seed: int = 0
    compile: bool = True
    device: str = "cpu"
    checkpoint_seconds: float = 180.0
    evaluate_seconds: float = 300.0

    def progress(self, state: RunState) -> float:
        """Share of the budget spent, 1 when it is time to stop."""
        spent = state.step / self.steps if self.steps else state.seconds / (60 * (self.minutes or 1.0))
        return min(1.0, spent)


def make_optimizers(model: TinyLlama, options: Options) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the blocks' matrices, AdamW for embedding and norms."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    others = [model.embedding.weight, *(p for p in model.parameters() if p.ndim == 1)]
    return [
        torch.optim.Muon(matrices, lr=options.matrix_learning_rate, weight_decay=0.1),
        torch.optim.AdamW(others, lr=options.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def token_losses(hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each of [positions]; softmax in fp32."""
    logits = F.linear(hidden, embedding.to(hidden.dtype)).float()
    return F.cross_entropy(logits, targets, reduction="none")


class Trainer:
    """A model, its optimizers and its counters; `step()` trains on one batch of rows."""

    def __init__(self, config: ModelConfig, options: Options, materials: Materials) -> None:
        self.options, self.materials = options, materials
        self.device = torch.device(options.device)
        self.dtype = torch.bfloat16 if options.compile else torch.float32
        self.model = TinyLlama(config, seed=options.seed).to(self.device)
        self.optimizers = make_optimizers(self.model, options)
        self.state = RunState()
        self.losses: Callable[[Tensor, Tensor, Tensor], Tensor] = token_losses
        if options.compile:
            for block in self.model.blocks:
                block.compile(dynamic=False)
            self.losses = torch.compile(token_losses, dynamic=True)

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """One optimizer step; returns the summed loss of each part's tokens and their count, [parts] each."""
        state, options, began = self.state, self.options, time.perf_counter()
        progress = options.progress(state)
        due = schedule.due_stage(state.stage, progress, state.answer_loss)
        if due != state.stage:
            state.stage, state.answer_loss = due, None
        batches = make_batches(options.seed, state.step, state.stage, options.micro_tokens, self.materials)
        sums, counts = np.zeros(len(Part)), np.zeros(len(Part))
        longest = schedule.STAGES[state.stage].length
        answers: list[float] = []
        for batch in batches:
            batch_sums, batch_counts = self.accumulate(batch)
            sums, counts = sums + batch_sums, counts + batch_counts
            asked = batch_counts[[Part.KEY_VALUE, Part.NEEDLE]].sum()
            if batch.inputs.shape[1] == longest and asked:
                answers.append(batch_sums[[Part.KEY_VALUE, Part.NEEDLE]].sum() / asked)
        self.update(schedule.learning_rate_factor(progress))
        state.step += 1
        state.tokens += sum(batch.inputs.numel() for batch in batches)
        if answers:
            # Started high, so that a stage lasts some dozens of steps at least.
            before = 8.0 if state.answer_loss is None else state.answer_loss
            state.answer_loss = 0.95 * before + 0.05 * float(np.mean(answers))
        state.add_duration(time.perf_counter() - began)
        return sums, counts

    def accumulate(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Forward and backward of one micro-batch; only positions with a weight reach the vocabulary."""
        hidden = self.model.hidden(batch.inputs.to(self.device), self.dtype)
        weights = batch.weights.flatten()
        chosen = weights.nonzero().squeeze(1)
        picked = hidden.flatten(0, 1)[chosen.to(self.device)]
        losses = self.losses(
            picked, self.model.embedding.weight, batch.targets.flatten()[chosen].to(self.device)
        )
        (losses * weights[chosen].to(self.device)).sum().div(batch.inputs.numel()).backward()
        parts = batch.parts.flatten()[chosen].numpy()
        values = losses.detach().double().cpu().numpy()
        return np.bincount(parts, values, len(Part)), np.bincount(parts, minlength=len(Part)).astype(float)

    def update(self, factor: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(
            self.optimizers,
            (self.options.matrix_learning_rate, self.options.other_learning_rate),
            strict=True,
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()

    @torch.inference_mode()
    def held_out_loss(self, tokens: np.ndarray) -> float:
        """Mean loss of unseen text in nats per token, in whole windows of the longest rows trained so far."""
        length = schedule.STAGES[self.state.stage].length
        total, count = 0.0, 0
        with torch.compiler.set_stance("force_eager"):
            for window in torch.from_numpy(tokens.astype(np.int64)).split(length + 1):
                hidden = self.model.hidden(window[None, :-1].to(self.device), self.dtype)[0]
                targets = window[1:].to(self.device)
                total += float(token_losses(hidden, self.model.embedding.weight, targets).sum())
                count += len(targets)
        return total / count

    def retrieval(self, haystack: Haystack, trials: int = 4) -> dict[str, list[float]]:
        """Exact-match accuracy per depth at the current lengths, on held-out text."""
        lengths = [stage.length for stage in schedule.STAGES[: self.state.stage + 1] if stage.length >= 256]

        def forward(tokens: Tensor) -> Tensor:
            hidden = self.model.hidden(tokens.to(self.device), self.dtype)
            return self.model.logits(hidden[:, -16:]).cpu()

        with torch.compiler.set_stance("force_eager"):  # not worth compiling for these lengths
            grid = accuracy_grid(forward, haystack, self.materials.tokenizer, lengths, DEPTHS, trials, seed=1)
        return {str(length): grid[:, column].tolist() for column, length in enumerate(lengths)}


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty on SIGINT or SIGTERM, so that a run ends with a checkpoint."""
    received: list[int] = []
    old = {
        number: signal.signal(number, lambda n, _: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def prepare(data: Path, run: Path, config: ModelConfig) -> Materials:
    """Train the tokenizer if the run has none yet, and tokenize the text."""
    path = run / "tokenizer.json"
    if not path.is_file():
        texts = corpus.training_texts(data).values()
        tokenizer = train_tokenizer(
            (piece for text in texts for piece in corpus.chunks(text)), config.vocab_size
        )
        save_tokenizer(tokenizer, run, config.max_positions)
    tokenizer = Tokenizer.from_file(str(path))
    return Materials(tokenizer, corpus.load_sources(data, tokenizer), whole_words(tokenizer))


def train(trainer: Trainer, run: Path, haystack: Haystack, show: Callable[[str], None]) -> None:
    """Step until the budget is spent or a signal comes, checkpointing and evaluating on the way."""
    options, checkpoint = trainer.options, run / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.state = load_checkpoint(checkpoint, trainer.model, trainer.optimizers)
        show(f"resumed at step {trainer.state.step}")
    log = Log(run / "metrics.jsonl", trainer.state.step)
    saved = evaluated = trainer.state.seconds
    sums, counts = np.zeros(len(Part)), np.zeros(len(Part))
    with stop_requests() as stop:
        while options.progress(trainer.state) < 1 and not stop:
            step_sums, step_counts = trainer.step()
            sums, counts, state = sums + step_sums, counts + step_counts, trainer.state
            if state.step % 10 == 0:
                record = {
                    "step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 1),
                    "stage": state.stage, "progress": round(options.progress(state), 4),
                    "loss": {p.name.lower(): round(float(sums[p] / counts[p]), 4) for p in Part if counts[p]},
                }  # fmt: skip
                log.add(record)
                show(" ".join(f"{key}={value}" for key, value in record.items()))
                sums, counts = np.zeros(len(Part)), np.zeros(len(Part))
            if state.seconds - evaluated >= options.evaluate_seconds or options.progress(state) >= 1:
                evaluated = state.seconds
                accuracy, unseen = trainer.retrieval(haystack), trainer.held_out_loss(haystack.tokens)
                log.add(
                    {
                        "step": state.step, "seconds": round(state.seconds, 1),
                        "retrieval": accuracy, "held_out_loss": round(unseen, 4),
                    }
                )  # fmt: skip
                show(f"retrieval by length, depths {DEPTHS}: {accuracy}; loss of unseen text: {unseen:.4f}")
                if state.stage + 1 == len(schedule.STAGES) and unseen < (
                    state.least_held_out or float("inf")
                ):
                    # The text is small enough to be learnt by heart: the last checkpoint need not be the best.
                    state.least_held_out = unseen
                    save_checkpoint(run / BEST, trainer.model, trainer.optimizers, state)
            if state.seconds - saved >= options.checkpoint_seconds:
                saved = state.seconds
                save_checkpoint(checkpoint, trainer.model, trainer.optimizers, state)
    save_checkpoint(checkpoint, trainer.model, trainer.optimizers, trainer.state)
    show(f"stopped at step {trainer.state.step}, {options.progress(trainer.state):.0%} of the budget spent")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m recipes.tiny.train", description="Train Lapidist's bundled model."
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with the *.txt.gz texts (default: %(default)s)"
    )
    parser.add_argument(
        "--run", type=Path, default=RUNS / "bundled", help="folder of this run (default: %(default)s)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--minutes", type=float, help="training time to spend over all resumptions (default: 80)"
    )
    budget.add_argument("--steps", type=int, help="optimizer steps to take instead of a time budget")
    parser.add_argument(
        "--micro-tokens", type=int, default=Options.micro_tokens, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--matrix-lr", type=float, default=Options.matrix_learning_rate, help="Muon's learning rate"
    )
    parser.add_argument(
        "--other-lr", type=float, default=Options.other_learning_rate, help="AdamW's learning rate"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="fp32 and no torch.compile: slower, no compiler needed"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    options = Options(
        minutes=None if given.steps else given.minutes or 80.0,
        steps=given.steps,
        micro_tokens=given.micro_tokens,
        matrix_learning_rate=given.matrix_lr,
        other_learning_rate=given.other_lr,
        seed=given.seed,
        compile=not given.no_compile,
        device=given.device,
    )
    config = ModelConfig()
    given.run.mkdir(parents=True, exist_ok=True)
    try:
        materials = prepare(given.data, given.run, config)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    _, tail = corpus.split_wikitext(corpus.read_text(given.data, "wikitext2_valid"))
    haystack = haystack_of(tail, materials.tokenizer)
    trainer = Trainer(config, options, materials)
    if sys.stdout.isatty():
        with Progress() as progress:
            task = progress.add_task("training", total=1.0)

            def show(line: str) -> None:
                progress.update(task, completed=options.progress(trainer.state))
                progress.console.print(line)

            train(trainer, given.run, haystack, show)
    else:
        train(trainer, given.run, haystack, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
