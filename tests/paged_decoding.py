"""Drives a decoder over a paged KV cache whose pages are scattered, as the engine would."""

import random

import torch
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.batch import Batch
from lapidist.models.decoder import Decoder

PAGE_SIZE = 4


def new_cache(decoder: Decoder, num_pages: int) -> PagedKVCache:
    config = decoder.config
    shape = (config.num_layers, num_pages, PAGE_SIZE, config.num_kv_heads, config.head_dim)
    return PagedKVCache(*shape, decoder.dtype, decoder.device, decoder.kv_bits)


class PagedSequence:
    """Token ids, the pages that hold them, and how many are computed."""

    def __init__(self, token_ids: list[int], prompt_length: int, pages: list[int]) -> None:
        self.token_ids = token_ids
        self.prompt_length = prompt_length
        self.pages = pages
        self.computed = 0


class PagedDecoding:
    """Several sequences in one cache.

    Parameters
    ----------
    scattered : pages are dealt at random; otherwise each sequence's pages follow one another.
    """

    def __init__(
        self, decoder: Decoder, prompts: list[list[int]], prompt_lengths: list[int], scattered: bool
    ) -> None:
        self.decoder = decoder
        counts = [-(-len(prompt) // PAGE_SIZE) for prompt in prompts]
        pages = list(range(sum(counts) + 3))
        if scattered:
            random.shuffle(pages)
        self.cache = new_cache(decoder, len(pages))
        self.sequences = []
        for prompt, length, count in zip(prompts, prompt_lengths, counts, strict=True):
            self.sequences.append(PagedSequence(prompt, length, pages[:count]))
            del pages[:count]

    def step(self, lengths: list[int]) -> list[Tensor]:
        """Compute so many tokens more of each sequence (0 leaves it out); the logits of these tokens."""
        chosen = [
            (sequence, length) for sequence, length in zip(self.sequences, lengths, strict=True) if length
        ]
        positions, rope_lengths, slots, token_ids = [], [], [], []
        for sequence, length in chosen:
            span = torch.arange(sequence.computed, sequence.computed + length)
            positions.append(span)
            rope_lengths.append((span + 1).clamp(min=sequence.prompt_length))
            slots += [sequence.pages[p // PAGE_SIZE] * PAGE_SIZE + p % PAGE_SIZE for p in span.tolist()]
            token_ids += sequence.token_ids[sequence.computed : sequence.computed + length]
            sequence.computed += length
        layout = PagedLayout.build(
            slots,
            [length for _, length in chosen],
            [sequence.computed for sequence, _ in chosen],
            [sequence.pages[: -(-sequence.computed // PAGE_SIZE)] for sequence, _ in chosen],
        )
        batch = Batch(torch.tensor(token_ids), torch.cat(positions), torch.cat(rope_lengths), layout)
        logits = self.decoder.logits(self.decoder.forward(batch, self.cache))
        return list(logits.split([length for _, length in chosen]))


def logits_in_steps(
    decoder: Decoder, token_ids: list[int], prompt_length: int, lengths: list[int], scattered: bool = True
) -> Tensor:
    """Logits ``[tokens, vocab]`` of one sequence, computed so many tokens at a time."""
    run = PagedDecoding(decoder, [token_ids], [prompt_length], scattered)
    return torch.cat([run.step([length])[0] for length in lengths])
