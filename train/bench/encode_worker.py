"""One side of the `encode` suite, in a process of its own: `python -P encode_worker.py SIDE ...`.

The process computes hidden states of documents once, saves them and answers. Then it computes them
again for every line that it reads, and answers with the seconds and the peak of its memory. The
peer's side imports nothing of this package, so that its memory is its own.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

THREADS = 2
PEER_BATCH = 16
"""Documents that the peer pads to the longest of them."""

Hidden = Callable[[list[list[int]]], list[np.ndarray]]
"""Token ids of documents to their hidden states."""


def ours(model: Path, axis: str) -> Hidden:
    """Packed rows, by `ModernBert.hidden`, with the CPU as two virtual devices along `axis`."""
    import jax

    from modernbert_jax import ModernBert
    from modernbert_jax.io.host_memory import keep_freed_on_cpu
    from modernbert_jax.sharding import MeshShape

    keep_freed_on_cpu()
    jax.config.update("jax_num_cpu_devices", THREADS)
    mesh = MeshShape(**{"data": 1, axis: THREADS}).make()
    return ModernBert.from_pretrained(model, mesh=mesh).hidden


def peer(model: Path) -> Hidden:
    """Padded batches in the given order, by transformers with sdpa."""
    import torch
    from transformers import ModernBertModel

    torch.set_num_threads(THREADS)
    module = ModernBertModel.from_pretrained(
        model, attn_implementation="sdpa", dtype=torch.float32
    ).eval()

    def hidden(documents: list[list[int]]) -> list[np.ndarray]:
        states = []
        for start in range(0, len(documents), PEER_BATCH):
            batch = documents[start : start + PEER_BATCH]
            lengths = torch.tensor([len(ids) for ids in batch])
            real = torch.arange(int(lengths.max())) < lengths[:, None]
            token_ids = torch.zeros(real.shape, dtype=torch.long)
            token_ids[real] = torch.tensor([i for ids in batch for i in ids])
            mask = None if real.all() else real.long()  # a mask of ones would only cost time
            with torch.inference_mode():
                output = module(input_ids=token_ids, attention_mask=mask)
            padded = output.last_hidden_state.numpy()
            states += [s[: len(ids)] for s, ids in zip(padded, batch, strict=True)]
        return states

    return hidden


def peer_sorted(model: Path) -> Hidden:
    """Like `peer`, with documents sorted by length first, so that little is padded."""
    in_order = peer(model)

    def hidden(documents: list[list[int]]) -> list[np.ndarray]:
        order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
        states = dict(zip(order, in_order([documents[i] for i in order]), strict=True))
        return [states[i] for i in range(len(documents))]

    return hidden


PEERS = {"peer": peer, "peer_sorted": peer_sorted}


def peak() -> float:
    """The most memory that the process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def resident() -> float:
    """The memory that the process holds now, in GB; its peak if the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e9
    except OSError:
        return peak()


def main(side: str, folder: Path, axis: str) -> None:
    """Answer until the input ends."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    model = folder / "model"
    hidden = ours(model, axis) if side == "ours" else PEERS[side](model)
    loaded = resident()
    documents = json.loads((folder / "documents.json").read_text())
    np.save(folder / f"{side}.npy", np.concatenate(hidden(documents)))
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        hidden(documents)
        seconds = time.perf_counter() - began
        answer = {"seconds": seconds, "gigabytes": peak(), "working": peak() - loaded}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
