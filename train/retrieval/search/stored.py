"""`StoredCorpus`: the vectors of a corpus in a folder, so that an interrupted search resumes."""

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

from ..data import ids
from ..encoding import TextEncoder
from ..parts import Parts

MANIFEST = "search.json"
"""File with everything that the vectors of a folder depend on."""

PART = 2048
"""Documents of a part, whose vectors are in one file."""


def facts_of(encoder: TextEncoder, model: str, dtype: str, files: Sequence[str]) -> dict[str, Any]:
    """Everything that the vectors of a corpus depend on, as JSON."""
    encoding = encoder.sides["document"]
    return {
        "model": fingerprint.of_paths([convert.locate(model)])[:16],
        "corpus": fingerprint.of_paths(files)[:16],
        "prompt": encoder.prompt("document"),
        "max_length": encoding.max_length,
        "pooling": encoding.pooling,
        "normalize": encoding.normalize,
        "dims": encoding.width,
        "dtype": dtype,
        "part": PART,
    }


class StoredCorpus:
    """Vectors and ids of the documents of some files, in parts on disk."""

    def __init__(self, cache: Path, facts: Mapping[str, Any], files: list[str], count: int):
        """Open what a folder holds; `encode` completes it.

        Args:
            cache: the folder, which exists.
            facts: see `facts_of`.
            files: of the corpus.
            count: number of documents in them.

        Raises:
            UserError: the folder holds the vectors of other settings.
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
        self._vectors = Parts(cache, "vectors", dict(facts))
        self._ids = Parts(cache, "ids", {"corpus": facts["corpus"], "part": PART})

    def encode(self, encoder: TextEncoder) -> None:
        """Compute the parts that are missing, and show the progress."""
        if all(self._vectors.path(i).exists() for i in range(self._parts)):
            return
        rows = ids.texts(self._files)
        with Progress(self.count, of="document") as progress:
            for number in range(self._parts):
                part = [*itertools.islice(rows, PART)]
                if not self._vectors.path(number).exists():
                    self._add(number, part, encoder)
                progress.update("encode corpus", number * PART + len(part))

    def blocks(self) -> Iterator[np.ndarray]:
        """Vectors of all documents [n, E], part by part."""
        return (self._get(self._vectors, i) for i in range(self._parts))

    def ids(self, numbers: np.ndarray) -> list[str]:
        """Ids of documents by their numbers, in ascending order."""
        names: list[str] = []
        for part in np.unique(numbers // PART).tolist():
            listed = json.loads(self._get(self._ids, part).tobytes())
            names += [listed[i] for i in (numbers[numbers // PART == part] % PART).tolist()]
        return names

    @property
    def _parts(self) -> int:
        return -(-self.count // PART)

    def _add(self, number: int, part: list[tuple[str, str]], encoder: TextEncoder) -> None:
        names = json.dumps([name for name, _ in part]).encode()
        vectors = encoder.encode((text for _, text in part), "document")
        if not self._manifest.exists():
            write_json(self._manifest, self._facts)
        self._ids.get(number, lambda: {"ids": np.frombuffer(names, np.uint8)})
        self._vectors.get(number, lambda: {"vectors": vectors})

    def _get(self, parts: Parts, number: int) -> np.ndarray:
        """The array of a part that is stored."""

        def missing() -> dict[str, np.ndarray]:
            raise UserError(f"{parts.path(number)}: is missing; run the same command again")

        (array,) = parts.get(number, missing).values()
        return array
