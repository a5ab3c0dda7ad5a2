"""Patterns of paths: a name that exists is no pattern, and neither are the folders above it."""

import glob
import os
from collections.abc import Callable


def local_matches(path: str) -> list[str]:
    """Local paths that a name or pattern means; empty if there are none. Without `~`."""
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path] if os.path.exists(path) else []
    pattern, _ = escaped(path, os.path.exists)
    return glob.glob(pattern, recursive=True)


def escaped(path: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """A pattern whose longest leading part that exists is a name, and the rest of the path."""
    cuts = [i for i, character in enumerate(path) if character == "/" and i]
    for cut in reversed(cuts):
        if not glob.has_magic(path[:cut]):
            return path, path[cut:]
        if exists(path[:cut]):
            return glob.escape(path[:cut]) + path[cut:], path[cut:]
    return path, path
