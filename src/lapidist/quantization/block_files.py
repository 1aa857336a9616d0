"""A layer's weights from a checkpoint's tensors, and the names under which they go back."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lapidist.models.checkpoint_tensors import EMBEDDING, LM_HEAD
from lapidist.models.config import ModelConfig
from lapidist.models.families import FAMILIES
from lapidist.models.weights import WeightFiles
from lapidist.quantization.block import BlockShape, BlockWeights, EndWeights

FINAL_NORM = "model.norm.weight"


def block_shape(config: ModelConfig) -> BlockShape:
    return BlockShape(config.num_heads, config.num_kv_heads, config.head_dim, config.rope.rotary_dim)


class BlockFiles:
    """Names and shapes of one family's tensors.

    Attributes
    ----------
    projections : for each matrix of a checkpoint's layer, by its name, the fields of ``BlockWeights`` that lie in it
        side by side: Phi-3 stores q, k and v as one, and gate and up.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self._shapes = {
            "q": (query, hidden),
            "k": (key_value, hidden),
            "v": (key_value, hidden),
            "o": (hidden, query),
            "gate": (intermediate, hidden),
            "up": (intermediate, hidden),
            "down": (hidden, intermediate),
        }
        fused = FAMILIES[config.architecture].fused_weights
        parts = ("qkv", "o", "gate_up", "down") if fused else ("q", "k", "v", "o", "gate", "up", "down")
        fields = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
        self.projections = {
            f"{'self_attn' if part[0] in 'qkvo' else 'mlp'}.{part}_proj": fields.get(part, (part,))
            for part in parts
        }
        self._has_bias = {
            "q": config.qkv_bias,
            "k": config.qkv_bias,
            "v": config.qkv_bias,
            "o": config.o_bias,
        }
        self._has_bias |= dict.fromkeys(("gate", "up", "down"), config.mlp_bias)

    def norms(self) -> dict[str, tuple[str, int]]:
        """Field of ``BlockWeights`` to the end of the tensor's name and its length."""
        config = self._config
        hidden = config.hidden_size
        found = {"input_norm": ("input_layernorm", hidden)}
        if config.sandwich_norms:
            found |= {
                "post_attention_norm": ("post_attention_layernorm", hidden),
                "pre_mlp_norm": ("pre_feedforward_layernorm", hidden),
                "post_mlp_norm": ("post_feedforward_layernorm", hidden),
            }
        else:
            found["pre_mlp_norm"] = ("post_attention_layernorm", hidden)
        if config.qk_norm:
            found |= {f"{part}_norm": (f"self_attn.{part}_norm", config.head_dim) for part in ("q", "k")}
        return found

    def read(self, files: WeightFiles, layer: int) -> BlockWeights:
        """A layer in float32; raises CheckpointError where a tensor cannot be used."""
        prefix = f"model.layers.{layer}."
        tensors: dict[str, Tensor] = {}
        for name, fields in self.projections.items():
            rows = [self._shapes[field][0] for field in fields]
            columns = self._shapes[fields[0]][1]
            matrix = _read(files, f"{prefix}{name}.weight", (sum(rows), columns))
            tensors |= zip(fields, matrix.split(rows), strict=True)
            if self._has_bias[fields[0]]:
                bias = _read(files, f"{prefix}{name}.bias", (sum(rows),))
                tensors |= zip((f"{field}_bias" for field in fields), bias.split(rows), strict=True)
        for field, (name, length) in self.norms().items():
            tensors[field] = _read(files, f"{prefix}{name}.weight", (length,)) + self._config.norm_offset
        return BlockWeights(**tensors)

    def float_tensors(self, block: BlockWeights, with_matrices: bool) -> Iterator[tuple[str, Tensor]]:
        """What is stored as floats, by the end of its name: norms, biases and, if asked for, matrices."""
        for field, (name, _) in self.norms().items():
            yield f"{name}.weight", getattr(block, field) - self._config.norm_offset
        for name, fields in self.projections.items():
            if self._has_bias[fields[0]]:
                yield f"{name}.bias", torch.cat([getattr(block, f"{field}_bias") for field in fields])
            if with_matrices:
                yield f"{name}.weight", torch.cat([getattr(block, field) for field in fields])


def read_ends(files: WeightFiles, config: ModelConfig) -> EndWeights:
    """Embedding, final norm and head. Matrices are as they lie in their file, mapped."""
    shape = (config.vocab_size, config.hidden_size)
    embedding = files.mapped((EMBEDDING, shape))
    head = embedding if config.tie_embeddings else files.mapped((LM_HEAD, shape))
    norm = _read(files, FINAL_NORM, (config.hidden_size,)) + config.norm_offset
    return EndWeights(embedding, norm, head)


def _read(files: WeightFiles, name: str, shape: tuple[int, ...]) -> Tensor:
    return files.stacked([(name, shape)], torch.float32, torch.device("cpu"))
