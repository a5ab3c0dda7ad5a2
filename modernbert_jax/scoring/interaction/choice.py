"""Choice of the implementation that computes MaxSim."""

import dataclasses
import functools
import importlib
import logging
from types import ModuleType
from typing import Any, Self

from modernbert_jax import platform
from modernbert_jax.errors import UserError, did_you_mean

IMPLEMENTATIONS: dict[str, str] = {
    "dense": "the reference: all products of tokens at once",
    "xla": "plain XLA over the documents, a block of products at a time; runs everywhere",
    "pallas_tpu": "our TPU kernels over blocks of documents and tiles of query tokens",
    "pallas_triton": "our GPU kernels, a document and a tile of query tokens at a time",
}
"""Names of implementations, each with a summary; the module of the same name computes it."""

PREFERENCE: dict[str, tuple[str, ...]] = {
    "gpu": ("pallas_triton",),
    "tpu": ("pallas_tpu",),
}
"""Implementations that "auto" tries on each platform, in order, before `xla`."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """Facts on which a choice depends; shapes are those on one device."""

    platform: str
    """Platform of the program being traced: "cpu", "gpu" or "tpu"."""
    device_kind: str
    capability: tuple[int, int] | None = None
    """Major and minor compute capability of an NVIDIA GPU; None for other devices."""
    dtype: str
    width: int
    """Dimensions of the vectors."""
    query_tokens: int
    queries: int
    rows: int
    """Rows of documents."""
    length: int
    """Tokens of a row of documents."""
    texts: int
    """Documents of a row, at most."""
    paired: bool = False
    """Whether each document is compared with one query only."""

    @classmethod
    def traced(cls, **shape: Any) -> Self:
        """A call on the device for which a program is being traced; `shape` is all other facts."""
        on, kind = platform.device()
        return cls(platform=on, device_kind=kind, capability=platform.capability(), **shape)


def module_of(name: str) -> ModuleType:
    """The module of an implementation, with `scores`, `paired` and `refuses`."""
    return importlib.import_module(f"{__package__}.{name}")


def check_name(name: str) -> None:
    """Raise `UserError` unless `name` is "auto" or an implementation."""
    if name != "auto" and name not in IMPLEMENTATIONS:
        known = did_you_mean(name, ["auto", *IMPLEMENTATIONS])
        raise UserError(f"maxsim's implementation is {name!r}; {known}")


def refusal(name: str, call: Call) -> str | None:
    """The reason why an implementation does not support a call, or None.

    An implementation that this version of jax cannot import supports none.
    """
    try:
        return module_of(name).refuses(call)
    except ImportError as error:
        return f"it cannot be imported ({error})"


@functools.lru_cache
def choose(asked: str, call: Call) -> str:
    """The implementation for a call; the first choice for each call is logged.

    An implementation asked for by name is never replaced by another.

    Raises:
        UserError: an unknown implementation, or one that does not support the call.
    """
    check_name(asked)
    if asked != "auto":
        if reason := refusal(asked, call):
            raise UserError(f"maxsim by {asked!r} cannot be used: {reason}; 'auto' finds one")
        name, why = asked, "asked for"
    else:
        name, why = _automatic(call)
    _log.info("maxsim of %s: %s (%s)", call, name, why)
    return name


def _automatic(call: Call) -> tuple[str, str]:
    refused: list[str] = []
    for name in PREFERENCE.get(call.platform, ()):
        reason = refusal(name, call)
        if not reason:
            return name, "; ".join(refused) or f"default on {call.platform}"
        refused.append(f"not {name}: {reason}")
    return "xla", "; ".join(refused) or f"default on {call.platform}"
