"""A prepared folder opened for reading: its rows by component and length, and batches of them."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import fingerprint
from modernbert_jax.io.store import is_remote
from modernbert_jax.packing import Rows, layout
from modernbert_jax.tokenizer import Tokenizer

from . import manifest as manifests
from .batches import Batches, Decoder
from .mixture import Order, Share
from .records import read_row
from .row_files import HASHED, RowFiles, check


class Prepared:
    """A prepared folder with its manifest, its tokenizer and its rows."""

    def __init__(self, folder: str | Path):
        """Open a folder. Raises `UserError` if it is not a complete prepared one."""
        if is_remote(folder):
            raise UserError(
                f"{folder}: rows are read at random from a file system; mount the bucket, or copy"
                " the folder"
            )
        self.folder = Path(folder)
        self.manifest = manifests.read(folder)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer")
        expected = self.manifest.tokenizer_sha256
        digest = hashlib.sha256(self.tokenizer.files["tokenizer.json"]).hexdigest()
        if expected and digest != expected:
            raise UserError(
                f"{self.folder / 'tokenizer'}: is not the tokenizer that the rows were made with;"
                " prepare the corpus again"
            )

    def fingerprint(self, lengths: Sequence[int]) -> str:
        """What the rows of some lengths are, by the manifest's checksums, in their order.

        Paths, sources and weights of components are no part of it.
        """
        digests = [
            [name, length, split, [s.sha256 for s in self.manifest.shards(name, length, split)]]
            for name in sorted(self.manifest.components)
            for length in sorted(set(lengths))
            for split in manifests.SPLITS
        ]
        return fingerprint.of_json([self.manifest.dtype, digests])

    def lengths(self) -> list[int]:
        """Row lengths that were prepared."""
        return self.manifest.row_lengths

    def components(self, length: int) -> list[str]:
        """Names of the components with training rows of a length, sorted.

        Raises `UserError` if this length was not prepared.
        """
        if length not in self.lengths():
            raise UserError(
                f"{self.folder}: has no rows of length {length}, only of"
                f" {', '.join(map(str, self.lengths()))}; prepare it with --length {length}"
            )
        known = sorted(self.manifest.components)
        return [name for name in known if self.manifest.shards(name, length, "train")]

    def rows(
        self, split: str, length: int, component: str | None = None
    ) -> grain.MapDataset[dict[str, np.ndarray]]:
        """Rows in the order of the files, each a dictionary of the fields of `Rows`.

        Args:
            split: "train" or "validation".
            length: Tokens per row.
            component: Component to read; by default all of them, one after another.

        Raises:
            UserError: there are no such rows.
        """
        decode = self._decoder(length)
        return self._records(split, length, component).map(
            lambda record: {name: field[0] for name, field in decode([record])[0]._asdict().items()}
        )

    def order(
        self,
        length: int,
        mixture: Mapping[str, float] | None = None,
        epochs: Mapping[str, float] | None = None,
    ) -> Order:
        """The order in which components are read.

        Args:
            length: Tokens per row.
            mixture: Weights of the components to read, in tokens. By default the manifest's.
            epochs: How often components may be read, where not as often as the manifest says.

        Raises:
            UserError: a length or a component that was not prepared.
        """
        known, epochs = self.components(length), epochs or {}
        weights: Mapping[str, float | None] = mixture or {
            c: self.manifest.components[c].weight for c in known
        }
        for name in (*weights, *epochs):
            if name not in known:
                raise UserError(
                    f"{self.folder}: has no component {name!r} of length {length};"
                    f" {did_you_mean(name, known)}"
                )
        shares = {}
        for name, weight in weights.items():
            if weight != 0:
                component = self.manifest.components[name]
                packed = component.lengths[str(length)]["train"]
                limit = epochs.get(name, component.epochs)
                shares[name] = Share(
                    rows=packed.rows, tokens=packed.tokens, weight=weight, epochs=limit
                )
        return Order(shares)

    def batches(
        self,
        length: int,
        size: int,
        seed: int,
        start: int = 0,
        *,
        order: Order | None = None,
        **how: Any,
    ) -> Batches:
        """Read shuffled batches from row number `start` of the shuffled order.

        Each component has a shuffle of its own of all its rows, another one in each epoch.

        Args:
            length: Tokens per row.
            size: Rows per batch, over all processes.
            seed: Seed of the shuffle.
            start: Rows read before; `Batches.position` where another run stopped.
            order: The mixture; by default the manifest's.
            how: `host`, `threads` and `sharding` of `Batches`.

        Raises:
            UserError: rows that were not prepared, or a size that the processes cannot share.
        """
        order = order or self.order(length)
        each = [
            self._records("train", length, name)
            .shuffle(seed=zlib.crc32(f"{seed} {name}".encode()))
            .repeat()
            for name in order.names
        ]
        records = grain.MapDataset.select_from_datasets(each, order)
        decode = self._decoder(length)
        return Batches(records, decode, order, length=length, size=size, start=start, **how)

    def validation(
        self, length: int, size: int, most: int, component: str = manifests.DEFAULT
    ) -> list[Rows]:
        """The first `most` validation rows in batches of `size`, the last filled with padding.

        Empty if nothing was held out for validation.
        """
        if not self.manifest.shards(component, length, "validation"):
            return []
        dataset = self.rows("validation", length, component)
        rows = [Rows(**dataset[i]) for i in range(min(len(dataset), most))]
        rows += [Rows(*map(np.zeros_like, rows[0]))] * (-len(rows) % size)
        groups = (rows[i : i + size] for i in range(0, len(rows), size))
        return [Rows(*map(np.stack, zip(*group, strict=True))) for group in groups]

    def check(self, lengths: Sequence[int], hashed: int = HASHED) -> None:
        """Compare the files of some lengths with the manifest, as `row_files.check` does."""
        shards = [
            shard
            for component in self.manifest.components
            for length in sorted(set(lengths))
            for split in manifests.SPLITS
            for shard in self.manifest.shards(component, length, split)
        ]
        check(self.folder, shards, hashed)

    def _records(self, split: str, length: int, component: str | None) -> grain.MapDataset[bytes]:
        known, every = self.components(length), list(self.manifest.components)
        if component is not None and component not in every:
            raise UserError(
                f"{self.folder}: has no component {component!r}; {did_you_mean(component, known)}"
            )
        names = every if component is None else [component]
        shards = [s for name in names for s in self.manifest.shards(name, length, split)]
        if not shards:
            raise UserError(f"{self.folder}: {', '.join(names)} has no {split} rows of {length}")
        return grain.MapDataset.source(RowFiles(self.folder, shards))

    def _decoder(self, length: int) -> Decoder:
        dtype, pad_id = np.dtype(self.manifest.dtype), self.tokenizer.pad_id

        def decode(records: Sequence[bytes]) -> tuple[Rows, np.ndarray]:
            ids, lengths = zip(*(read_row(record, dtype) for record in records), strict=True)
            return layout(ids, lengths, length, pad_id), np.array([len(i) for i in ids])

        return decode
