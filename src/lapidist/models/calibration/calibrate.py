"""Calibration of attention's mode unified: text in, a phi that suits the model out, and how well it does on other text.

The published method (FlashDecoding++, arXiv 2311.01282) takes one phi per model from statistics that it does not
describe. This one keeps the maxima of every layer's and head's rows of scores, and chooses with
``lapidist.kernels.phi``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lapidist.kernels.phi import Band, PhiChoice, choose_phi, safe_band
from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.calibration.held_out import GOAL, HeldOut, check_held_out
from lapidist.models.calibration.row_statistics import RowStatistics
from lapidist.models.calibration.sequence_run import SequenceRun
from lapidist.models.calibration.token_sequences import TokenSequences, token_sequences
from lapidist.models.config import ModelConfig
from lapidist.models.decoder import Decoder
from lapidist.models.softmax_config import SoftmaxConfig
from lapidist.models.tokenizer import Tokenizer

# Of the rows of a head whose maxima are too far apart for any phi, the lowest and the highest such shares may lie
# outside: they are computed again, and without this a longer text would only ever make success less likely.
RAREST_ROWS = 0.0005

DEFAULT_TOKENS = 16384
DEFAULT_CONTEXT = 2048

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibration:
    """The outcome.

    Attributes
    ----------
    statistics : of the text that phi was chosen on.
    bands : per layer, where row maxima less phi may lie at the model's full context.
    choice : phi, or the heads for which there is none.
    held_out : mode unified with this phi on the rest of the text; None where there is no phi.
    tokens, context : how many were run, and the longest sequence.
    """

    statistics: RowStatistics
    bands: tuple[Band, ...]
    choice: PhiChoice
    held_out: HeldOut | None
    tokens: int
    context: int

    @property
    def succeeded(self) -> bool:
        """There is a phi, and on the held-out text it was good enough."""
        return self.held_out is not None and self.held_out.rate <= GOAL

    @property
    def softmax(self) -> SoftmaxConfig:
        """What to run the model with: mode unified with phi, or mode lazy if the calibration did not succeed."""
        if self.choice.phi is not None and self.succeeded:
            return SoftmaxConfig(SoftmaxMode.UNIFIED, self.choice.phi)
        return SoftmaxConfig.uncalibrated(*self.statistics.lowest.shape)

    @property
    def slack(self) -> list[list[float]] | None:
        """Per layer and head, how far inside the band all maxima stayed; None where there is no phi."""
        if self.choice.phi is None:
            return None
        lowest, highest = self.statistics.lowest.tolist(), self.statistics.highest.tolist()
        return [
            [band.slack(*head) for head in zip(*rows, strict=True)]
            for band, *rows in zip(self.bands, lowest, highest, self.choice.phi, strict=True)
        ]


def calibrate_attention(
    decoder: Decoder,
    tokenizer: Tokenizer,
    texts: Iterable[str] | None = None,
    *,
    tokens: int = DEFAULT_TOKENS,
    context: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Calibration:
    """Find phi for a model.

    Parameters
    ----------
    texts : documents; None is a mixture that ships with Lapidist.
    tokens : to run, fewer if the text has fewer. The last fifth of them does not choose phi but tests it.
    context : length of the sequences; None is 2048 or the model's context, whichever is less.
    progress : called with the tokens run so far and in all.

    Raises
    ------
    ValueError : ``tokens`` or ``context`` is out of range, or the text is too short.
    """
    longest = decoder.config.max_position_embeddings
    context = min(DEFAULT_CONTEXT, longest) if context is None else context
    if not 2 <= context <= longest:
        raise ValueError(f"context must be from 2 to the model's {longest} tokens, got {context}")
    texts = default_texts() if texts is None else texts
    sequences = token_sequences(tokenizer, texts, tokens, context, decoder.config.vocab_size)
    return calibrate_on(decoder, sequences, context, progress)


def calibrate_on(
    decoder: Decoder, sequences: TokenSequences, context: int, progress: Progress = lambda done, total: None
) -> Calibration:
    """The same for token sequences of at most ``context`` tokens."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, sequences.tokens)

    statistics = RowStatistics(decoder.config, decoder.device)
    run = SequenceRun(decoder, context)
    for sequence in sequences.chosen_on:
        for span in run.run(sequence, statistics.observe):
            advance(len(span))
    bands = layer_bands(decoder.config, statistics)
    choice = _choose(statistics, bands)
    held_out = None
    if choice.phi is not None:
        unified = decoder.with_softmax(SoftmaxConfig(SoftmaxMode.UNIFIED, choice.phi))
        held_out = check_held_out(unified, sequences.held_out, advance)
    return Calibration(statistics, bands, choice, held_out, sequences.tokens, context)


def _choose(statistics: RowStatistics, bands: tuple[Band, ...]) -> PhiChoice:
    """By all row maxima of every head or, where those do not fit, by all but the rarest."""
    lowest, highest = statistics.lowest.tolist(), statistics.highest.tolist()
    choice = choose_phi(lowest, highest, bands)
    if choice.phi is not None:
        return choice
    low, high = statistics.quantile(RAREST_ROWS).tolist(), statistics.quantile(1 - RAREST_ROWS).tolist()
    for misfit in choice.misfits:
        lowest[misfit.layer][misfit.head] = low[misfit.layer][misfit.head]
        highest[misfit.layer][misfit.head] = high[misfit.layer][misfit.head]
    return choose_phi(lowest, highest, bands)


def layer_bands(config: ModelConfig, statistics: RowStatistics) -> tuple[Band, ...]:
    """Of each layer for the longest context that the model takes, not only the one that was run."""
    context = config.max_position_embeddings
    return tuple(
        safe_band(context if window is None else min(window, context), largest)
        for window, largest in zip(config.sliding_windows, statistics.largest_value.tolist(), strict=True)
    )
