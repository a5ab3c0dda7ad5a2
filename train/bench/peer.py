"""The usual way to packed rows: `datasets.map` with a transformers tokenizer, packed greedily.

The packer behaves as that of ModernBERT's research code. Sequences wait in a buffer of five source
batches. Each goes into the row with the least sufficient room, or returns to the buffer for the
next batch, leftovers in reverse. A batch of rows ends when nothing in the buffer fits any more. As
there, the search is compiled if numba is installed.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PeerRows = list[list[Any]]
"""Items of each row of a batch."""

Search = Callable[[np.ndarray, int], int]


def tokenised(texts: Path, tokenizer: Path, length: int, cache: Path) -> Any:
    """A `datasets.Dataset` of `input_ids`, with long documents in several pieces.

    Raises `ImportError` if datasets or transformers is not installed.
    """
    import datasets
    import transformers

    datasets.disable_progress_bars()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoding = fast(
            batch["text"],
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return {"input_ids": encoding["input_ids"]}

    raw = datasets.load_dataset("json", data_files=str(texts), split="train", cache_dir=str(cache))
    return raw.map(tokenise, batched=True, remove_columns=raw.column_names)


def arrays(
    dataset: Any, order: Iterable[int] | None = None, size: int = 1000
) -> Iterator[np.ndarray]:
    """Yield the sequences of a tokenised dataset, in its order or another, read in batches."""
    order = list(range(len(dataset)) if order is None else order)
    numbers = dataset.with_format("numpy")
    for start in range(0, len(order), size):
        yield from numbers[order[start : start + size]]["input_ids"]


def pack(
    items: Iterable[Any], rows: int, capacity: int, source_batch: int, search: Search | None = None
) -> Iterator[PeerRows]:
    """Yield batches of packed rows. The last, with an empty row, is dropped.

    Args:
        items: Sequences, or anything with a length.
        rows: Rows per batch.
        capacity: Tokens per row.
        source_batch: Items read at a time.
        search: `best_fit` or an equivalent; by default the fastest one available.
    """
    source = iter(items)
    buffer: collections.deque[Any] = collections.deque()
    search, size = search or _fastest(), 5 * source_batch
    while True:
        room = np.full(rows, capacity, np.int64)
        batch: PeerRows = [[] for _ in range(rows)]
        leftovers: list[Any] = []
        while True:
            if not buffer:
                added = 0
                while size - added > source_batch and added + source_batch <= size - len(leftovers):
                    more = [x for _, x in zip(range(source_batch), source, strict=False)]
                    buffer.extend(more)
                    added += len(more)
                    if not more:
                        break
                if not added:
                    break
            item = buffer.popleft()
            row = search(room, len(item))
            if row < 0:
                leftovers.append(item)
            else:
                batch[row].append(item)
                room[row] -= len(item)
        buffer.extendleft(leftovers)
        if not all(batch):
            return
        yield batch


def filled(batch: PeerRows, capacity: int, pad_id: int = 0) -> np.ndarray:
    """Token ids of packed rows, int64 [rows, capacity]."""
    ids = np.full((len(batch), capacity), pad_id, np.int64)
    for row, items in zip(ids, batch, strict=True):
        together = np.concatenate(items)
        row[: len(together)] = together
    return ids


def masked(
    ids: np.ndarray, rng: np.random.Generator, mask_id: int, rate: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Masked inputs and labels, int64 [rows, capacity], with one random number per position."""
    share = rng.random(ids.shape)
    inputs = np.where(share < 0.8 * rate, mask_id, ids)
    redrawn = (share >= 0.8 * rate) & (share < 0.9 * rate)
    inputs[redrawn] = rng.integers(0, inputs.max() + 1, int(redrawn.sum()))
    return inputs, np.where(share < rate, ids, -100)


def best_fit(room: np.ndarray, length: int) -> int:
    """Index of the first row with the least sufficient room; -1 if there is none."""
    best, least = -1, 1 << 62
    for i in range(len(room)):
        if length <= room[i] < least:
            best, least = i, room[i]
    return best


def best_fit_numpy(room: np.ndarray, length: int) -> int:
    """`best_fit` in numpy."""
    fits = np.where(room >= length, room, 1 << 62)
    best = int(fits.argmin())
    return best if fits[best] < 1 << 62 else -1


def _fastest() -> Search:
    """`best_fit`, compiled if numba is installed."""
    try:
        import numba
    except ImportError:
        return best_fit_numpy
    return numba.njit(cache=False)(best_fit)
