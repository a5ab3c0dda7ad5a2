"""Load `tokenizer.json` with the `tokenizers` library, whose failures become `UserError`.

The library is not robust: for some content it panics, which is no `Exception` in Python, aborts the
process, or searches by a regular expression without end. Content that every ModernBERT has is
checked here; any other is tried first in a child process with limits.
"""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import tokenizers

from modernbert_jax.errors import UserError, clipped, first_line
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.io.text import check_text, printable

MAX_ID = 2**22
"""Ids are below it; the largest known vocabulary has a million tokens."""

SECONDS = 30
"""Time that a trial may take."""

_MEMORY = 2**33
"""Bytes of address space of a trial."""

_FAILS = "the tokenizers library fails"

_PROBES = (
    "",
    "a",
    "The quick brown fox's 1,234.5 jumps over\r\n\tthe  lazy dog ",
    "naïve Ünï 中文字 日本語 한국어 العربية עברית हिन्दी ไทย 🙂👨‍👩‍👧‍👦 \ufeff\u0301\u200b",
    "\0\x01\x7f\u2028 <s></s><unk>[CLS][SEP][MASK][UNK]##a ▁a Ġa",
    *(f"{repeated * 300}\x01" for repeated in ("a", "A", " ", "\n", "1", "-", "é", "中", "ab ")),
)

_TRIAL = """
import sys, tokenizers
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
content, _, probes = sys.stdin.buffer.read().decode().partition("\\0PROBES\\0")
try:
    tokenizer = tokenizers.Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.num_special_tokens_to_add(is_pair=True)
    some = list(tokenizer.get_vocab(with_added_tokens=True).values())[:1000]
    tokenizer.decode(some)
    for probe in probes.split("\\0PROBE\\0"):
        ids = tokenizer.encode(probe).ids
        tokenizer.decode(ids, skip_special_tokens=False)
        tokenizer.encode(probe, add_special_tokens=False)
        tokenizer.encode(probe.split(" "), is_pretokenized=True)
    tokenizer.encode(probes[:500], probes[:500])
    tokenizer.to_str()
except BaseException as error:
    sys.stdout.buffer.write(b"refused " + str(error).encode(errors="replace"))
else:
    sys.stdout.buffer.write(b"works")
"""


def load(content: bytes, origin: str) -> tokenizers.Tokenizer:
    """The library's tokenizer, without truncation and padding.

    Its methods raise `UserError` instead of what the library raises.

    Args:
        content: of a `tokenizer.json`.
        origin: its name in errors.

    Raises:
        UserError: not a tokenizer, or one that the library cannot handle.
    """
    spec = parse_object(content, origin)
    _check_ids(spec, origin)
    if not _is_plain(spec):
        _try(content, origin, spec)
    text = content.decode("utf-8-sig")
    backend = _call(origin, "not a tokenizer", tokenizers.Tokenizer.from_str, text)
    if not backend.get_vocab_size():
        raise UserError(f"{origin}: has no tokens")
    backend.no_truncation()
    backend.no_padding()
    return cast(tokenizers.Tokenizer, _Backend(backend, origin))


class _Backend:
    """A tokenizer of the library whose methods raise `UserError`."""

    def __init__(self, backend: tokenizers.Tokenizer, origin: str):
        self._backend, self._origin = backend, origin

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        attribute = getattr(self._backend, name)
        if not callable(attribute):
            return attribute
        return functools.partial(_call, self._origin, _FAILS, attribute)


def _call(
    origin: str, problem: str, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        _check_texts(args)
        raise UserError(f"{origin}: {problem} ({_reason(str(error), error)})") from None


def _check_texts(args: Sequence[Any]) -> None:
    """Raise `UserError` for half a surrogate pair in a text that the library has refused."""
    for i, text in enumerate(args[0] if args and isinstance(args[0], list) else args):
        for part in text if isinstance(text, list) else (text,):
            if isinstance(part, str):
                check_text(part, f"text {i}")


def _reason(message: str, error: BaseException | None = None) -> str:
    lines = message.strip().splitlines()
    return clipped(printable(lines[0] if lines else first_line(error or ValueError())), 200)


def _check_ids(spec: Mapping[str, Any], origin: str) -> None:
    """Raise `UserError` for ids that are no numbers of a vocabulary, however large."""
    model = spec.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.items()) if isinstance(vocab, dict) else []
    added = spec.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict):
            ids.append((str(token.get("content")), token.get("id")))
    for token, number in ids:
        if type(number) is not int or not 0 <= number < MAX_ID:
            raise UserError(
                f"{origin}: token {clipped(ascii(token), 60)} has id {clipped(repr(number), 60)};"
                f" ids are integers from 0 to {MAX_ID - 1:,}"
            )
    if isinstance(vocab, list) and len(vocab) > MAX_ID:
        raise UserError(f"{origin}: has {len(vocab):,} tokens; at most {MAX_ID:,} are read")


# --- tokenizers as every ModernBERT has them ------------------------------------------------------

_LEVEL = {"type", "add_prefix_space", "trim_offsets", "use_regex"}
_NORMALIZERS = (None, {"type": "NFC"})
_MODEL = {
    "type": ("BPE",),
    "dropout": (None,),
    "unk_token": (None,),
    "continuing_subword_prefix": (None,),
    "end_of_word_suffix": (None,),
    "fuse_unk": (False,),
    "byte_fallback": (False,),
    "ignore_merges": (False, True),
}
"""Keys of a byte-level model besides the vocabulary and merges, with the values that are plain."""

_ADDED = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}


def _is_plain(spec: Mapping[str, Any]) -> bool:
    """Whether a tokenizer is byte-level BPE with a template, for which the library is robust."""
    model, added = spec.get("model"), spec.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(added, list):
        return False
    rest = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    return (
        all(key in _MODEL and value in _MODEL[key] for key, value in rest.items())
        and rest.get("type") == "BPE"
        and _are_merges(model.get("merges"))
        and spec.get("normalizer") in _NORMALIZERS
        and all(_is_level(spec.get(part)) for part in ("pre_tokenizer", "decoder"))
        and all(_is_added(token) for token in added)
        and _is_template(spec.get("post_processor"), model.get("vocab"), added)
    )


def _are_merges(merges: Any) -> bool:
    if not isinstance(merges, list):
        return False
    if all(isinstance(m, str) for m in merges):
        return all(m.count(" ") == 1 and len(m) > 2 and m.strip() == m for m in merges)
    return all(
        isinstance(m, list) and len(m) == 2 and all(isinstance(p, str) and p for p in m)
        for m in merges
    )


def _is_level(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("type") != "ByteLevel" or not part.keys() <= _LEVEL:
        return False
    return all(isinstance(value, bool) for key, value in part.items() if key != "type")


def _is_added(token: Any) -> bool:
    return (
        isinstance(token, dict)
        and token.keys() <= _ADDED
        and isinstance(token.get("content"), str)
        and token["content"] != ""
    )


def _is_template(part: Any, vocab: Any, added: list[Any]) -> bool:
    if not isinstance(part, dict) or part.get("type") != "TemplateProcessing":
        return False
    special, known = part.get("special_tokens"), {token["id"] for token in added}
    if not isinstance(special, dict) or not isinstance(vocab, dict):
        return False
    for token in special.values():
        ids, tokens = (token.get(k) if isinstance(token, dict) else None for k in ("ids", "tokens"))
        if not isinstance(ids, list) or not isinstance(tokens, list) or len(ids) != len(tokens):
            return False
        if not all(type(i) is int and i in known for i in ids):
            return False
    for name in ("single", "pair"):
        pieces = part.get(name)
        if not isinstance(pieces, list):
            return False
        for piece in pieces:
            kind = piece.get("SpecialToken") if isinstance(piece, dict) else None
            if isinstance(kind, dict) and kind.get("id") not in [*special]:
                return False
    return True


# --- other tokenizers -----------------------------------------------------------------------------


def _try(content: bytes, origin: str, spec: Mapping[str, Any]) -> None:
    """Load and use a tokenizer in a child process. Raises `UserError` if that fails."""
    problem = _trial(content, _probes(spec))
    if problem is not None:
        raise UserError(f"{origin}: not a tokenizer ({problem})")


@functools.lru_cache(maxsize=16)
def _trial(content: bytes, probes: tuple[str, ...]) -> str | None:
    """What goes wrong with a tokenizer, or None; None too where no process can be started."""
    script = _TRIAL.replace("MEMORY", str(_MEMORY)).replace("SECONDS", str(SECONDS))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", script],
            input=content + b"\0PROBES\0" + "\0PROBE\0".join(probes).encode(),
            capture_output=True,
            timeout=2 * SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"the tokenizers library takes longer than {2 * SECONDS} s for a short text"
    except (OSError, ValueError):
        return None
    if result.stdout == b"works":
        return None
    if result.stdout.startswith(b"refused "):
        return _reason(result.stdout.removeprefix(b"refused ").decode(errors="replace"))
    if result.returncode == -24:  # SIGXCPU
        return f"the tokenizers library takes longer than {SECONDS} s for a short text"
    return "the tokenizers library crashes"


def _probes(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts to try: usual ones, and runs of each character of the regular expressions."""
    patterns = "".join(_patterns(spec))
    letters = sorted({c for c in patterns if c.isalnum()} | {*re.sub(r"\w|\s", "", patterns)})
    return (*_PROBES, *(f"{letter * 60}\x01" for letter in letters[:100]))


def _patterns(spec: Mapping[str, Any]) -> list[str]:
    patterns: list[str] = []

    def collect(value: dict[str, Any]) -> dict[str, Any]:
        if isinstance(value.get("Regex"), str):
            patterns.append(value["Regex"])
        return value

    parts = {key: spec.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    json.loads(json.dumps(parts), object_hook=collect)
    return patterns
