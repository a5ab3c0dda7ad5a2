"""Training steps on the CPU, beside transformers with PyTorch's AdamW.

Both sides start from the same random weights, compute in float32 with two threads each in processes
of their own, and have to find the same loss and gradient. They take turns, but for the largest
model, and the fastest turn counts. A turn is a few optimizer steps: ours the compiled step of a
run, masks, norms and guard included, on packed rows; the peer's masks, forward, backward and fused
AdamW on padded batches.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import MaskedLM

from . import Measurement, Options
from .encode import peer_installed, write_random
from .turns import take_turns

TOLERANCE = 1e-4
"""Between losses and, relative, gradient norms of the two sides."""

PEERS = {
    "peer": "transformers, sdpa, fused AdamW",
    "peer_sparse": "the same, logits at masked tokens only",
}

WORKER = Path(__file__).with_name("train_worker.py")


class TrainWorkload(NamedTuple):
    """What a turn computes."""

    lengths: list[int]
    """Of the documents that there are."""
    rows: int
    """In a batch of ours."""
    capacity: int
    """Tokens of such a row."""
    documents: int
    """In a batch of the peer's, padded to the longest."""
    steps: int
    """In a turn."""
    axis: str = "data"
    """Of the mesh of two devices that the CPU poses as for us: `pretrain --cpu-devices 2`."""
    together: bool = True
    """Whether the sides take turns. Two processes that train a base model do not fit in 24 GB."""


def measure(options: Options) -> Iterator[Measurement]:
    """Real tokens per second of three sizes of model, and per second of a core.

    Raises:
        RuntimeError: the sides disagree.
    """
    for preset, steps, rows, axis, together in (
        ("nano", 8, 4, "data", True),
        ("ettin-17m", 4, 4, "fsdp", True),
        ("base", 1, 2, "fsdp", False),
    ):
        config = ModernBertConfig.preset(preset)
        for name, workload in workloads(steps, rows, axis, together).items():
            yield from compare(f"{preset}, {name}", config, workload, options.repeats)


def workloads(steps: int, rows: int, axis: str, together: bool = True) -> dict[str, TrainWorkload]:
    """By name. Every stretch of 16 of the mixed lengths has short and long ones alike."""
    middles = (np.arange(256) + 0.5) / 256
    mixed = np.exp([np.log(120) + 0.8 * NormalDist().inv_cdf(q) for q in middles])
    mixed = mixed.clip(16, 512).astype(int).reshape(16, 16).T.ravel().tolist()
    return {
        "documents of 16 to 512 tokens": TrainWorkload(
            mixed, rows, 1024, 16, steps, axis, together
        ),
        "full rows of 1,024 tokens": TrainWorkload(
            [1024] * rows * steps, rows, 1024, rows, steps, axis, together
        ),
    }


def compare(
    name: str, config: ModernBertConfig, workload: TrainWorkload, repeats: int
) -> Iterator[Measurement]:
    """Measures a workload; without a peer where PyTorch or transformers is not installed."""
    peers = tuple(PEERS) if peer_installed() else ()
    with tempfile.TemporaryDirectory() as folder:
        model, work = Path(folder) / "model", Path(folder) / "work.npz"
        write_random(MaskedLM(config), "masked_lm", model)
        _write_work(config, workload, work)
        sides = ("ours", *peers)
        ready, turns = take_turns(WORKER, (model, work), sides, repeats, workload.together)
        for side, found in ready.items():
            for what in ("loss", "grad_norm"):
                difference = abs(found[what] / ready["ours"][what] - 1)
                if not difference <= TOLERANCE:
                    raise RuntimeError(f"{what} of {side} differs from ours by {difference:.1e}")
        for seconds, unit in (("seconds", "tokens/s"), ("cpu_seconds", "tokens/CPU s")):
            best = {side: max(t["tokens"] / t[seconds] for t in turns[side]) for side in turns}
            for peer in peers or (None,):
                yield Measurement(
                    name=name,
                    unit=unit,
                    ours=best["ours"],
                    peer=best.get(peer),
                    peer_name=PEERS.get(peer, ""),
                )


def _write_work(config: ModernBertConfig, workload: TrainWorkload, path: Path) -> None:
    """The documents, flat; also inputs and labels on which both sides have to agree."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, config.vocab_size, sum(workload.lengths), dtype=np.int32)
    probe = ids[:256].reshape(2, 128)
    labels = np.where(rng.random(probe.shape) < 0.3, probe, -100)
    inputs = np.where(labels == -100, probe, 4)
    np.savez(path, ids=ids, inputs=inputs, labels=labels, **workload._asdict())
