"""Whether the sources of a corpus are those that work began with, wherever they are."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums, fingerprint
from modernbert_jax.io.paths import file_type
from modernbert_jax.io.store import is_remote

from ..rows.row_files import HASHED
from .components import CorpusComponent
from .sources import Source

Facts = tuple[str, int, str]
"""A file's path, size in bytes, and digest of its content; "" where it is not known."""

Sources = Mapping[str, Sequence[Facts]]
"""Files of each component, in the order in which they are read."""


def fingerprinted(components: Mapping[str, CorpusComponent]) -> dict[str, list[Facts]]:
    """The sources with the fingerprints of local files, which are cheap for large ones."""
    return _facts(components, fingerprint.of_file, float("inf"))


def hashed(components: Mapping[str, CorpusComponent]) -> dict[str, list[Facts]]:
    """The sources with their SHA-256: of local files, the smallest first, up to `HASHED` bytes."""
    return _facts(components, checksums.sha256, HASHED)


def changes(before: Sources, now: Sources) -> list[str]:
    """Describe how files differ, in their order: in number, format, size, or a known digest."""
    lines = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name, ()), now.get(name, ())
        if len(old) != len(new):
            lines.append(f"component {name}: {len(old):,} files -> {len(new):,}")
            continue
        for (old_path, old_size, old_digest), (path, size, digest) in zip(old, new, strict=True):
            if file_type(old_path) != file_type(path):
                lines.append(f"{old_path} -> {path}")
            elif old_size != size:
                lines.append(f"{path}: {old_size:,} bytes -> {size:,}")
            elif old_digest and digest and old_digest != digest:
                lines.append(f"{path}: its content has changed")
    return lines


def recorded(component: Mapping[str, Any]) -> list[Facts]:
    """The sources of a component as `work/plan.json` has them; earlier versions had only sizes."""
    sources = component["sources"]
    if isinstance(sources, Mapping):
        return [(path, size, "") for path, size in sources.items()]
    return [(path, size, digest) for path, size, digest in sources]


def _facts(
    components: Mapping[str, CorpusComponent], digest: Callable[[str], str], most: float
) -> dict[str, list[Facts]]:
    sources = [s for c in components.values() for s in c.corpus.sources]
    local: list[Source] = []
    total = 0
    for source in sorted(sources, key=lambda s: s.bytes):
        total += source.bytes
        if total <= most and not is_remote(source.path):
            local.append(source)

    def of(source: Source) -> str:
        try:
            return digest(source.stored or source.path)
        except (OSError, UserError):  # reading it raises with the reason, or skips it
            return ""

    with ThreadPoolExecutor() as pool:
        known = dict(zip((s.path for s in local), pool.map(of, local), strict=True))
    return {
        name: [(s.path, s.bytes, known.get(s.path, "")) for s in c.corpus.sources]
        for name, c in components.items()
    }
