"""Tokenizers from `tokenizer.json`, and training of new ones, with the `tokenizers` library.

A tokenizer keeps the bytes of its files, which checkpoints carry unchanged. Truncation and padding
that a file may prescribe are switched off on loading.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from modernbert_jax import tokenizer_settings
from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import read_bytes
from modernbert_jax.tokenizer_settings import ADDED, CONFIG, SPECIAL

from . import tokenizer_backend

FILES = (
    "tokenizer.json",
    *(CONFIG, SPECIAL, ADDED),
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""Files of a tokenizer in a checkpoint's directory; only the first is required."""

ROLES = {
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<bos>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<eos>", "<sep>"),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Roles of special tokens, with the spellings that are tried where no configuration names them."""

UNUSED = r"\[unused\d+\]"
"""Regular expression of tokens that only fill up a vocabulary."""


class Tokenizer:
    """Conversion of text to ids and back; immutable and thread-safe."""

    def __init__(self, files: Mapping[str, bytes], origin: str = "tokenizer.json"):
        """Build from the content of `FILES`; `origin` names them in `UserError`.

        Other files of a checkpoint may be among them; they are left out.
        Tokens and settings outside `tokenizer.json` count as in transformers; see
        `tokenizer_settings`.
        """
        self.files = {name: content for name, content in files.items() if name in FILES}
        self.backend = tokenizer_backend.load(files["tokenizer.json"], origin)
        settings = tokenizer_settings.read(self.files)
        settings.apply(self.backend)
        self._named = settings.named
        self.truncation_side = settings.truncation_side or tokenizer_settings.side_in(
            files["tokenizer.json"]
        )
        """Side at which texts that are too long are cut: "left" or "right"."""

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """A tokenizer from a directory or a `tokenizer.json`. Raises `UserError`."""
        path = Path(path).expanduser()
        main = path / "tokenizer.json" if path.is_dir() else path
        if not main.is_file():
            raise UserError(f"{main}: no such tokenizer file")
        names = FILES if path.is_dir() else ()
        files = {name: read_bytes(path / name) for name in names if (path / name).is_file()}
        return cls({**files, "tokenizer.json": read_bytes(main)}, str(main))

    def save(self, directory: str | Path) -> None:
        """Write the files into an existing directory, byte for byte."""
        for name, content in self.files.items():
            (Path(directory) / name).write_bytes(content)

    def encode(
        self,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        cut: list[bool] | None = None,
    ) -> list[list[int]]:
        """Ids with the template's special tokens; longer texts are cut to `max_length` ids.

        They lose their end, or their beginning where `truncation_side` is left. Whether a text was
        cut is appended to `cut`, for each.
        """
        texts = list(texts)
        ids = [e.ids for e in self.backend.encode_batch_fast(texts)]
        if cut is not None:
            cut += [max_length is not None and len(i) > max_length for i in ids]
        if max_length is None:
            return ids
        return [
            self._shorten(i, text, max_length) if len(i) > max_length else i
            for i, text in zip(ids, texts, strict=True)
        ]

    def encode_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        max_length: int | None = None,
        cut: list[bool] | None = None,
    ) -> list[list[int]]:
        """Ids of pairs of texts in their template; over `max_length` the longer text is cut first.

        Whether a pair was cut is appended to `cut`, for each.

        Raises:
            UserError: an item that is not a pair of texts.
        """
        for i, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or [type(t) for t in pair] != [str, str]:
                raise UserError(f"input {i} is {pair!r}; it must be a pair of texts, as the first")
        sides = (
            self.backend.encode_batch_fast([pair[k] for pair in pairs], add_special_tokens=False)
            for k in range(2)
        )
        special = self.backend.num_special_tokens_to_add(is_pair=True)
        ids = []
        for first, second in zip(*sides, strict=True):
            if cut is not None:
                whole = len(first) + len(second) + special
                cut.append(max_length is not None and whole > max_length)
            if max_length is not None:
                kept = _longest_first(len(first), len(second), max(max_length - special, 0))
                first.truncate(kept[0], direction=self.truncation_side)
                second.truncate(kept[1], direction=self.truncation_side)
            ids.append(self.backend.post_process(first, second).ids)
        return ids

    @cached_property
    def pair_template(self) -> tuple[list[int], list[int], list[int]]:
        """Special ids before, between and after the two texts of a pair.

        Raises:
            UserError: a tokenizer that changes the texts of a pair.
        """
        texts = ("a", "b c")
        first, second = self.encode_raw(texts)
        (joined,) = self.encode_pairs([texts])
        for start in range(len(joined)):
            middle = start + len(first)
            for end in range(middle, len(joined) + 1 - len(second)):
                if joined[start:middle] == first and joined[end : end + len(second)] == second:
                    return joined[:start], joined[middle:end], joined[end + len(second) :]
        raise UserError("the tokenizer changes texts of a pair; it cannot be used for rerankers")

    def join_pair(self, first: Sequence[int], second: Sequence[int], max_length: int) -> list[int]:
        """Ids of a pair from those of `encode_raw`, as `encode_pairs` gives them."""
        before, between, after = self.pair_template
        special = len(before) + len(between) + len(after)
        kept = _longest_first(len(first), len(second), max(max_length - special, 0))
        texts = []
        for ids, length in zip((first, second), kept, strict=True):
            left = self.truncation_side == "left"
            texts.append(ids[len(ids) - length :] if left else ids[:length])
        return [*before, *texts[0], *between, *texts[1], *after]

    def encode_raw(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without special tokens."""
        return [
            e.ids for e in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of the ids."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def token(self, token_id: int) -> str | None:
        """The vocabulary's spelling of an id, or None."""
        return self.backend.id_to_token(token_id)

    @cached_property
    def vocab_size(self) -> int:
        """Number of rows that an embedding table needs: the largest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that are marked as special or have a role."""
        marked = {i for i, t in self.backend.get_added_tokens_decoder().items() if t.special}
        roles = (self.role_id(role) for role in ROLES)
        return tuple(sorted(marked | {i for i in roles if i is not None}))

    @cached_property
    def unused_ids(self) -> tuple[int, ...]:
        """Ids that only fill up the vocabulary: those without a token, and all `[unusedN]`."""
        vocab = self.backend.get_vocab(with_added_tokens=True)
        used = {i for token, i in vocab.items() if not re.fullmatch(UNUSED, token)}
        return tuple(i for i in range(self.vocab_size) if i not in used)

    @property
    def cls_id(self) -> int:
        """Id of the token that begins a sequence."""
        return self._need("cls")

    @property
    def sep_id(self) -> int:
        """Id of the token that ends a sequence."""
        return self._need("sep")

    @property
    def pad_id(self) -> int:
        """Id of padding."""
        return self._need("pad")

    @property
    def mask_id(self) -> int:
        """Id of the mask."""
        return self._need("mask")

    @property
    def unk_id(self) -> int | None:
        """Id of the unknown token, or None."""
        return self.role_id("unk")

    @property
    def filler_id(self) -> int:
        """Id of the token that fills up queries: the mask, or else the end of a sequence."""
        mask = self.role_id("mask")
        return self._need("sep") if mask is None else mask

    def _need(self, role: str) -> int:
        token_id = self.role_id(role)
        if token_id is None:
            raise UserError(
                f"tokenizer.json: has no {role} token; name one as {role}_token in"
                " tokenizer_config.json"
            )
        return token_id

    def role_id(self, role: str) -> int | None:
        """Id of the token with a role, a key of `ROLES`, or None."""
        named = self._named.get(f"{role}_token")
        for token in (named,) if named else ROLES[role]:
            if (token_id := self.backend.token_to_id(token)) is not None:
                return token_id
        return None

    def _shorten(self, ids: list[int], text: str, max_length: int) -> list[int]:
        """Cut one side of the text, and keep the special tokens around it."""
        if self.truncation_side == "left":
            room = max_length - self.backend.num_special_tokens_to_add(is_pair=False)
            alone = self.backend.encode(text, add_special_tokens=False)
            alone.truncate(max(room, 0), direction="left")
            return self.backend.post_process(alone).ids
        if ids[-1] in self.special_ids:
            return [*ids[: max_length - 1], ids[-1]]
        return ids[:max_length]


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Two lengths after tokens are removed from the longer one until they fit."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)


def train(texts: Iterable[str], vocab_size: int, *, max_length: int = 8192) -> Tokenizer:
    """Train a byte-level BPE with ModernBERT's normalizer, template and special tokens.

    The ids of special tokens follow those of merges, then [unusedN] up to the next multiple of 64,
    which suits matrix units.

    Args:
        texts: the corpus; read once.
        vocab_size: number of ids in all, at least 256 bytes and 5 special tokens.
        max_length: the model's longest sequence in tokens, written to `tokenizer_config.json`.

    Raises:
        UserError: `vocab_size` is too small.
    """
    special = [names[0] for names in ROLES.values()]
    if vocab_size < 256 + len(special):
        raise UserError(
            f"vocab_size is {vocab_size}; it must be {256 + len(special)} or more: 256 bytes and"
            f" {len(special)} special tokens"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - len(special),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False, lstrip=t == "[MASK]") for t in special]
    )
    size = backend.get_vocab_size()
    unused = 64 * math.ceil(size / 64) - size
    backend.add_tokens([AddedToken(f"[unused{i}]", normalized=True) for i in range(unused)])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(t, backend.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    files = {
        "tokenizer.json": backend.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(default_config(max_length), indent=2),
    }
    return Tokenizer({name: content.encode() for name, content in files.items()})


def default_config(max_length: int) -> dict[str, Any]:
    """A `tokenizer_config.json` that transformers 4 and 5 both accept."""
    return {
        **{f"{role}_token": names[0] for role, names in ROLES.items()},
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
