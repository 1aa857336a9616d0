"""How every request object is validated."""

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """JSON types are taken at their word ("5" is not 5); unknown fields are ignored, as is usual."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
