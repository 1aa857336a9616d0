"""The OpenAI API's requests and responses as pydantic models."""
