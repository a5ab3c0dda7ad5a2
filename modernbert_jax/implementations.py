"""Several implementations of one computation, of which a call takes the first that supports it."""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Self

from modernbert_jax import platform
from modernbert_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """Facts on which a choice depends; shapes, of which kinds of calls have more, are those on one
    device."""

    platform: str
    """Platform of the program being traced: "cpu", "gpu" or "tpu"."""
    device_kind: str
    capability: tuple[int, int] | None = None
    """Major and minor compute capability of an NVIDIA GPU; None for other devices."""
    dtype: str

    @classmethod
    def traced(cls, **shape: Any) -> Self:
        """A call on the device for which a program is being traced; `shape` is all other facts."""
        on, kind = platform.device()
        return cls(platform=on, device_kind=kind, capability=platform.capability(), **shape)


@dataclasses.dataclass(frozen=True)
class Implementations:
    """Named implementations. The module of the same name has `refuses(call)`, and computes."""

    what: str
    """What they compute; it begins messages."""
    package: str
    """Package of the modules. They are imported on use: not every platform has what they need."""
    summaries: Mapping[str, str]
    """Names, each with a summary."""

    def module_of(self, name: str) -> ModuleType:
        """The module of an implementation."""
        return importlib.import_module(f"{self.package}.{name}")

    def check_name(self, name: str) -> None:
        """Raise `UserError` unless `name` is "auto" or an implementation."""
        if name != "auto" and name not in self.summaries:
            near = did_you_mean(name, ["auto", *self.summaries])
            raise UserError(f"{self.what} is {name!r}; {near}")

    def refusal(self, name: str, call: Call) -> str | None:
        """The reason why an implementation does not support a call, or None.

        An implementation that this version of jax cannot import supports none.
        """
        try:
            return self.module_of(name).refuses(call)
        except ImportError as error:
            return f"it cannot be imported ({error})"

    def check_support(self, name: str, call: Call) -> None:
        """Raise `UserError` if an implementation that was asked for does not support a call."""
        if reason := self.refusal(name, call):
            raise UserError(f"{self.what} {name!r} cannot be used: {reason}; 'auto' finds one")

    def first(self, names: Iterable[str], call: Call, why: str) -> tuple[str, str]:
        """The first implementation that supports a call, and the reasons against those before it.

        Args:
            names: implementations in order; the last supports every call.
            call: the call.
            why: the reason where it is the first name.
        """
        refused: dict[str, str] = {}
        for name in dict.fromkeys(names):
            reason = self.refusal(name, call)
            if not reason:
                return name, "; ".join(refused.values()) or why
            refused[name] = f"not {name}: {reason}"
        raise AssertionError(f"nothing computes {call}: {refused}")
