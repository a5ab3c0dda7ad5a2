"""One side of the `encode` suite, in a process of its own: `python -P encode_worker.py SIDE ...`.

The process computes hidden states of documents once, writes them, says so, and then computes them
again for every line that it reads, answering with the seconds it took and the peak of its memory.
The peer's side imports nothing of this package, so that its memory is its own.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

THREADS = 2
PEER_BATCH = 16
"""Documents that the peer pads to the longest of them."""

Documents = list[list[int]]
Hidden = Callable[[Documents], list[np.ndarray]]


def ours(directory: str, axis: str) -> Hidden:
    """Packed rows, by `ModernBert.hidden`, on a mesh of two devices that the CPU poses as."""
    import jax

    from modernbert_jax import ModernBert
    from modernbert_jax.io.host_memory import keep_freed_on_cpu
    from modernbert_jax.sharding import MeshShape

    keep_freed_on_cpu()
    jax.config.update("jax_num_cpu_devices", THREADS)
    mesh = MeshShape(**{"data": 1, axis: THREADS}).make()
    return ModernBert.from_pretrained(directory, mesh=mesh).hidden


def peer(directory: str) -> Hidden:
    """Padded batches in the given order, by transformers with sdpa."""
    import torch
    from transformers import ModernBertModel

    torch.set_num_threads(THREADS)
    model = ModernBertModel.from_pretrained(
        directory, attn_implementation="sdpa", dtype=torch.float32
    ).eval()

    def hidden(documents: Documents) -> list[np.ndarray]:
        found = []
        for start in range(0, len(documents), PEER_BATCH):
            batch = documents[start : start + PEER_BATCH]
            lengths = torch.tensor([len(ids) for ids in batch])
            there = torch.arange(int(lengths.max())) < lengths[:, None]
            token_ids = torch.zeros(there.shape, dtype=torch.long)
            token_ids[there] = torch.tensor([i for ids in batch for i in ids])
            # A mask of ones would only cost time.
            mask = None if there.all() else there.long()
            with torch.inference_mode():
                states = model(input_ids=token_ids, attention_mask=mask).last_hidden_state.numpy()
            found += [s[: len(ids)] for s, ids in zip(states, batch, strict=True)]
        return found

    return hidden


def peer_sorted(directory: str) -> Hidden:
    """Like `peer`, with documents sorted by length first, so that little is padded."""
    in_order = peer(directory)

    def hidden(documents: Documents) -> list[np.ndarray]:
        order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
        found = in_order([documents[i] for i in order])
        return [states for _, states in sorted(zip(order, found, strict=True), key=lambda p: p[0])]

    return hidden


PEERS = {"peer": peer, "peer_sorted": peer_sorted}


def peak() -> float:
    """The most memory that the process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def resident() -> float:
    """The memory that the process holds now, in GB; its peak where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e9
    except OSError:
        return peak()


def main(side: str, model: str, documents: str, output: str, axis: str) -> None:
    """Answers until its input ends."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    hidden = ours(model, axis) if side == "ours" else PEERS[side](model)
    loaded = resident()
    with open(documents) as file:
        given = json.load(file)
    np.save(output, np.concatenate(hidden(given)))
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        hidden(given)
        seconds = time.perf_counter() - began
        answer = {"seconds": seconds, "gigabytes": peak(), "working": peak() - loaded}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
