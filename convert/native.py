"""The project's own directory, format `jax`: parameters by Orbax, the rest as readable files.

`config.json` is the Hugging Face one and `modernbert_jax.json` the marker. The marker holds what a
foreign directory had and ours has not, so that writing that directory again changes no bit; and a
checksum of every file of the parameters, because Orbax itself reads altered bytes without a word.
"""

import contextlib
import dataclasses
import functools
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io import files

from . import huggingface, lazy, names
from .checkpoint import Checkpoint, Layout, loaded

MARKER = "modernbert_jax.json"
PARAMS = "params"
VERSION = 1
_RUN = 2**28
"""Bytes that are read at once, unless a single array has more."""
_SMALL = 2**20
"""Bytes of a file up to which its checksum is compared before anything is read."""


def read(directory: Path) -> Checkpoint:
    """The checkpoint in a directory, its arrays lazy.

    Checksums of large files are compared while arrays are read: the last of them is not given out
    before.

    Raises `UserError` that lists what is wrong.
    """
    marker = files.read_json(directory / MARKER)
    if marker.get("version") != VERSION:
        raise UserError(
            f"{directory / MARKER}: version is {marker.get('version')!r}; this program reads"
            f" {VERSION}"
        )
    config, extra, _ = huggingface.read_config(directory)
    try:
        layout = Layout(**marker["layout"])
        checkpoint = Checkpoint(
            config=config,
            params={},
            head=marker["head"],
            files=huggingface.read_carried(directory),
            extra=extra,
            layout=layout,
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{directory / MARKER}: damaged ({error})") from None
    expected = marker.get("files")
    if not isinstance(expected, dict) or not expected:
        raise _damaged(directory / PARAMS, [f"{MARKER} lists no files"])
    _compare(directory / PARAMS, expected, _SMALL)
    rows = checkpoint.rows(layout.prefix)
    return dataclasses.replace(checkpoint, params=_read_params(directory / PARAMS, rows, expected))


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory."""
    from orbax.checkpoint import v1 as ocp  # takes a second, and reading `hf` does without

    names.check_params(checkpoint.params, checkpoint.rows(), "parameters")
    context = ocp.Context()
    # Numbers that look random hardly shrink, and every copy would be one model more in memory.
    context.array.saving.use_compression = False
    context.memory.deepcopy_host_arrays = False
    with context:
        ocp.save(directory.absolute() / PARAMS, loaded(checkpoint).params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers does not read this directory
        files.write_json(directory / "config.json", huggingface.config_json(checkpoint))
    marker = {
        "version": VERSION,
        "head": checkpoint.head,
        "layout": dataclasses.asdict(checkpoint.layout),
        "files": _checksums(directory / PARAMS),
    }
    files.write_json(directory / MARKER, marker)
    for name, content in checkpoint.files.items():
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(content)


def _checksums(directory: Path, largest: float = math.inf) -> dict[str, list[int]]:
    """Size of every file below a directory, by its path there, and CRC-32 of those not larger."""
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        size = path.stat().st_size
        crc = [_crc(path)] if size <= largest else []
        found[path.relative_to(directory).as_posix()] = [size, *crc]
    return found


def _crc(path: Path) -> int:
    with path.open("rb") as file:
        blocks = iter(functools.partial(file.read, 2**24), b"")
        return functools.reduce(lambda crc, block: zlib.crc32(block, crc), blocks, 0)


def _compare(directory: Path, expected: Mapping[str, Any], largest: float = math.inf) -> None:
    """Raises `UserError` with the files that are not as the marker says."""
    found = _checksums(directory, largest)
    problems = []
    for name, facts in expected.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif not isinstance(facts, list) or found[name] != facts[: len(found[name])]:
            problems.append(f"{name} is not as it was written ({found[name][0]} bytes)")
    if problems:
        raise _damaged(directory, problems)


def _damaged(directory: Path, problems: list[str]) -> UserError:
    return UserError(f"{directory}: incomplete or damaged: {'; '.join(problems)}")


def _read_params(
    directory: Path, rows: dict[str, names.Row], expected: Mapping[str, Any]
) -> names.Params:
    """Names and shapes are compared here; every array is read when it is used."""
    from orbax.checkpoint import v1 as ocp

    directory = directory.absolute()  # Orbax takes no other
    with _readable(directory):
        described = ocp.metadata(directory).metadata
        names.check_params(described, rows, directory)
    leaves = names.flatten(described)
    order = [*dict.fromkeys(row.path for row in rows.values())]
    runs = _Runs(directory, leaves, order, functools.partial(_compare, directory, expected))
    params: names.Params = {}
    for path, leaf in leaves.items():
        names.put(params, path, lazy.Lazy(leaf.shape, leaf.dtype, functools.partial(runs, path)))
    return params


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many kinds; the files are as written, but not by this program
        reason = first_line(error)
        raise UserError(f"{directory}: not readable as parameters ({reason})") from error


class _Runs:
    """Reads arrays in runs of `_RUN` bytes, keeps the last run and reads the next one ahead.

    Orbax takes a while for every call, and a stack is asked for layer by layer.
    """

    def __init__(
        self,
        directory: Path,
        leaves: Mapping[tuple[str, ...], Any],
        order: list[tuple[str, ...]],
        check: Callable[[], None],
    ):
        """`check` runs beside the reading, and the last run is given out when it has passed."""
        self._directory, self._leaves = directory, leaves
        self._runs: list[list[tuple[str, ...]]] = []
        room = 0
        for path in order:
            size = math.prod(leaves[path].shape) * np.dtype(leaves[path].dtype).itemsize
            if size > room:
                self._runs.append([])
                room = _RUN
            self._runs[-1].append(path)
            room -= size
        self._held: dict[tuple[str, ...], np.ndarray] = {}
        self._left = set(range(len(self._runs)))
        self._check = check
        self._checking: Future | None = None
        self._threads = ThreadPoolExecutor(2)
        self._reading: dict[int, Future] = {}

    def __call__(self, path: tuple[str, ...]) -> np.ndarray:
        if path not in self._held:
            self._held = {}  # before the next ones are read
            self._held = self._take(next(i for i, run in enumerate(self._runs) if path in run))
        return self._held[path]

    def _take(self, i: int) -> dict[tuple[str, ...], np.ndarray]:
        if self._checking is None:
            self._checking = self._threads.submit(self._check)
        try:
            found = (self._reading.get(i) or self._start(i)).result()
        except UserError:
            self._checking.result()  # knows more, if files are damaged
            raise
        self._left.discard(i)
        if not self._left:
            self._checking.result()
        self._reading = {i + 1: self._start(i + 1)} if i + 1 in self._left else {}
        return {path: lazy.heard("/".join(path), x) for path, x in found.items()}

    def _start(self, i: int) -> Future:
        return self._threads.submit(self._read, self._runs[i])

    def _read(self, run: list[tuple[str, ...]]) -> dict[tuple[str, ...], np.ndarray]:
        from orbax.checkpoint import v1 as ocp

        wanted: names.Params = {}
        for path, leaf in self._leaves.items():
            names.put(wanted, path, leaf if path in run else ocp.PLACEHOLDER)
        with _readable(self._directory):
            found = ocp.load(self._directory, wanted)
            return {path: names.leaf(found, path) for path in run}
