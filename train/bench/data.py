"""The data path: text to packed rows, rows to batches, and the plan of rows by itself."""

import contextlib
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.packing import pack
from modernbert_jax.tokenizer import Tokenizer

from ..corpus.prepare import prepare
from ..corpus.sources import Corpus
from ..quickstart import standard_library
from ..rows.manifest import DEFAULT
from ..rows.prepared import Prepared
from . import Measurement, Options, peer

LENGTH = 1024
"""Tokens in a row."""

SOURCE_BATCH, MICROBATCH = 576, 96
"""Sequences that the research code's packer takes at once on each device, and packs into a row."""

_PIPELINE = "datasets.map, greedy best fit"
_PACKER = f"greedy best fit, {SOURCE_BATCH} rows"
_DOCUMENTS, _WINDOW = 131_072, 65_536
_REPEATS = 3


def measure(options: Options) -> Iterator[Measurement]:
    """Runs both sides on the same text, in turn; the peer only where it is installed."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as place:
        folder = Path(place)
        texts = _write_texts(options, folder / "texts.jsonl")
        tokenizer = _tokenizer(options, texts, folder / "tokenizer")
        ours, theirs, dataset = 0.0, None, None
        for i in range(_REPEATS):
            ours = max(ours, _ours(texts, tokenizer, folder / f"data-{i}"))
            with contextlib.suppress(ImportError):
                dataset, speed = _theirs(texts, tokenizer, folder / f"cache-{i}")
                theirs = max(theirs or 0.0, speed)
        data = Prepared(folder / "data-0")
        yield Measurement(
            name="tokenise and pack",
            unit="tokens/s per core",
            ours=ours,
            peer=theirs,
            peer_name=_PIPELINE,
        )
        batches = data.batches(LENGTH, SOURCE_BATCH, seed=0)
        readers = {"ours": (int(batch.tokens.sum()) for batch in batches)}
        if dataset is not None:
            readers["peer"] = _their_batches(dataset, data.tokenizer.mask_id)
        speeds = _tokens_per_second(readers)
        batches.close()
        yield Measurement(
            name="read packed rows",
            unit="tokens/s per core",
            ours=speeds["ours"],
            peer=speeds.get("peer"),
            peer_name="tokenised dataset, packed and masked as it is read",
        )
        yield from _plans(data)


def _ours(texts: Path, tokenizer: Path, folder: Path) -> float:
    """Tokens that come to lie in rows on disk, for each second of a core."""
    with _cores() as seconds:
        made = prepare(Corpus([texts]), Tokenizer.load(tokenizer), folder, [LENGTH])
    rows = made.components[DEFAULT].lengths[str(LENGTH)].values()
    return sum(split.tokens for split in rows) / seconds()


def _theirs(texts: Path, tokenizer: Path, folder: Path) -> tuple:
    """The tokenised dataset, and tokens in rows in memory for each second of a core."""
    next(peer.pack([range(1)], 1, 1, 1))  # compiles the search
    with _cores() as seconds:
        dataset = peer.tokenised(texts, tokenizer, LENGTH, folder)
        tokens = sum(_fill(peer.arrays(dataset)))
    return dataset, tokens / seconds()


def _fill(sequences: Iterable[np.ndarray], mask_id: int | None = None) -> Iterator[int]:
    """Packs sequences as the research code does and lays them out; tokens in each batch."""
    capacity, rng = MICROBATCH * LENGTH, np.random.default_rng(0)
    for batch in peer.pack(sequences, SOURCE_BATCH // MICROBATCH, capacity, SOURCE_BATCH):
        ids = peer.filled(batch, capacity)
        if mask_id is not None:
            peer.masked(ids, rng, mask_id)
        yield sum(len(item) for row in batch for item in row)


def _their_batches(dataset, mask_id: int) -> Iterator[int]:
    """Tokens in each batch of a training run: shuffled by epoch, packed and masked as they come."""
    orders = (np.random.default_rng(epoch).permutation(len(dataset)) for epoch in itertools.count())
    sequences = itertools.chain.from_iterable(peer.arrays(dataset, order) for order in orders)
    return _fill(sequences, mask_id)


def _tokens_per_second(readers: dict[str, Iterator[int]]) -> dict[str, float]:
    """By name, from batches of tokens: in turn, a core's second at a time, the best of a few."""
    best = dict.fromkeys(readers, 0.0)
    for _ in range(_REPEATS + 1):  # the first is for warming up as well
        for name, batches in readers.items():
            tokens, began = 0, time.process_time()  # of all threads: those that read ahead too
            while (seconds := time.process_time() - began) < 1:
                tokens += next(batches)
            best[name] = max(best[name], tokens / seconds)
    return best


def _plans(data: Prepared) -> Iterator[Measurement]:
    """Which document goes into which row of 1,024 tokens: how fast, and how full."""
    lengths = _sample_lengths(data)
    windows = [lengths[i : i + _WINDOW] for i in range(0, len(lengths), _WINDOW)]
    items = [range(n) for n in lengths]
    speed, rows = _documents_per_second(
        lambda: [row for window in windows for row in pack(window, LENGTH)]
    )
    their_speed, batches = _documents_per_second(
        lambda: list(peer.pack(items, SOURCE_BATCH, LENGTH, SOURCE_BATCH))
    )
    yield Measurement(
        name="plan rows", unit="documents/s", ours=speed, peer=their_speed, peer_name=_PACKER
    )
    theirs = [len(item) for batch in batches for row in batch for item in row]
    yield Measurement(
        name="fill rows",
        unit="% of 1,024 tokens",
        ours=100 * sum(lengths) / (len(rows) * LENGTH),
        peer=100 * sum(theirs) / (len(batches) * SOURCE_BATCH * LENGTH),
        peer_name=_PACKER,
    )


def _documents_per_second(plan: Callable[[], list]) -> tuple[float, list]:
    """The best of a few, by the time of one core; and the plan."""
    best = float("inf")
    for _ in range(_REPEATS):
        with _cores() as seconds:
            made = plan()
        best = min(best, seconds())
    return _DOCUMENTS / best, made


def _sample_lengths(data: Prepared) -> list[int]:
    """Lengths of documents as they were cut for rows, drawn again up to a fixed number."""
    found = []
    rows = data.rows("train", LENGTH)
    for i in range(len(rows)):
        segments = rows[i]["segment_ids"]
        found.append(np.bincount(segments)[1:])
    return np.random.default_rng(0).choice(np.concatenate(found), _DOCUMENTS).tolist()


@contextlib.contextmanager
def _cores() -> Iterator[Callable[[], float]]:
    """Gives a function that tells, afterwards, the seconds of all cores that the block took."""

    def used() -> float:
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))

    before, took = used(), []
    yield lambda: took[0]
    took.append(used() - before)


def _write_texts(options: Options, path: Path) -> Path:
    """The text as JSON lines: from each file its part of the megabytes."""
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
