"""`manifest.json` of a prepared folder. It is written last, so a folder that has it is complete.

    DIR/manifest.json
    DIR/tokenizer/                               the tokenizer's files
    DIR/<component>/<length>/train-<unit>-<window>.arrayrecord
    DIR/<component>/<length>/validation-<unit>-<window>.arrayrecord

A component is a named part of the corpus with its own weight in training; without a mixture there
is one, `default`. Files are listed with their rows, bytes and SHA-256, in the order in which rows
are numbered.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.typed_json import from_json, to_json

FORMAT = 2
"""Version of the folder's layout and of the records; folders of other versions are refused."""

NAME = "manifest.json"
DEFAULT = "default"
"""Name of the component of a corpus without a mixture."""

SPLITS = ("train", "validation")

EDGES = tuple(sorted({round(2 ** (k / 4)) for k in range(4 * 24 + 1)}))
"""Lower edges of the bins of length histograms, in tokens: four per octave; the last is open."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of rows."""

    file: str
    """Path relative to the prepared folder, with `/`."""
    rows: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRows:
    """The rows of one component, length and split."""

    rows: int
    samples: int
    """Number of segments: documents, or pieces of long ones."""
    tokens: int
    """Tokens of all samples, with [CLS] and [SEP]."""
    efficiency: float
    """Share of the rows' capacity that holds tokens."""
    sample_lengths: dict[str, int]
    """Histogram of the samples' lengths, with [CLS] and [SEP]."""
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A source file."""

    path: str
    bytes: int
    sha256: str
    """Hash of the stored file, compressed or not; "" if the file could not be read."""
    documents: int
    """Usable documents, duplicates included."""
    skipped: dict[str, int]
    """Skipped documents, by reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """A named part of the corpus. Tokens are counted before cutting, without [CLS] and [SEP]."""

    weight: float | None = None
    """Share of the tokens in training, relative to the other components; None is unspecified."""
    epochs: float | None = None
    """How often its rows may be read; None is any number of times."""
    field: str
    """Key or column of the text, in sources that have several."""
    sources: tuple[SourceFile, ...]
    documents: dict[str, int]
    """Documents by split, without duplicates."""
    duplicates: int
    """Documents skipped because the same text came before."""
    tokenless: int
    """Documents skipped because they have no tokens."""
    tokens: dict[str, int]
    """Tokens by split."""
    unknown: int
    """Unknown tokens, in both splits."""
    special: int
    """Special tokens in the text itself, in both splits."""
    document_lengths: dict[str, int]
    """Histogram of the documents' lengths, in both splits."""
    lengths: dict[str, dict[str, PackedRows]]
    """Rows by row length, then split. A split without documents is absent."""

    @property
    def skipped(self) -> dict[str, int]:
        """Skipped documents by reason, over all sources."""
        return functools.reduce(add, (source.skipped for source in self.sources), {})


Dtype = Literal["uint16", "uint32"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A prepared folder: how it was made, and its files."""

    format: int = FORMAT
    tokenizer_sha256: str
    """Hash of `tokenizer/tokenizer.json`."""
    vocab_size: int
    dtype: Dtype
    """Type of the token ids in records."""
    chunking: str
    """Description of how documents longer than a row are cut."""
    deduplicate: bool
    """Whether exact duplicates were skipped, in each component."""
    validation: float
    """Share of the documents held out, chosen by a hash of their text."""
    seed: int
    """Seed of the order of rows in a packing window."""
    packer: str
    window_documents: int
    window_tokens: int
    """A window, whose documents are packed together, ends at either number."""
    components: dict[str, Component]

    def __post_init__(self):
        if not self.components:
            raise UserError("components is empty")
        for name, component in self.components.items():
            for length, splits in component.lengths.items():
                if not length.isdecimal() or not set(splits) <= set(SPLITS):
                    raise UserError(f"components.{name}.lengths.{length} is not known")
                for split, packed in splits.items():
                    if packed.rows != sum(s.rows for s in packed.shards):
                        raise UserError(f"components.{name}.lengths.{length}.{split}: rows differ")
                    for shard in packed.shards:
                        parts = shard.file.split("/")
                        if parts[:2] != [name, length] or len(parts) != 3 or ".." in parts:
                            raise UserError(f"components.{name}: {shard.file!r} is not its file")

    @property
    def row_lengths(self) -> list[int]:
        """Row lengths that every component was prepared for."""
        sets = [set(map(int, c.lengths)) for c in self.components.values()]
        return sorted(set.intersection(*sets))

    def shards(self, component: str, length: int, split: str) -> tuple[Shard, ...]:
        """Files of rows; none if the split has no documents."""
        packed = self.components[component].lengths.get(str(length), {}).get(split)
        return packed.shards if packed else ()

    def to_json(self) -> dict:
        """The manifest as a JSON object."""
        return to_json(self)


def read(folder: str | Path) -> Manifest:
    """Read the manifest of a prepared folder.

    Raises:
        UserError: the manifest is missing, damaged or of another version.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        raise UserError(
            f"{folder}: not a prepared corpus (no {NAME}); make one with `modernbert-jax prepare`"
        )
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: format is {content.get('format')!r}; this version reads {FORMAT}; prepare"
            " the corpus again"
        )
    try:
        return from_json(Manifest, content, "manifest")
    except UserError as error:
        raise UserError(f"{path}: damaged ({error}); prepare the corpus again") from None


def check(folder: str | Path, shard: Shard, *, content: bool = True) -> None:
    """Compare a file of rows with its size and, if `content`, with its checksum.

    Raises `UserError` that names a damaged file.
    """
    path = Path(folder) / shard.file
    again = "; prepare the corpus again, or copy the file again from where it was made"
    try:
        if path.stat().st_size != shard.bytes:
            raise UserError(
                f"{path}: damaged: has {path.stat().st_size:,} bytes, not {shard.bytes:,}{again}"
            )
        if content and checksums.sha256(path) != shard.sha256:
            raise UserError(f"{path}: damaged: its checksum is not the manifest's{again}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}){again}") from None


def histogram(lengths: np.ndarray) -> dict[str, int]:
    """Count lengths by bin: {lower edge: count}, without empty bins."""
    bins = np.searchsorted(EDGES, np.maximum(lengths, 1), side="right") - 1
    counts = np.bincount(bins, minlength=len(EDGES))
    return {str(edge): int(n) for edge, n in zip(EDGES, counts, strict=True) if n}


def add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    """Add two histograms or counts by reason, sorted by number where keys are numbers."""
    keys = sorted({*a, *b}, key=lambda k: (int(k) if k.isdecimal() else -1, k))
    return {k: a.get(k, 0) + b.get(k, 0) for k in keys}
