"""Attention in PyTorch on the shapes of `attention_times`: sdpa, varlen kernels, FlexAttention."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from .. import cases
from ..cases import Layer
from ..registry import register
from ..results import MissingError, Number, Numbers, Result, attempt, needs
from ..scale import Scale
from . import attention_times as times
from .ceilings import rates

SDPA = "torch sdpa"

DENSE = ("one document", "full")
"""What sdpa computes without a mask of all pairs."""


@register("kernels in torch", group="kernels", order=35, seconds=45)
def kernels(scale: Scale) -> Iterator[Result]:
    """Both passes of every way that the installed PyTorch has."""
    with needs("torch"):
        import torch  # noqa: F401
    absent: set[str] = set()
    for length in scale.time_lengths:
        for kind in cases.WINDOWS:
            layer = Layer(kind, length, times.dtype(scale))
            for documents in times.DOCUMENTS:
                for name, make in WAYS.items():
                    if name in absent or (name == SDPA and (documents, kind) != DENSE):
                        continue
                    measure = partial(_measured, make, layer, documents, scale)
                    labels = layer.labels(name) | {"documents": documents}
                    result = attempt(layer.name(documents, name), labels, measure, peer=True)
                    if result.status == "missing":  # said once
                        absent.add(name)
                    yield result


def seconds(call: Callable[[], Any], scale: Scale) -> float:
    """Seconds of one call: the median over repetitions of many calls that are waited for once."""
    call()
    once = max(_repetition(call, 1), 1e-6)
    count = max(1, min(64, round(scale.timed_seconds / once)))
    return statistics.median(_repetition(call, count) for _ in range(scale.repeats))


def device() -> str:
    """Where torch computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(scale: Scale) -> None:
    """Raises `MissingError` unless torch computes on the kind of device that jax does."""
    import torch

    if scale.platform == "gpu" and not torch.cuda.is_available():
        raise MissingError(f"torch {torch.__version__} sees no GPU")
    if scale.platform == "tpu":
        raise MissingError("torch runs on no TPU here")


def _repetition(call: Callable[[], Any], count: int) -> float:
    _wait()
    began = time.perf_counter()
    for _ in range(count):
        call()
    _wait()
    return (time.perf_counter() - began) / count


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _measured(make: Callable, layer: Layer, documents: str, scale: Scale) -> Numbers:
    import torch

    check_device(scale)
    ids = times.segments(layer, documents, scale)
    size = (*ids.shape, scale.heads, scale.head_dim)
    dtype = getattr(torch, layer.dtype)
    q, k, v, cotangent = (
        torch.randn(size, device=device(), dtype=dtype, requires_grad=i < 3) for i in range(4)
    )
    function = make(layer, ids)

    def forward():
        with torch.no_grad():
            return function(q, k, v)

    def both():
        return torch.autograd.grad(function(q, k, v), (q, k, v), cotangent)

    alone, taken = seconds(forward, scale), seconds(both, scale)
    flops = times.BOTH_PASSES * pairs(layer, ids) * 4.0 * scale.heads * scale.head_dim
    moved = 12 * q.numel() * q.element_size()
    numbers = {"forward": Number(1e3 * alone, "ms")} | rates(flops, moved, taken, scale, "both")
    numbers["forward rate"] = Number(flops / times.BOTH_PASSES / alone / 1e12, "TFLOP/s")
    return numbers


def pairs(layer: Layer, ids: np.ndarray) -> int:
    """Queries and keys that see each other."""
    lengths = _lengths(ids).astype(np.int64)
    if layer.window is None:
        return int((lengths**2).sum())
    side = np.minimum(layer.window // 2, lengths - 1)
    return int((lengths * (2 * side + 1) - side * (side + 1)).sum())


def _lengths(ids: np.ndarray) -> np.ndarray:
    """Lengths of all documents, in the order of their tokens; rows have no padding."""
    starts = np.diff(ids, axis=1, prepend=0) != 0
    at = np.flatnonzero(starts.ravel())
    return np.diff([*at, ids.size])


def _sdpa(layer: Layer, ids: np.ndarray) -> Callable:
    """Dense attention without a mask."""
    import torch.nn.functional as F

    def function(q, k, v):
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads_first).transpose(1, 2)

    return function


def _varlen(layer: Layer, ids: np.ndarray) -> Callable:
    """PyTorch's own variable-length attention."""
    import inspect

    import torch

    with needs("a torch with varlen_attn"):
        from torch.nn.attention.varlen import varlen_attn
    options = {}
    if layer.window is not None:
        if "window_size" not in inspect.signature(varlen_attn).parameters:
            raise NotImplementedError("varlen_attn of this torch has no window_size")
        options["window_size"] = (layer.window // 2, layer.window // 2)
    if device() == "cpu":
        raise NotImplementedError("varlen_attn needs a GPU")
    ends, longest = _ends(ids, torch)

    def function(q, k, v):
        flat = (x.flatten(0, 1) for x in (q, k, v))
        out = varlen_attn(*flat, ends, ends, longest, longest, **options)
        return out.view(q.shape)

    return function


def _flash(layer: Layer, ids: np.ndarray) -> Callable:
    """flash-attention's variable-length kernel."""
    import torch

    with needs("flash_attn"):
        from flash_attn import flash_attn_varlen_func
    side = -1 if layer.window is None else layer.window // 2
    ends, longest = _ends(ids, torch)

    def function(q, k, v):
        flat = (x.flatten(0, 1) for x in (q, k, v))
        sides = {"window_size": (side, side)}
        out = flash_attn_varlen_func(*flat, ends, ends, longest, longest, **sides)
        return out.view(q.shape)

    return function


def _flex(layer: Layer, ids: np.ndarray) -> Callable:
    """FlexAttention, compiled, with a block mask made in advance."""
    import torch

    if device() == "cpu":
        raise NotImplementedError("FlexAttention has a backward pass on GPUs only")
    with needs("a torch with FlexAttention"):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    segments = torch.from_numpy(ids).to(device())
    side = layer.window and layer.window // 2

    def sees(b, h, i, j):
        same = segments[b, i] == segments[b, j]
        return same if side is None else same & ((i - j).abs() <= side)

    rows, length = ids.shape
    mask = create_block_mask(sees, rows, None, length, length, device=device())
    attend = torch.compile(flex_attention)

    def function(q, k, v):
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return attend(*heads_first, block_mask=mask).transpose(1, 2)

    return function


def _ends(ids: np.ndarray, torch: Any) -> tuple[Any, int]:
    """Cumulative lengths of all documents, and the longest of them."""
    lengths = _lengths(ids)
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device())
    return ends, int(lengths.max())


WAYS: dict[str, Callable[[Layer, np.ndarray], Callable]] = {
    SDPA: _sdpa,
    "torch varlen_attn": _varlen,
    "flash-attn varlen": _flash,
    "torch FlexAttention": _flex,
}
"""PyTorch's ways by name: each makes `f(q, k, v)` for a layer and segment ids."""
