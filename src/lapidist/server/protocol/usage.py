"""Token counts of a request."""

from pydantic import BaseModel


class PromptTokensDetails(BaseModel):
    """``cached_tokens`` were found in the prefix cache."""

    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
