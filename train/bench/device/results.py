"""What a part yields, and a run as JSON."""

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from modernbert_jax.errors import UserError, first_line

SCHEMA = 1
"""Version of the JSON of a run; readers refuse a later one."""

Status = Literal["ok", "failed", "unsupported", "missing", "skipped"]


class Number(NamedTuple):
    """A measured value."""

    value: float
    unit: str
    """"ms", "tokens/s", "TFLOP/s", "GB/s", "GB", "%", or "" for a ratio or an error."""


Numbers = dict[str, Number]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One row of a table."""

    name: str
    """Identifies the row within its group, in every run of every device."""
    group: str = ""
    """Table that the row belongs to; filled in by the part's registration."""
    part: str = ""
    """Name of the part; filled in likewise."""
    status: Status = "ok"
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Columns of text, in order."""
    numbers: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    """Columns of numbers, in order."""
    note: str = ""
    """Reason of a status other than "ok", in one line."""
    trace: str = ""
    """Traceback of a failure."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; a value that is not finite becomes null."""
        numbers = {
            name: {"value": n.value if math.isfinite(n.value) else None, "unit": n.unit}
            for name, n in self.numbers.items()
        }
        return dataclasses.asdict(self) | {"labels": dict(self.labels), "numbers": numbers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Result":
        """The result that `to_json` wrote."""
        numbers = {
            name: Number(math.nan if n["value"] is None else n["value"], n["unit"])
            for name, n in value["numbers"].items()
        }
        return cls(**{**value, "numbers": numbers})


class MissingError(Exception):
    """A dependency of a part or case is not installed."""


class FailedCheckError(Exception):
    """Numbers that are outside their limits. `numbers` holds them."""

    def __init__(self, message: str, numbers: Numbers):
        super().__init__(message)
        self.numbers = numbers


def attempt(
    name: str,
    labels: Mapping[str, str],
    measure: Callable[[], Numbers],
    note: str = "",
    peer: bool = False,
) -> Result:
    """A result from the numbers of `measure`, or from the exception that it raises.

    An exception ends the case, not the part. `KeyboardInterrupt` passes through.

    Args:
        name: of the result.
        labels: its columns of text.
        measure: returns its columns of numbers.
        note: remark on a result that is ok.
        peer: whether this is someone else's code, which may fail without failing the run.
    """
    try:
        return Result(name=name, labels=labels, numbers=measure(), note=note)
    except Exception as error:
        result = failure(name, error, labels)
        if peer and result.status == "failed":
            return dataclasses.replace(result, status="unsupported")
        return result


def failure(name: str, error: BaseException, labels: Mapping[str, str] | None = None) -> Result:
    """The result that stands for an exception."""
    labels = labels or {}
    if isinstance(error, UserError | NotImplementedError):
        return Result(name=name, labels=labels, status="unsupported", note=first_line(error))
    if isinstance(error, ImportError | MissingError):
        return Result(name=name, labels=labels, status="missing", note=first_line(error))
    note = first_line(error)[:300]
    if out_of_memory(error):
        note = f"out of memory: {note}"
    elif not isinstance(error, FailedCheckError):
        note = f"{type(error).__name__}: {note}"
    return Result(
        name=name,
        labels=labels,
        numbers=getattr(error, "numbers", {}),
        status="failed",
        note=note,
        trace="".join(traceback.format_exception(error))[-6000:],
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether jax, torch or Python ran out of memory."""
    text = f"{type(error).__name__}: {error}"
    signs = ("RESOURCE_EXHAUSTED", "OutOfMemoryError", "MemoryError", "out of memory")
    return any(sign in text for sign in signs)


@contextlib.contextmanager
def needs(*modules: str) -> Iterator[None]:
    """Turns a failed import in the block into `MissingError` that names what was needed."""
    try:
        yield
    except ImportError as error:
        wanted = " and ".join(modules)
        raise MissingError(f"needs {wanted}: {first_line(error)}") from error
