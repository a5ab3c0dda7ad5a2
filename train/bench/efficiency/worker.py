"""One side of the efficiency benchmark: `python -P worker.py SIDE FOLDER BATCH DTYPE`.

The process finds the largest batch, encodes both sets once, saves the documents' vectors and
answers. Then it encodes the sets again for every line that it reads, and answers with the seconds
of each. The vector of a document is the hidden state of its first token, which every batch brings
to the host, so that no work is left on the device. The peer's side imports nothing of this package.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Documents = list[list[int]]
BATCH_TOKENS = 8192
"""Tokens of a batch on CPU."""


class Side(NamedTuple):
    """How a side computes."""

    encode: Callable[[Documents, int], np.ndarray]
    """Vectors [n, D] of documents, with so many full-length documents in a batch."""
    device: str
    """Name of the device; "cpu" for a CPU."""
    memory: Callable[[], float]
    """Largest memory so far, in GB."""
    only_powers: bool
    """Whether only powers of two are batches of different sizes."""


def ours(model: Path, dtype: Any, length: int) -> Side:
    """Packed rows, by this library."""
    import jax

    from modernbert_jax import ModernBert
    from modernbert_jax.inference.runner import Document
    from modernbert_jax.io.host_memory import keep_freed_on_cpu

    keep_freed_on_cpu()
    bert = ModernBert.from_pretrained(model, dtype=dtype, weights=dtype, cores="all")
    devices = jax.local_devices()
    device = devices[0]
    on_cpu = device.platform == "cpu"
    pieces = len(devices)

    def encode(documents: Documents, batch: int) -> np.ndarray:
        tokens = max(batch * length // pieces, 1)
        wrapped = [Document(ids) for ids in documents]
        return np.asarray(bert.runner.run("pooled", bert.params, wrapped, tokens, how="cls"))

    def memory() -> float:
        stats = device.memory_stats() or {}
        return stats.get("peak_bytes_in_use", 0) / 1e9 if not on_cpu else peak()

    return Side(encode, "cpu" if on_cpu else device.device_kind, memory, True)


def transformers(model: Path, dtype: str, attention: str) -> Side:
    """Padded batches in the given order, by transformers."""
    import torch
    from transformers import ModernBertModel

    on = "cuda" if torch.cuda.is_available() else "cpu"
    module = ModernBertModel.from_pretrained(
        model, attn_implementation=attention, dtype=getattr(torch, dtype)
    )
    module = module.eval().to(on)

    def encode(documents: Documents, batch: int) -> np.ndarray:
        vectors = []
        for start in range(0, len(documents), batch):
            ids = documents[start : start + batch]
            lengths = torch.tensor([len(i) for i in ids])
            real = torch.arange(int(lengths.max())) < lengths[:, None]
            token_ids = torch.zeros(real.shape, dtype=torch.long)
            token_ids[real] = torch.tensor([i for of_one in ids for i in of_one])
            mask = None if real.all() else real.long().to(on)  # a mask of ones would cost time
            with torch.inference_mode():
                output = module(input_ids=token_ids.to(on), attention_mask=mask)
            vectors.append(output.last_hidden_state[:, 0].float().cpu().numpy())
        return np.concatenate(vectors)

    def memory() -> float:
        return torch.cuda.max_memory_allocated() / 1e9 if on == "cuda" else peak()

    return Side(encode, torch.cuda.get_device_name() if on == "cuda" else on, memory, False)


def largest(fits: Callable[[int], bool], most: int, only_powers: bool) -> int:
    """The largest batch that fits, to a sixteenth; at most `most`.

    Raises:
        MemoryError: not even a batch of one document fits.
    """
    good, bad = 0, 0
    while not bad and good < most:
        tried = min(max(2 * good, 1), most)
        if fits(tried):
            good = tried
        else:
            bad = tried
    if not good:
        raise MemoryError("not even one document fits")
    while bad and not only_powers and bad - good > max(good // 16, 1):
        tried = (good + bad) // 2
        if fits(tried):
            good = tried
        else:
            bad = tried
    return good


def is_full(error: Exception) -> bool:
    """Whether an exception says that the device's memory is full."""
    text = f"{type(error).__name__} {error}"
    return any(sign in text for sign in ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory"))


def peak() -> float:
    """The most memory that the process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def main(side: str, folder: Path, batch: int, dtype: str) -> None:
    """Answer until the input ends."""
    sets: dict[str, Documents] = json.loads((folder / "documents.json").read_text())
    length, model = max(map(len, sets["fixed"])), folder / "model"
    attention = {"sdpa": "sdpa", "flash": "flash_attention_2"}
    own = side == "ours"
    how = ours(model, dtype, length) if own else transformers(model, dtype, attention[side])

    def fits(tried: int) -> bool:
        try:
            how.encode(sets["fixed"][:tried], tried)
        except Exception as error:
            if not is_full(error):
                raise
            return False
        return True

    if not batch and how.device == "cpu":
        batch = max(BATCH_TOKENS // length, 1)
    batch = batch or largest(fits, len(sets["fixed"]), how.only_powers)
    vectors = [how.encode(documents, batch) for documents in sets.values()]
    np.save(folder / f"{side}.npy", np.concatenate(vectors))
    ready = {"batch": batch, "device": how.device, "threads": len(os.sched_getaffinity(0))}
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        answer = {}
        for name, documents in sets.items():
            began = time.perf_counter()
            how.encode(documents, batch)
            answer[name] = time.perf_counter() - began
        print(json.dumps({**answer, "gigabytes": how.memory()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
