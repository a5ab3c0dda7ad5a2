"""From text to packed rows on disk, once for all: who does what, and how it all ends.

The work lies in `OUTPUT.partial` until it is done (in OUTPUT itself where that is a URL): files of
rows, and `work/` with a record of everything that is finished. The same command goes on from
there. The last things are `manifest.json` and the folder's real name.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.store import Store
from modernbert_jax.tokenizer import Tokenizer

from ..rows.manifest import DEFAULT, Manifest
from . import deduplicate, pool
from .components import CorpusComponent, WorkUnit, check_name, units
from .shards import Settings, digest_unit, make_unit
from .sources import Corpus
from .writer import PreparedWriter, work_root

WINDOW_DOCUMENTS = 65_536
WINDOW_TOKENS = 1 << 26
"""Documents are packed together up to one of these. More would pack no better: 99.98 % at 1,024."""

LEAST_LENGTH = 8
"""Tokens in the shortest row."""

UnitRunner = Callable[[Callable[[Any], None], Sequence[Any]], None]
"""What calls a function with every item: processes here, or machines elsewhere."""


def prepare(
    corpus: Corpus | Mapping[str, CorpusComponent],
    tokenizer: Tokenizer,
    output: str | Path,
    lengths: Sequence[int],
    *,
    validation: float = 0.01,
    seed: int = 0,
    deduplicate: bool = False,
    workers: int | None = None,
    run: UnitRunner | None = None,
    report: Callable[[str], None] = lambda line: None,
    watch: Callable[[int, int, int], None] = lambda done, of, documents: None,
) -> Manifest:
    """Writes a prepared folder with rows of each length and returns its manifest.

    Documents are cut into samples that fit the row, each beginning with [CLS] and ending with
    [SEP], and packed. Rows depend on the corpus, the tokenizer, `seed` and the next three
    arguments alone. Killed and called again, it does what is left; called on a folder that is
    finished, it returns its manifest, with the weights and epochs that the parts have now.

    Args:
        corpus: the text, or parts of it by name.
        tokenizer: what makes ids of it; saved beside the rows.
        output: folder or fsspec URL to write. It must not hold anything else.
        lengths: tokens in a row; one or several.
        validation: share of the documents that is kept apart, chosen by a hash of their text.
        seed: of the order of rows in a window.
        deduplicate: leave out every document whose text came before in its component.
        workers: processes or threads to use; all cores by default. Processes are started anew,
            so that a script that calls this must do so below `if __name__ == "__main__":`.
        run: what maps a function over the units of work instead of local processes.
        report: is told what is done, a line at a time.
        watch: is told of units done, of all units, and of documents, at every step of the work.

    Raises:
        UserError: nothing usable in the corpus, an output that holds something else, a disk that
            is full or may not be written.
    """
    if not lengths or min(lengths) < LEAST_LENGTH:
        raise UserError(
            f"length is {min(lengths, default=None)}; a row must have {LEAST_LENGTH} tokens or more"
        )
    if not 0 <= validation < 1:
        raise UserError(f"validation is {validation}; it must be 0 or more and below 1")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it must be 1 or more")
    parts = (
        {DEFAULT: CorpusComponent(corpus=corpus)} if isinstance(corpus, Corpus) else dict(corpus)
    )
    for name in parts:
        check_name(name)
    settings = Settings(
        root=work_root(output),
        tokenizer_sha256=hashlib.sha256(tokenizer.files["tokenizer.json"]).hexdigest(),
        lengths=tuple(sorted(set(lengths))),
        dtype="uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        seed=seed,
        validation=validation,
        window_documents=WINDOW_DOCUMENTS,
        window_tokens=WINDOW_TOKENS,
        deduplicate=deduplicate,
        on_error=next(iter(parts.values())).corpus.on_error,
    )
    folder = PreparedWriter(output, settings, parts, tokenizer)
    if (finished := folder.finished()) is not None:
        report(f"{output}: is finished already")
        return finished
    folder.claim()
    work = units(parts)
    if run is None:
        run = partial(pool.run, workers=workers or os.cpu_count() or 1, watch=watch)
    try:
        if deduplicate:
            _find_duplicates(run, settings, work)
        run(partial(make_unit, settings), work)
        made = folder.manifest(work)
    except UserError:
        folder.forget_if_nothing_is_done()
        raise
    for line in describe(made):
        report(line)
    folder.finish(made)
    return made


def describe(made: Manifest) -> list[str]:
    """What was made, in a few lines."""
    found = []
    for name, component in made.components.items():
        label = "" if name == DEFAULT else f"{name}: "
        documents, tokens = sum(component.documents.values()), sum(component.tokens.values())
        found.append(f"{label}tokenised {documents:,} documents, {tokens:,} tokens")
        if component.duplicates:
            found.append(f"{label}left out {component.duplicates:,} duplicates")
        for length, splits in component.lengths.items():
            rows = splits["train"]
            found.append(
                f"{label}packed {rows.rows:,} rows of {int(length):,} tokens,"
                f" {rows.efficiency:.2%} full"
            )
    return found


def _find_duplicates(run: UnitRunner, settings: Settings, work: Sequence[WorkUnit]) -> None:
    """Notes every unit's duplicates: digests by unit, then comparison by bucket of digests."""
    store = Store(settings.root)
    run(partial(digest_unit, settings), work)
    buckets = []
    for component in dict.fromkeys(unit.component for unit in work):
        names = [unit.name for unit in work if unit.component == component]
        documents = sum(deduplicate.count(store, component, name) for name in names)
        of = -(-documents // deduplicate.BUCKET_DOCUMENTS) or 1
        buckets += [deduplicate.Bucket(component, tuple(names), i, of) for i in range(of)]
    run(partial(deduplicate.find_duplicates, settings.root), buckets)
