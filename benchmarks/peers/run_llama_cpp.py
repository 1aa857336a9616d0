"""llama.cpp, driven through the C functions of llama-cpp-python without its Python conveniences.

Mixed requests run as in llama.cpp's own server: every call decodes one token of each running sequence and
fills the rest of the batch with prompts.
"""

import ctypes
import time
from dataclasses import dataclass, field

import llama_cpp
import numpy as np

_BATCH_TOKENS = 512
_KV_TYPES = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}

# The library keeps the function's address; the object must live as long.
_SILENCE = llama_cpp.llama_log_callback(lambda level, text, data: None)


def silence() -> None:
    """No more lines of progress from llama.cpp in this process."""
    llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p(0))


@dataclass
class _Sequence:
    slot: int
    prompt: list[int]
    new_tokens: int
    position: int = 0  # tokens in the cache
    generated: list[int] = field(default_factory=list)


class LlamaCpp:
    """A GGUF model on the CPU.

    Parameters
    ----------
    context : tokens of all sequences together.
    sequences : how many may run at once.
    repack : interleave the rows of quantized weights when the file is loaded, llama.cpp's default. Its kernels for the
        file's own layout are other ones, and for some shapes faster.
    unified : one KV cache for all sequences, in which each reads past the others' tokens, instead of one a sequence
        with an equal share of ``context``.
    kv_type : ``"f16"``, ``"q8_0"`` or ``"q4_0"``.
    """

    def __init__(
        self,
        gguf: str,
        threads: int,
        context: int = 8192,
        sequences: int = 16,
        repack: bool = True,
        unified: bool = True,
        kv_type: str = "f16",
    ) -> None:
        silence()
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = repack
        self._model = llama_cpp.llama_model_load_from_file(gguf.encode(), model_params)
        if not self._model:
            raise SystemExit(f"{gguf}: llama.cpp cannot load it")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, _BATCH_TOKENS, _BATCH_TOKENS
        params.n_seq_max, params.kv_unified = sequences, unified
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise SystemExit(f"{gguf}: llama.cpp cannot make a context of {context} tokens")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._begun: list[_Sequence] = []

    def prefill_seconds(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._run([_Sequence(0, prompt, 1)])
        return time.perf_counter() - start

    def decode_tokens_per_second(self, prompt: list[int], new_tokens: int) -> float:
        times: list[float] = []
        self._run([_Sequence(0, prompt, new_tokens)], times)
        return (new_tokens - 1) / (times[-1] - times[0])

    def mixed_seconds(self, prompts: list[list[int]], new_tokens: list[int]) -> float:
        start = time.perf_counter()
        self.greedy(prompts, new_tokens)
        return time.perf_counter() - start

    def begin_seconds(self, prompts: list[list[int]]) -> float:
        """Take in the prompts and generate the first token of each; ``continue_tokens_per_second`` goes on.

        Equal prompts are computed once; the others get a copy in cells of their own.
        """
        start = time.perf_counter()
        self._clear()
        self._begun = [_Sequence(slot, prompt, 1) for slot, prompt in enumerate(prompts)]
        first_of: dict[tuple[int, ...], _Sequence] = {}
        for sequence in self._begun:
            first = first_of.setdefault(tuple(sequence.prompt), sequence)
            if first is sequence:
                self._finish([sequence])
            else:
                self._copy(first, sequence)
        return time.perf_counter() - start

    def continue_tokens_per_second(self, steps: int) -> float:
        """Decode ``steps`` more tokens of every sequence begun."""
        for sequence in self._begun:
            sequence.new_tokens += steps
        start = time.perf_counter()
        self._finish(self._begun)
        return len(self._begun) * steps / (time.perf_counter() - start)

    def greedy(self, prompts: list[list[int]], new_tokens: list[int]) -> list[list[int]]:
        """Greedy continuations of concurrent prompts."""
        pairs = enumerate(zip(prompts, new_tokens, strict=True))
        sequences = [_Sequence(slot, prompt, count) for slot, (prompt, count) in pairs]
        self._run(sequences)
        return [sequence.generated for sequence in sequences]

    def begun(self) -> list[list[int]]:
        """What the sequences begun have generated."""
        return [sequence.generated for sequence in self._begun]

    def logits(self, prompt: list[int]) -> np.ndarray:
        """Logits after the prompt, ``[vocabulary]``."""
        self._run([_Sequence(0, prompt, 1)])
        return self._logits_at(-1).copy()  # the last of the batch

    def _run(self, sequences: list[_Sequence], times: list[float] | None = None) -> None:
        """Generate every sequence from an empty cache to its end."""
        self._clear()
        self._finish(sequences, times)

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._begun = []

    def _finish(self, sequences: list[_Sequence], times: list[float] | None = None) -> None:
        """Generate every sequence to its end; ``times`` takes the moment of each new token."""
        running = list(sequences)
        while running:
            sampled = self._fill_batch(running)
            if status := llama_cpp.llama_decode(self._context, self._batch):
                raise SystemExit(f"llama_decode failed with status {status}")
            for row, sequence in sampled:
                sequence.generated.append(int(self._logits_at(row).argmax()))
            if times is not None and sampled:
                times.append(time.perf_counter())
            running = [sequence for sequence in running if len(sequence.generated) < sequence.new_tokens]

    def _copy(self, source: _Sequence, target: _Sequence) -> None:
        """The state of a sequence to one with the same prompt."""
        size = llama_cpp.llama_state_seq_get_size(self._context, source.slot)
        state = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data(self._context, state, size, source.slot)
        if not llama_cpp.llama_state_seq_set_data(self._context, state, size, target.slot):
            raise SystemExit(f"llama.cpp has no room for sequence {target.slot}")
        target.position, target.generated = source.position, list(source.generated)

    def _fill_batch(self, running: list[_Sequence]) -> list[tuple[int, _Sequence]]:
        """Decoding sequences first, then prompts in order; returns the rows that yield a token."""
        self._batch.n_tokens = 0
        sampled = []
        for sequence in sorted(running, key=lambda sequence: not sequence.generated):
            pending = sequence.generated[-1:] or sequence.prompt[sequence.position :]
            for token in pending[: _BATCH_TOKENS - self._batch.n_tokens]:
                self._add(token, sequence)
            if sequence.position >= len(sequence.prompt) + len(sequence.generated) and self._batch.n_tokens:
                sampled.append((self._batch.n_tokens - 1, sequence))
                self._batch.logits[self._batch.n_tokens - 1] = 1
        return sampled

    def _add(self, token: int, sequence: _Sequence) -> None:
        row = self._batch.n_tokens
        self._batch.token[row] = token
        self._batch.pos[row] = sequence.position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = sequence.slot
        self._batch.logits[row] = 0
        self._batch.n_tokens += 1
        sequence.position += 1

    def _logits_at(self, row: int) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,))
