"""The folder of an embedding: its manifest, its shards, and what is left to do.

manifest.json          what the vectors depend on, and how many shards there are
input.json             how many rows each file has, and where shards begin
ranges.npy             of int8: the smallest and the largest number of each dimension
shard-00000.parquet    vectors; or .arrow, or several .npy files
shard-00000.json       what is in the shard, with checksums; written last
leases/                which process works on what; removed at the end
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.io.store import Store, is_remote
from modernbert_jax.io.typed_json import differences, from_json

from .inputs import Layout

MANIFEST, INPUT, RANGES = "manifest.json", "input.json", "ranges.npy"
LEASES = "leases"

_RECORD = re.compile(r"shard-(\d{5,})\.json")


def name_of(shard: int) -> str:
    """Name of the files of a shard, without their endings."""
    return f"shard-{shard:05d}"


class Folder:
    """A local folder or one at a URL, that vectors are written into."""

    def __init__(self, path: str):
        """Open a folder. Raises `UserError` if it cannot be written, or holds something else."""
        self.path = path
        if not is_remote(path):
            outputs.check_folder(path)
        self.store = Store(path)
        if not self.store.exists(MANIFEST) and (
            others := [n for n in self.store.names("") if n not in (INPUT, LEASES) and n[0] != "."]
        ):
            raise UserError(f"{path}: holds other files, such as {others[0]}; name an empty folder")

    @property
    def started(self) -> bool:
        """Whether the manifest is written, and so the work may begin."""
        return self.store.exists(MANIFEST)

    def start(self, facts: dict[str, Any], layout: Layout) -> None:
        """Write what the vectors depend on and how the input is divided."""
        divided = json.dumps(dataclasses.asdict(layout)).encode()
        self.store.write(INPUT, divided)
        content = {"settings": facts, "rows": layout.total, "shards": len(layout.starts)}
        self.store.write(MANIFEST, (json.dumps(content, indent=2) + "\n").encode())

    def check(self, facts: dict[str, Any]) -> None:
        """Raise `UserError` if the folder holds the vectors of other settings."""
        settings = self._json(MANIFEST).get("settings")
        if changed := differences(settings, json.loads(json.dumps(facts))):
            raise UserError(
                f"{self.path}: holds vectors of other settings ({'; '.join(changed)}); name another"
                " --output, or remove it"
            )

    def layout(self) -> Layout:
        """How the input is divided."""
        return from_json(Layout, self._json(INPUT), self.store.path(INPUT))

    def finished(self) -> set[int]:
        """Numbers of the shards that are written."""
        names = {*self.store.names("")}
        records = (match for match in map(_RECORD.fullmatch, names) if match)
        with_files = {name.split(".")[0] for name in names if not name.endswith((".json", ".tmp"))}
        return {int(m[1]) for m in records if m[0].removesuffix(".json") in with_files}

    def has(self, shard: int) -> bool:
        """Whether a shard is written; lists nothing, as folders may hold very many."""
        name = f"{name_of(shard)}.json"
        return self.store.exists(name) and all(map(self.store.exists, self.record(shard)["files"]))

    def record(self, shard: int) -> dict[str, Any]:
        """What is in a shard that is written."""
        return self._json(f"{name_of(shard)}.json")

    def finish(self, shard: int, record: dict[str, Any]) -> None:
        """Write what is in a shard, whose files are written."""
        content = (json.dumps(record, indent=2) + "\n").encode()
        self.store.write(f"{name_of(shard)}.json", content)

    def remove_leftovers(self) -> None:
        """Remove unfinished files of processes that were killed."""
        if not is_remote(self.path):
            for leftover in Path(self.path).glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def _json(self, name: str) -> dict[str, Any]:
        return parse_object(self.store.read(name), self.store.path(name))
