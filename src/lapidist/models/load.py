"""Builds a decoder from a checkpoint directory."""

from pathlib import Path

import torch
from torch import Tensor

from lapidist.kernels.cpu.linear import IMPLEMENTATIONS
from lapidist.kernels.dispatch_storage import load_table
from lapidist.kernels.embedding import Embedding
from lapidist.kernels.linear import Linear
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.softmax import SoftmaxMode
from lapidist.kernels.weight_only_linear import WeightOnlyLinear
from lapidist.models.checkpoint_tensors import EMBEDDING, LM_HEAD
from lapidist.models.config import DTYPES, ModelConfig
from lapidist.models.decoder import Decoder, DecoderWeights
from lapidist.models.families import FAMILIES
from lapidist.models.layer import Layer, Projection
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat
from lapidist.models.quantized_tensors import read_quantized
from lapidist.models.weights import Part, WeightFiles

# The name of a matrix and how many features it gives.
_Matrix = tuple[str, int]


def load_decoder(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    softmax_mode: SoftmaxMode | None = None,
) -> Decoder:
    """Load a Hugging Face checkpoint: ``config.json`` and safetensors in one file or in shards.

    Memory peaks at the weights plus one tensor. On a CPU the embedding table stays in its file, mapped.

    Parameters
    ----------
    dtype : to compute in; None is the checkpoint's.
    softmax_mode : of attention; None is the checkpoint's, or lazy where it was not calibrated.

    Raises
    ------
    CheckpointError : the checkpoint cannot be used; one sentence naming file and key.
    """
    directory = Path(path)
    config = ModelConfig.from_directory(directory)
    dtype, device = dtype or config.dtype, torch.device(device)
    return _Loader(directory, config, dtype, device).decoder(softmax_mode)


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype of an option: "auto" is None, which ``load_decoder`` takes as the checkpoint's.

    Raises
    ------
    ValueError : it is none that we compute in.
    """
    if dtype == "auto":
        return None
    found = DTYPES.get(dtype, None) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, got {dtype}")
    return found


def resolve_device(name: str) -> torch.device:
    """The device of an option.

    Raises
    ------
    ValueError : it is none that we run on, or it is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is asked for, but PyTorch sees no CUDA device")
    return device


class _Loader:
    """Reads the tensors of one checkpoint into operators."""

    def __init__(
        self, directory: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._files = WeightFiles(directory)
        self._config = config
        self._dtype = dtype
        self._device = device
        self._table = load_table(device, [each.name for each in IMPLEMENTATIONS])
        self._fused = FAMILIES[config.architecture].fused_weights
        self._quantization = config.quantization or QuantizationConfig("none")

    def decoder(self, softmax_mode: SoftmaxMode | None) -> Decoder:
        config = self._config
        # The largest tensors first, while nothing else is in memory beside the copy that is being packed.
        lm_head = self._lm_head()
        weights = DecoderWeights(
            embed=self._embedding(lm_head),
            lm_head=lm_head,
            layers=tuple(self._layer(index) for index in range(config.num_layers)),
            final_norm=self._norm("model.norm"),
        )
        self._files.warn_of_unread([LM_HEAD] if config.tie_embeddings else [])
        return Decoder(
            config, weights, self._dtype, self._device, softmax_mode, kv_bits=self._quantization.kv_bits
        )

    def _layer(self, index: int) -> Layer:
        config, prefix = self._config, f"model.layers.{index}."
        hidden, query = config.hidden_size, config.num_heads * config.head_dim
        key_value, intermediate = config.num_kv_heads * config.head_dim, config.intermediate_size
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        if self._fused:
            qkv = [(f"{attention}qkv_proj", query + 2 * key_value)]
            gate_up = [(f"{mlp}gate_up_proj", 2 * intermediate)]
        else:
            qkv = [(f"{attention}q_proj", query)]
            qkv += [(f"{attention}k_proj", key_value), (f"{attention}v_proj", key_value)]
            gate_up = [(f"{mlp}gate_proj", intermediate), (f"{mlp}up_proj", intermediate)]
        post_attention = self._norm(f"{prefix}post_attention_layernorm")
        sandwich = config.sandwich_norms
        return Layer(
            input_norm=self._norm(f"{prefix}input_layernorm"),
            qkv=self._linear(qkv, hidden, config.qkv_bias),
            qk_norm=self._qk_norm(attention) if config.qk_norm else None,
            o=self._linear([(f"{attention}o_proj", hidden)], query, config.o_bias),
            post_attention_norm=post_attention if sandwich else None,
            pre_mlp_norm=self._norm(f"{prefix}pre_feedforward_layernorm") if sandwich else post_attention,
            gate_up=self._linear(gate_up, hidden, config.mlp_bias),
            down=self._linear([(f"{mlp}down_proj", hidden)], intermediate, config.mlp_bias),
            post_mlp_norm=self._norm(f"{prefix}post_feedforward_layernorm") if sandwich else None,
            window=config.sliding_windows[index],
        )

    def _linear(self, matrices: list[_Matrix], columns: int, has_bias: bool = False) -> Projection:
        biases: list[Part] = [(f"{name}.bias", (rows,)) for name, rows in matrices]
        bias = self._copy(biases) if has_bias else None
        return self._projection(matrices, columns, bias, self._quantization.weights)

    def _projection(
        self, matrices: list[_Matrix], columns: int, bias: Tensor | None, format: WeightFormat
    ) -> Projection:
        if format.is_float:
            weight = self._matrix([(f"{name}.weight", (rows, columns)) for name, rows in matrices])
            return Linear(weight, bias, self._table)
        if self._device.type != "cpu":
            raise ValueError(
                f"quantized weights run on the CPU so far, not on {self._device}: use device cpu"
            )
        quantized = read_quantized(self._files, matrices, columns, format)
        kind = QuantizedLinear if self._quantization.activation_bits == 8 else WeightOnlyLinear
        return kind(quantized, bias, self._dtype)

    def _matrix(self, parts: list[Part]) -> Tensor:
        """A weight for ``Linear``. Packing copies it, so that a single tensor can come from the mapped file."""
        if len(parts) == 1:
            mapped = self._files.mapped(parts[0])
            if mapped.dtype == self._dtype and self._device.type == "cpu":
                return mapped
        return self._copy(parts)

    def _copy(self, parts: list[Part]) -> Tensor:
        return self._files.stacked(parts, self._dtype, self._device)

    def _norm(self, name: str) -> RMSNorm:
        weight = self._vector(name, self._config.hidden_size)
        return RMSNorm(weight, self._config.norm_eps, self._config.norm_offset)

    def _qk_norm(self, prefix: str) -> RMSNorm:
        """One norm over the heads of queries and keys: ``[num_heads + num_kv_heads, head_dim]``."""
        config = self._config
        query = self._vector(f"{prefix}q_norm", config.head_dim).expand(config.num_heads, -1)
        key = self._vector(f"{prefix}k_norm", config.head_dim).expand(config.num_kv_heads, -1)
        return RMSNorm(torch.cat((query, key)), config.norm_eps, config.norm_offset)

    def _vector(self, name: str, length: int) -> Tensor:
        return self._copy([(f"{name}.weight", (length,))])

    def _lm_head(self) -> Projection:
        name = EMBEDDING if self._config.tie_embeddings else LM_HEAD
        matrices = [(name.removesuffix(".weight"), self._config.vocab_size)]
        return self._projection(matrices, self._config.hidden_size, None, self._quantization.lm_head)

    def _embedding(self, lm_head: Projection) -> Embedding:
        """The head's weight if the two are tied and it can be read; on a CPU mapped from the file."""
        if self._config.tie_embeddings and isinstance(lm_head, Linear) and not lm_head.is_packed:
            return Embedding(lm_head.weight, self._dtype)
        table = self._vocabulary(EMBEDDING)
        on_cpu = self._device.type == "cpu"
        return Embedding(self._files.mapped(table) if on_cpu else self._copy([table]), self._dtype)

    def _vocabulary(self, name: str) -> Part:
        return name, (self._config.vocab_size, self._config.hidden_size)
