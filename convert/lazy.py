"""Lazy arrays: read from their file at each use and not kept, so that conversions stream.

A reader returns one `Lazy` per tensor, the table of names rearranges them without reading, and a
writer evaluates them one after the other. A model is therefore never in memory twice.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
from numpy.typing import DTypeLike

BLOCK = 2**24
"""Elements that `equal` compares at once."""

Watcher = Callable[[str, np.ndarray], None]

_watchers: contextvars.ContextVar[tuple[Watcher, ...]] = contextvars.ContextVar(
    "watchers", default=()
)


class Lazy:
    """An array that `np.asarray` reads from its file, each time anew.

    Attributes:
        shape: its shape, known without reading.
        dtype: its dtype, known without reading.
        whole: the stack that has to be read to get this member, or None.
        key: identifies the place in a file; tensors with equal keys are the same tensor.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        read: Callable[[], np.ndarray],
        whole: Lazy | None = None,
        key: Any = None,
    ):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.whole, self.key = whole, key
        self._read = read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes once it is read."""
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        array = self._read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, index: int) -> Lazy:
        """Member `index` along the first axis."""
        return Lazy(self.shape[1:], self.dtype, lambda: self._read()[index], whole=self)

    def rearranged(self, view: Callable[[np.ndarray], np.ndarray]) -> Lazy:
        """The result of a function that only reshapes or transposes, applied when read."""
        # A view of a broadcast zero takes no memory and has the resulting shape.
        shape = view(np.broadcast_to(np.zeros((), self.dtype), self.shape)).shape
        return Lazy(shape, self.dtype, lambda: view(self._read()), self.whole)

    def each(self, function: Callable[[np.ndarray], np.ndarray], dtype: DTypeLike) -> Lazy:
        """The result of an elementwise function, applied when read."""
        return Lazy(self.shape, dtype, lambda: function(self._read()), self.whole)

    def astype(self, dtype: DTypeLike, copy: bool = True) -> Lazy:
        """The array in another dtype; itself if it has that dtype already."""
        if self.dtype == dtype:
            return self
        return self.each(lambda x: x.astype(dtype, copy=False), dtype)


class Stack(Lazy):
    """Arrays of one shape along a new first axis; each member can be read alone."""

    def __init__(self, members: Sequence[Array], dtype: DTypeLike):
        """Casts the members to `dtype` when they are read."""
        self.members = [m.astype(dtype, copy=False) for m in members]
        super().__init__((len(members), *members[0].shape), dtype, self._fill)

    def __getitem__(self, index: int) -> Lazy:
        member = self.members[index]
        return (
            member if isinstance(member, Lazy) else Lazy(member.shape, self.dtype, lambda: member)
        )

    def each(self, function: Callable[[np.ndarray], np.ndarray], dtype: DTypeLike) -> Stack:
        return Stack([self[i].each(function, dtype) for i in range(len(self.members))], dtype)

    def _fill(self) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        for place, member in zip(array, self.members, strict=True):
            place[...] = np.asarray(member)
        return array


Array = np.ndarray | Lazy
"""An array in memory or in a file."""


def rearranged(x: Array, view: Callable[[np.ndarray], np.ndarray]) -> Array:
    """`view(x)`, applied now to an array and at reading to a lazy one."""
    return x.rearranged(view) if isinstance(x, Lazy) else view(x)


def source(
    name: str,
    shape: Sequence[int],
    dtype: DTypeLike,
    read: Callable[[], np.ndarray],
    key: Any = None,
) -> Lazy:
    """A tensor of a file, announced to watchers under its name in the file when it is read."""
    return Lazy(shape, dtype, lambda: announced(name, read()), key=key)


def announced(name: str, array: np.ndarray) -> np.ndarray:
    """The array itself, after passing it to every watcher of `watching`."""
    for watcher in _watchers.get():
        watcher(name, array)
    return array


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within the block, call `watcher(name, array)` for every tensor that is read."""
    token = _watchers.set((*_watchers.get(), watcher))
    try:
        yield
    finally:
        _watchers.reset(token)


@contextlib.contextmanager
def finite(origin: Any) -> Iterator[None]:
    """Warn once, at the end of the block, of all tensors read in it that hold NaN or infinity."""
    broken: dict[str, None] = {}

    def check(name: str, array: np.ndarray) -> None:
        if not np.isfinite(array).all():
            broken[name] = None

    with watching(check):
        yield
    if broken:
        warnings.warn(f"{origin}: NaN or infinity in {', '.join(broken)}", stacklevel=4)


def by_origin(arrays: Mapping[str, Array]) -> list[str]:
    """The names, ordered so that members of one stack are consecutive."""
    first: dict[int, int] = {}
    origins = {n: id(getattr(x, "whole", None) or x) for n, x in arrays.items()}
    return sorted(arrays, key=lambda n: first.setdefault(origins[n], len(first)))


def equal(a: Array, b: Array) -> bool:
    """True if two tensors hold the same numbers in any dtypes; NaN equals NaN."""
    if a.shape != b.shape:
        return False
    if isinstance(a, Lazy) and isinstance(b, Lazy) and a.key is not None and a.key == b.key:
        return True
    left, right = (np.asarray(x).reshape(-1) for x in (a, b))
    blocks = (slice(i, i + BLOCK) for i in range(0, left.size, BLOCK))
    return all(
        np.array_equal(left[s].astype(np.float64), right[s].astype(np.float64), equal_nan=True)
        for s in blocks
    )
