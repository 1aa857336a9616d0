"""What quantization cost: checkpoints of one model side by side, in size, quality and speed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lapidist.evaluation.divergence import Comparison, Divergence, check_vocabularies, compare
from lapidist.evaluation.haystack import haystack_of
from lapidist.evaluation.needle import NeedleAccuracy, lengths_within, measure_needles
from lapidist.evaluation.perplexity import Perplexity
from lapidist.evaluation.speed import Speed, measure_speeds
from lapidist.evaluation.text import TokenizedText, joined, tokenize
from lapidist.evaluation.windows import Window, cut
from lapidist.models.checkpoint_parts import CheckpointParts, checkpoint_parts
from lapidist.models.config import ModelConfig
from lapidist.models.decoder import Decoder
from lapidist.models.load import load_decoder, resolve_device, resolve_dtype
from lapidist.models.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and all."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how.

    Attributes
    ----------
    window, stride, bos : as ``size``, ``stride`` and ``open_each`` of ``windows.cut``.
    max_tokens : of the text; None is all of it.
    needle_lengths, needle_trials, seed : as in ``needle.measure_needles``; needles are hidden in the text.
    speed : also measure tokens per second.
    """

    dtype: str = "auto"
    device: str = "cpu"
    window: int | None = None
    stride: int | None = None
    bos: bool = False
    max_tokens: int | None = None
    needle_lengths: tuple[int, ...] | None = None
    needle_trials: int = 5
    seed: int = 0
    speed: bool = True


@dataclass(frozen=True)
class Row:
    """One checkpoint. The reference has no divergence, and nobody a speed if it was not measured."""

    checkpoint: Path
    parts: CheckpointParts
    perplexity: Perplexity
    divergence: Divergence | None
    needles: NeedleAccuracy
    speed: Speed | None = None

    @property
    def recipe(self) -> str:
        """Of a quantized checkpoint, else the name of its dtype."""
        config = self.parts.config
        return config.quantization.recipe if config.quantization else str(config.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class QuantizationReport:
    """The reference, then the candidates in the order given."""

    rows: tuple[Row, ...]
    settings: Settings
    text_tokens: int

    @property
    def reference(self) -> Row:
        return self.rows[0]

    def perplexity_rise(self, row: Row) -> float:
        """Share by which the perplexity is above the reference's."""
        return row.perplexity.perplexity / self.reference.perplexity.perplexity - 1

    def labels(self) -> list[str]:
        """A name for each row: the recipe, with the directory where that is not enough."""
        recipes = [row.recipe for row in self.rows]
        return [
            recipe if recipes.count(recipe) == 1 else f"{recipe} ({row.checkpoint.name})"
            for recipe, row in zip(recipes, self.rows, strict=True)
        ]


def evaluate_quantization(
    reference: Path,
    candidates: Sequence[Path],
    texts: Sequence[str],
    settings: Settings,
    progress: Progress = lambda label, done, total: None,
) -> QuantizationReport:
    """Measure all checkpoints. Two of them are in memory at a time, and all of them for the speed.

    Raises
    ------
    CheckpointError : a checkpoint cannot be used.
    ValueError : the checkpoints are not of the same model, a setting is out of range, or the text is too short.
    """
    checkpoints = [reference, *candidates]
    parts = [checkpoint_parts(checkpoint) for checkpoint in checkpoints]
    context = min(each.config.max_position_embeddings for each in parts)
    text = _common_text(checkpoints, texts, settings.max_tokens)
    windows = cut(text, context, settings.window, settings.stride, settings.bos)
    needles = _Needles(Tokenizer.from_directory(reference), texts, context, settings)
    rows = _rows_of_quality(checkpoints, parts, windows, needles, settings, progress)
    if settings.speed:
        speeds = measure_speeds(
            checkpoints, settings.dtype, settings.device, progress=_labelled(progress, "speed")
        )
        rows = [replace(row, speed=speed) for row, speed in zip(rows, speeds, strict=True)]
    return QuantizationReport(tuple(rows), settings, len(text.token_ids))


def _rows_of_quality(
    checkpoints: Sequence[Path],
    parts: Sequence[CheckpointParts],
    windows: Sequence[Window],
    needles: "_Needles",
    settings: Settings,
    progress: Progress,
) -> list[Row]:
    """Rows without speed."""
    dtype, device = resolve_dtype(settings.dtype), resolve_device(settings.device)
    reference = load_decoder(checkpoints[0], dtype, device)
    # Before the windows, which take longest: a length that does not suit the text is noticed at once.
    reference_needles = needles.measure(reference, _labelled(progress, f"{checkpoints[0].name}: needles"))

    def compared(checkpoint: Path) -> tuple[Comparison, NeedleAccuracy]:
        decoder = load_decoder(checkpoint, dtype, device)
        comparison = compare(reference, decoder, windows, _labelled(progress, f"{checkpoint.name}: text"))
        return comparison, needles.measure(decoder, _labelled(progress, f"{checkpoint.name}: needles"))

    found = [compared(checkpoint) for checkpoint in checkpoints[1:]]
    rows = [Row(checkpoints[0], parts[0], found[0][0].reference, None, reference_needles)]
    for checkpoint, own_parts, (comparison, accuracy) in zip(checkpoints[1:], parts[1:], found, strict=True):
        rows.append(Row(checkpoint, own_parts, comparison.candidate, comparison.divergence, accuracy))
    return rows


class _Needles:
    """The same needles for every checkpoint."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], context: int, settings: Settings) -> None:
        self._tokenizer = tokenizer
        self._haystack = haystack_of(joined(texts), tokenizer)
        self._lengths = lengths_within(context, settings.needle_lengths)
        self._settings = settings

    def measure(self, decoder: Decoder, progress: Callable[[int, int], None]) -> NeedleAccuracy:
        return measure_needles(
            decoder,
            self._tokenizer,
            self._haystack,
            lengths=self._lengths,
            trials=self._settings.needle_trials,
            seed=self._settings.seed,
            progress=progress,
        )


def _common_text(checkpoints: Sequence[Path], texts: Sequence[str], max_tokens: int | None) -> TokenizedText:
    """The text in the tokens of all checkpoints; raises ValueError if they do not share them."""
    first, *others = checkpoints
    vocab_size = ModelConfig.from_directory(first).vocab_size
    text = tokenize(Tokenizer.from_directory(first), texts, vocab_size, max_tokens)
    for other in others:
        check_vocabularies(vocab_size, ModelConfig.from_directory(other).vocab_size)
        if tokenize(Tokenizer.from_directory(other), texts, vocab_size, max_tokens) != text:
            raise ValueError(
                f"{other} has another tokenizer than {first}: only checkpoints of the same model can be compared"
            )
    return text


def _labelled(progress: Progress, label: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(label, done, total)
