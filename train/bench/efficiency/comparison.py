"""All sides of the efficiency benchmark on all sets, each in a process of its own."""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import PRESETS, ModernBertConfig
from modernbert_jax.model import Encoder

from ..encode import write_random
from ..turns import take_turns
from .documents import Spread, documents, lengths
from .settings import Settings, Side, Size, missing

WORKER = Path(__file__).with_name("worker.py")

SPREADS: tuple[Spread, ...] = ("fixed", "variable")

LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.98}
"""Least cosine of a document's vectors on two sides, which tells a wrong window or mask."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Speed of a side on a set."""

    side: Side
    size: Size
    spread: Spread
    device: str
    dtype: str
    documents: int
    tokens: int
    """Real tokens of the set; padding does not count."""
    batch: int
    """Documents of a batch; ours packs as many tokens as they have at full length."""
    seconds: float
    """Mean of the passes."""
    deviation: float
    """Standard deviation of the passes, in seconds."""
    passes: int
    gigabytes: float
    """Largest memory: of the accelerator's allocator, or of the process on a CPU."""

    @property
    def speed(self) -> float:
        """Thousand real tokens per second."""
        return self.tokens / self.seconds / 1e3


def compare(settings: Settings, report: Callable[[str], None]) -> Iterator[Result]:
    """Measure all sides; those of one set take turns on a CPU, and follow each other on a device.

    Args:
        settings: options.
        report: is passed a line for each side that is left out.

    Raises:
        UserError: an unknown model.
        RuntimeError: two sides disagree.
    """
    jax.config.update("jax_platforms", "cpu")  # this process leaves an accelerator to the sides
    sides = []
    for side in settings.sides:
        if reason := missing(side, settings.dtype):
            report(f"{side}: left out, {reason}")
        else:
            sides.append(side)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = _write_model(settings.model, folder / "model")
        for size in settings.sizes:
            yield from _of_size(settings, size, config, folder, tuple(sides))


def _of_size(
    settings: Settings, size: Size, config: ModernBertConfig, folder: Path, sides: tuple[Side, ...]
) -> Iterator[Result]:
    count, longest = settings.count(size), config.max_position_embeddings
    of = {spread: lengths(size, spread, count, longest) for spread in SPREADS}
    sets = {spread: documents(n, config.vocab_size) for spread, n in of.items()}
    (folder / "documents.json").write_text(json.dumps(sets))
    arguments = (folder, str(settings.batch), settings.dtype)
    ready, turns = take_turns(
        WORKER, arguments, sides, settings.passes, _on_cpu(), enough=settings.enough
    )
    _check({side: np.load(folder / f"{side}.npy") for side in sides}, settings.dtype)
    for side in sides:
        for spread in SPREADS:
            seconds = [turn[spread] for turn in turns[side]]
            yield Result(
                side=side,
                size=size,
                spread=spread,
                device=ready[side]["device"],
                dtype=settings.dtype,
                documents=count,
                tokens=sum(of[spread]),
                batch=ready[side]["batch"],
                seconds=statistics.mean(seconds),
                deviation=statistics.pstdev(seconds),
                passes=len(seconds),
                gigabytes=max(turn["gigabytes"] for turn in turns[side]),
            )


def _write_model(model: str, target: Path) -> ModernBertConfig:
    """Write the encoder of a model, or one with random weights, where all sides read it."""
    if model in PRESETS and not Path(model).exists():
        write_random(Encoder(ModernBertConfig.preset(model)), "none", target)
    else:
        checkpoint = convert.load(convert.locate(model), later=True)
        params = checkpoint.params.get("encoder", checkpoint.params)
        bare = convert.Checkpoint(config=checkpoint.config, params=params, head="none")
        convert.save(bare, target)
    return convert.load(target, later=True).config


def _on_cpu() -> bool:
    """Whether no accelerator is attached, so that all sides can be in memory together.

    A process of its own looks, because jax takes most of an accelerator's memory when it is used.
    """
    command = [sys.executable, "-P", "-c", "import jax; print(jax.default_backend())"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1:] == ["cpu"]


def _check(vectors: dict[Side, np.ndarray], dtype: str) -> None:
    """Raise `RuntimeError` if the sides do not compute the same."""
    first, *others = vectors
    for side in others:
        a, b = vectors[first], vectors[side]
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        least = float(((a * b).sum(-1) / np.maximum(norms, 1e-12)).min())
        if not least >= LEAST_COSINE[dtype]:
            raise RuntimeError(f"vectors of {side} and {first} have a cosine of {least:.4f}")
