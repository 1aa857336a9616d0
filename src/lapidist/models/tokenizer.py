"""Text to token ids and back, read from a checkpoint's ``tokenizer.json``."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lapidist.models.chat_template import ChatTemplate
from lapidist.models.errors import ChatTemplateError, CheckpointError
from lapidist.models.json_file import read_json_object

_NAMED_SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


class Tokenizer:
    """A checkpoint's tokenizer and chat templates.

    ``tokenizer.json`` decides how text is split. ``encode`` gives the ids of ``transformers.AutoTokenizer``
    (5.x), and as there beginning- and end-of-text tokens are added by the file's post-processor alone:
    ``add_bos_token`` in ``tokenizer_config.json`` has no say.

    Attributes
    ----------
    backend : the `tokenizers` object, with truncation and padding off.
    special_tokens : the named special tokens, ``{"bos_token": "<s>", ...}``.
    special_token_ids : ids left out of decoded text when special tokens are skipped.
    vocab_size : one more than the highest id; a model may have more (padding) rows.
    is_byte_level : tokens are pieces of a byte string (byte-level BPE, GPT-2) rather than of characters.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_templates: Mapping[str, str] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.special_token_ids = frozenset(
            token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special
        )
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._chat_templates = {
            name: ChatTemplate(source, self.special_tokens) for name, source in (chat_templates or {}).items()
        }
        decoders = _decoder_types(backend)
        self.is_byte_level = "ByteLevel" in decoders
        self._byte_fallback = "ByteFallback" in decoders

    @classmethod
    def from_directory(cls, path: str | Path) -> "Tokenizer":
        """Read ``tokenizer.json`` and, where present, ``tokenizer_config.json``, ``special_tokens_map.json``,
        ``chat_template.jinja`` and ``chat_templates/*.jinja``.

        Raises
        ------
        CheckpointError : a file is missing or cannot be understood.
        """
        directory = Path(path)
        backend = _read_backend(directory / "tokenizer.json")
        config_file = directory / "tokenizer_config.json"
        config = read_json_object(config_file) if config_file.exists() else {}
        special_tokens_file = directory / "special_tokens_map.json"
        if "added_tokens_decoder" not in config and special_tokens_file.exists():
            config |= read_json_object(special_tokens_file)
        try:
            special_tokens = _named_special_tokens(config)
            backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
            _add_missing_tokens(backend, config)
            templates = _read_chat_templates(directory, config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{config_file} is not a tokenizer configuration: {error}") from error
        return cls(backend, special_tokens, templates)

    # -- text and ids --------------------------------------------------------------------------------------

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; unpaired surrogates, which no tokenizer knows, are read as U+FFFD."""
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        # Unlike ``encode`` this lets other threads run: megabytes of text must not hold up a server.
        return list(self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ``token_ids``; ids that the tokenizer does not know (a model's padding) have none."""
        return self.backend.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of a token in the middle of a text; for some tokens they are part of a character.

        Empty for an id that the tokenizer does not know.
        """
        token = self.backend.id_to_token(token_id)
        if token is None:
            return b""
        if self.is_byte_level:
            return byte_level_bytes(token)
        if self.is_byte_token(token_id):
            return bytes([int(token[3:5], 16)])
        # Decoders treat the first token of a text differently, so the token is decoded after another one.
        before = self.decode([token_id], skip_special_tokens=False)
        return self.decode([token_id, token_id], skip_special_tokens=False)[len(before) :].encode()

    def is_byte_token(self, token_id: int) -> bool:
        """Whether the token is one byte of a character that is not in the vocabulary, like ``<0xE2>``."""
        if not self._byte_fallback:
            return False
        token = self.backend.id_to_token(token_id)
        return token is not None and _BYTE_TOKEN.fullmatch(token) is not None

    # -- special tokens ------------------------------------------------------------------------------------

    @property
    def bos_token_id(self) -> int | None:
        return self._special_token_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._special_token_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        return self._special_token_id("pad_token")

    def _special_token_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)

    # -- chat ----------------------------------------------------------------------------------------------

    @property
    def has_chat_template(self) -> bool:
        return bool(self._chat_templates)

    def apply_chat_template(
        self,
        messages: list[dict[str, Any]],
        add_generation_prompt: bool = True,
        tools: list[dict[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation. Encode it with ``add_special_tokens=False``: the template wrote them.

        Parameters
        ----------
        messages : each with a ``role`` and a ``content``: a string or a list of ``{"type": "text", ...}``.
        add_generation_prompt : end with the header of the assistant's next turn.
        tools : JSON schemas of functions that the model may call.
        variables : further names for the template, like ``documents`` or ``enable_thinking``.

        Raises
        ------
        ChatTemplateError : there is no template, or it refuses these messages.
        """
        template = self._select_chat_template(tools)
        return template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables
        )

    def _select_chat_template(self, tools: list[dict[str, Any]] | None) -> ChatTemplate:
        templates = self._chat_templates
        if not templates:
            raise ChatTemplateError(
                "the checkpoint has no chat template: send a text prompt, or add chat_template.jinja to it"
            )
        if tools is not None and "tool_use" in templates:
            return templates["tool_use"]
        if "default" not in templates:
            raise ChatTemplateError(f"none of the chat templates {sorted(templates)} is named 'default'")
        return templates["default"]


_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


def _byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level BPE vocabularies (GPT-2).

    Bytes printable in Latin-1 stand for themselves; the others, in order, are shifted to U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_level_alphabet()


def byte_level_bytes(token: str) -> bytes:
    """Bytes of a byte-level token; a token with any other character (like a space) is its own text."""
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return token.encode()


def _decoder_types(backend: tokenizers.Tokenizer) -> set[str]:
    if backend.decoder is None:
        return set()
    decoder = json.loads(backend.decoder.__getstate__())
    return {part["type"] for part in decoder.get("decoders", [decoder])}


def _read_backend(file: Path) -> tokenizers.Tokenizer:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist: a checkpoint needs a tokenizer in this form") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises the bare class
        raise CheckpointError(f"{file} is not a tokenizer of the tokenizers library: {error}") from error


def _named_special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens as text; the file writes each as a string or as an object with ``content``."""
    tokens = {}
    for name in _NAMED_SPECIAL_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} must be a string or an object with a content, got {value!r}")
        if text is not None:
            tokens[name] = text
    return tokens


def _add_missing_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Give the backend the added and special tokens that ``config`` declares and ``tokenizer.json`` lacks.

    New tokens get ids in this order: ``added_tokens_decoder`` by its own ids (a token listed with other flags
    than the backend's counts as missing), named special tokens, further special tokens.
    """
    present = backend.get_added_tokens_decoder().values()
    known = {repr(token) for token in present}
    declared = {int(key): value for key, value in (config.get("added_tokens_decoder") or {}).items()}
    listed = [_added_token(declared[token_id], special=False) for token_id in sorted(declared)]
    missing = [token for token in listed if repr(token) not in known]

    named = [
        _added_token(value, special=True)
        for key, value in config.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    ]
    named_texts = {token.content for token in named}
    for token in missing:
        token.special = token.special or token.content in named_texts

    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    texts = {token.content for token in (*present, *missing)}
    extra_values = extra.values() if isinstance(extra, dict) else extra
    further = [_added_token(value, special=True) for value in extra_values]
    for token in [*named, *further]:
        if token.content not in texts:
            texts.add(token.content)
            missing.append(token)
    backend.add_tokens(missing)


def _added_token(value: Any, special: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=special)
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(value["content"], **{"special": special, **{k: value[k] for k in flags if k in value}})


def _read_chat_templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name. Files of their own win over ``tokenizer_config.json``."""
    files = {file.stem: file for file in sorted((directory / "chat_templates").glob("*.jinja"))}
    if (directory / "chat_template.jinja").exists():
        files["default"] = directory / "chat_template.jinja"
    if files:
        return {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    declared = config.get("chat_template")
    if declared is None:
        return {}
    if isinstance(declared, str):
        return {"default": declared}
    if isinstance(declared, dict):
        return dict(declared)
    return {entry["name"]: entry["template"] for entry in declared}
