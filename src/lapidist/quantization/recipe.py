"""A recipe: which passes run, and into which numbers they cut. By name, or from a YAML file of the same fields."""

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lapidist.kernels.quantized_weight import GROUP_SIZE
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat

Bits = Literal[4, 8, 16]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Section):
    """How matrices are rounded.

    Attributes
    ----------
    bits : 4, 8, or 16 for floats.
    group_size : 128 or null (one scale for each output channel).
    rounding : ``nearest``, or ``gptq`` (arXiv 2210.17323).
    clip : search how far to clip each channel's or group's range, for the least error of outputs.
    """

    bits: Bits = 16
    group_size: int | None = None
    rounding: Literal["nearest", "gptq"] = "nearest"
    clip: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group_size not in (None, GROUP_SIZE) or (self.group_size and self.bits != 4):
            raise ValueError(f"group_size must be {GROUP_SIZE}, for 4 bits, or null")
        if self.bits == 16 and (self.rounding != "nearest" or self.clip):
            raise ValueError("rounding and clip are for 4 or 8 bits")
        return self

    @property
    def format(self) -> WeightFormat:
        return WeightFormat(self.bits, self.group_size)

    @property
    def is_float(self) -> bool:
        return self.bits == 16


class AttentionSmoothing(_Section):
    """Exponent of the keys' largest magnitudes (``quantization.attention_smoothing``). With ``search`` the best of a
    grid of exponents is taken, of queries too, by the error of attention over the quantized cache."""

    search: bool = False
    alpha: float = Field(default=0.5, ge=0, le=1)


class OutputSmoothing(_Section):
    """Exponents of activations and of weights (``quantization.output_smoothing``)."""

    alpha: float = Field(default=0.3, ge=0, le=1)
    beta: float = Field(default=0.7, ge=0, le=1)


class SmoothQuant(_Section):
    """Exponent of activations (``quantization.smoothquant``)."""

    alpha: float = Field(default=0.5, ge=0, le=1)


class Calibration(_Section):
    """The text that statistics are taken of: ``sequences`` of ``length`` tokens, drawn by ``seed``."""

    sequences: int = Field(default=64, ge=1, le=100_000)
    length: int = Field(default=512, ge=16, le=1 << 20)
    seed: int = Field(default=42, ge=0)


class Recipe(_Section):
    """What ``quantize`` does.

    Attributes
    ----------
    weights, lm_head : of the layers' linear projections, and of the output head.
    activations, kv_cache : bits.
    rotation, value_rotation, reordering, attention_smoothing, output_smoothing, awq, smoothquant : the passes, each a
        file of ``lapidist.quantization``. Rotation folds the norms first.
    """

    name: str = Field(min_length=1)
    weights: Weights = Weights()
    lm_head: Weights = Weights()
    activations: Literal[8, 16] = 16
    kv_cache: Bits = 16
    rotation: bool = False
    value_rotation: bool = False
    reordering: bool = False
    attention_smoothing: AttentionSmoothing | None = None
    output_smoothing: OutputSmoothing | None = None
    awq: bool = False
    smoothquant: SmoothQuant | None = None
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.activations == 8 and self.weights.is_float:
            raise ValueError("activations of 8 bits need weights of 4 or 8 bits")
        if self.rotation and (self.awq or self.smoothquant):
            raise ValueError(
                "rotation cannot go with awq or smoothquant: they give norms weights, which do not commute with it"
            )
        if self.kv_cache == 16 and self.attention_smoothing and self.attention_smoothing.search:
            raise ValueError("the search of attention_smoothing needs a kv_cache of 4 or 8 bits to try it on")
        if self.smoothquant and (self.awq or self.output_smoothing):
            raise ValueError("smoothquant cannot go with awq or output_smoothing: they scale the same inputs")
        if self.awq and self.output_smoothing:
            raise ValueError("awq cannot go with output_smoothing: they scale the same inputs")
        if self.awq and self.weights.is_float:
            raise ValueError("awq needs weights of 4 or 8 bits")
        return self

    @property
    def formats(self) -> QuantizationConfig:
        """What the checkpoint's ``config.json`` says."""
        return QuantizationConfig(
            self.name, self.weights.format, self.lm_head.format, self.activations, self.kv_cache
        )

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of those that run."""
        return tuple(name for name in (*_BLIND_PASSES, *_SEEING_PASSES) if getattr(self, name))

    @property
    def needs_statistics(self) -> bool:
        """Whether a pass looks at activations before weights are rounded."""
        return any(name in _SEEING_PASSES for name in self.passes)

    def calibrated_by(self, changes: dict[str, int]) -> "Recipe":
        """The recipe with some fields of its calibration changed; raises ValueError if one is out of range."""
        calibration = self.calibration.model_dump() | changes
        try:
            return self.model_copy(update={"calibration": Calibration(**calibration)})
        except ValidationError as error:
            raise ValueError(f"calibration.{_first_problem(error)}") from None

    def to_yaml(self) -> str:
        """What ``load_recipe`` reads it from."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


_BLIND_PASSES = ("rotation", "value_rotation")
_SEEING_PASSES = ("smoothquant", "awq", "output_smoothing", "attention_smoothing", "reordering")

_GROUPS: dict[str, Any] = {"bits": 4, "group_size": GROUP_SIZE}
_QOQ: dict[str, Any] = {
    "lm_head": {"bits": 8},
    "activations": 8,
    "kv_cache": 4,
    "rotation": True,
    "value_rotation": True,
    "attention_smoothing": {"alpha": 0.5},
}
_W4A8KV4: dict[str, Any] = {"lm_head": {"bits": 8}, "activations": 8, "kv_cache": 4}

_QOQ_GROUPS: dict[str, Any] = _QOQ | {
    "weights": _GROUPS | {"rounding": "gptq", "clip": True},
    "reordering": True,
    "output_smoothing": {"alpha": 0.3, "beta": 0.7},
}

# QoQ's authors clip channels and do not reorder them, and the other way about with groups: qoq-g128-unclipped. Clipped
# groups lose less.
RECIPES: dict[str, dict[str, Any]] = {
    "qoq-g128": _QOQ_GROUPS,
    "qoq-g128-unclipped": _QOQ_GROUPS | {"weights": _GROUPS | {"rounding": "gptq"}},
    "qoq-channel": _QOQ
    | {
        "weights": {"bits": 4, "rounding": "gptq", "clip": True},
        "attention_smoothing": {"search": True},
        "output_smoothing": {"alpha": 0.1, "beta": 0.9},
    },
    "rtn-w4a8kv4-g128": _W4A8KV4 | {"weights": _GROUPS},
    "rtn-w4a8kv4-channel": _W4A8KV4 | {"weights": {"bits": 4}},
    "awq-w4a8kv4-g128": _W4A8KV4 | {"weights": _GROUPS | {"clip": True}, "awq": True},
    "awq-w4a16-g128": {"weights": _GROUPS | {"clip": True}, "awq": True},
    "gptq-w4a16-g128": {"weights": _GROUPS | {"rounding": "gptq"}},
    "rtn-w4a16-g128": {"weights": _GROUPS},
    "smoothquant-w8a8": {"weights": {"bits": 8}, "activations": 8, "smoothquant": {"alpha": 0.5}},
    "rtn-w8a8": {"weights": {"bits": 8}, "activations": 8},
    "kv8": {"kv_cache": 8},
    "kv4": {"kv_cache": 4},
    "kv4-smooth": {"kv_cache": 4, "attention_smoothing": {"alpha": 0.5}},
}


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe by its name, or of a YAML file.

    The file has the fields of ``Recipe``; with ``base: NAME`` it changes a named recipe.

    Raises
    ------
    ValueError : there is no such recipe, or the file is wrong; one sentence naming the field.
    """
    if name_or_file in RECIPES:
        return Recipe(name=name_or_file, **RECIPES[name_or_file])
    path = Path(name_or_file)
    if path.suffix.lower() not in (".yaml", ".yml"):
        close = difflib.get_close_matches(name_or_file, RECIPES, n=1)
        hint = f": did you mean {close[0]}?" if close else "."
        raise ValueError(
            f"unknown recipe {name_or_file!r}{hint} Known are {', '.join(RECIPES)}, or give a .yaml file"
        )
    return _from_fields(_read_yaml(path), path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ValueError(
            f"{path}{line} is not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold the fields of a recipe, such as 'base: qoq-g128'")
    return fields


def _from_fields(fields: dict[str, Any], path: Path) -> Recipe:
    base = fields.pop("base", None)
    if base is not None and base not in RECIPES:
        raise ValueError(f"{path}: base is {base!r}; known recipes are {', '.join(RECIPES)}")
    fields = {"name": path.stem} | _merged(RECIPES.get(base, {}), fields)
    try:
        return Recipe(**fields)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{path}: {_first_problem(error)}") from None


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged field by field."""
    merged = base | changes
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = base[key] | value
    return merged


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "its keys must be names of fields"
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
