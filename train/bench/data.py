"""The data path: text to packed rows, packed rows to batches, and the packing plan alone."""

import contextlib
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.packing import pack
from modernbert_jax.tokenizer import Tokenizer

from ..corpus.prepare import prepare
from ..corpus.sources import Corpus
from ..quickstart import standard_library
from ..rows.manifest import DEFAULT
from ..rows.prepared import Prepared
from . import Measurement, Options, compared, peer

LENGTH = 1024
"""Tokens per row."""

SOURCE_BATCH, MICROBATCH = 576, 96
"""Sequences that the research code's packer reads at a time per device, and packs into a row."""

DOCUMENTS = 131_072
"""Documents of the packing plan."""

_WINDOW = 65_536
_PER_CORE = "tokens/s per core"


def measure(options: Options) -> Iterator[Measurement]:
    """Run both sides on the same text, in turn; the peer only if it is installed."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as place:
        folder = Path(place)
        texts = write_texts(options, folder / "texts.jsonl")
        tokenizer = _tokenizer(options, texts, folder / "tokenizer")
        speeds, dataset = {"ours": 0.0}, None
        for i in range(options.repeats):
            ours = _ours(texts, tokenizer, folder / f"data-{i}")
            speeds["ours"] = max(speeds["ours"], ours)
            with contextlib.suppress(ImportError):
                dataset, theirs = _theirs(texts, tokenizer, folder / f"cache-{i}")
                speeds["peer"] = max(speeds.get("peer", 0.0), theirs)
        data = Prepared(folder / "data-0")
        pipeline = {"peer": "datasets.map, greedy best fit"}
        yield from compared("tokenise and pack", _PER_CORE, speeds, pipeline)
        batches = data.batches(LENGTH, SOURCE_BATCH, seed=0)
        readers: dict[str, Iterator[int]] = {"ours": (int(batch.tokens.sum()) for batch in batches)}
        if dataset is not None:
            readers["peer"] = _their_batches(dataset, data.tokenizer.mask_id)
        speeds = _tokens_per_second(readers, options.repeats)
        batches.close()
        reader = {"peer": "tokenised dataset, packed and masked as it is read"}
        yield from compared("read packed rows", _PER_CORE, speeds, reader)
        yield from _plans(data, options.repeats)


def _ours(texts: Path, tokenizer: Path, folder: Path) -> float:
    """Tokens in rows on disk, per second of a core."""
    with _cores() as seconds:
        result = prepare(Corpus([texts]), Tokenizer.load(tokenizer), folder, [LENGTH])
    rows = result.components[DEFAULT].lengths[str(LENGTH)].values()
    return sum(split.tokens for split in rows) / seconds()


def _theirs(texts: Path, tokenizer: Path, folder: Path) -> tuple:
    """The tokenised dataset, and tokens in rows in memory per second of a core."""
    next(peer.pack([range(1)], 1, 1, 1))  # compiles the search
    with _cores() as seconds:
        dataset = peer.tokenised(texts, tokenizer, LENGTH, folder)
        tokens = sum(_fill(peer.arrays(dataset)))
    return dataset, tokens / seconds()


def _fill(sequences: Iterable[np.ndarray], mask_id: int | None = None) -> Iterator[int]:
    """Pack sequences as the research code does, lay them out, and yield tokens per batch."""
    capacity, rng = MICROBATCH * LENGTH, np.random.default_rng(0)
    for batch in peer.pack(sequences, SOURCE_BATCH // MICROBATCH, capacity, SOURCE_BATCH):
        ids = peer.filled(batch, capacity)
        if mask_id is not None:
            peer.masked(ids, rng, mask_id)
        yield sum(len(item) for row in batch for item in row)


def _their_batches(dataset, mask_id: int) -> Iterator[int]:
    """Tokens per batch of a training run: shuffled by epoch, packed and masked while reading."""
    orders = (np.random.default_rng(epoch).permutation(len(dataset)) for epoch in itertools.count())
    sequences = itertools.chain.from_iterable(peer.arrays(dataset, order) for order in orders)
    return _fill(sequences, mask_id)


def _tokens_per_second(readers: dict[str, Iterator[int]], repeats: int) -> dict[str, float]:
    """The best speed of each reader, which take turns of one second of a core."""
    best = dict.fromkeys(readers, 0.0)
    for _ in range(repeats + 1):  # the first round warms up
        for name, batches in readers.items():
            tokens, began = 0, time.process_time()  # of all threads, those that read ahead too
            while (seconds := time.process_time() - began) < 1:
                tokens += next(batches)
            best[name] = max(best[name], tokens / seconds)
    return best


def _plans(data: Prepared, repeats: int) -> Iterator[Measurement]:
    """Speed and density of assigning documents to rows of `LENGTH` tokens."""
    lengths = _sample_lengths(data)
    windows = [lengths[i : i + _WINDOW] for i in range(0, len(lengths), _WINDOW)]
    items = [range(n) for n in lengths]
    packers = {"peer": f"greedy best fit, {SOURCE_BATCH} rows"}
    speed, rows = _documents_per_second(
        lambda: [row for window in windows for row in pack(window, LENGTH)], repeats
    )
    their_speed, batches = _documents_per_second(
        lambda: list(peer.pack(items, SOURCE_BATCH, LENGTH, SOURCE_BATCH)), repeats
    )
    speeds = {"ours": speed, "peer": their_speed}
    yield from compared("plan rows", "documents/s", speeds, packers)
    theirs = sum(len(item) for batch in batches for row in batch for item in row)
    filled = {
        "ours": 100 * sum(lengths) / (len(rows) * LENGTH),
        "peer": 100 * theirs / (len(batches) * SOURCE_BATCH * LENGTH),
    }
    yield from compared("fill rows", "% of 1,024 tokens", filled, packers)


def _documents_per_second(plan: Callable[[], list], repeats: int) -> tuple[float, list]:
    """The best speed of a plan on one core, and the plan."""
    best = float("inf")
    for _ in range(repeats):
        with _cores() as seconds:
            rows = plan()
        best = min(best, seconds())
    return DOCUMENTS / best, rows


def _sample_lengths(data: Prepared) -> list[int]:
    """Lengths of documents cut for rows, drawn with replacement up to `DOCUMENTS`."""
    rows = data.rows("train", LENGTH)
    lengths = [np.bincount(rows[i]["segment_ids"])[1:] for i in range(len(rows))]
    return np.random.default_rng(0).choice(np.concatenate(lengths), DOCUMENTS).tolist()


@contextlib.contextmanager
def _cores() -> Iterator[Callable[[], float]]:
    """Yield a function that returns, afterwards, the seconds of all cores that the block took."""

    def used() -> float:
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))

    seconds: list[float] = []
    before = used()
    yield lambda: seconds[0]
    seconds.append(used() - before)


def write_texts(options: Options, path: Path) -> Path:
    """Write the text as JSON lines, with an equal part of the megabytes from each file."""
    sources: list[Iterable[Any]]
    if options.input:
        sources = [Corpus([s.path], on_error="skip") for s in Corpus.find(options.input).sources]
    else:
        sources = [standard_library()]
    with path.open("w") as file:
        for source in sources:
            room = options.megabytes * 1e6 / len(sources)
            for text in source:
                room -= len(text.encode(errors="replace"))
                if room < 0:
                    break
                file.write(json.dumps({"text": text}) + "\n")
    return path


def _tokenizer(options: Options, texts: Path, folder: Path) -> Path:
    """The path of a tokenizer.json."""
    path = options.tokenizer
    if path is None:
        folder.mkdir()
        tokenizers.train(Corpus([texts]), 32_768).save(folder)
        path = folder
    return path / "tokenizer.json" if path.is_dir() else path
