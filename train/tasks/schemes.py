"""Tags and the entities that they stand for, as the library seqeval has them.

A tag is O or a prefix, a hyphen and a type: B-PER. `joined` says when two neighbouring tags belong
to the same entity. Read leniently, as the CoNLL script does, every run of joined tags is an entity;
a scheme is stricter about how a run begins and ends.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from modernbert_jax.errors import UserError

Name = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "none"]
OUTSIDE = "O"


class Tag(NamedTuple):
    """A tag in its parts."""

    prefix: str
    type: str


class Entity(NamedTuple):
    """Words from `start` up to but not including `stop`."""

    type: str
    start: int
    stop: int


Rule = Callable[[Tag, Tag], bool]
"""Of two neighbouring tags: the one before, and the one behind."""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How entities are written as tags. BILOU's L and U are kept as E and S."""

    prefixes: str
    follows: str
    """Prefixes that may only stand behind a tag of the same entity."""
    precedes: str
    """Prefixes that may only stand before a tag of the same entity."""
    begins: Rule
    """Whether an entity can begin with the second tag, if it has not begun before."""
    ends: Rule
    """Whether one may end with the first tag; if not, there was none."""


def _same(a: Tag, b: Tag) -> bool:
    return a.type == b.type and OUTSIDE not in (a.prefix, b.prefix)


def joined(a: Tag, b: Tag) -> bool:
    """Whether two neighbouring tags are of one entity."""
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
    """A tag's parts. Raises `UserError` for one that the scheme does not know."""
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
    """Every run of joined tags, whatever the scheme."""
    return _runs(tags, lambda a, b: True, lambda a, b: True)


def strict(tags: Sequence[Tag], scheme: Name) -> list[Entity]:
    """Runs that begin and end as the scheme wants it."""
    return _runs(tags, SCHEMES[scheme].begins, SCHEMES[scheme].ends)


def _runs(tags: Sequence[Tag], begins: Rule, ends: Rule) -> list[Entity]:
    outside = Tag(OUTSIDE, "")
    padded = [outside, *tags, outside]
    found, i = [], 1
    while i <= len(tags):
        start = i
        i += 1
        if padded[start].prefix == OUTSIDE or not begins(padded[start - 1], padded[start]):
            continue
        while joined(padded[i - 1], padded[i]):
            i += 1
        if ends(padded[i - 1], padded[i]):
            found.append(Entity(padded[start].type, start - 1, i - 1))
    return found


def first_break(tags: Sequence[Tag], scheme: Name) -> int | None:
    """The place of the first tag that the scheme does not allow there."""
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
    """Every tag that the scheme has for a type of entities."""
    prefixes = "BILOU" if scheme == "BILOU" else SCHEMES[scheme].prefixes
    return [f"{p}-{kind}" for p in prefixes if p != OUTSIDE]


def write(entities: Sequence[Entity], length: int, scheme: Name) -> list[str]:
    """The tags of entities that do not overlap, in a scheme other than "none"."""
    tags = [OUTSIDE] * length
    behind = {e.stop: e.type for e in entities}
    before = {e.start: e.type for e in entities}
    first, last, only = {
        "IOB1": "IIB",
        "IOB2": "BIB",
        "IOE1": "III",
        "IOE2": "IEE",
        "IOBES": "BES",
        "BILOU": "BLU",
    }[scheme]
    for kind, start, stop in entities:
        tags[start:stop] = [f"I-{kind}"] * (stop - start)
        tags[stop - 1] = f"{last}-{kind}"
        tags[start] = f"{first if stop - start > 1 else only}-{kind}"
        if scheme == "IOB1":
            tags[start] = f"{'B' if behind.get(start) == kind else 'I'}-{kind}"
        if scheme == "IOE1":
            tags[stop - 1] = f"{'E' if before.get(stop) == kind else 'I'}-{kind}"
    return tags
