"""Choice of the implementation that computes a layer's attention."""

import dataclasses
import functools
import inspect
import logging

from modernbert_jax import implementations
from modernbert_jax.attention import tuning
from modernbert_jax.errors import UserError, did_you_mean

IMPLEMENTATIONS: dict[str, str] = {
    "dense": "the reference: all T x T scores at once",
    "xla_range": "flash attention in plain XLA over the key blocks in range; runs everywhere",
    "two_block": "plain XLA for sliding windows, differentiable to any order",
    "splash": "jax's TPU kernel with segment ids and a block mask computed at run time",
    "pallas_tpu": "our TPU kernels: one for sliding windows, one for whole documents",
    "pallas_triton": "our GPU kernel over the key blocks in range",
    "pallas_hopper": "our kernels for Hopper GPUs; not timed yet, so only on request or if tuned",
}
"""Names of implementations, each with a summary. The module of the same name has `attention` and
perhaps `rotate`. Tuning files may set the keyword arguments of `attention`, and those in `OPTIONS`.
"""

FORWARD_MODE = ("dense", "two_block")
"""Implementations with forward-mode and higher derivatives. The others, and "auto" which may choose
any of them, have first-order reverse-mode derivatives only."""

PREFERENCE = {
    "cpu": ("xla_range",),
    "gpu": ("pallas_triton", "two_block", "xla_range"),
    "tpu": ("pallas_tpu", "splash", "two_block", "xla_range"),
}
"""Implementations that "auto" tries on each platform, in order. The last supports every call."""

_ELSEWHERE = ("two_block", "xla_range")
"""The same for all other platforms."""

_KNOWN = implementations.Implementations("attention", __package__, IMPLEMENTATIONS)
module_of, check_name, refusal = _KNOWN.module_of, _KNOWN.check_name, _KNOWN.refusal

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call(implementations.Call):
    """Facts on which a choice depends."""

    length: int
    heads: int
    head_dim: int
    window: int | None
    symmetric: bool
    """Whether keys that a query sees also see it; False under a causal mask."""
    keys: int | None = None
    """Number of keys, where they are not the tokens of the queries; None is `length`."""

    @property
    def kind(self) -> str:
        """Kind of layer in a tuning table: "sliding" or "full"."""
        return "full" if self.window is None else "sliding"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen implementation with its options, such as block sizes."""

    name: str
    why: str
    options: tuple[tuple[str, int], ...] = ()


def has_forward_mode(name: str) -> bool:
    """Whether "auto" or an implementation has forward-mode and higher derivatives."""
    return name in FORWARD_MODE


@functools.lru_cache
def choose(asked: str, call: Call) -> Choice:
    """The implementation for a call; the first choice for each call is logged.

    An implementation asked for by name is never replaced by another. "auto" takes the tuned one of
    the device if there is an entry, else the first of `PREFERENCE` that supports the call.

    Raises:
        UserError: an unknown implementation, one that does not support the call, or an unknown
            name in a tuning file.
    """
    check_name(asked)
    tuned = tuning.lookup(call.device_kind, call.kind, call.head_dim, call.dtype)
    if asked != "auto":
        _KNOWN.check_support(asked, call)
        name, why = asked, "asked for"
    else:
        name, why = _automatic(call, tuned)
    choice = Choice(name, why, tuned.options_of(name))
    _check_options(choice, call)
    _log.info("attention %s: %s (%s)", _describe(call), name, why)
    return choice


def _automatic(call: Call, tuned: tuning.Entry) -> tuple[str, str]:
    names, first = PREFERENCE.get(call.platform, _ELSEWHERE), f"default on {call.platform}"
    if tuned.implementation:
        if tuned.implementation not in IMPLEMENTATIONS:
            near = did_you_mean(tuned.implementation, IMPLEMENTATIONS)
            raise UserError(f"{_source(call)}: no implementation {tuned.implementation!r}; {near}")
        names, first = (tuned.implementation, *names), "tuned"
    return _KNOWN.first(names, call, first)


def _check_options(choice: Choice, call: Call) -> None:
    """Raise `UserError` for options of a tuning file that the implementation does not have."""
    module = module_of(choice.name)
    named = inspect.signature(module.attention).parameters.values()
    known = {p.name for p in named if p.kind == p.KEYWORD_ONLY} - {"window"}
    known |= set(getattr(module, "OPTIONS", ()))
    for name, _ in choice.options:
        if name not in known:
            near = did_you_mean(name, known) if known else "it has none"
            raise UserError(f"{_source(call)}: {choice.name} has no option {name!r}; {near}")


def _source(call: Call) -> str:
    return f"tuning of {call.kind} attention on {call.device_kind}"


def _describe(call: Call) -> str:
    span = "over documents" if call.window is None else f"within {call.window}"
    tokens = str(call.length) if call.keys is None else f"{call.length} of {call.keys}"
    return f"{span}, {tokens} tokens x {call.heads} heads x {call.head_dim}, {call.dtype}"
