"""Data sets of the comparison, made from text: BEIR folders, which are trained on as they are.

A folder holds `corpus.jsonl`, `queries.jsonl`, and `train.tsv`, `dev.tsv`, `test.tsv` in `qrels`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_directory

from ...retrieval.data import read_collection
from ...tasks.read import read
from . import go_sources

Kind = Literal["titles", "functions", "questions", "union"]
"""What queries are made of."""

SPLITS = ("train", "dev", "test")

_WORDS = 5
"""Fewest words of a title, abstract or comment."""


class Pair(NamedTuple):
    """A query and the document that answers it."""

    id: str
    query: str
    document: str
    """Id of the document."""
    split: str = ""
    """Split that the source puts it in; empty leaves it to `splits`."""


class DataSet(NamedTuple):
    """Documents by id, and pairs."""

    documents: Mapping[str, str]
    pairs: Sequence[Pair]


def titles(paths: Sequence[str | Path]) -> DataSet:
    """Title → abstract, for texts whose first paragraph is their title."""
    texts = []
    for record in read(paths):
        title, _, abstract = record.text("text").partition("\n\n")
        texts.append((record.text("id"), title.strip(), abstract.strip()))
    return _unique(texts)


def functions(paths: Sequence[str | Path]) -> DataSet:
    """Function → comment, for Go sources.

    Comments begin with the function's name by convention. It would tell the answer, so it is left
    out.
    """
    texts = []
    for record in read(paths):
        counts: dict[str, int] = {}
        for name, comment, code in go_sources.functions(record.text("text")):
            number = counts[name] = counts.get(name, 0) + 1
            place = f"{record.text('id')}:{name}" + (f":{number}" if number > 1 else "")
            texts.append((place, code, comment.removeprefix(f"{name} ").strip()))
    return _unique(texts)


def questions(paths: Sequence[str | Path]) -> DataSet:
    """Question → passage, from a folder with `corpus`, `train` and `dev` as JSON lines.

    Pairs of `dev` are the test split: both name passages by id, in `positive`.
    """
    if len(paths) != 1 or not Path(paths[0]).is_dir():
        raise UserError(f"{', '.join(map(str, paths))}: must be one folder with corpus, train, dev")
    folder = Path(paths[0])
    documents = {r.text("_id"): r.text("text") for r in read([f"{folder}/corpus.jsonl*"])}
    pairs = []
    for name, split in (("train", ""), ("dev", "test")):
        for i, record in enumerate(read([f"{folder}/{name}.jsonl*"])):
            document = record.text("positive")
            if document not in documents:
                raise UserError(f"{record.place}: positive {document!r} is not in the corpus")
            pairs.append(Pair(f"{name}-{i}", record.text("query"), document, split))
    return DataSet(documents, pairs)


def union(paths: Sequence[str | Path]) -> DataSet:
    """The pairs of several folders of this module, mixed, each in its split."""
    documents: dict[str, str] = {}
    pairs = []
    for path in paths:
        name = Path(path).resolve().name
        for split in SPLITS:
            collection = read_collection(path, split)
            if split == SPLITS[0]:
                documents |= {f"{name}/{id_}": text for id_, text in collection.corpus()}
            for query, text in collection.queries.items():
                (document,) = collection.qrels[query]
                pairs.append(Pair(f"{name}/{query}", text, f"{name}/{document}", split))
    return DataSet(documents, sorted(pairs, key=lambda pair: _hash(pair.id)))


KINDS: dict[Kind, Callable[[Sequence[str | Path]], DataSet]] = {
    "titles": titles,
    "functions": functions,
    "questions": questions,
    "union": union,
}


def _unique(texts: Iterable[tuple[str, str, str]]) -> DataSet:
    """A data set of (id, query, document) without short texts, and without texts that repeat.

    A query that occurs twice, or a document, would have several right answers that the judgements
    do not know.
    """
    long = [t for t in texts if all(len(text.split()) >= _WORDS for text in t[1:])]
    counts: dict[str, int] = {}
    for _, *both in long:
        for text in set(both):
            counts[text] = counts.get(text, 0) + 1
    kept = [t for t in long if counts[t[1]] == counts[t[2]] == 1]
    pairs = [Pair(id_, query, id_) for id_, query, _ in kept]
    return DataSet({id_: document for id_, _, document in kept}, pairs)


def splits(pairs: Sequence[Pair], dev: int, test: int) -> dict[str, list[Pair]]:
    """Pairs by split: test and dev take those with the least hashes, in any order of the source.

    Args:
        pairs: all pairs.
        dev: pairs of the dev split.
        test: pairs of the test split, where the source fixes none.
    """
    fixed = [pair for pair in pairs if pair.split]
    free = sorted((pair for pair in pairs if not pair.split), key=lambda pair: _hash(pair.id))
    count = 0 if any(pair.split == "test" for pair in fixed) else test
    chosen = {"test": free[:count], "dev": free[count : count + dev], "train": free[count + dev :]}
    for pair in fixed:
        chosen[pair.split].append(pair)
    if not all(chosen.values()):
        raise UserError(
            f"{len(pairs):,} pairs do not suffice for {dev:,} in dev and {test:,} in test"
        )
    return {name: chosen[name] for name in SPLITS}


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def make(
    kind: str,
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    dev: int = 500,
    test: int = 1000,
    pairs: int = 0,
) -> dict[str, int]:
    """Write the folder of a data set, and return how much it holds.

    Args:
        kind: a key of `KINDS`.
        paths: files of text, or the folder of `questions`.
        output: folder to write; must not exist.
        dev: pairs kept for the probe of the training's progress.
        test: pairs that are searched for at the end, where the source fixes none.
        pairs: takes the first so many pairs, and of a split that the source fixes the first `test`,
            with their documents alone; 0 takes everything.

    Raises:
        UserError: input that cannot be read or is too little, or a folder that exists.
    """
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}; it must be one of {', '.join(get_args(Kind))}")
    if kind == "union" and pairs:
        raise UserError("--pairs is for sources of text; a union has the pairs of its parts")
    data = KINDS[kind](paths)
    if pairs:
        data = _first(data, pairs, test)
    chosen = splits(data.pairs, dev, test)
    with whole_directory(output) as folder:
        (folder / "qrels").mkdir()
        _write(folder / "corpus.jsonl", _rows(data.documents.items()))
        queries = ((pair.id, pair.query) for split in chosen.values() for pair in split)
        _write(folder / "queries.jsonl", _rows(queries))
        for name, own in chosen.items():
            lines = ["query-id\tcorpus-id\tscore", *(f"{p.id}\t{p.document}\t1" for p in own)]
            (folder / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return {"documents": len(data.documents)} | {name: len(chosen[name]) for name in SPLITS}


def _first(data: DataSet, pairs: int, test: int) -> DataSet:
    """The first pairs of a data set, and the documents that they name."""
    free = [pair for pair in data.pairs if not pair.split][:pairs]
    fixed = [pair for pair in data.pairs if pair.split][:test]
    named = {pair.document for pair in (*free, *fixed)}
    documents = {id_: text for id_, text in data.documents.items() if id_ in named}
    return DataSet(documents, [*free, *fixed])


def _rows(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for id_, text in texts:
        yield json.dumps({"_id": id_, "text": text}, ensure_ascii=False)


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
