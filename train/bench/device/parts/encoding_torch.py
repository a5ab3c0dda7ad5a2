"""Vectors of documents in the paper's efficiency protocol: transformers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from modernbert_jax import hf_config

from ..registry import register
from ..results import Result, attempt, needs
from ..scale import Scale
from . import encoding
from .attention_torch import check_device, device

IMPLEMENTATIONS = ("sdpa", "flash_attention_2")
"""Implementation of attention in transformers."""


@register("encoding in transformers", group="encoding", order=52, seconds=60)
def encode(scale: Scale) -> Iterator[Result]:
    """Mean pooling over padded batches in the given order, with random weights."""
    with needs("torch", "transformers"):
        import torch  # noqa: F401
        import transformers  # noqa: F401
    absent: set[str] = set()
    for implementation in IMPLEMENTATIONS:
        by = f"transformers, {implementation}"
        for name in encoding.SETS:
            if implementation in absent:
                continue
            labels = {
                "set": name,
                "documents": f"{encoding.count(name, scale):,}",
                "type": encoding.DTYPE,
                "by": by,
            }
            measure = partial(_speed, implementation, name, scale)
            result = attempt(f"{name} {by}", labels, measure, peer=True)
            if result.status == "missing":  # said once
                absent.add(implementation)
            yield result


def _speed(implementation: str, name: str, scale: Scale) -> dict[str, Any]:
    check_device(scale)
    return encoding.speed(_encoder(implementation, name, scale), name, scale)


def _encoder(implementation: str, name: str, scale: Scale) -> Callable[[list[list[int]]], Any]:
    import torch
    import transformers

    if implementation == "flash_attention_2":
        with needs("flash_attn"):
            import flash_attn  # noqa: F401
    config = scale.model("base")
    keys = {k: v for k, v in hf_config.write(config, {}).items() if k != "architectures"}
    model = transformers.ModernBertModel._from_config(
        transformers.ModernBertConfig(**keys),
        attn_implementation=implementation,
        dtype=getattr(torch, encoding.DTYPE),
    )
    model = model.eval().to(device())
    size = max(1, encoding.BATCH_TOKENS // encoding.SETS[name][3])

    def encode(documents: list[list[int]]) -> np.ndarray:
        vectors = []
        for start in range(0, len(documents), size):
            some = documents[start : start + size]
            lengths = torch.tensor([len(ids) for ids in some])
            there = torch.arange(int(lengths.max())) < lengths[:, None]
            ids = torch.zeros(there.shape, dtype=torch.long)
            ids[there] = torch.tensor([i for one in some for i in one])
            there = there.to(device())
            # A mask of ones would only cost time.
            mask = None if there.all() else there.long()
            with torch.inference_mode():
                states = model(input_ids=ids.to(device()), attention_mask=mask).last_hidden_state
                weights = there[..., None] / there.sum(1)[:, None, None]
                vectors.append((states.float() * weights).sum(1).cpu().numpy())
        return np.concatenate(vectors)

    return encode
