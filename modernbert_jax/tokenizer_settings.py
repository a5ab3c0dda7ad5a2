"""Settings of a tokenizer outside `tokenizer.json`, as transformers 4 and 5 read them.

They name special tokens, add tokens to the vocabulary, and say at which side texts are cut.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import tokenizers
from tokenizers import AddedToken

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.json_reader import parse_json

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

READ = (
    *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
    *("truncation_side", "split_special_tokens", "model_max_length"),
)
"""Keys of `tokenizer_config.json` that are honoured, besides those that end in `_token`."""

IGNORED = {
    "padding_side": "no result depends on padding, which is left out of attention",
    "add_prefix_space": "tokenizer.json says it, as in transformers 5",
    "clean_up_tokenization_spaces": "changes decoded text only",
    "errors": "changes decoded text only",
    "chat_template": "texts are read as they are",
    "tokenizer_class": "every tokenizer.json is read alike",
    "processor_class": "every tokenizer.json is read alike",
    "backend": "every tokenizer.json is read alike",
    "auto_map": "code of others is not run; tokenizer.json is read",
    "use_fast": "every tokenizer.json is read alike",
    "legacy": "tokenizer.json says it",
    "trim_offsets": "tokenizer.json says it",
    "model_input_names": "the model takes token ids alone",
    "max_length": "the model's longest input is model_max_length",
    "stride": "belongs to a call, not to the model",
    "truncation_strategy": "belongs to a call; of a pair the longer text is cut first",
    "pad_to_multiple_of": "no result depends on padding",
    "pad_token_type_id": "the model has no token types",
    "token_type_ids_pattern": "the model has no token types",
    "name_or_path": "says where the tokenizer came from",
    "special_tokens_map_file": "says where the tokenizer came from",
    "is_local": "says where the tokenizer came from",
    "local_files_only": "says where the tokenizer came from",
    "transformers_version": "says what wrote the file",
    "verbose": "changes messages only",
}
"""Keys of `tokenizer_config.json` without an effect here, on purpose, each with the reason."""

Side = Literal["left", "right"]


class Settings(NamedTuple):
    """What the files beside `tokenizer.json` say."""

    named: dict[str, str]
    """Special tokens by key, such as {"cls_token": "[CLS]"}."""
    special: tuple[AddedToken, ...]
    """The same as tokens, each once."""
    added: tuple[AddedToken, ...]
    """Tokens in the order in which they are added, unless `tokenizer.json` has them."""
    truncation_side: Side | None
    """Side at which texts are cut; None where the files do not say it."""
    split_special: bool
    """Whether special tokens that are written in a text are read as text."""

    def apply(self, backend: tokenizers.Tokenizer) -> None:
        """Add the tokens that the tokenizer lacks. Their ids follow the largest one."""
        present = list(backend.get_added_tokens_decoder().values())
        same, spelled = {*map(repr, present)}, {token.content for token in present}
        missing = [token for token in self.added if repr(token) not in same]
        spelled |= {token.content for token in missing}
        missing += [t for t in self.special if t.content not in spelled]
        if missing:
            backend.add_tokens(missing)
        if self.split_special:
            backend.encode_special_tokens = True


def read(files: Mapping[str, bytes]) -> Settings:
    """The settings in a tokenizer's files by name.

    As in transformers, `added_tokens_decoder` replaces the other two files; without it
    `special_tokens_map.json` overrides the configuration.

    Raises:
        UserError: values of the wrong type.
    """
    config = _object(files, CONFIG)
    decoder = config.get("added_tokens_decoder")
    if decoder is None:
        config = {**config, **_object(files, SPECIAL)}
    tokens = {
        key: _token(value, f"{CONFIG}: {key}", special=True)
        for key, value in config.items()
        if key.endswith("_token") and _content(value) is not None
    }
    named = {key: token.content for key, token in tokens.items()}
    special = tuple({token.content: token for token in tokens.values()}.values())
    more = [
        token
        for key in ("additional_special_tokens", "extra_special_tokens")
        for token in _listed(config.get(key), key)
    ]
    spelled = {*named.values(), *(token.content for token in more)}
    added = []
    if decoder is not None:
        added = [_token(t, f"{CONFIG}: added_tokens_decoder") for t in _by_id(decoder)]
    else:
        added = [
            AddedToken(text, normalized=text not in spelled, special=text in spelled)
            for text, _ in sorted(_object(files, ADDED).items(), key=lambda item: _id(item[1]))
        ]
    kept = {token.content for token in added}
    added += [token for token in more if token.content not in kept]
    side = config.get("truncation_side")
    if side not in (None, "left", "right"):
        remedy = did_you_mean(str(side), ("left", "right"))
        raise UserError(f"{CONFIG}: truncation_side is {side!r}; {remedy}")
    split = config.get("split_special_tokens") is True
    return Settings(named, special, tuple(added), side, split)


def side_in(content: bytes) -> Side:
    """The side at which a `tokenizer.json` cuts texts; right where it does not say it."""
    if b'"direction"' not in content:
        return "right"
    truncation = parse_json(content, "tokenizer.json").get("truncation") or {}
    return "left" if truncation.get("direction") == "Left" else "right"


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    value = parse_json(files.get(name, b"{}"), name)
    return value if isinstance(value, dict) else {}


def _content(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) and content else None


def _by_id(decoder: Any) -> Iterable[Any]:
    if not isinstance(decoder, Mapping):
        raise UserError(f"{CONFIG}: added_tokens_decoder must map ids to tokens")
    return [token for _, token in sorted(decoder.items(), key=lambda item: _id(item[0]))]


def _id(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal():
        raise UserError(f"{CONFIG}: {value!r} is not the id of an added token")
    return int(value)


def _listed(value: Any, key: str) -> list[AddedToken]:
    """Tokens of a list, or of an object by name."""
    values = [*value.values()] if isinstance(value, Mapping) else value or []
    if not isinstance(values, list):
        raise UserError(f"{CONFIG}: {key} is {value!r:.80}; it must be a list of tokens")
    return [_token(token, f"{CONFIG}: {key}") for token in values]


def _token(value: Any, where: str, special: bool | None = None) -> AddedToken:
    content = _content(value)
    if content is None:
        raise UserError(f"{where} has {value!r:.80}; it must be a token with its content")
    if isinstance(value, str):
        return AddedToken(content, special=True, normalized=False)
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    own = {flag: value[flag] for flag in flags if type(value.get(flag)) is bool}
    return AddedToken(content, **own | ({} if special is None else {"special": special}))
