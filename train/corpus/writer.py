"""The output of `prepare`: what it may hold before, how it is claimed, described and finished."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.store import Store, is_remote
from modernbert_jax.io.typed_json import differences, from_json
from modernbert_jax.tokenizer import Tokenizer

from ..rows import manifest
from ..rows.manifest import Component, Manifest, PackedRows, Shard, SourceFile, add
from .components import CorpusComponent, WorkUnit
from .shards import Settings
from .tokenise import CHUNKING

_PACKER = "best-fit decreasing; rows shuffled in a window"
_PLAN = "work/plan.json"


def work_root(output: str | Path) -> str:
    """Where the work on an output lies until it is finished."""
    return str(output) if is_remote(output) else f"{Path(output).absolute()}.partial"


class PreparedWriter:
    """A prepared folder on its way: settings, corpus and tokenizer are known, rows are made."""

    def __init__(
        self,
        output: str | Path,
        settings: Settings,
        parts: Mapping[str, CorpusComponent],
        tokenizer: Tokenizer,
    ):
        self._output, self._settings = str(output), settings
        self._parts, self._tokenizer = parts, tokenizer
        self._store = Store(settings.root)
        self._remote = is_remote(output)

    def finished(self) -> Manifest | None:
        """The manifest if all work is done already; None if there is some to do.

        Raises:
            UserError: an output that holds anything else.
        """
        if self._remote:
            if not self._store.exists(manifest.NAME):
                return None
        elif not _holds_anything(Path(self._output)):
            if not self._store.exists(manifest.NAME) or self._store.exists("work"):
                return None
            self._name()  # all that was missing
        try:
            content = json.loads(Store(self._output).read(manifest.NAME))
            found = from_json(Manifest, content, "manifest")
        except ValueError:  # UserError too: not ours, or not of this version
            found = None
        if found is None or _plan_of(found) != self._plan():
            raise UserError(f"{self._output}: exists; choose another place or remove it")
        self._store.remove("work") if self._remote else self._forget_records()
        weighed = dataclasses.replace(
            found,
            components={
                name: dataclasses.replace(
                    found.components[name], weight=part.weight, epochs=part.epochs
                )
                for name, part in self._parts.items()
            },
        )
        if weighed != found:  # rows do not depend on these
            _write(Store(self._output), weighed)
        return weighed

    def claim(self) -> None:
        """Begins the work, or goes on with one that was begun in the same way.

        Raises:
            UserError: work that was begun with other settings or files, naming the differences.
        """
        wanted = self._plan()
        if self._store.exists(_PLAN):
            found = differences(json.loads(self._store.read(_PLAN)), wanted)
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise UserError(
                    f"{self._settings.root}: holds work begun with other settings"
                    f" ({'; '.join(found[:3])}{more}); remove it or choose another output"
                )
        else:
            for name, content in self._tokenizer.files.items():
                self._store.write(f"tokenizer/{name}", content)
            self._store.write(_PLAN, json.dumps(wanted).encode())

    def manifest(self, units: Sequence[WorkUnit]) -> Manifest:
        """What the records of finished work add up to.

        Raises:
            UserError: a component without anything to train on.
        """
        settings = self._settings
        return Manifest(
            tokenizer_sha256=settings.tokenizer_sha256,
            vocab_size=self._tokenizer.vocab_size,
            dtype=settings.dtype,
            chunking=CHUNKING,
            deduplicate=settings.deduplicate,
            validation=settings.validation,
            seed=settings.seed,
            packer=_PACKER,
            window_documents=settings.window_documents,
            window_tokens=settings.window_tokens,
            components={
                name: self._component(name, part, [u for u in units if u.component == name])
                for name, part in self._parts.items()
            },
        )

    def finish(self, made: Manifest) -> None:
        """Writes the manifest and gives the folder its name."""
        _write(self._store, made)
        if self._remote:
            self._store.remove("work")
        else:
            root = Path(self._settings.root)
            self._forget_records()
            os.rename(root / "work", _records(root))
            self._name()

    def forget_if_nothing_is_done(self) -> None:
        """Removes what has no finished window: there is nothing to go on from."""
        names = (n for name in self._parts for n in self._store.names(f"work/{name}"))
        if not any(name.startswith("window-") for name in names):
            for folder in ("work", "tokenizer") if self._remote else ("",):
                self._store.remove(folder)

    def _name(self) -> None:
        root = Path(self._settings.root)
        if Path(self._output).exists():
            Path(self._output).rmdir()
        os.rename(root, self._output)
        self._forget_records()

    def _forget_records(self) -> None:
        shutil.rmtree(_records(Path(self._settings.root)), ignore_errors=True)

    def _plan(self) -> dict[str, Any]:
        """What makes the rows what they are."""
        settings = dataclasses.asdict(self._settings)
        plan = {key: settings[key] for key in _SETTINGS}
        plan["lengths"] = list(settings["lengths"])
        plan["components"] = {
            name: {
                "field": part.corpus.field,
                "sources": {s.path: s.bytes for s in part.corpus.sources},
            }
            for name, part in self._parts.items()
        }
        return plan

    def _component(self, name: str, part: CorpusComponent, units: Sequence[WorkUnit]) -> Component:
        sources: dict[str, SourceFile] = {}
        windows: list[dict[str, Any]] = []
        duplicates = 0
        for unit in units:
            record = self._record(name, f"unit-{unit.name}")
            duplicates += record["duplicates"]
            for facts in record["sources"]:
                _merge(sources, SourceFile(**facts))
            windows += [
                self._record(name, f"window-{unit.name}-{number:04d}")
                for number in range(record["windows"])
            ]
        if not any(window["documents"]["train"] for window in windows):
            raise UserError(_nothing(name, part, sources, windows))
        return Component(
            weight=part.weight,
            epochs=part.epochs,
            field=part.corpus.field,
            sources=tuple(sources.values()),
            documents=_sum(windows, "documents"),
            duplicates=duplicates,
            tokenless=sum(window["tokenless"] for window in windows),
            tokens=_sum(windows, "tokens"),
            unknown=sum(window["unknown"] for window in windows),
            special=sum(window["special"] for window in windows),
            document_lengths=_sum(windows, "document_lengths"),
            lengths={str(n): _packed(windows, n) for n in self._settings.lengths},
        )

    def _record(self, component: str, name: str) -> dict[str, Any]:
        return json.loads(self._store.read(f"work/{component}/{name}.json"))


_SETTINGS = (
    "tokenizer_sha256",
    "seed",
    "validation",
    "window_documents",
    "window_tokens",
    "deduplicate",
)


def _write(store: Store, made: Manifest) -> None:
    content = json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n"
    store.write(manifest.NAME, content.encode())


def _plan_of(made: Manifest) -> dict[str, Any]:
    """The plan that a finished folder was made by."""
    plan = {key: getattr(made, key) for key in _SETTINGS}
    plan["lengths"] = made.row_lengths
    plan["components"] = {
        name: {"field": c.field, "sources": {s.path: s.bytes for s in c.sources}}
        for name, c in made.components.items()
    }
    return plan


def _holds_anything(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _records(root: Path) -> Path:
    """Where the records of finished work go before they are removed."""
    return root.with_name(f"{root.name}-work")


def _merge(sources: dict[str, SourceFile], new: SourceFile) -> None:
    """Adds what one piece of a file said about it."""
    old = sources.get(new.path)
    if old is not None:
        new = dataclasses.replace(
            old,
            sha256=old.sha256 or new.sha256,
            documents=old.documents + new.documents,
            skipped=add(old.skipped, new.skipped),
        )
    sources[new.path] = new


def _sum(windows: Sequence[dict[str, Any]], key: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for window in windows:
        total = add(total, window[key])
    return total


def _packed(windows: Sequence[dict[str, Any]], length: int) -> dict[str, PackedRows]:
    """All windows' rows of one length, by split."""
    found = {}
    for split in manifest.SPLITS:
        made = [window["lengths"].get(str(length), {}).get(split) for window in windows]
        made = [m for m in made if m]
        if made:
            rows = sum(m["shard"]["rows"] for m in made)
            tokens = sum(m["tokens"] for m in made)
            found[split] = PackedRows(
                rows=rows,
                samples=sum(m["samples"] for m in made),
                tokens=tokens,
                efficiency=tokens / (rows * length),
                sample_lengths=_sum(made, "sample_lengths"),
                shards=tuple(Shard(**m["shard"]) for m in made),
            )
    return found


def _nothing(
    name: str,
    part: CorpusComponent,
    sources: Mapping[str, SourceFile],
    windows: Sequence[dict[str, Any]],
) -> str:
    paths = [source.path for source in part.corpus.sources]
    first = f"{paths[0]}{', ...' if len(paths) > 1 else ''}"
    skipped: dict[str, int] = {}
    for source in sources.values():
        skipped = add(skipped, source.skipped)
    left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    if any(window["documents"]["validation"] for window in windows):
        return f"{first}: all documents were kept for validation; pass --validation 0"
    where = "" if name == manifest.DEFAULT else f"component {name}: "
    return f"{where}{first}: no usable text" + (f" ({left_out})" if left_out else "")
