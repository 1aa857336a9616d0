"""From a model's shape and a batch to operators: the one place that knows what a decoder layer computes."""

from collections import Counter
from typing import Protocol

from lapidist.workload.operators import (
    GEMM,
    Attention,
    Collective,
    ElementWise,
    Embedding,
    ExpertMLP,
    Normalization,
    Operator,
)
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import FilterWork, SequenceStep, Step
from lapidist.workload.tensor_format import TensorFormat

# Operations per element, a transcendental function counting as one, of the activation times its gate.
_ACTIVATION_OPERATIONS = {"silu": 4, "gelu": 6, "gelu_pytorch_tanh": 10}
_FP32 = TensorFormat("fp32")
_ROPE_OPERATIONS = 3  # two multiplications and an addition
_SOFTCAP_OPERATIONS = 3  # divide, tanh, multiply


class ExpertShape(Protocol):
    """What lowering needs of a mixture of experts."""

    @property
    def count(self) -> int: ...
    @property
    def top_k(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def shared_inner(self) -> int:
        """Of an expert that every token goes to; 0 for none."""

    @property
    def dense_layers(self) -> int:
        """Of the first layers, which have a plain MLP of the intermediate size."""


class LatentShape(Protocol):
    """What lowering needs of latent attention; a query rank of 0 projects queries from the hidden state."""

    @property
    def query_rank(self) -> int: ...
    @property
    def kv_rank(self) -> int: ...
    @property
    def rope_dim(self) -> int: ...
    @property
    def nope_dim(self) -> int: ...
    @property
    def value_dim(self) -> int: ...


class DecoderShape(Protocol):
    """What lowering needs of a model; ``models.config.ModelConfig`` has it all."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def qkv_bias(self) -> bool: ...
    @property
    def o_bias(self) -> bool: ...
    @property
    def mlp_bias(self) -> bool: ...
    @property
    def qk_norm(self) -> bool: ...
    @property
    def joint_qk_norm(self) -> bool:
        """Over all heads at once, so that ranks add up their squares; only with ``qk_norm``."""

    @property
    def sandwich_norms(self) -> bool: ...
    @property
    def sliding_windows(self) -> tuple[int | None, ...]: ...
    @property
    def embedding_scale(self) -> float: ...
    @property
    def final_softcap(self) -> float | None: ...
    @property
    def experts(self) -> ExpertShape | None:
        """In the place of the MLP."""

    @property
    def latent(self) -> LatentShape | None:
        """In the place of keys and values of every head."""


def lower(
    config: DecoderShape, recipe: Recipe, step: Step, tensor_parallel: int = 1, expert_parallel: int = 1
) -> list[Operator]:
    """The operators that one rank runs for ``step``, in the order of one layer.

    Operators of the layers appear once with ``count`` = number of layers (attention once per sequence and
    per window length). The work of prompt filters follows, each chunk on its own. QKV and gate/up are one GEMM
    each. With ``tensor_parallel`` > 1 projections are split as in Megatron-LM (arXiv 1909.08053): QKV, gate/up and
    the vocabulary by output, o and down by input, each pair followed by an all-reduce; the biases of o and down are
    added by one rank and counted on all. A mixture of experts is divided over the same ranks: the experts themselves
    over ``expert_parallel`` of them, the inner size of each over the rest.

    Raises
    ------
    ValueError : the heads, the intermediate size or the experts do not divide over the ranks.
    """
    if tensor_parallel < 1:
        raise ValueError(f"tensor_parallel must be at least 1, got {tensor_parallel}")
    found = _Lowering(
        config, recipe, step, tensor_parallel, config.sliding_windows, expert_parallel
    ).operators()
    return [*found, *_filters(config, recipe, step, tensor_parallel)]


def _filters(config: DecoderShape, recipe: Recipe, step: Step, ranks: int) -> list[Operator]:
    """Of ``step.filters``: what is equal in several layers appears once."""
    windows: dict[tuple[FilterWork, SequenceStep], list[int | None]] = {}
    for each in step.filters:
        if each.layer >= config.num_layers:
            raise ValueError(f"a filter ran layer {each.layer} of a model of {config.num_layers} layers")
        shape = SequenceStep(each.query_length, each.kv_length)
        windows.setdefault((each.work, shape), []).append(config.sliding_windows[each.layer])
    return [
        operator
        for (work, shape), own in windows.items()
        for operator in _Lowering(config, recipe, Step((shape,), 0), ranks, tuple(own)).filter_work(work)
    ]


class _Lowering:
    """The shapes of one rank, worked out once, and the operators of each block in the layers of these windows."""

    def __init__(
        self,
        config: DecoderShape,
        recipe: Recipe,
        step: Step,
        ranks: int,
        windows: tuple[int | None, ...],
        expert_ranks: int = 1,
    ) -> None:
        self.config, self.recipe, self.step, self.ranks = config, recipe, step, ranks
        self.windows = windows
        self.tokens, self.layers, self.hidden = step.tokens, len(windows), config.hidden_size
        self.heads = _split("num_heads", config.num_heads, ranks)
        self.dense_layers = self.layers if config.experts is None else config.experts.dense_layers
        # Ranks beyond the number of KV heads hold copies.
        self.kv_heads = max(1, config.num_kv_heads // ranks)
        if config.num_kv_heads % ranks and ranks % config.num_kv_heads:
            raise ValueError(f"num_kv_heads ({config.num_kv_heads}) does not divide over {ranks} ranks")
        self.expert_ranks = expert_ranks
        self.vocabulary = -(-config.vocab_size // ranks)

    def operators(self) -> list[Operator]:
        batch = [*self._embedding(), *self._attention(), *self._mlp()] if self.tokens else []
        return [*batch, *self._head(), *self._restoring()]

    def filter_work(self, work: FilterWork) -> list[Operator]:
        """One piece of a filter's work, in each of the layers."""
        heads, kv_heads = self.heads, self.kv_heads
        [sequence] = self.step.sequences
        queries, keys = sequence.query_length, sequence.kv_length
        match work:
            case "embedding":
                return self._embedding() * self.layers  # of so many prompts of this length
            case "layer":
                return [*self._attention(), *self._mlp()]
            case "keys":
                return self._projection("keys", kv_heads)
            case "queries":
                return self._projection("queries", heads)
            case "attention_scores":
                return [self._scores(queries * (heads // kv_heads), keys)]
            case "raw_scores":
                # The keys before the queries meet the sum of these; the others meet each query.
                before = [self._scores(1, keys - queries)] if keys > queries else []
                return [*before, self._scores(queries, queries)]

    def _projection(self, name: str, heads: int) -> list[Operator]:
        width = heads * self.config.head_dim
        norms = [self._norm(f"{name}_norm", heads=heads)] if self.config.qk_norm else []
        return [
            self._norm("input_norm", output=self.recipe.activation),
            self._gemm(f"{name}_proj", width, self.hidden, self.config.qkv_bias),
            *norms,
            self._element_wise("rope", width, _ROPE_OPERATIONS, inputs=1),
        ]

    def _scores(self, rows: int, keys: int) -> Operator:
        """Products of queries and keys of every KV head."""
        return GEMM(
            name="filter_scores",
            count=self.layers * self.kv_heads,
            m=rows,
            n=keys,
            k=self.config.head_dim,
            input=self.recipe.hidden,
            weight=self.recipe.hidden,
            output=self.recipe.hidden,
        )

    def _restoring(self) -> list[Operator]:
        """Keys and values that filters kept, on their way to the cache."""
        return [
            ElementWise(
                name="kv_restore",
                count=self.layers,
                rows=tokens,
                columns=2 * self.kv_heads * self.config.head_dim,
                inputs=1,
                operations_per_element=0,
                input=self.recipe.hidden,
                output=self.recipe.kv,
            )
            for tokens in self.step.restored
        ]

    def _embedding(self) -> list[Operator]:
        plain = self.recipe.hidden
        found: list[Operator] = [
            Embedding(name="embedding", tokens=self.tokens, columns=self.hidden, table=plain),
            *self._all_reduce("embedding_all_reduce", count=1),
        ]
        if self.config.embedding_scale != 1.0:
            found.append(self._element_wise("embedding_scale", self.hidden, operations=1, inputs=1, count=1))
        return found

    def _attention(self) -> list[Operator]:
        if self.config.latent is not None:
            return [*self._latent_attention(self.config.latent), *self._block_end("attention")]
        config, recipe, head_dim = self.config, self.recipe, self.config.head_dim
        query_width = self.heads * head_dim
        qkv_width = query_width + 2 * self.kv_heads * head_dim
        found = [
            self._norm("input_norm", output=recipe.activation),
            self._gemm("qkv_proj", qkv_width, self.hidden, config.qkv_bias),
        ]
        if config.qk_norm:
            found += [self._norm("q_norm", heads=self.heads), self._norm("k_norm", heads=self.kv_heads)]
            if config.joint_qk_norm and self.ranks > 1:
                squares = 2 * _FP32.byte_count(self.tokens, 1)
                found.append(self._all_reduce_of("qk_norm_all_reduce", self.layers, squares))
        rotated = query_width + self.kv_heads * head_dim
        found.append(self._element_wise("rope", rotated, _ROPE_OPERATIONS, inputs=1))
        found += [
            Attention(
                name="attention",
                count=layers,
                query_length=sequence.query_length,
                kv_length=sequence.kv_length,
                heads=self.heads,
                kv_heads=self.kv_heads,
                head_dim=head_dim,
                window=window,
                hidden=recipe.hidden,
                kv=recipe.kv,
                output=recipe.activation,
            )
            for window, layers in Counter(self.windows).items()
            for sequence in self.step.sequences
        ]
        found.append(self._gemm("o_proj", self.hidden, query_width, config.o_bias))
        return [*found, *self._block_end("attention")]

    def _latent_attention(self, latent: LatentShape) -> list[Operator]:
        """DeepSeek-V2's (arXiv 2405.04434, section 2.1); the latents are on every rank.

        A prompt's keys and values are projected from latents for every head. In decoding queries are brought to the
        latents instead, which all heads then share as the keys and values of one, and results back: two products of
        the arithmetic and the weights that the one projection has, which stands for them.
        """
        recipe, heads = self.recipe, self.heads
        query_dim, cached = latent.nope_dim + latent.rope_dim, latent.kv_rank + latent.rope_dim
        queries = heads * query_dim
        down = (latent.query_rank or queries) + cached
        found = [
            self._norm("input_norm", output=recipe.activation),
            self._gemm("latent_proj", down, self.hidden, False),
        ]
        if latent.query_rank:
            found.append(self._gemm("q_proj", queries, latent.query_rank, False))
        found += [
            self._gemm("kv_proj", heads * (latent.nope_dim + latent.value_dim), latent.kv_rank, False),
            self._element_wise("rope", (heads + 1) * latent.rope_dim, _ROPE_OPERATIONS, inputs=1),
        ]
        for sequence in self.step.sequences:
            decodes = sequence.query_length == 1
            found.append(
                Attention(
                    name="attention",
                    count=self.layers,
                    query_length=sequence.query_length,
                    kv_length=sequence.kv_length,
                    heads=heads,
                    kv_heads=1 if decodes else heads,
                    head_dim=cached if decodes else query_dim,
                    value_dim=latent.kv_rank if decodes else latent.value_dim,
                    cached_numbers=cached,
                    hidden=recipe.hidden,
                    kv=recipe.kv,
                    output=recipe.activation,
                )
            )
        return [*found, self._gemm("o_proj", self.hidden, heads * latent.value_dim, False)]

    def _mlp(self) -> list[Operator]:
        experts = self.config.experts
        dense = (
            self._dense_mlp("", self.config.intermediate_size, self.dense_layers) if self.dense_layers else []
        )
        return [
            self._norm("pre_mlp_norm", output=self.recipe.activation),
            *dense,
            *([] if experts is None else self._experts(experts)),
            *self._block_end("mlp"),
        ]

    def _experts(self, experts: ExpertShape) -> list[Operator]:
        """The router, in floats and on every rank, the MLPs that it chooses, and the one that all tokens share."""
        recipe, ranks, layers = self.recipe, self.expert_ranks, self.layers - self.dense_layers
        if ranks < 1 or self.ranks % ranks:
            raise ValueError(f"expert_parallel must divide the {self.ranks} ranks, got {ranks}")
        _split("experts", experts.count, ranks)
        _split("inner size of experts", experts.inner, self.ranks // ranks)
        router = GEMM(
            name="router",
            count=layers,
            m=self.tokens,
            n=experts.count,
            k=self.hidden,
            input=recipe.hidden,
            weight=recipe.hidden,
            output=recipe.hidden,
        )
        chosen = ExpertMLP(
            name="experts",
            count=layers,
            tokens=self.tokens,
            hidden=self.hidden,
            inner=experts.inner,
            top_k=experts.top_k,
            experts=experts.count,
            tensor_parallel=self.ranks // ranks,
            expert_parallel=ranks,
            input=recipe.activation,
            weight=recipe.expert_weight or recipe.weight,
            output=recipe.hidden,
        )
        shared = self._dense_mlp("shared_", experts.shared_inner, layers) if experts.shared_inner else []
        return [router, chosen, *shared]

    def _dense_mlp(self, prefix: str, size: int, layers: int) -> list[Operator]:
        config = self.config
        intermediate = _split(f"{prefix or 'intermediate_'}size", size, self.ranks)
        if config.hidden_act not in _ACTIVATION_OPERATIONS:
            raise ValueError(
                f"unknown hidden_act {config.hidden_act!r}; known are {', '.join(_ACTIVATION_OPERATIONS)}"
            )
        activation = ElementWise(
            name=f"{prefix}activation",
            count=layers,
            rows=self.tokens,
            columns=intermediate,
            inputs=2,
            operations_per_element=_ACTIVATION_OPERATIONS[config.hidden_act],
            input=self.recipe.hidden,
            output=self.recipe.activation,
        )
        return [
            self._gemm(f"{prefix}gate_up_proj", 2 * intermediate, self.hidden, config.mlp_bias, layers),
            activation,
            self._gemm(f"{prefix}down_proj", self.hidden, intermediate, config.mlp_bias, layers),
        ]

    def _block_end(self, block: str) -> list[Operator]:
        """All-reduce of the block's output, Gemma-2's norm after the block, and the residual addition."""
        norms = [self._norm(f"post_{block}_norm")] if self.config.sandwich_norms else []
        add = self._element_wise(f"{block}_residual", self.hidden, operations=1, inputs=2)
        return [*self._all_reduce(f"{block}_all_reduce", self.layers), *norms, add]

    def _head(self) -> list[Operator]:
        plain, rows = self.recipe.hidden, self.step.logit_rows
        norm = Normalization(
            name="final_norm", rows=self.tokens, columns=self.hidden, input=plain, output=plain
        )
        found: list[Operator] = [norm] if self.tokens else []
        if rows == 0:
            return found
        head = self.recipe.lm_head
        found.append(
            GEMM(
                name="lm_head",
                m=rows,
                n=self.vocabulary,
                k=self.hidden,
                input=plain if head is None else self.recipe.activation,
                weight=plain if head is None else head,
                output=plain,
            )
        )
        if self.config.final_softcap is not None:
            found.append(
                ElementWise(
                    name="final_softcap",
                    rows=rows,
                    columns=self.vocabulary,
                    inputs=1,
                    input=plain,
                    output=plain,
                    operations_per_element=_SOFTCAP_OPERATIONS,
                )
            )
        if self.ranks > 1:
            payload = plain.byte_count(rows, self.vocabulary * self.ranks)
            found.append(
                Collective(
                    name="logits_all_gather", kind="all_gather", payload_bytes=payload, ranks=self.ranks
                )
            )
        return found

    def _gemm(self, name: str, n: int, k: int, bias: bool, layers: int | None = None) -> Operator:
        recipe = self.recipe
        return GEMM(
            name=name,
            count=self.layers if layers is None else layers,
            m=self.tokens,
            n=n,
            k=k,
            bias=bias,
            input=recipe.activation,
            weight=recipe.weight,
            output=recipe.hidden,
        )

    def _norm(self, name: str, output: TensorFormat | None = None, heads: int | None = None) -> Operator:
        """A norm over the hidden size or, with ``heads``, each head; ``output`` as the next GEMM reads it."""
        return Normalization(
            name=name,
            count=self.layers,
            rows=self.tokens * (heads or 1),
            columns=self.config.head_dim if heads else self.hidden,
            input=self.recipe.hidden,
            output=output or self.recipe.hidden,
        )

    def _element_wise(
        self, name: str, columns: int, operations: int, inputs: int, count: int | None = None
    ) -> Operator:
        plain = self.recipe.hidden
        return ElementWise(
            name=name,
            count=self.layers if count is None else count,
            rows=self.tokens,
            columns=columns,
            inputs=inputs,
            operations_per_element=operations,
            input=plain,
            output=plain,
        )

    def _all_reduce(self, name: str, count: int) -> list[Operator]:
        if self.ranks == 1:
            return []
        payload = self.recipe.hidden.byte_count(self.tokens, self.hidden)
        return [self._all_reduce_of(name, count, payload)]

    def _all_reduce_of(self, name: str, count: int, payload_bytes: int) -> Operator:
        return Collective(
            name=name, count=count, kind="all_reduce", payload_bytes=payload_bytes, ranks=self.ranks
        )


def _split(name: str, size: int, ranks: int) -> int:
    if size % ranks:
        raise ValueError(f"{name} ({size}) does not divide over {ranks} ranks")
    return size // ranks
