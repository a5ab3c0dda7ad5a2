"""The output folder of `prepare`: claiming it, resuming it, describing it and finishing it."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import lock, outputs
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.io.paths import expanded
from modernbert_jax.io.store import Store, filesystem_errors, is_remote
from modernbert_jax.io.typed_json import differences, from_json
from modernbert_jax.tokenizer import Tokenizer

from ..rows import manifest
from ..rows.manifest import Component, Manifest, PackedRows, Shard, SourceFile, add
from . import source_identity
from .components import CorpusComponent, WorkUnit
from .shards import Settings
from .tokenise import CHUNKING

_PACKER = "best-fit decreasing; rows shuffled in a window"
_PLAN = "work/plan.json"

_SETTINGS = (
    "tokenizer_sha256",
    "seed",
    "validation",
    "window_documents",
    "window_tokens",
    "deduplicate",
)
"""Settings that the manifest records under the same names."""

Record = dict[str, Any]
"""What a unit or a window of it left in `work/`."""


def work_root(output: str | Path) -> str:
    """Path or URL where the work on an output is stored until it is finished."""
    return str(output) if is_remote(output) else f"{_place(output)}.partial"


class PreparedWriter:
    """Writes everything of a prepared folder except its rows."""

    def __init__(
        self,
        output: str | Path,
        settings: Settings,
        components: Mapping[str, CorpusComponent],
        tokenizer: Tokenizer,
    ):
        self._output, self._settings = _place(output), settings
        self._components, self._tokenizer = components, tokenizer
        self._store = Store(settings.root)
        self._remote = is_remote(output)

    def finished(self) -> Manifest | None:
        """The manifest if all work is done, with the present weights and epochs; None if not.

        Raises:
            UserError: the output holds anything else.
        """
        if self._remote:
            if not self._store.exists(manifest.NAME):
                return None
        elif not _holds_anything(Path(self._output)):
            outputs.folder_place(self._output)  # it can be replaced
            if not self._store.exists(manifest.NAME) or self._store.exists("work"):
                return None
            self._rename()  # the only step that was missing
        output = Store(self._output)
        try:
            stored = from_json(Manifest, parse_object(output.read(manifest.NAME)), "manifest")
        except ValueError:  # UserError too: another program's file, or another version's
            stored = None
        if stored is None or _settings_of(stored) != self._plan():
            raise UserError(f"{self._output}: exists; choose another place or remove it")
        before = {
            name: [(s.path, s.bytes, s.sha256) for s in component.sources]
            for name, component in stored.components.items()
        }
        now = source_identity.hashed(self._components)
        if changes := source_identity.changes(before, now):
            raise UserError(
                f"{self._output}: exists, made from other sources ({_listed(changes)}); choose"
                " another place or remove it"
            )
        self._store.remove("work") if self._remote else self._remove_records()
        components = {
            name: dataclasses.replace(stored.components[name], weight=c.weight, epochs=c.epochs)
            for name, c in self._components.items()
        }
        current = dataclasses.replace(stored, components=components)
        if current != stored:  # rows do not depend on weights and epochs
            _write(output, current)
        return current

    def claim(self) -> None:
        """Begin the work, or resume work that was begun in the same way.

        Raises:
            UserError: work begun with other settings or files, naming the differences.
        """
        plan, now = self._plan(), source_identity.fingerprinted(self._components)
        if self._store.exists(_PLAN):
            changes = self._changes(plan, now)
            if not changes:
                return
            if self._is_anything_done():
                raise UserError(
                    f"{self._settings.root}: holds work begun with other settings"
                    f" ({_listed(changes)}); remove it or choose another output"
                )
            self.discard()
        for name, facts in now.items():
            plan["components"][name]["sources"] = facts
        for name, content in self._tokenizer.files.items():
            self._store.write(f"tokenizer/{name}", content)
        self._store.write(_PLAN, json.dumps(plan).encode())

    def manifest(self, units: Sequence[WorkUnit]) -> Manifest:
        """Sum up the records of finished units.

        Raises:
            UserError: a component without documents to train on.
        """
        return Manifest(
            vocab_size=self._tokenizer.vocab_size,
            dtype=self._settings.dtype,
            chunking=CHUNKING,
            packer=_PACKER,
            components={
                name: self._component(name, c, [u for u in units if u.component == name])
                for name, c in self._components.items()
            },
            **{name: getattr(self._settings, name) for name in _SETTINGS},
        )

    def finish(self, result: Manifest) -> None:
        """Write the manifest and give the folder its name."""
        _write(self._store, result)
        if self._remote:
            self._store.remove("work")
        else:
            self._remove_records()
            os.rename(Path(self._settings.root) / "work", self._records)
            self._rename()

    def remove_if_nothing_is_done(self) -> None:
        """Remove work that has no finished window: there is nothing to resume."""
        if not self._is_anything_done():
            self.discard()

    def discard(self) -> None:
        """Remove all work."""
        for folder in ("work", "tokenizer") if self._remote else ("",):
            self._store.remove(folder)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the output as its only writer; URLs have no locks.

        Raises:
            UserError: another process writes it, or its folder cannot be made.
        """
        if self._remote:
            yield
            return
        place = Path(self._output)
        with filesystem_errors(self._output, "written"):
            place.parent.mkdir(parents=True, exist_ok=True)
        with lock.held(place.with_name(f".{place.name}.lock"), place, patience=0.0):
            yield

    def _is_anything_done(self) -> bool:
        names = (n for name in self._components for n in self._store.names(f"work/{name}"))
        return any(name.startswith("window-") for name in names)

    def _changes(self, plan: dict[str, Any], now: source_identity.Sources) -> list[str]:
        """Describe how work that was begun differs from the present settings and sources."""
        begun = parse_object(self._store.read(_PLAN), self._store.path(_PLAN))
        try:
            components = begun.pop("components")
            before = {name: source_identity.recorded(c) for name, c in components.items()}
            begun["components"] = {name: {"field": c["field"]} for name, c in components.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            return [f"{_PLAN} is damaged"]
        return differences(begun, plan) + source_identity.changes(before, now)

    @property
    def _records(self) -> Path:
        """Where finished records are moved, to be removed after the folder has its name."""
        root = Path(self._settings.root)
        return root.with_name(f"{root.name}-work")

    def _rename(self) -> None:
        if Path(self._output).exists():
            Path(self._output).rmdir()
        os.rename(self._settings.root, self._output)
        self._remove_records()

    def _remove_records(self) -> None:
        shutil.rmtree(self._records, ignore_errors=True)

    def _plan(self) -> dict[str, Any]:
        """What determines the rows besides the sources, as `_settings_of` reads it."""
        return {
            **{key: getattr(self._settings, key) for key in _SETTINGS},
            "lengths": list(self._settings.lengths),
            "components": {name: {"field": c.corpus.field} for name, c in self._components.items()},
        }

    def _component(
        self, name: str, component: CorpusComponent, units: Sequence[WorkUnit]
    ) -> Component:
        sources: dict[str, SourceFile] = {}
        windows: list[Record] = []
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
            raise UserError(_nothing_to_train_on(name, component, sources, windows))
        return Component(
            weight=component.weight,
            epochs=component.epochs,
            field=component.corpus.field,
            sources=tuple(sources.values()),
            duplicates=duplicates,
            lengths={str(n): _packed(windows, n) for n in self._settings.lengths},
            documents=_sum(windows, "documents"),
            tokens=_sum(windows, "tokens"),
            document_lengths=_sum(windows, "document_lengths"),
            **{key: sum(w[key] for w in windows) for key in ("tokenless", "unknown", "special")},
        )

    def _record(self, component: str, name: str) -> Record:
        file = f"work/{component}/{name}.json"
        return parse_object(self._store.read(file), self._store.path(file))


def _write(store: Store, result: Manifest) -> None:
    content = json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n"
    store.write(manifest.NAME, content.encode())


def _settings_of(result: Manifest) -> dict[str, Any]:
    return {
        **{key: getattr(result, key) for key in _SETTINGS},
        "lengths": result.row_lengths,
        "components": {name: {"field": c.field} for name, c in result.components.items()},
    }


def _listed(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def _place(output: str | Path) -> str:
    """The URL, or the local path with links followed."""
    return str(output) if is_remote(output) else os.path.realpath(expanded(output))


def _holds_anything(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _merge(sources: dict[str, SourceFile], new: SourceFile) -> None:
    """Add the facts of one piece of a file to those of the others."""
    old = sources.get(new.path)
    if old is not None:
        new = dataclasses.replace(
            old,
            sha256=old.sha256 or new.sha256,
            documents=old.documents + new.documents,
            skipped=add(old.skipped, new.skipped),
        )
    sources[new.path] = new


def _sum(records: Iterable[Record], key: str) -> dict[str, int]:
    return functools.reduce(add, (record[key] for record in records), {})


def _packed(windows: Sequence[Record], length: int) -> dict[str, PackedRows]:
    """All windows' rows of one length, by split."""
    packed = {}
    for split in manifest.SPLITS:
        parts = [window["lengths"].get(str(length), {}).get(split) for window in windows]
        if parts := [part for part in parts if part]:
            rows = sum(part["shard"]["rows"] for part in parts)
            tokens = sum(part["tokens"] for part in parts)
            packed[split] = PackedRows(
                rows=rows,
                samples=sum(part["samples"] for part in parts),
                tokens=tokens,
                efficiency=tokens / (rows * length),
                sample_lengths=_sum(parts, "sample_lengths"),
                shards=tuple(Shard(**part["shard"]) for part in parts),
            )
    return packed


def _nothing_to_train_on(
    name: str,
    component: CorpusComponent,
    sources: Mapping[str, SourceFile],
    windows: Sequence[Record],
) -> str:
    paths = [source.path for source in component.corpus.sources]
    first = f"{paths[0]}{', ...' if len(paths) > 1 else ''}"
    if any(window["documents"]["validation"] for window in windows):
        return f"{first}: all documents were kept for validation; pass --validation 0"
    skipped: dict[str, int] = functools.reduce(
        add, (source.skipped for source in sources.values()), {}
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    where = "" if name == manifest.DEFAULT else f"component {name}: "
    return f"{where}{first}: no usable text" + (f" ({reasons})" if reasons else "")
