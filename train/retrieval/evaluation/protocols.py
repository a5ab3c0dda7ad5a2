"""Protocols of publications: which collections, splits and exclusions, and the published figures.

Sources: the paper of ModernBERT (arXiv 2412.13663v2), section 3.1.2 and tables 1, 7 and 8; BEIR
(arXiv 2104.08663); sentence-transformers for NanoBEIR; PyLate's evaluation for lengths of texts.
All run on local folders.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from modernbert_jax.errors import UserError, did_you_mean, together
from modernbert_jax.io.paths import expanded

from ..data import Collection, beir, read_collection

MAIN = "ndcg@10"
"""The metric of all protocols."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a collection is searched."""

    exclude_self: bool = False
    """Whether documents with the id of their query are left out."""
    query_length: int | None = None
    """Longest query in tokens; None is the model's own."""
    document_length: int | None = None
    """Longest document in tokens; None is the model's own."""

    def and_also(self, exclude_self: bool) -> "Settings":
        """The same, also leaving out documents with the id of their query if that is asked for."""
        return dataclasses.replace(self, exclude_self=self.exclude_self or exclude_self)


@dataclasses.dataclass(frozen=True)
class Set:
    """A collection of a protocol."""

    name: str
    """Name in tables."""
    folders: tuple[str, ...]
    """Names that its folder may have, in any case."""
    split: str = "test"
    settings: Settings = Settings()
    members: tuple[str, ...] = ()
    """Folders inside, whose mean is the result; empty is the folder itself."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Collections that are evaluated together."""

    summary: str
    sets: tuple[Set, ...]
    figures: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    """Published nDCG@10 in percent, by model and by the name of the set, or "mean"."""


FORUMS = (
    *("android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats"),
    *("tex", "unix", "webmasters", "wordpress"),
)
"""Forums of CQADupStack."""

_NAMES = (
    *("NFCorpus", "SciFact", "TREC-COVID", "FiQA", "ArguAna", "Climate-FEVER", "DBPedia", "FEVER"),
    *("HotpotQA", "MSMARCO", "NQ", "Quora", "SciDocs", "Touche", "CQADupStack"),
)


_QUERY_LENGTHS = {
    **dict.fromkeys(("SciFact", "TREC-COVID", "SciDocs"), 48),
    **dict.fromkeys(("Climate-FEVER", "ArguAna"), 64),
}
"""Longest queries of PyLate's evaluation where they are not 32 tokens."""


def _beir(
    msmarco: str, excluding: Sequence[str], document_length: int | None = None
) -> tuple[Set, ...]:
    """The 15 collections of BEIR that are public, in the order of the paper's table 7.

    Args:
        msmarco: split of MSMARCO.
        excluding: names of those whose results leave out documents with the id of the query.
        document_length: longest document in tokens, for late interaction, whose queries then have
            PyLate's lengths; None is the model's own, and so are queries.
    """
    others = {
        "FiQA": ("fiqa2018",),
        "DBPedia": ("dbpedia-entity",),
        "Quora": ("quoraretrieval",),
        "Touche": ("webis-touche2020", "touche2020"),
    }
    return tuple(
        Set(
            name,
            (name.lower(), *others.get(name, ())),
            msmarco if name == "MSMARCO" else "test",
            Settings(
                exclude_self=name in excluding,
                query_length=_QUERY_LENGTHS.get(name, 32) if document_length else None,
                document_length=document_length,
            ),
            members=FORUMS if name == "CQADupStack" else (),
        )
        for name in _NAMES
    )


def _row(mean: float, *values: float) -> dict[str, float]:
    return {"mean": mean, **dict(zip(_NAMES, values, strict=True))}


_DPR = {
    "ModernBERT-base": _row(
        *(41.6, 23.7, 57.0, 72.1, 28.8, 35.7, 23.6, 23.8, 59.9, 46.1, 61.6, 39.5, 85.9, 12.5),
        *(20.8, 33.1),
    ),
    "ModernBERT-large": _row(
        *(44.0, 26.2, 60.4, 74.1, 33.1, 38.2, 20.5, 25.1, 62.7, 49.2, 64.9, 45.5, 86.5, 13.8),
        *(23.1, 36.5),
    ),
    "BERT-base": {"mean": 38.9},
    "BERT-large": {"mean": 38.9},
}
"""Single vectors, trained on MS MARCO: tables 1 and 7 of the paper."""


_COLBERT = {
    "ModernBERT-base": _row(
        *(51.3, 35.2, 73.0, 80.5, 38.0, 49.1, 22.2, 42.0, 85.8, 70.4, 45.4, 57.1, 86.3, 16.0),
        *(33.9, 35.1),
    ),
    "ModernBERT-large": _row(
        *(52.4, 36.0, 73.2, 81.3, 40.3, 50.3, 22.3, 44.1, 85.8, 72.5, 46.0, 59.9, 86.1, 16.9),
        *(34.6, 35.9),
    ),
    "BERT-base": {"mean": 49.0},
    "BERT-large": {"mean": 49.5},
}
"""Late interaction, distilled on MS MARCO: tables 1 and 8 of the paper."""


def _single(name: str, folders: tuple[str, ...], *figures: float) -> Protocol:
    models = ("ModernBERT-base", "ModernBERT-large", "BERT-base", "BERT-large")
    published = {model: {"mean": value} for model, value in zip(models, figures, strict=True)}
    return Protocol(f"{name}, nDCG@10.", (Set(name, folders),), published)


_LANGUAGES = ("go", "java", "javascript", "php", "python", "ruby")
_NANO = (
    *("ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ"),
    *("QuoraRetrieval", "SCIDOCS", "ArguAna", "SciFact", "Touche2020"),
)
_MLDR = ("mldr", "mldr-en", "multilongdocretrieval", "en")

PROTOCOLS: dict[str, Protocol] = {
    "beir": Protocol(
        "BEIR as the paper evaluates single vectors, with mteb: 15 collections, MSMARCO on its test"
        " split, whose scale its figure has; CQADupStack is the mean of 12 forums. Five collections"
        " leave out documents with the id of their query, as in mteb.",
        _beir("test", ("ArguAna", "FiQA", "FEVER", "MSMARCO", "Quora")),
        _DPR,
    ),
    "beir-dev": Protocol(
        "BEIR with MSMARCO on its dev split, leaving out documents with the id of their query"
        " everywhere, as BEIR's own code does.",
        _beir("dev", _NAMES),
    ),
    "beir-colbert": Protocol(
        "BEIR as the paper evaluates late interaction, with PyLate: as beir-dev, documents of 510"
        " tokens, queries of 32, 48 or 64. The paper searches an index of tokens; this search is"
        " exact.",
        _beir("dev", _NAMES, document_length=510),
        _COLBERT,
    ),
    "beir-pylate": Protocol(
        "BEIR as PyLate's own evaluation: as beir-colbert, documents of 300 tokens.",
        _beir("dev", _NAMES, document_length=300),
    ),
    "nanobeir": Protocol(
        "NanoBEIR: 13 small collections of 50 queries.",
        tuple(Set(f"Nano{name}", (f"nano{name.lower()}", name.lower())) for name in _NANO),
    ),
    "mldr-ood": _single("MLDR", _MLDR, 27.4, 34.3, 23.9, 23.3),
    "mldr-id": _single("MLDR", _MLDR, 44.0, 48.6, 32.2, 31.7),
    "codesearchnet": Protocol(
        "CodeSearchNet in CoIR's form: the mean of 6 languages.",
        (Set("CodeSearchNet", ("codesearchnet", "csn"), members=_LANGUAGES),),
        {
            "ModernBERT-base": {"mean": 56.4},
            "ModernBERT-large": {"mean": 59.5},
            "BERT-base": {"mean": 41.2},
            "BERT-large": {"mean": 41.6},
        },
    ),
    "stackoverflow-qa": _single(
        "StackOverflow-QA", ("stackoverflow-qa", "stackoverflow_qa"), 73.6, 83.9, 59.5, 60.8
    ),
}
"""Protocols by their names on the command line."""


def find(name: str, root: str | Path) -> tuple[dict[Set, list[Collection]], list[str]]:
    """The collections of a protocol below a folder, and the names of those that are missing.

    Args:
        name: a key of `PROTOCOLS`.
        root: a folder with a folder for each collection, or with those of NanoBEIR's layout.

    Raises:
        UserError: an unknown protocol, no such folder, none of the collections in it, or all
            problems of judgements and queries together.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r}: {did_you_mean(name, PROTOCOLS)}")
    root = Path(expanded(root))
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    inside = {name.lower(): root / name for name in beir.sets(root)}
    paths: dict[Set, list[Path]] = {}
    missing: list[str] = []
    for one in PROTOCOLS[name].sets:
        path = next((p[f] for p in (inside, folders) for f in one.folders if f in p), None)
        if path is None:
            missing.append(one.name)
            continue
        members = {p.name.lower(): p for p in path.iterdir() if p.is_dir()} if path.is_dir() else {}
        if not one.members or beir.CORPUS in {name.partition(".")[0] for name in _names(path)}:
            paths[one] = [path]
            continue
        lacking = [member for member in one.members if _member(member, members) is None]
        if lacking:
            missing += [f"{one.name}/{member}" for member in lacking]
            continue
        inner = (_member(member, members) for member in one.members)
        paths[one] = [path for path in inner if path is not None]
    if not paths:
        wanted = ", ".join(one.folders[0] for one in PROTOCOLS[name].sets)
        raise UserError(f"{root}: holds none of the folders of protocol {name}: {wanted}")
    every = [(path, one.split) for one, inner in paths.items() for path in inner]
    read = iter(together(*(functools.partial(read_collection, *each) for each in every)))
    return {one: [next(read) for _ in inner] for one, inner in paths.items()}, missing


def _member(member: str, folders: Mapping[str, Path]) -> Path | None:
    """A folder with the name of a member, or one that ends with it, such as codesearchnet-go."""
    return next(
        (path for name, path in folders.items() if name == member or name.endswith(f"-{member}")),
        None,
    )


def _names(path: Path) -> Sequence[str]:
    return [p.name for p in path.iterdir()] if path.is_dir() else []
