"""Vectors of the training texts by a guide model, computed once before training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modernbert_jax import convert, devices
from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_file
from modernbert_jax.io.progress import Progress

from ..engine.distributed import in_first
from .batches import Guide
from .encoding import Side, TextEncoder
from .losses import LossKind
from .on_devices import opened
from .texts import TextSet

FOLDER = "guide"
"""Folder of the run with a file of vectors for each data set."""


def check(
    model: str, losses: Sequence[LossKind], dimensions: int, matryoshka: Sequence[int] = ()
) -> None:
    """Check a guide before any work, if a loss reads one.

    Args:
        model: the guide, a path or a name on the hub.
        losses: what reads it. Cosines can be those of vectors of any width; vectors must be as wide
            as those of the trained model.
        dimensions: width of the trained model's vectors.
        matryoshka: numbers of leading dimensions that both are truncated to; empty compares whole
            vectors.

    Raises:
        UserError: no such model, one that gives no vectors of texts, or those of another width.
    """
    readers = [loss for loss in losses if loss.guide != "none"]
    if not readers:
        return
    checkpoint = convert.load(convert.locate(model), later=True)
    encoder = TextEncoder.of(checkpoint, devices.local_mesh(), params={}, name=model)
    encoder.say_pooling()
    width = encoder.model.vector_width
    wanted = max(matryoshka, default=dimensions)
    for loss in readers:
        if loss.guide == "vectors" and (width < wanted if matryoshka else width != wanted):
            raise UserError(
                f"guide {model}: gives vectors of {width:,} dimensions, and loss {loss.name}"
                f" compares {wanted:,}; name another guide, or add --projection-dims {width}"
            )


def guides(model: str, sets: Sequence[TextSet], folder: Path) -> list[Guide]:
    """The guide's vectors of the texts of data sets, from files in the run's folder.

    Process 0 computes those that are missing.

    Args:
        model: the guide, a path or a name on the hub.
        sets: the data sets, with different names.
        folder: where the files are; written by this run only.

    Raises:
        UserError: no such model, or one that gives no vectors of texts.
    """
    paths = {dataset.name: folder / f"{number}.npy" for number, dataset in enumerate(sets)}

    def compute() -> None:
        if all(path.exists() for path in paths.values()):
            return
        with opened(model) as checkpoint:
            encoder = TextEncoder.of(checkpoint, devices.local_mesh(), name=model)
        for dataset in sets:
            if not paths[dataset.name].exists():
                _write(encoder, dataset, paths[dataset.name])

    in_first(compute)
    return [Guide(np.load(paths[dataset.name], mmap_mode="r")) for dataset in sets]


def _write(encoder: TextEncoder, dataset: TextSet, path: Path) -> None:
    """Write the vectors of a data set, float32 [texts, G]; texts of queries as queries."""
    queries = np.zeros(len(dataset.strings), bool)
    queries[dataset.texts[:, 0]] = True
    vectors: np.ndarray | None = None
    with Progress(len(dataset.strings), "text", delay=5.0) as progress:
        done = 0
        sides: dict[Side, np.ndarray] = {"query": queries, "document": ~queries}
        for side, own in sides.items():
            places = np.flatnonzero(own)
            first = 0
            for block in _blocks(encoder, dataset, places, side):
                if vectors is None:
                    vectors = np.zeros((len(queries), block.shape[1]), np.float32)
                vectors[places[first : first + len(block)]] = block
                first += len(block)
                done += len(block)
                progress.update(f"guide of {dataset.name}", done)
    assert vectors is not None  # a data set has texts
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, vectors)


def _blocks(
    encoder: TextEncoder, dataset: TextSet, places: np.ndarray, side: Side
) -> Iterator[np.ndarray]:
    return encoder.blocks((dataset.strings[i] for i in places), side)
