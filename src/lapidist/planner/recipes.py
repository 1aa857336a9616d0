"""From what a user calls a recipe to the formats of ``workload.Recipe``.

Understood are a float type (``bf16``, ``fp16``, ``fp32``), ``fp8``, ``nvfp4`` and ``mxfp4``, a form such as
``w4a8kv4-g128``, and whatever ``lapidist quantize --recipe`` takes: ``qoq-g128`` and the others, or a YAML file.
"""

from dataclasses import replace
from typing import Literal

import torch

from lapidist.models.config import ModelConfig
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat
from lapidist.quantization.recipe import RECIPES, load_recipe
from lapidist.workload.recipe import Recipe
from lapidist.workload.tensor_format import TensorFormat

Float = Literal["fp32", "bf16", "fp16"]
_FLOATS: dict[torch.dtype, Float] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
# With one float32 scale per token, or per output channel; and NVIDIA's 4-bit floats with an fp8 scale per 16 of them.
_HARDWARE_FLOATS = {
    "fp8": TensorFormat("fp8", row_overhead_bits=32),
    "nvfp4": TensorFormat("fp4", 16, group_overhead_bits=8),
}
# Of experts alone (OCP Microscaling Formats, 2023): 4-bit floats with a power of two per 32 of them.
_MXFP4 = TensorFormat("fp4", 32, group_overhead_bits=8)
# Recipes of checkpoints that others quantized, by their method.
_FOREIGN = {"fp8": "fp8", "mxfp4": "mxfp4"}
CHECKPOINT = "checkpoint"
"""Stands for the formats that the checkpoint is in."""


def plan_recipe(name: str, config: ModelConfig) -> Recipe:
    """The formats that ``name`` stands for in a model; what is not quantized keeps the model's own float type.

    Raises
    ------
    ValueError : there is no such recipe, or its YAML file is wrong.
    """
    hidden = _FLOATS[config.dtype]
    if name == CHECKPOINT:
        return checkpoint_recipe(config)
    if name.removesuffix("-kv8") in _HARDWARE_FLOATS:
        plain, cut = TensorFormat(hidden), _HARDWARE_FLOATS[name.removesuffix("-kv8")]
        kv = TensorFormat("fp8") if name.endswith("-kv8") else plain
        return Recipe(name, weight=cut, activation=cut, kv=kv, hidden=plain)
    if name == "mxfp4":
        if config.experts is None:
            raise ValueError("mxfp4 is a format of experts, and this model has none: use nvfp4")
        return replace(Recipe.named(hidden), name=name, expert_weight=_MXFP4)
    try:
        return Recipe.named(name, hidden)
    except ValueError:
        pass
    try:
        quantization = load_recipe(name)
    except ValueError as error:
        if name.lower().endswith((".yaml", ".yml")):
            raise
        raise ValueError(
            f"unknown recipe {name!r}: use {CHECKPOINT}, bf16, fp16, fp32, fp8, nvfp4 (either with -kv8), mxfp4, a "
            f"form such as w4a8kv4-g128, one of {', '.join(RECIPES)}, or a .yaml file"
        ) from error
    return quantized_recipe(quantization.formats, hidden)


def checkpoint_recipe(config: ModelConfig) -> Recipe:
    """The formats that a checkpoint is in.

    Raises
    ------
    ValueError : others quantized it, in a way that is not known here.
    """
    hidden, method = _FLOATS[config.dtype], config.foreign_quantization
    if method is not None:
        if method not in _FOREIGN:
            raise ValueError(
                f"the checkpoint is quantized by {method!r}, whose formats are not known here: name them with --recipe "
                "such as w4a16kv16-g128"
            )
        return plan_recipe(_FOREIGN[method], config)
    if config.quantization is None:
        return Recipe.named(hidden)
    return quantized_recipe(config.quantization, hidden)


def quantized_recipe(formats: QuantizationConfig, hidden: Float) -> Recipe:
    """Formats of a quantized checkpoint in the language of ``workload``."""
    weights, head = formats.weights, formats.lm_head
    name = f"w{weights.bits}a{formats.activation_bits}kv{formats.kv_bits}{_group(weights)}"
    head_format = None if head.is_float else Recipe.named(f"w{head.bits}a8kv16{_group(head)}", hidden).weight
    return replace(Recipe.named(name, hidden), name=formats.recipe, lm_head=head_format)


def _group(weights: WeightFormat) -> str:
    return "" if weights.group_size is None else f"-g{weights.group_size}"
