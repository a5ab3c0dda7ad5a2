"""`StoredCorpus`: the representations of a corpus on disk, so that a search resumes."""

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.progress import Progress
from modernbert_jax.io.typed_json import differences

from ..blocks import Block
from ..data import ids
from ..parts import Parts
from ..retriever import Retriever
from ..stored_blocks import TEXTS, StoredBlocks
from .config import Encoders

MANIFEST = "search.json"
"""File with everything that the representations in a folder depend on."""

PART = TEXTS
"""Documents of a part."""


def facts_of(
    retriever: Retriever,
    model: str,
    options: Encoders,
    files: Sequence[str],
    stored: str = "float32",
) -> dict[str, Any]:
    """Everything that the representations of a corpus depend on, as JSON."""
    return {
        "model": fingerprint.of_paths([convert.locate(model)])[:16],
        "corpus": fingerprint.of_paths(files)[:16],
        **retriever.facts("document"),
        "dtype": options.dtype,
        "weights": options.weights,
        "part": PART,
        "stored": stored,
    }


class StoredCorpus:
    """Representations and ids of the documents of some files, in parts on disk."""

    def __init__(self, cache: Path, facts: Mapping[str, Any], files: list[str], count: int):
        """Open what a folder holds; `encode` completes it.

        Args:
            cache: the folder, which exists.
            facts: see `facts_of`.
            files: of the corpus.
            count: number of documents in them.

        Raises:
            UserError: the folder holds the representations of other settings.
        """
        self._manifest, self._facts = cache / MANIFEST, dict(facts)
        if self._manifest.is_file() and (
            changed := differences(read_json(self._manifest), self._facts)
        ):
            raise UserError(
                f"{cache}: holds the vectors of other settings ({'; '.join(changed)});"
                " name another --cache, or remove it"
            )
        self._files, self.count = files, count
        self._ids = Parts(cache, "ids", {"corpus": facts["corpus"], "part": PART})
        parts = Parts(cache, "vectors", dict(facts))
        self._blocks = StoredBlocks(
            parts, count, PART, lambda i: _missing(parts.path(i)), facts["stored"]
        )

    def encode(self, retriever: Retriever) -> None:
        """Compute the parts that are missing, and show the progress."""
        if not (missing := {*self._blocks.missing}):
            return
        rows = ids.texts(self._files)
        with Progress(self.count, of="document") as progress:
            for number in self._blocks.numbers:
                part = [*itertools.islice(rows, PART)]
                if number in missing:
                    self._add(number, part, retriever)
                progress.update("encode corpus", number * PART + len(part))

    def blocks(self, first: int = 0) -> Iterator[Block]:
        """Representations of all documents, part by part, from a part on."""
        return map(self._blocks.part, self._blocks.numbers[first:])

    def take(self, numbers: np.ndarray) -> Block:
        """Representations of some documents [m], at least one."""
        return self._blocks.take(numbers)

    def ids(self, numbers: np.ndarray) -> list[str]:
        """Ids of documents by their numbers, in ascending order."""
        names: list[str] = []
        for part in np.unique(numbers // PART).tolist():
            stored = self._ids.get(part, functools.partial(_missing, self._ids.path(part)))
            listed = json.loads(stored["ids"].tobytes())
            names += [listed[i] for i in (numbers[numbers // PART == part] % PART).tolist()]
        return names

    def _add(self, number: int, part: list[tuple[str, str]], retriever: Retriever) -> None:
        names = json.dumps([name for name, _ in part]).encode()
        block = retriever.encode((text for _, text in part), "document")
        if not self._manifest.exists():
            write_json(self._manifest, self._facts)
        self._ids.get(number, lambda: {"ids": np.frombuffer(names, np.uint8)})
        self._blocks.store(number, block)


def _missing(path: Path) -> Any:
    raise UserError(f"{path}: is missing; run the same command again")
