"""Text to packed rows on disk: the order of the steps, and how the work starts, resumes and ends.

The work is stored in `OUTPUT.partial` until it is done (in OUTPUT itself where that is a URL):
files of rows, and `work/` with a record of everything that is finished. The same command resumes
from there. The last steps write `manifest.json` and give the folder its name.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.paths import expanded
from modernbert_jax.io.store import Store
from modernbert_jax.tokenizer import Tokenizer

from ..rows.manifest import DEFAULT, Manifest
from . import deduplicate, pool
from .components import CorpusComponent, WorkUnit, check_name, work_units
from .shards import Settings, digest_unit, make_unit
from .sources import Corpus
from .writer import PreparedWriter, work_root

WINDOW_DOCUMENTS = 65_536
WINDOW_TOKENS = 1 << 26
"""A packing window ends at either number. More would not pack better: 99.98 % at 1,024."""

LEAST_LENGTH = 8
"""Tokens of the shortest row."""

UnitRunner = Callable[[pool.Work, Sequence], None]
"""Calls a function with every item: in processes here, or on machines elsewhere."""


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
    watch: pool.Watch = lambda done, of, documents: None,
) -> Manifest:
    """Write a prepared folder with rows of each length and return its manifest.

    Documents are cut into samples that fit the row, each beginning with [CLS] and ending with
    [SEP], and packed. Rows depend on the corpus, the tokenizer, `lengths`, `validation`, `seed` and
    `deduplicate` alone. Killed and called again, it resumes. Called for a finished folder, it
    returns the manifest with the weights and epochs that the components have now.

    Args:
        corpus: The text, or its components by name.
        tokenizer: Makes the token ids; saved beside the rows.
        output: Folder or fsspec URL to write. It must not hold anything else.
        lengths: Tokens per row; one or several.
        validation: Share of the documents that is held out, chosen by a hash of their text.
        seed: Seed of the order of rows in a window.
        deduplicate: Whether to skip documents whose text came before in their component.
        workers: Number of processes or threads; by default all cores. Processes are spawned, so a
            script must call this below `if __name__ == "__main__":`.
        run: Maps a function over the units of work, instead of local processes.
        report: Receives a line for each result.
        watch: Receives units done, all units, and documents so far, whenever they change.

    Raises:
        UserError: nothing usable in the corpus, an output that holds something else, or a disk
            that is full or write-protected.
    """
    if not lengths or min(lengths) < LEAST_LENGTH:
        raise UserError(
            f"length is {min(lengths, default=None)}; a row must have {LEAST_LENGTH} tokens or more"
        )
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it must be 1 or more")
    output = expanded(output)
    components = {DEFAULT: CorpusComponent(corpus=corpus)} if isinstance(corpus, Corpus) else corpus
    for name in components:
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
        on_error=next(iter(components.values())).corpus.on_error,
    )
    writer = PreparedWriter(output, settings, components, tokenizer)
    if run is None:
        run = partial(pool.run, workers=workers or os.cpu_count() or 1, watch=watch)
    with writer.held():
        if (finished := writer.finished()) is not None:
            report(f"{output}: is finished already")
            return finished
        writer.claim()
        result = _made(writer, settings, work_units(components), run)
        for line in describe(result):
            report(line)
        writer.finish(result)
    return result


def _made(
    writer: PreparedWriter, settings: Settings, units: Sequence[WorkUnit], run: UnitRunner
) -> Manifest:
    """Do all units that are not done. An error leaves only work that the same command resumes."""
    try:
        if settings.deduplicate:
            _find_duplicates(run, settings, units)
        run(partial(make_unit, settings), units)
    except BaseException:
        writer.remove_if_nothing_is_done()
        raise
    try:
        return writer.manifest(units)
    except UserError:  # the same command would end in the same way
        writer.discard()
        raise


def describe(result: Manifest) -> list[str]:
    """Summarise a prepared folder in a few lines."""
    lines = []
    for name, component in result.components.items():
        label = "" if name == DEFAULT else f"{name}: "
        documents, tokens = sum(component.documents.values()), sum(component.tokens.values())
        lines.append(f"{label}tokenised {documents:,} documents, {tokens:,} tokens")
        if component.duplicates:
            lines.append(f"{label}skipped {component.duplicates:,} duplicates")
        for length, splits in component.lengths.items():
            rows = splits["train"]
            lines.append(
                f"{label}packed {rows.rows:,} rows of {int(length):,} tokens,"
                f" {rows.efficiency:.2%} full"
            )
    return lines


def _find_duplicates(run: UnitRunner, settings: Settings, units: Sequence[WorkUnit]) -> None:
    """Store every unit's duplicates: digests by unit, then comparison by bucket of digests."""
    store = Store(settings.root)
    run(partial(digest_unit, settings), units)
    buckets = []
    for component in dict.fromkeys(unit.component for unit in units):
        names = tuple(unit.name for unit in units if unit.component == component)
        documents = sum(deduplicate.count(store, component, name) for name in names)
        of = -(-documents // deduplicate.BUCKET_DOCUMENTS) or 1
        buckets += [deduplicate.Bucket(component, names, i, of) for i in range(of)]
    run(partial(deduplicate.find_duplicates, settings.root), buckets)
