"""What a prepared folder holds: `manifest.json`, written last, so that a folder with it is whole.

    DIR/manifest.json
    DIR/tokenizer/                               the tokenizer's files
    DIR/<component>/<length>/train-<unit>-<window>.arrayrecord
    DIR/<component>/<length>/validation-<unit>-<window>.arrayrecord

A component is a named part of the corpus with a weight of its own in training; without a mixture
there is one, `default`. Files are listed with the rows, bytes and SHA-256 that they must have, in
the order in which their rows count.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums
from modernbert_jax.io.files import read_json
from modernbert_jax.io.typed_json import from_json, to_json

FORMAT = 2
"""Version of the layout and of the records. Another one is refused by name."""

NAME = "manifest.json"
DEFAULT = "default"
"""The component of a corpus without a mixture."""

SPLITS = ("train", "validation")

EDGES = tuple(sorted({round(2 ** (k / 4)) for k in range(4 * 24 + 1)}))
"""Where the bins of length histograms begin, in tokens: four to an octave. The last has no end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of rows."""

    file: str
    """Relative to the prepared folder, with `/`."""
    rows: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRows:
    """The rows of one component, length and split."""

    rows: int
    samples: int
    """Documents, or pieces of long ones: what is a segment in a row."""
    tokens: int
    """Of all samples, with [CLS] and [SEP]."""
    efficiency: float
    """Share of the rows' capacity that holds tokens."""
    sample_lengths: dict[str, int]
    """Samples by length with [CLS] and [SEP]; see `histogram`."""
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that was read."""

    path: str
    bytes: int
    sha256: str
    """Of the file as it lies there, compressed or not."""
    documents: int
    """Usable ones, duplicates included."""
    skipped: dict[str, int]
    """Documents left out, by reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """A named part of the corpus. Tokens are counted before cutting, without [CLS] and [SEP]."""

    weight: float | None = None
    """Share of the tokens in training, relative to the other components; none was given."""
    epochs: float | None = None
    """How often its rows may be repeated; none was given."""
    field: str
    """Key or column of the text in sources that have several."""
    sources: tuple[SourceFile, ...]
    documents: dict[str, int]
    """By split, without duplicates."""
    duplicates: int
    """Documents left out because the same text came before."""
    tokenless: int
    """Documents left out because the tokenizer makes nothing of them."""
    tokens: dict[str, int]
    """By split."""
    unknown: int
    """Tokens that are the unknown token, in both splits."""
    special: int
    """Special tokens in the text itself, in both splits."""
    document_lengths: dict[str, int]
    """Documents of both splits by length; see `histogram`."""
    lengths: dict[str, dict[str, PackedRows]]
    """By row length, then split. A split without documents is missing."""

    @property
    def skipped(self) -> dict[str, int]:
        """Documents left out by reason, over all sources."""
        total: dict[str, int] = {}
        for source in self.sources:
            for reason, count in source.skipped.items():
                total[reason] = total.get(reason, 0) + count
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A prepared folder: how it was made and what lies where."""

    format: int = FORMAT
    tokenizer_sha256: str
    """Of `tokenizer/tokenizer.json`."""
    vocab_size: int
    dtype: Literal["uint16", "uint32"]
    """Of the token ids in records."""
    chunking: str
    """How documents longer than a row are cut."""
    deduplicate: bool
    """Whether exact duplicates were left out, in each component."""
    validation: float
    """Share of the documents kept apart, chosen by a hash of their text."""
    seed: int
    """Of the order of rows inside a window."""
    packer: str
    window_documents: int
    window_tokens: int
    """A window, whose documents are packed together, ends when it has either."""
    components: dict[str, Component]

    def __post_init__(self):
        if not self.components:
            raise UserError("components is empty")
        for name, component in self.components.items():
            for length, splits in component.lengths.items():
                if not length.isdecimal() or not set(splits) <= set(SPLITS):
                    raise UserError(f"components.{name}.lengths.{length} is not known")
                for split, made in splits.items():
                    if made.rows != sum(s.rows for s in made.shards):
                        raise UserError(f"components.{name}.lengths.{length}.{split}: rows differ")
                    for shard in made.shards:
                        parts = shard.file.split("/")
                        if parts[:2] != [name, length] or len(parts) != 3 or ".." in parts:
                            raise UserError(f"components.{name}: {shard.file!r} is not its file")

    @property
    def row_lengths(self) -> list[int]:
        """Row lengths that every component was prepared for."""
        sets = [set(map(int, c.lengths)) for c in self.components.values()]
        return sorted(set.intersection(*sets))

    def shards(self, component: str, length: int, split: str) -> tuple[Shard, ...]:
        """The files of rows; none where a split has no documents."""
        made = self.components[component].lengths.get(str(length), {}).get(split)
        return made.shards if made else ()

    def to_json(self) -> dict:
        """The manifest as a JSON object."""
        return to_json(self)


def read(folder: str | Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        UserError: no manifest, a damaged one, or one of another format.
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
    """Compares a file of rows with its size and, if `content`, with its checksum.

    Raises `UserError` that names the file.
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
    """How many lengths fall into each bin, by the bin's lower edge; empty bins are left out."""
    bins = np.searchsorted(EDGES, np.maximum(lengths, 1), side="right") - 1
    counts = np.bincount(bins, minlength=len(EDGES))
    return {str(edge): int(n) for edge, n in zip(EDGES, counts, strict=True) if n}


def add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    """Two histograms or counts by reason as one, in the order of the numbers if they have one."""
    keys = sorted({*a, *b}, key=lambda k: (int(k) if k.isdecimal() else -1, k))
    return {k: a.get(k, 0) + b.get(k, 0) for k in keys}
