"""Runs and judgements of relevance (qrels) as TREC and BEIR write them."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_file
from modernbert_jax.io.paths import expanded

from ...tasks import Problems, lines
from .ids import quoted

Run = dict[str, dict[str, float]]
"""Scores of documents by the ids of query and document."""

Qrels = dict[str, dict[str, int]]
"""Grades of relevance by the ids of query and document; 0 and less is not relevant."""

TAG = "modernbert-jax"
"""Name of a run in its lines."""

_ASCII = " \t\n\v\f\r"
"""Blanks of ASCII. Others may be in ids, as in trec_eval."""

_BLANKS = re.compile(f"[{_ASCII}]+")

_HEADER = {"query-id", "query_id", "corpus-id", "corpus_id", "qid", "score"}


def read_run(path: str | Path) -> Run:
    """Read a run of TREC: lines of query, `Q0`, document, rank, score and name of the run.

    Ranks are not used, as by trec_eval. Compressed files are read too.

    Raises:
        UserError: the damaged lines, together: another number of fields, a score that is no finite
            number, a document twice for a query.
    """
    run: Run = {}
    problems = Problems()
    for place, fields in _fields(path, problems):
        with problems.at(place):
            if len(fields) != 6:
                raise UserError(
                    f"has {len(fields)} fields; a run has 6: query Q0 document rank score name"
                )
            query, _, document, _, score, _ = fields
            scores = run.setdefault(query, {})
            if document in scores:
                raise UserError(
                    f"document {quoted(document)} occurs before for query {quoted(query)}"
                )
            scores[document] = _number(score)
    problems.check()
    if not run:
        raise UserError(f"{path}: holds no results")
    return run


def write_run(path: str | Path, run: Mapping[str, Mapping[str, float]], name: str = TAG) -> None:
    """Write a run of TREC, replacing an existing file atomically.

    Documents are written by falling scores, equal ones in the order of the mapping.

    Raises:
        UserError: `path` cannot be written; an id or name that is empty or has blanks; or a score
            that is not finite.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: -item[1])
            file.writelines(run_lines(query, ranked, name))


def run_lines(query: str, ranked: Iterable[tuple[str, float]], name: str = TAG) -> Iterator[str]:
    """Yield the lines of a query in a run, from documents and scores in the order of their ranks.

    Raises:
        UserError: as `write_run`.
    """
    for rank, (document, score) in enumerate(ranked, start=1):
        if not math.isfinite(score):
            raise UserError(
                f"query {quoted(query)}: the score of document {quoted(document)} is {score}"
            )
        for word in (query, document, name):
            check_word(word)
        yield f"{query} Q0 {document} {rank} {float(score)!r} {name}\n"


def check_word(text: str) -> None:
    """Raise `UserError` for an id, or the name of a run, that a run has no place for."""
    if not text or _BLANKS.search(text):
        raise UserError(f"{quoted(text)} is empty or has blanks, for which a run has no place")


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: lines of BEIR (query, document, grade, after a header) or of TREC (query, 0,
    document, grade). Compressed files are read too.

    Raises:
        UserError: the damaged lines, together: another number of fields, a grade that is no whole
            number, a document with two grades for a query.
    """
    qrels: Qrels = {}
    problems = Problems()
    for place, query, document, grade in judgements(path, problems):
        with problems.at(place):
            add_judgement(qrels, query, document, grade)
    problems.check()
    if not qrels:
        raise UserError(f"{path}: holds no judgements")
    return qrels


def judgements(path: str | Path, problems: Problems) -> Iterator[tuple[str, str, str, str]]:
    """Yield place, query, document and grade of every line; problems are collected."""
    for number, (place, fields) in enumerate(_fields(path, problems, tabs=True)):
        if number == 0 and _HEADER & {field.lower() for field in fields}:
            continue
        if len(fields) in (3, 4) and fields[0] and fields[-2]:
            yield place, fields[0], fields[-2], fields[-1]
        elif len(fields) in (3, 4):
            problems.add(place, "has an empty id")
        else:
            problems.add(
                place,
                f"has {len(fields)} fields; judgements have 3 (query document grade) or 4 (query 0"
                " document grade)",
            )


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements as BEIR does, replacing an existing file atomically.

    Raises:
        UserError: `path` cannot be written, or a tab in an id.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, grades in qrels.items():
            for document, grade in grades.items():
                if any(set("\t\r\n") & set(name) for name in (query, document)):
                    names = f"{quoted(query)}, {quoted(document)}"
                    raise UserError(f"{names}: ids must have no tabs or line ends")
                file.write(f"{query}\t{document}\t{int(grade)}\n")


def add_judgement(qrels: Qrels, query: str, document: str, grade: object) -> None:
    """Add a judgement. Raises `UserError` for a grade that is no whole number, or a second one."""
    value = grade_of(grade)
    grades = qrels.setdefault(query, {})
    if grades.setdefault(document, value) != value:
        raise UserError(
            f"document {quoted(document)} has another grade before for query {quoted(query)}"
        )


def grade_of(value: object) -> int:
    """A grade of relevance. Raises `UserError` for anything but a whole number."""
    number = _number(value)
    if not number.is_integer():
        raise UserError(f"grade {quoted(value)} must be a whole number")
    return int(number)


def _fields(
    path: str | Path, problems: Problems, tabs: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Place and fields of every line that is not blank; `tabs` says that blanks may be in fields
    of lines with tabs.
    """
    path = expanded(path)
    with problems.at(path):
        if not Path(path).is_file():
            raise UserError("no such file")
        for number, line in lines(path):
            if isinstance(line, UserError):
                problems.add(f"{path}:{number}", str(line))
            elif line.strip(_ASCII):
                if tabs and "\t" in line:
                    fields = [field.strip(_ASCII) for field in line.rstrip(_ASCII).split("\t")]
                else:
                    fields = [*filter(None, _BLANKS.split(line))]
                yield f"{path}:{number}", fields


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{quoted(value)} must be a number") from None
    if not math.isfinite(number):
        raise UserError(f"{quoted(value)} must be a finite number")
    return number
