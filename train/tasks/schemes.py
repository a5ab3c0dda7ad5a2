"""Tagging schemes: tags to entities and back, as the library seqeval defines them.

A tag is O, or a prefix, a hyphen and a type: B-PER. Read leniently, as the CoNLL script does, every
run of joined tags is an entity. Read strictly, the run must begin and end as the scheme demands.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from modernbert_jax.errors import UserError

Name = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "none"]
OUTSIDE = "O"


class Tag(NamedTuple):
    """A parsed tag."""

    prefix: str
    type: str


class Entity(NamedTuple):
    """An entity: words from `start` up to but not including `stop`."""

    type: str
    start: int
    stop: int


Rule = Callable[[Tag, Tag], bool]
"""A condition on two neighbouring tags: the one before and the one after."""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Rules of a scheme. BILOU's L and U are stored as E and S."""

    prefixes: str
    follows: str
    """Prefixes that must follow a tag of the same entity."""
    precedes: str
    """Prefixes that must precede a tag of the same entity."""
    begins: Rule
    """Whether an entity can begin with the second tag."""
    ends: Rule
    """Whether an entity can end with the first tag; if not, the run is no entity."""


def _same(a: Tag, b: Tag) -> bool:
    return a.type == b.type and OUTSIDE not in (a.prefix, b.prefix)


def joined(a: Tag, b: Tag) -> bool:
    """Whether two neighbouring tags belong to the same entity."""
    return a.prefix in "BI" and b.prefix in "IE" and a.type == b.type


_IOBES = Scheme("IOBES", "IE", "BI", lambda a, b: b.prefix in "BS", lambda a, b: a.prefix in "ES")
SCHEMES = {
    "IOB1": Scheme(
        "IOB",
        "B",
        "",
        lambda a, b: b.prefix == "I" or _same(a, b),
        lambda a, b: not (a.prefix == b.prefix == "B" and a.type != b.type),
    ),
    "IOB2": Scheme("IOB", "I", "", lambda a, b: b.prefix == "B", lambda a, b: True),
    "IOE1": Scheme(
        "IOE",
        "",
        "E",
        lambda a, b: b.prefix == "I" or (a.prefix == "E" and _same(a, b)),
        lambda a, b: a.prefix == "I" or _same(a, b),
    ),
    "IOE2": Scheme("IOE", "", "I", lambda a, b: True, lambda a, b: a.prefix == "E"),
    "IOBES": _IOBES,
    "BILOU": _IOBES,
}
_WRITTEN = {"L": "E", "U": "S"}


def parse(tag: str, scheme: Name) -> Tag:
    """Parse a tag. Raises `UserError` if the scheme does not have it."""
    if scheme == "none":
        return Tag(OUTSIDE, "")
    prefix, hyphen, kind = tag.partition("-")
    known = "BILOU" if scheme == "BILOU" else SCHEMES[scheme].prefixes
    if len(prefix) != 1 or prefix not in known or (hyphen and not kind) or tag == "O-":
        listed = ", ".join(f"{p}-TYPE" for p in known if p != OUTSIDE)
        raise UserError(f"tag {tag!r} is none of {scheme}'s: O, {listed}")
    prefix = _WRITTEN.get(prefix, prefix) if scheme == "BILOU" else prefix
    return Tag(OUTSIDE, "") if prefix == OUTSIDE else Tag(prefix, kind or "_")


def lenient(tags: Sequence[Tag]) -> list[Entity]:
    """Entities as runs of joined tags, in any scheme."""
    return _runs(tags, lambda a, b: True, lambda a, b: True)


def strict(tags: Sequence[Tag], scheme: Name) -> list[Entity]:
    """Entities as runs that begin and end as the scheme demands."""
    return _runs(tags, SCHEMES[scheme].begins, SCHEMES[scheme].ends)


def _runs(tags: Sequence[Tag], begins: Rule, ends: Rule) -> list[Entity]:
    outside = Tag(OUTSIDE, "")
    padded = [outside, *tags, outside]
    entities, i = [], 1
    while i <= len(tags):
        start = i
        i += 1
        if padded[start].prefix == OUTSIDE or not begins(padded[start - 1], padded[start]):
            continue
        while joined(padded[i - 1], padded[i]):
            i += 1
        if ends(padded[i - 1], padded[i]):
            entities.append(Entity(padded[start].type, start - 1, i - 1))
    return entities


def first_break(tags: Sequence[Tag], scheme: Name) -> int | None:
    """Index of the first tag that violates the scheme; None if there is none."""
    if scheme == "none":
        return None
    rules, outside = SCHEMES[scheme], Tag(OUTSIDE, "")
    left = "BI" if rules.follows else ""
    right = "IE" if rules.precedes else ""
    for i, (a, b) in enumerate(zip([outside, *tags], [*tags, outside], strict=True)):
        same = _same(a, b)
        if b.prefix in rules.follows and not (same and a.prefix in left):
            return i
        if a.prefix in rules.precedes and not (same and b.prefix in right):
            return i - 1
    return None


def all_tags(kind: str, scheme: Name) -> list[str]:
    """All tags of the scheme for a type of entity."""
    prefixes = "BILOU" if scheme == "BILOU" else SCHEMES[scheme].prefixes
    return [f"{p}-{kind}" for p in prefixes if p != OUTSIDE]


def write(entities: Sequence[Entity], length: int, scheme: Name) -> list[str]:
    """Tags of entities that do not overlap, in a scheme other than "none"."""
    tags = [OUTSIDE] * length
    ends = {e.stop: e.type for e in entities}
    starts = {e.start: e.type for e in entities}
    prefixes = {
        "IOB1": "IIB",
        "IOB2": "BIB",
        "IOE1": "III",
        "IOE2": "IEE",
        "IOBES": "BES",
        "BILOU": "BLU",
    }
    first, last, only = tuple(prefixes[scheme])
    for kind, start, stop in entities:
        tags[start:stop] = [f"I-{kind}"] * (stop - start)
        tags[stop - 1] = f"{last}-{kind}"
        tags[start] = f"{first if stop - start > 1 else only}-{kind}"
        if scheme == "IOB1":
            tags[start] = f"{'B' if ends.get(start) == kind else 'I'}-{kind}"
        if scheme == "IOE1":
            tags[stop - 1] = f"{'E' if starts.get(stop) == kind else 'I'}-{kind}"
    return tags
