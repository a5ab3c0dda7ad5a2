"""Read the training examples of a data set from files of every format."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError

from ...tasks import Problems, Record, stream
from . import folders, ids
from .examples import ExampleSet, TextExample
from .layout import LISTS, POSITIVES, Layout, kind_of, layout, role


def read_examples(
    paths: str | Path | Sequence[str | Path],
    columns: Sequence[str] = (),
    target: str | None = None,
    *,
    queries: ids.Paths | None = None,
    documents: ids.Paths | None = None,
    name: str = "",
    most: int = 0,
) -> ExampleSet:
    """Read the examples of a data set.

    Without `columns` these are found: `query positive [negative, negative_1, ...]` with single
    negatives or a list `negatives`; `query documents` with `scores` or `labels`; two texts, such as
    `sentence1 sentence2`, with `label` or `score`. Lists may be written as text, as in CSV.

    Args:
        paths: files or patterns of the formats that `tasks.read` reads; or a folder, as
            `folders` lays it out, whose split "train" is read, or FOLDER/qrels/SPLIT.tsv.
        columns: columns or templates such as "{title} {text}", in the order of their meaning: the
            query, the positive, the negatives. The last column may hold lists.
        target: column of a number for each example, or of a list with a number for each document.
            None is `label`, `labels`, `score` or `scores`, if there is one; "" is none.
        queries: file of texts by id, as `ids.texts` reads it. The first column then holds ids.
        documents: the same for the other columns.
        name: of the data set; by default that of the first file.
        most: number of the first examples that are read; 0 reads all.

    Raises:
        UserError: a path that matches nothing; or all problems of the files together, with file and
            line: damaged records, columns that are missing, empty texts, a query without positives
            or equal to its positive, ids without a text or twice in a list, targets that are not
            finite or not one for each document.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    problems = Problems()
    folder = folders.find(paths[0]) if len(paths) == 1 else None
    records = stream(paths, problems) if folder is None else folder.records(problems)
    first = list(itertools.islice(records, 1))
    if not first:
        problems.check()
        raise UserError(f"{paths[0]}: holds no examples")
    with problems.at(first[0].place):
        found = layout(list(first[0].values), columns, target)
    problems.check()
    if folder is not None:
        documents, name = documents or folder.corpus, name or folder.name
        if role(found.columns[0]) != found.columns[0]:
            queries = queries or folder.queries or None
    reader = _Reader(found, first[0], queries is not None, documents is not None)
    examples: list[TextExample] = []
    for record in itertools.chain(first, records):
        with problems.at(record.place):
            examples.extend(reader.examples(record))
        if most and len(examples) >= most:
            del examples[most:]
            break
    if queries is not None or documents is not None:
        examples = _with_texts(examples, queries, documents, problems)
    checked = []
    for example in examples:
        with problems.at(example.place):
            checked.append(reader.check(example))
    problems.check()
    stem = name or Path(str(paths[0])).name.partition(".")[0]
    return ExampleSet(stem, tuple(map(role, found.columns)), checked, reader.targets)


class _Reader:
    """Reads records of one layout."""

    def __init__(self, found: Layout, first: Record, query_ids: bool, document_ids: bool):
        self._layout = found
        self._ids = [query_ids, *[document_ids] * (len(found.columns) - 1)]
        self._known: dict[str, str] = {}
        roles = [role(column) for column in found.columns]
        last = len(roles) - 1
        self._lists = {
            i
            for i, column in enumerate(found.columns)
            if i == last or (i == 1 and not found.target and roles[1] in POSITIVES)
            if _is_list(first, column, self._ids[i] or roles[i] in LISTS)
        }
        self._has_positive = roles[1] in POSITIVES or not found.target
        self.targets = kind_of(found, bool(found.target) and _is_list(first, found.target, True))

    def examples(self, record: Record) -> Iterator[TextExample]:
        """The examples of a record: one, or one for each of a list of positives."""
        target = self._target(record)
        first, second, *others = (self._values(record, i) for i in range(len(self._ids)))
        rest = tuple(itertools.chain(*others))
        if 1 in self._lists and self._has_positive and not self._layout.target:
            if not second:
                raise UserError(f"{self._layout.columns[1]!r} is empty: the query has no positive")
            for positive in second:
                yield TextExample((*first, positive, *rest), target, record.place)
        else:
            yield TextExample((*first, *second, *rest), target, record.place)

    def check(self, example: TextExample) -> TextExample:
        """The example. Raises `UserError` for one that cannot be trained on."""
        texts, target, (_, second, *_) = example.texts, example.target, self._layout.columns
        if len(texts) < 2:
            raise UserError(f"{second!r} is empty")
        if self._has_positive and texts[0].strip() == texts[1].strip():
            raise UserError(f"{second!r} is equal to its query; it must be another text")
        if self.targets == "scores" and len(target) != len(texts) - 1:
            raise UserError(
                f"{self._layout.target!r} has {len(target)} numbers, for {len(texts) - 1} documents"
            )
        if self.targets == "scores" and self._layout.target == "labels" and max(target) <= 0:
            raise UserError("the query has no positive: none of its labels is above 0")
        return example

    def _values(self, record: Record, at: int) -> list[str]:
        """The text or texts of a column."""
        column = self._layout.columns[at]
        if at not in self._lists:
            return [self._id(record.need(column)) if self._ids[at] else record.text(column)]
        values = record.list(column)
        if self._ids[at]:
            return [self._id(value) for value in values]
        return [Record("", {column: value}).text(column) for value in values]

    def _id(self, value: Any) -> str:
        """An id, of which one copy is kept."""
        identifier = ids.text_of(value)
        return self._known.setdefault(identifier, identifier)

    def _target(self, record: Record) -> tuple[float, ...]:
        column = self._layout.target
        if self.targets == "none":
            return ()
        values = record.list(column) if self.targets == "scores" else [record.need(column)]
        values = [float(value) if isinstance(value, bool) else value for value in values]
        return tuple(Record("", {column: value}).number(column) for value in values)


def _with_texts(
    examples: Sequence[TextExample],
    queries: ids.Paths | None,
    documents: ids.Paths | None,
    problems: Problems,
) -> list[TextExample]:
    """Replace ids by texts; only the texts that occur are kept in memory."""
    first = _table(queries, (e.texts[0] for e in examples), problems)
    others = _table(documents, (t for e in examples for t in e.texts[1:]), problems)
    result = []
    for example in examples:
        with problems.at(example.place):
            query, *rest = example.texts
            rest = rest if documents is None else ids.distinct(rest)
            texts = (first(query), *map(others, rest))
            result.append(example._replace(texts=texts))
    return result


def _table(
    paths: ids.Paths | None, wanted: Iterable[str], problems: Problems
) -> Callable[[str], str]:
    """The function from an id to its text; without a file, from a text to itself."""
    if paths is None:
        return lambda text: text
    table: Mapping[str, str] = ids.read_texts(paths, wanted, problems)

    def text(identifier: str) -> str:
        if identifier not in table:
            raise UserError(ids.missing_id(identifier, paths))
        if not table[identifier].strip():
            raise UserError(f"the text of id {ids.quoted(identifier)} is empty")
        return table[identifier]

    return text


def _is_list(record: Record, column: str, written: bool) -> bool:
    """Whether a value is a list, or, if it may be `written` so, text in brackets."""
    value = record.get(column)
    if isinstance(value, str):
        return written and value[:1] + value[-1:] == "[]"
    return isinstance(value, list | tuple)
