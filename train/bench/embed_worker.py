"""One side of the `embed` suite, in a process of its own: `python -P embed_worker.py SIDE ...`.

The process warms up and answers: ours embeds all texts, so that all shapes are compiled, the peer
those of a batch. For every line that it reads it embeds all texts, saves the vectors, and answers
with the seconds and the peak of its memory. The peer's side imports nothing of this package.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
PEER_BATCH = 32
"""Texts of a batch of the peer; the default of its `encode`."""

Facts = dict[str, Any]
Turn = Callable[[Path], Facts]
"""Embeds the texts into a path with the ending .npy; returns facts of it."""


def ours(model: Path, texts: Path) -> Turn:
    """Packed rows, by `embed` into a folder, on two virtual devices."""
    import jax

    from modernbert_jax.io.host_memory import keep_freed_on_cpu
    from modernbert_jax.train.embed import models
    from modernbert_jax.train.embed.config import Embedding
    from modernbert_jax.train.embed.run import embed

    keep_freed_on_cpu()
    jax.config.update("jax_num_cpu_devices", THREADS)
    folder = texts.with_suffix(".vectors")
    count = sum(1 for _ in texts.open())
    options = Embedding(
        model=str(model),
        input=(str(texts),),
        output=str(folder),
        format="npy",
        shard_texts=-(-count // THREADS),  # so that all devices have work until the end
    )
    loaded = models.load(options)

    def afresh() -> Facts:
        shutil.rmtree(folder, ignore_errors=True)
        return embed(options, loaded)

    def turn(path: Path) -> Facts:
        summary = afresh()
        shards = sorted(folder.glob("*.vector.npy"))
        np.save(path, np.concatenate([np.load(shard) for shard in shards]))
        return {"tokens": summary["tokens"], "full": summary["full"]}

    afresh()
    return turn


def peer(model: Path, texts: Path, sort: bool = False) -> Turn:
    """Padded batches in the given order, by sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(str(model), device="cpu")

    def read() -> list[str]:
        return [json.loads(line)["text"] for line in texts.open()]

    encoder.encode(read()[:PEER_BATCH], show_progress_bar=False)

    def turn(path: Path) -> Facts:
        own = read()
        # `encode` sorts the texts of a call by length.
        size = len(own) if sort else PEER_BATCH
        parts = [own[i : i + size] for i in range(0, len(own), size)]
        options = {"batch_size": PEER_BATCH, "show_progress_bar": False}
        np.save(path, np.concatenate([encoder.encode(part, **options) for part in parts]))
        return {}

    return turn


def peer_sorted(model: Path, texts: Path) -> Turn:
    """Like `peer`, with texts sorted by length first, so that little is padded."""
    return peer(model, texts, sort=True)


SIDES = {"ours": ours, "peer": peer, "peer_sorted": peer_sorted}


def peak() -> float:
    """The most memory that the process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def main(side: str, model: Path, texts: Path, folder: Path) -> None:
    """Answer until the input ends."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    turn, path = SIDES[side](model, texts), folder / f"{side}.npy"
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        facts = turn(path)
        answer = {"seconds": time.perf_counter() - began, "gigabytes": peak(), **facts}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
