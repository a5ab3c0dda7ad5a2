"""Choice of the implementation that computes MaxSim."""

import dataclasses
import functools
import logging

from modernbert_jax import implementations

IMPLEMENTATIONS: dict[str, str] = {
    "dense": "the reference: all products of tokens at once",
    "xla": "plain XLA over the documents, a block of products at a time; runs everywhere",
    "pallas_tpu": "our TPU kernels over blocks of documents and tiles of query tokens",
    "pallas_triton": "our GPU kernels, a document and a tile of query tokens at a time",
}
"""Names of implementations, each with a summary. The module of the same name has `scores` and
`paired`."""

PREFERENCE: dict[str, tuple[str, ...]] = {
    "gpu": ("pallas_triton",),
    "tpu": ("pallas_tpu",),
}
"""Implementations that "auto" tries on each platform, in order, before `xla`."""

_KNOWN = implementations.Implementations("maxsim's implementation", __package__, IMPLEMENTATIONS)
module_of, check_name, refusal = _KNOWN.module_of, _KNOWN.check_name, _KNOWN.refusal

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call(implementations.Call):
    """Facts on which a choice depends."""

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


@functools.lru_cache
def choose(asked: str, call: Call) -> str:
    """The implementation for a call; the first choice for each call is logged.

    An implementation asked for by name is never replaced by another.

    Raises:
        UserError: an unknown implementation, or one that does not support the call.
    """
    check_name(asked)
    if asked != "auto":
        _KNOWN.check_support(asked, call)
        name, why = asked, "asked for"
    else:
        names = (*PREFERENCE.get(call.platform, ()), "xla")
        name, why = _KNOWN.first(names, call, f"default on {call.platform}")
    _log.info("maxsim of %s: %s (%s)", call, name, why)
    return name
