"""Options that would leave the server useless or open are refused."""

import pytest

from lapidist.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_body_bytes": 0}, "max_body_bytes must be greater than 0, got 0"),
        ({"max_prompt_tokens": -1}, "max_prompt_tokens"),
        ({"request_timeout_seconds": 0}, "request_timeout_seconds"),
        ({"drain_timeout_seconds": -1}, "drain_timeout_seconds"),
        ({"api_key": ""}, "API key"),
        ({"api_key": "  "}, "API key"),
        ({"api_key": "schlüssel"}, "API key"),
        ({"api_key": "key\n"}, "API key"),
        ({"served_model_names": ("a", "")}, "served model name"),
    ],
)
def test_bad_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerSettings(**options)  # type: ignore[arg-type]


def test_unset_limits_are_no_limits() -> None:
    settings = ServerSettings()
    assert settings.max_prompt_tokens is None
    assert settings.api_key is None
