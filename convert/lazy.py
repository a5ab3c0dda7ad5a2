"""Arrays that are read when they are used and not kept, so that no model lies in memory twice.

A reader gives one `Lazy` for each tensor of its files, the table of names rearranges them without
a byte being touched, and a writer asks for one after the other.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

BLOCK = 2**24
"""Numbers that are compared at once."""

_watchers: contextvars.ContextVar = contextvars.ContextVar("watchers", default=())


class Lazy:
    """What numpy takes for an array: `np.asarray` reads it, each time anew."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        read: Callable[[], np.ndarray],
        whole: Lazy | None = None,
        key: Any = None,
    ):
        """From what `read` will give.

        `whole` is a stack that has to be read for it; of equal `key` are tensors that lie in one
        place of a file.
        """
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.whole, self.key = whole, key
        self._read = read

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    nbytes = property(lambda self: self.size * self.dtype.itemsize)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, index: int) -> Lazy:
        """A member of a stack."""
        return Lazy(self.shape[1:], self.dtype, lambda: self._read()[index], whole=self)

    def rearranged(self, view: Callable[[np.ndarray], np.ndarray]) -> Lazy:
        """What a function of shape alone makes of it."""
        # No memory is touched: a view of a broadcast zero is one.
        shape = view(np.broadcast_to(np.zeros((), self.dtype), self.shape)).shape
        return Lazy(shape, self.dtype, lambda: view(self._read()), self.whole)

    def each(self, function: Callable[[np.ndarray], np.ndarray], dtype: Any) -> Lazy:
        """What a function of single elements makes of it."""
        return Lazy(self.shape, dtype, lambda: function(self._read()), self.whole)

    def astype(self, dtype: Any, copy: bool = True) -> Lazy:
        """In another dtype, or itself."""
        if self.dtype == dtype:
            return self
        return self.each(lambda x: x.astype(dtype, copy=False), dtype)


class Stack(Lazy):
    """Arrays of one shape along a new first axis, each of which can be had alone."""

    def __init__(self, members: Sequence[np.ndarray | Lazy], dtype: Any):
        """The members are cast to the dtype."""
        self.members = [m.astype(dtype, copy=False) for m in members]
        super().__init__((len(members), *members[0].shape), dtype, self._fill)

    def __getitem__(self, index: int) -> Lazy:
        member = self.members[index]
        return (
            member if isinstance(member, Lazy) else Lazy(member.shape, self.dtype, lambda: member)
        )

    def each(self, function: Callable[[np.ndarray], np.ndarray], dtype: Any) -> Stack:
        return Stack([self[i].each(function, dtype) for i in range(len(self.members))], dtype)

    def _fill(self) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        for place, member in zip(array, self.members, strict=True):
            place[...] = np.asarray(member)
        return array


def rearranged(x: np.ndarray | Lazy, view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | Lazy:
    """`view(x)`, now or later."""
    return x.rearranged(view) if isinstance(x, Lazy) else view(x)


def source(
    name: str, shape: Sequence[int], dtype: Any, read: Callable[[], np.ndarray], key: Any = None
) -> Lazy:
    """A tensor of a file under its name there."""
    return Lazy(shape, dtype, lambda: heard(name, read()), key=key)


def heard(name: str, array: np.ndarray) -> np.ndarray:
    """The array; whoever is `watching` hears that it was read from a file."""
    for hear in _watchers.get():
        hear(name, array)
    return array


@contextlib.contextmanager
def watching(hear: Callable[[str, np.ndarray], None]) -> Iterator[None]:
    """Within the block, `hear(name, array)` is called for every tensor that is read."""
    token = _watchers.set((*_watchers.get(), hear))
    try:
        yield
    finally:
        _watchers.reset(token)


@contextlib.contextmanager
def finite(origin: Any) -> Iterator[None]:
    """Warns at the end of all tensors read within the block that hold NaN or infinity."""
    import warnings

    broken: dict[str, None] = {}

    def hear(name: str, array: np.ndarray) -> None:
        if not np.isfinite(array).all():
            broken[name] = None

    with watching(hear):
        yield
    if broken:
        warnings.warn(f"{origin}: NaN or infinity in {', '.join(broken)}", stacklevel=4)


def by_origin(arrays: Mapping[str, np.ndarray | Lazy]) -> list[str]:
    """The names in an order in which members of one stack follow each other."""
    first: dict[int, int] = {}
    origins = {n: id(getattr(x, "whole", None) or x) for n, x in arrays.items()}
    return sorted(arrays, key=lambda n: first.setdefault(origins[n], len(first)))


def equal(a: np.ndarray | Lazy, b: np.ndarray | Lazy) -> bool:
    """Whether two tensors hold the same numbers, whatever their dtypes; NaN equals itself."""
    if a.shape != b.shape:
        return False
    if getattr(a, "key", None) is not None and a.key == getattr(b, "key", None):
        return True
    a, b = (np.asarray(x).reshape(-1) for x in (a, b))
    blocks = (slice(i, i + BLOCK) for i in range(0, a.size, BLOCK))
    return all(np.array_equal(*_wide(a[s], b[s]), equal_nan=True) for s in blocks)


def _wide(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(x.astype(np.float64) for x in arrays)
