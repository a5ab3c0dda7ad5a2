"""`Collection`: a corpus, queries and judgements, from folders as BEIR and NanoBEIR lay them out.

    FOLDER/corpus.jsonl  queries.jsonl  qrels/SPLIT.tsv                 BEIR
    FOLDER/corpus.jsonl  SPLIT.jsonl (query, positive: ids of documents)
    FOLDER/corpus/  queries/  qrels/  [bm25/], each with NAME*.parquet  NanoBEIR, a set per name
    FOLDER/corpus/*.parquet  queries/*.parquet  qrels/SPLIT*.parquet    a single set

Files may be .jsonl, .parquet and others that `tasks.read` reads, also compressed.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from modernbert_jax.errors import UserError, did_you_mean, together
from modernbert_jax.io import fingerprint
from modernbert_jax.io.paths import expanded, file_type

from ...tasks import Problems, stream
from . import ids, runs

CORPUS, QUERIES, QRELS, BM25 = "corpus", "queries", "qrels", "bm25"
"""Names of the parts of a folder."""

_TABLES = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
"""Formats of tables."""

_SHARD = re.compile(r"(?P<name>.+?)(-\d+-of-\d+)?\.parquet")


@dataclasses.dataclass(frozen=True)
class Collection:
    """What retrieval is evaluated on."""

    name: str
    """Name for messages and tables."""
    files: list[str]
    """Files of the corpus."""
    queries: dict[str, str]
    """Texts of the queries that are judged, by id."""
    qrels: runs.Qrels
    """Grades of documents by the ids of query and document."""
    candidates: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Ids of documents that a first stage found, best first, by the id of the query; empty where
    the folder has none."""

    def corpus(self) -> Iterator[tuple[str, str]]:
        """Id and text of every document, streamed; the title comes before the text."""
        return ids.texts(self.files)

    def fingerprint(self) -> str:
        """What corpus, queries, judgements and candidates are."""
        rest = [self.queries, self.qrels, self.candidates]
        return fingerprint.of_json([fingerprint.of_paths(self.files), *rest])

    def check(self, of_ids: Callable[[str], None] = lambda identifier: None) -> int:
        """Read the corpus once, before long work, and count its documents.

        Args:
            of_ids: raises `UserError` for ids of documents and queries that what follows cannot
                use, such as `runs.check_word`.

        Raises:
            UserError: damaged rows, an id of several rows, judged documents that are missing, or
                ids that `of_ids` refuses; all together.
        """
        judged = {d: f"{self.name}, query {q}" for q, grades in self.qrels.items() for d in grades}
        *_, count = together(
            *(functools.partial(of_ids, query) for query in self.queries),
            lambda: ids.survey(self.files, judged.items(), of_ids),
        )
        return count


def read_collection(folder: str | Path, split: str = "test") -> Collection:
    """Read a collection, without its corpus.

    Args:
        folder: with the files above; for NanoBEIR, FOLDER/NAME selects a set.
        split: name of the judgements; most of BEIR has "test", MS MARCO is evaluated on "dev".

    Raises:
        UserError: a file is missing, or all problems of queries and judgements together.
    """
    folder = Path(expanded(folder))
    if folder.is_file():
        raise UserError(f"{folder}: is a file; name its folder")
    if not folder.is_dir() and (folder.parent / QRELS).is_dir():
        return _nano(folder.parent, folder.name)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if names := sets(folder):
        if len(names) > 1 and split not in names:
            raise UserError(
                f"{folder}: holds {len(names)} collections; name one: {folder / names[0]}, ..."
            )
        return _nano(folder, split if split in names else names[0])
    corpus = table(folder, CORPUS)
    if find(folder, QUERIES):
        return _beir(folder, split, corpus)
    return _pairs(folder, split, corpus)


def read_collections(folder: str | Path, split: str = "test") -> dict[str, Collection]:
    """Read all collections of a folder by name: NanoBEIR's sets, one collection, or a folder of
    collections, sorted.

    Raises:
        UserError: as `read_collection`, of all collections together.
    """
    folder = Path(expanded(folder))
    if len(_names(folder / CORPUS)) > 1:
        names = sets(folder)
        found = together(*(functools.partial(_nano, folder, name) for name in names))
        return dict(zip(names, found, strict=True))
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    inside = [path for path in inside if find(path, CORPUS) or sets(path)]
    if inside and not find(folder, CORPUS):
        found = together(*(functools.partial(read_collection, path, split) for path in inside))
        return dict(zip((path.name for path in inside), found, strict=True))
    return {folder.name: read_collection(folder, split)}


def _beir(folder: Path, split: str, corpus: list[str]) -> Collection:
    path, files = split_file(folder / QRELS, split), table(folder, QUERIES)
    qrels, queries = together(lambda: runs.read_qrels(path), lambda: ids.read_texts(files))
    return Collection(folder.name, corpus, _judged(queries, qrels, str(path)), qrels)


def _pairs(folder: Path, split: str, corpus: list[str]) -> Collection:
    """Queries with the ids of their positives; equal texts are one query."""
    path = split_file(folder, split)
    queries: dict[str, str] = {}
    qrels: runs.Qrels = {}
    id_of: dict[str, str] = {}
    problems = Problems()
    for record in stream([path], problems):
        with problems.at(record.place):
            text = record.text("query")
            value = record.need("positive")
            own = record.get("_id") or record.place.rpartition(":")[2]
            identifier = id_of.setdefault(text, ids.text_of(own))
            queries[identifier] = text
            for positive in value if isinstance(value, list) else [value]:
                runs.add_judgement(qrels, identifier, ids.text_of(positive), 1)
    problems.check()
    return Collection(folder.name, corpus, queries, qrels)


def _nano(folder: Path, name: str) -> Collection:
    names = sets(folder)
    if name not in names:
        raise UserError(f"{folder}: has no collection {name!r}; {did_you_mean(name, names)}")
    parts = {part: _shards(folder / part, name) for part in (CORPUS, QUERIES, QRELS, BM25)}
    for part in (CORPUS, QUERIES):
        if not parts[part]:
            raise UserError(f"{folder / part}: has no files of {name!r}")
    queries = ids.read_texts(parts[QUERIES])
    problems = Problems()
    qrels: runs.Qrels = {}
    for record in stream(parts[QRELS], problems):
        with problems.at(record.place):
            value = record.need("corpus-id")
            for document in value if isinstance(value, list) else [value]:
                grade = record.get("score")
                query, grade = ids.text_of(record.need("query-id")), 1 if grade is None else grade
                runs.add_judgement(qrels, query, ids.text_of(document), grade)
    candidates: dict[str, list[str]] = {}
    for record in stream(parts[BM25], problems):
        with problems.at(record.place):
            query = ids.text_of(record.need("query-id"))
            documents = [ids.text_of(value) for value in record.list("corpus-ids")]
            if query in candidates:
                raise UserError(f"query {ids.quoted(query)} occurs before")
            candidates[query] = ids.distinct(documents)
    problems.check()
    judged = _judged(queries, qrels, str(folder / QRELS))
    if len(_names(folder / CORPUS)) == 1:
        name = folder.name
    return Collection(name, parts[CORPUS], judged, qrels, candidates)


def _judged(queries: dict[str, str], qrels: runs.Qrels, place: str) -> dict[str, str]:
    """The queries that are judged, in the order of their file. Raises `UserError`."""
    problems = Problems()
    for query in qrels:
        if query not in queries:
            problems.add(place, f"query {ids.quoted(query)} is not among the queries")
        elif not queries[query].strip():
            problems.add(place, f"the text of query {ids.quoted(query)} is empty")
    problems.check()
    return {query: text for query, text in queries.items() if query in qrels}


def sets(folder: Path) -> list[str]:
    """Names of the sets of a folder as NanoBEIR has it, or of the splits of the only one."""
    return _names(folder / QRELS)


def _names(folder: Path) -> list[str]:
    """Names of the Parquet files of a folder, without the numbers of shards."""
    inside = folder.glob("*.parquet") if folder.is_dir() else ()
    return sorted({match["name"] for path in inside if (match := _SHARD.fullmatch(path.name))})


def _shards(folder: Path, name: str) -> list[str]:
    """Parquet files of a set in one of the folders of NanoBEIR; of the only one, if it is one."""
    names = _names(folder)
    name = names[0] if len(names) == 1 else name
    matches = ((path, _SHARD.fullmatch(path.name)) for path in sorted(folder.glob("*.parquet")))
    return [str(path) for path, match in matches if match and match["name"] == name]


def find(folder: Path, stem: str) -> list[str]:
    """Files of a table in a folder: STEM.jsonl or the like, or STEM/*.parquet.

    Others with the same stem, such as a run that was written there, do not count beside them.
    """
    inside = sorted(path for path in folder.iterdir() if path.name.partition(".")[0] == stem)
    files = [str(path) for path in inside if path.is_file()]
    files = [path for path in files if file_type(path).format in _TABLES] or files
    return files or [str(path) for path in sorted((folder / stem).glob("*.parquet"))]


def table(folder: Path, stem: str) -> list[str]:
    """The one file of a name, or the shards of a folder. Raises `UserError`."""
    files = find(folder, stem)
    if not files:
        raise UserError(f"{folder}: has no {stem}.jsonl")
    if len(files) > 1 and Path(files[0]).parent == folder:
        raise UserError(f"{folder}: has {', '.join(Path(f).name for f in files)}; keep one of them")
    return files


def split_file(folder: Path, split: str) -> str:
    """The file of a split. Raises `UserError` that names those that exist."""
    files = find(folder, split) if folder.is_dir() else []
    if not files:
        inside = (path for path in folder.glob("*.*") if path.is_file())
        known = {path.name.partition(".")[0] for path in inside} - {CORPUS, QUERIES, "README"}
        raise UserError(f"{folder}: has no split {split!r}; {did_you_mean(split, known)}")
    return files[0]
