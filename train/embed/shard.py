"""One shard from texts to files: a function of its texts alone."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modernbert_jax.io import checksums

from .config import Embedding
from .folder import Folder, name_of
from .inputs import Reader
from .models import Encoder, Model
from .numbers import ranges_of
from .shard_files import Columns, written
from .texts import Text, texts

Watch = Callable[[int, int, int], None]
"""Called with the numbers of texts, of their tokens, and of tokens with padding that were done."""


def embed_shard(
    shard: int,
    reader: Reader,
    encoder: Encoder,
    model: Model,
    columns: Columns,
    options: Embedding,
    folder: Folder,
    watch: Watch,
) -> None:
    """Write a shard.

    Args:
        shard: its number.
        reader: of the input.
        encoder: the model on a device.
        model: what all devices share.
        columns: what is stored.
        options: of the embedding.
        folder: to write into.
        watch: is told what was done.

    Raises:
        UserError: a row that cannot be used, or a file that cannot be written.
    """
    skipped: dict[str, int] = {}
    encoder = with_windows(encoder, options)
    usage, before = encoder.model.runner.usage, (0, 0)
    name, count = name_of(shard), 0
    with written(folder.store, name, options.format, columns) as (writer, paths):
        stream = texts(reader, shard, options, skipped)
        with contextlib.closing(stream):
            for ids, block in _blocks(encoder, model, stream):
                writer.add(ids, columns.arrays(block))
                count += len(ids)
                now = usage.tokens, usage.computed
                watch(len(ids), now[0] - before[0], now[1] - before[1])
                before = now
        writer.close()
        files = {
            name: {"bytes": path.stat().st_size, "sha256": checksums.sha256(path)}
            for name, path in paths.items()
        }
    record = {"texts": count, "tokens": usage.tokens, "skipped": skipped, "files": files}
    folder.finish(shard, record)


def calibrate(
    reader: Reader, shards: int, encoder: Encoder, model: Model, options: Embedding
) -> np.ndarray:
    """Ranges of the numbers of each dimension, float32 [2, dims], in a sample of the input.

    The sample are the first texts of some shards at even distances.

    Raises:
        UserError: a row that cannot be used, or there are no texts.
    """
    encoder = with_windows(encoder, options)
    count = min(shards, _SAMPLED)
    of_shard = -(-options.calibration_texts // max(count, 1))

    def sample() -> Iterator[Text]:
        for i in range(count):
            stream = texts(reader, i * shards // count, options, {})
            with contextlib.closing(stream):
                for _, text in zip(range(of_shard), stream, strict=False):
                    yield text

    blocks = (block for _, block in _blocks(encoder, model, sample()))
    flat = (x for block in blocks for x in ([block] if isinstance(block, np.ndarray) else block))
    return ranges_of(flat, model.dims)


_SAMPLED = 16
"""Shards from which the sample is taken, at most."""


def with_windows(encoder: Encoder, options: Embedding) -> Encoder:
    """An encoder with the windows of the options, and a usage of its own."""
    runner = encoder.model.runner.with_windows(options.window_tokens)
    return dataclasses.replace(encoder, model=dataclasses.replace(encoder.model, runner=runner))


def _blocks(encoder: Encoder, model: Model, stream: Iterator[Text]) -> Iterator[tuple[list, Any]]:
    """Ids of some texts with their representations, in order and in bounded memory."""
    ids: collections.deque[str] = collections.deque()

    def of_texts() -> Iterator[str]:
        for text in stream:
            ids.append(text.id)
            yield text.text

    for block in encoder.blocks(of_texts(), model.side):
        if len(block):
            yield [ids.popleft() for _ in range(len(block))], block
