"""``/v1/models``, ``/version`` and ``/health``: what goes out."""

from typing import Literal

from pydantic import BaseModel


class ModelCard(BaseModel):
    """``max_model_len``: prompt and generated tokens at most. ``root``: the checkpoint behind the name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lapidist"] = "lapidist"
    root: str
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Version(BaseModel):
    version: str


class Health(BaseModel):
    status: Literal["ok"] = "ok"
