"""Text to the token sequences whose activations a recipe looks at."""

import random
from collections.abc import Iterable

import torch
from torch import Tensor

from lapidist.models.calibration.default_text import default_texts
from lapidist.models.calibration.token_sequences import opening_tokens, token_stream
from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer
from lapidist.quantization.recipe import Calibration

# Sequences are drawn from so many times the text that they take.
_CHOICE = 4


def calibration_tokens(
    tokenizer: Tokenizer, texts: Iterable[str] | None, calibration: Calibration, context: int, vocab_size: int
) -> Tensor:
    """int64 ``[sequences, length]``: passages that the seed chooses, each after the beginning-of-text token.

    There are fewer sequences if the text has fewer, and they are shorter if the model's ``context`` is.

    Parameters
    ----------
    texts : documents; None is a mixture that ships with Lapidist.

    Raises
    ------
    ValueError : the text does not fill one sequence.
    CheckpointError : the tokenizer is not the model's.
    """
    length = min(calibration.length, context)
    opening = opening_tokens(tokenizer)
    step = length - len(opening)
    wanted = _CHOICE * calibration.sequences * step
    stream = token_stream(tokenizer, default_texts() if texts is None else texts, wanted)
    if len(stream) < step:
        raise ValueError(f"the calibration text has {len(stream)} tokens: one sequence takes {step}")
    if max(stream) >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives token id {max(stream)}, and the model has {vocab_size}: it is another model's"
        )
    starts = list(range(0, len(stream) - step + 1, step))
    chosen = sorted(random.Random(calibration.seed).sample(starts, min(calibration.sequences, len(starts))))
    return torch.tensor([opening + stream[start : start + step] for start in chosen])
