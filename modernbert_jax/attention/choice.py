"""Which implementation computes a layer's attention, and why."""

import dataclasses
import functools
import importlib
import inspect
import logging
from types import ModuleType

from modernbert_jax.attention import tuning
from modernbert_jax.errors import UserError, did_you_mean

IMPLEMENTATIONS: dict[str, str] = {
    "dense": "the oracle: all T x T scores at once",
    "xla_range": "flash attention in plain XLA over the key blocks in range; runs everywhere",
    "two_block": "plain XLA for sliding windows, differentiable to any order",
    "splash": "jax's TPU kernel with segment ids and a block mask made at run time",
    "pallas_tpu": "our TPU kernels: one for sliding windows, one for whole documents",
    "pallas_triton": "our GPU kernel over the key blocks in range",
}
"""Names of implementations, each with a summary; the module of the same name computes it."""

FORWARD_MODE = ("dense", "two_block")
"""Implementations with forward-mode and higher derivatives. The others, and "auto" which may choose
any of them, have first-order reverse-mode derivatives only."""

PREFERENCE = {
    "cpu": ("xla_range",),
    "gpu": ("pallas_triton", "two_block", "xla_range"),
    "tpu": ("pallas_tpu", "splash", "two_block", "xla_range"),
}
"""What `auto` tries on each platform, in this order. Every list ends in what can do everything."""

_ELSEWHERE = ("two_block", "xla_range")
"""On platforms that are not named above."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """The facts that a choice rests on; shapes are those on one device."""

    platform: str
    """"cpu", "gpu" or "tpu": where the program being traced will run."""
    device_kind: str
    capability: tuple[int, int] | None = None
    """Of an NVIDIA GPU that is present: major and minor compute capability."""
    dtype: str
    length: int
    heads: int
    head_dim: int
    window: int | None
    symmetric: bool
    """False under a causal mask."""
    keys: int | None = None
    """How many there are, where they are not the tokens of the queries themselves."""

    @property
    def kind(self) -> str:
        """The row of a tuning table: "sliding" or "full"."""
        return "full" if self.window is None else "sliding"


@dataclasses.dataclass(frozen=True)
class Choice:
    """An implementation with the block sizes and so on that it is called with."""

    name: str
    why: str
    options: tuple[tuple[str, int], ...] = ()


def module_of(name: str) -> ModuleType:
    """The module of an implementation: `attention`, `refuses` and, where it has one, `rotate`.

    What a tuning file may set are the keyword arguments of `attention`, and names in `OPTIONS`.
    Kernels import only where they are used: not every platform has what they need.
    """
    return importlib.import_module(f"{__package__}.{name}")


def check_name(name: str) -> None:
    """Raises UserError unless `name` is "auto" or an implementation."""
    if name != "auto" and name not in IMPLEMENTATIONS:
        raise UserError(f"attention is {name!r}; {did_you_mean(name, ['auto', *IMPLEMENTATIONS])}")


def has_forward_mode(name: str) -> bool:
    """Whether "auto" or an implementation has forward-mode and higher derivatives."""
    return name in FORWARD_MODE


def refusal(name: str, call: Call) -> str | None:
    """Why an implementation cannot compute a call, be it that this jax does not have its parts."""
    try:
        return module_of(name).refuses(call)
    except ImportError as error:
        return f"it cannot be imported ({error})"


@functools.lru_cache
def choose(asked: str, call: Call) -> Choice:
    """The implementation for a call; logged the first time that the same is asked.

    What is asked for by name is used or refused, never replaced; "auto" takes the tuned one for
    the device if there is an entry, else the first of `PREFERENCE` that supports the call.

    Raises:
        UserError: no such implementation, or it cannot compute this call, or a tuning file gives
            what does not exist.
    """
    check_name(asked)
    tuned = tuning.lookup(call.device_kind, call.kind, call.head_dim, call.dtype)
    if asked != "auto":
        if reason := refusal(asked, call):
            raise UserError(f"attention {asked!r} cannot be used: {reason}; 'auto' finds one")
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
    refused: dict[str, str] = {}
    for name in dict.fromkeys(names):
        reason = refusal(name, call)
        if not reason:
            return name, "; ".join(refused.values()) or first
        refused[name] = f"not {name}: {reason}"
    raise AssertionError(f"nothing computes {call}: {refused}")


def _check_options(choice: Choice, call: Call) -> None:
    """Tuning files are read long before a kernel would trip over a wrong name in one."""
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
