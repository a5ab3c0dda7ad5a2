"""Damaged and odd input for every reader: what is mutated, how, and what reads it.

`python fuzzing.py START STOP READER...` reads inputs in a process of its own, which a library may
end.
"""

import functools
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzzed_readers import READERS

LONGEST = 4200
"""Characters of a message at most."""

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**40, 2**64, 10**290, 0.5, 1e300, -1e-300),
    *(float("inf"), float("nan"), "", "x", "\0", "a\nb", "\ud800", "é😀", "[/x]", "$", "../x", "~"),
    *("x" * 5000, [], [[]], {}, {"": None}, [None], ["x", 1], {"x": {"x": []}}, [0] * 300),
)
"""Values that replace one of a JSON value."""


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content with a byte changed, a piece removed, repeated, zeroed or inserted, or cut."""
    at = rng.randrange(len(content))
    end = at + rng.randint(1, rng.choice((4, 64)))
    piece = content[at:end]
    new = {
        "flip": lambda: bytes([content[at] ^ rng.randint(1, 255)]) + piece[1:],
        "cut": lambda: b"",
        "repeat": lambda: piece * rng.choice((2, 100)),
        "zeros": lambda: bytes(len(piece)),
        "ones": lambda: b"\xff" * len(piece),
        "insert": lambda: rng.randbytes(rng.randint(1, 64)) + piece,
        "end": lambda: None,
    }[rng.choice(("flip", "flip", "cut", "repeat", "zeros", "ones", "insert", "end"))]()
    return content[:at] if new is None else content[:at] + new + content[end:]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value[:20]) if isinstance(value, list) else items:
        yield from places(inner, (*path, key))


def odd_json(rng: random.Random, value: Any) -> Any:
    """The JSON value with one or two values replaced, removed, renamed or nested."""
    for _ in range(rng.randint(1, 2)):
        value = _changed(rng, value, rng.choice([*places(value)]))
    return value


def _changed(rng: random.Random, value: Any, path: tuple) -> Any:
    if not path:
        return rng.choice((rng.choice(ODD), [value], {"x": value}))
    if path[0] not in (value if isinstance(value, dict) else range(len(value))):
        return value
    copy = value.copy()
    if len(path) == 1 and rng.random() < 0.2:
        del copy[path[0]]
    elif len(path) == 1 and isinstance(copy, dict) and rng.random() < 0.2:
        copy[rng.choice(("", "x", "\0", "\ud800", "y" * 3000))] = copy.pop(path[0])
    else:
        copy[path[0]] = _changed(rng, value[path[0]], path[1:])
    return copy


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Damaged bytes; or odd JSON, where the content is JSON or JSON lines."""
    if rng.random() < 0.7:
        try:
            if content.count(b"\n") > 1 and content.startswith(b'{"') and b"}\n{" in content:
                rows = [json.loads(line) for line in content.splitlines()]
                at = rng.randrange(len(rows))
                rows[at] = odd_json(rng, rows[at])
                return "".join(json.dumps(row) + "\n" for row in rows).encode()
            return json.dumps(odd_json(rng, json.loads(content))).encode()
        except ValueError:
            pass
    return damaged(rng, content)


def run(name: str, number: int) -> str | None:
    """Read input `number` of a reader: None, or what is wrong with the outcome."""
    from modernbert_jax.errors import UserError

    reader, rng = READERS[name], random.Random(f"{name} {number}")
    files = dict(_sound(name))
    changed = rng.choice(reader.mutable)
    files[changed] = mutated(rng, files[changed])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file, content in files.items():
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / file).write_bytes(content)
        try:
            reader.read(Path(folder))
        except UserError as error:
            message = str(error)
            if not message or "\n" in message or len(message) > LONGEST:
                return f"message {message[:200]!r}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {str(error)[:200]}"
    return None


@functools.cache
def _sound(name: str) -> Mapping[str, bytes]:
    return READERS[name].sound()


def main(start: int, stop: int, *names: str) -> None:
    """Print the number of each input before it is read, and what is wrong with its outcome."""
    for name in names:
        for number in range(start, stop):
            print(number, flush=True)
            if (problem := run(name, number)) is not None:
                print(f"{number} {name}: {problem!a}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
