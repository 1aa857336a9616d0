"""Into how many parts the work of one result is split, so that a small batch keeps the whole GPU busy."""

from dataclasses import dataclass

# Shares of FlashAttention-3's rule (arXiv 2407.08608, its source): enough programs, and good enough a last wave.
_BUSY = 0.8
_GOOD_ENOUGH = 0.85
_FEW_BLOCKS = 4
_MOST_SPLITS = 128


def num_splits(programs: int, blocks: int, slots: int) -> int:
    """The fewest splits whose waves are nearly as full as they can be.

    The rule of FlashAttention-3: no split where the programs fill the GPU or the work is short, else the smallest
    number whose share of used slots, over all waves, is at least 85 % of the best. Numbers of splits that leave the
    longest part as long as a smaller number does are passed over.

    Parameters
    ----------
    programs : independent results, of one program each without a split.
    blocks : steps of the longest result, which the splits divide among them.
    slots : programs that the GPU runs at once.

    Raises
    ------
    ValueError : ``slots`` is not positive.
    """
    if slots < 1:
        raise ValueError(f"a GPU runs at least one program at once, got {slots}")
    if programs >= _BUSY * slots or blocks <= _FEW_BLOCKS or programs < 1:
        return 1
    fullness = {
        splits: _fullness(programs * splits, slots)
        for splits in range(1, min(blocks, slots, _MOST_SPLITS) + 1)
        if splits == 1 or -(-blocks // splits) < -(-blocks // (splits - 1))
    }
    enough = _GOOD_ENOUGH * max(fullness.values())
    return next(splits for splits, share in fullness.items() if share >= enough)


def _fullness(programs: int, slots: int) -> float:
    """Share of the slots that work, over all waves."""
    return programs / (-(-programs // slots) * slots)


@dataclass(frozen=True)
class KeySplits:
    """How attention divides the keys of each tile of queries.

    Attributes
    ----------
    count : the most parts of a tile's keys.
    least_blocks : blocks that a part has at least, unless the tile has fewer.
    """

    count: int
    least_blocks: int


def split_keys(programs: int, blocks: int, slots: int, longest_blocks: int, most_splits: int) -> KeySplits:
    """Splits that keep the GPU busy, and none much longer than ``longest_blocks``.

    The lengths of the sequences are not known where a launch is prepared, only the longest: so that one long sequence
    among many short ones does not run alone in the end, its parts are bounded even where the programs are enough.

    Parameters
    ----------
    programs, blocks, slots : see ``num_splits``.
    most_splits : what there is memory for; at least 1.
    """
    wanted = num_splits(programs, blocks, slots)
    bounded = min(max(wanted, -(-blocks // longest_blocks)), max(1, most_splits))
    return KeySplits(bounded, 1 if wanted > 1 else longest_blocks)
