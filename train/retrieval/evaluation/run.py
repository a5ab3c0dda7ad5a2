"""Evaluate a model or a run on files: one collection, several with their mean, or a protocol."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from modernbert_jax.errors import UserError, together
from modernbert_jax.io import files
from modernbert_jax.io.paths import expanded

from ..data import Collection, Qrels, Run, read_collections, read_examples, read_qrels, read_run
from ..data.runs import check_word, run_lines
from ..encoding import PairScorer
from ..evaluation_config import Evaluating
from ..retriever import Retriever
from ..search.config import BM25, VECTORS, check_unused
from ..search.models import model_of
from ..search.reranking import SimilarityScorer
from . import metrics, pairs, protocols, reranking
from .metrics import METRICS, RERANKING, means, of_run
from .protocols import Settings
from .ranker import Ranker
from .retrieval import depth

T = TypeVar("T")

_TASKS_OF = {
    **dict.fromkeys(("run_file", "exclude_self", "rerank", "cache"), "retrieval"),
    **dict.fromkeys(("split", "metrics", "rerank_top", "protocol"), "retrieval reranking"),
    **dict.fromkeys(("columns",), "reranking sts triplets"),
    **dict.fromkeys(("target",), "reranking sts"),
    **dict.fromkeys(("positives",), "reranking"),
}
"""Tasks of the options that not all tasks have."""

TASKS = ("retrieval", "reranking", "sts", "triplets")
"""Tasks of `evaluate`."""


def evaluate(
    task: str, model: str, data: str, options: Evaluating, output: Path | None = None
) -> dict[str, Any]:
    """Metrics of a model, or of a run, by name.

    Args:
        task: one of `TASKS`.
        model: an embedding model, a reranker, bm25, or "" where a run is evaluated.
        data: file or folder, of the form that the task needs.
        options: how.
        output: new file or stream for the run of a retrieval task, or None.

    Returns:
        "task", the metrics, and counts. Of several collections also "sets", the metrics of each by
        name; the metrics are then their means. Of a protocol also "missing", names of collections.

    Raises:
        UserError: wrong input.
    """
    if output is not None and task != "retrieval":
        raise UserError(f"--output is for retrieval; {task} writes no run")
    if output is not None and options.run_file:
        raise UserError("--output is for the run of a --model; --run-file is one already")
    if bool(model) == bool(options.run_file):
        raise UserError("pass either --model, or --run-file for a run of retrieval")
    _check_options(task, model, options)
    for name in options.metrics:
        metrics.Metric.parse(name)
    function = {
        "retrieval": _retrieval,
        "reranking": _reranking,
        "sts": _pairs,
        "triplets": _pairs,
    }[task]
    if output is None:
        return {"task": task, **function(task, model, data, options, None)}
    with files.output(output, [x for x in (model, data, options.run_file) if x]) as write:
        runs: list[Run] = []
        result = function(task, model, data, options, runs)
        for query, found in runs[0].items():
            write("".join(run_lines(query, found.items())).encode())
    return {"task": task, **result}


def _check_options(task: str, model: str, options: Evaluating) -> None:
    """Raise `UserError` for options that would change nothing."""
    for name, tasks in _TASKS_OF.items():
        if task not in tasks.split():
            check_unused(options, (name,), f"is not for --task {task}")
    if options.run_file:
        unused = (*VECTORS, "rerank", "rerank_top", "protocol", "cache", "max_length")
        check_unused(options, unused, "is not for --run-file, which is evaluated as it is")
    else:
        check_unused(options, ("complete",), "is for --run-file")
    if model == BM25:
        check_unused(options, (*VECTORS, "cache"), "is not for bm25")
    if task == "retrieval" and not options.rerank:
        check_unused(options, ("rerank_top",), "is for --rerank")


def _retrieval(
    task: str, model: str, data: str, options: Evaluating, runs: list[Run] | None
) -> dict[str, Any]:
    """Metrics of a search; `runs` receives the run of the only collection."""
    names = options.metrics or METRICS
    if options.run_file:
        return _of_run_file(data, options, names)
    ranker = Ranker(model, options, depth(names))

    def evaluated(collection: Collection, documents: int, settings: Settings) -> dict[str, Any]:
        run, active = ranker.run(collection, documents, settings)
        if runs is not None:
            runs.append(run)
        counts = {"queries": len(collection.queries), "documents": documents}
        return {**of_run(run, collection.qrels, names), **active, **counts}

    def checked(collection: Collection) -> int:
        return collection.check() if runs is None else collection.check(check_word)

    return _of_sets(data, options, checked, evaluated, single=runs is not None)


def _of_sets(
    data: str,
    options: Evaluating,
    prepare: Callable[[Collection], T],
    evaluated: Callable[[Collection, T, Settings], dict[str, Any]],
    single: bool = False,
) -> dict[str, Any]:
    """Results of one collection, of several with their means, or of a protocol.

    Args:
        data: the folder.
        options: which collections of it.
        prepare: reads and checks a collection; all are prepared before one is evaluated.
        evaluated: metrics and counts of a collection that is prepared.
        single: whether several collections are refused.

    Raises:
        UserError: the problems of all collections together.
    """
    missing: list[str] = []
    if options.protocol is None:
        found = read_collections(data, options.split)
        own = Settings(exclude_self=options.exclude_self)
        sets = {name: [(one, own)] for name, one in found.items()}
    else:
        members, missing = protocols.find(options.protocol, data)
        sets = {
            one.name: [(part, one.settings.and_also(options.exclude_self)) for part in parts]
            for one, parts in members.items()
        }
    collections = [collection for parts in sets.values() for collection, _ in parts]
    if single and len(collections) != 1:
        raise UserError(f"--output: {data} has {len(collections)} collections; name one of them")
    prepared = iter(together(*(functools.partial(prepare, one) for one in collections)))
    results: dict[str, dict[str, Any]] = {}
    for name, parts in sets.items():
        measured = [evaluated(part, next(prepared), settings) for part, settings in parts]
        results[name] = {**means(measured), **_counts(measured)}
    if options.protocol is None and len(results) == 1:
        return next(iter(results.values()))
    summary = {**means([*results.values()]), **_counts([*results.values()]), "sets": results}
    return summary | (
        {"protocol": options.protocol, "missing": missing} if options.protocol else {}
    )


def _counts(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Numbers of queries and documents of several collections together."""
    return {name: sum(result[name] for result in results) for name in ("queries", "documents")}


def _of_run_file(data: str, options: Evaluating, names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a run that exists."""
    run, qrels = read_run(options.run_file), _read_qrels(data, options.split)
    if options.exclude_self:
        run = {q: {d: s for d, s in found.items() if d != q} for q, found in run.items()}
    missing = sum(query not in run for query in qrels)
    result = of_run(run, qrels, names, options.complete)
    count = len(qrels) if options.complete else len(qrels) - missing
    return {**result, "queries": count, "missing_queries": missing}


def _read_qrels(data: str, split: str) -> Qrels:
    """Judgements from their file, or from a collection."""
    if Path(expanded(data)).is_file():
        return read_qrels(expanded(data))
    collections = read_collections(data, split)
    first = next(iter(collections))
    if len(collections) > 1:
        raise UserError(f"{data}: has several collections; name one of them: {first}, ...")
    return collections[first].qrels


def _reranking(
    task: str, model: str, data: str, options: Evaluating, runs: list[Run] | None
) -> dict[str, Any]:
    loaded = _model_of(model, options)
    scorer = loaded if isinstance(loaded, PairScorer) else SimilarityScorer(loaded)
    names = options.metrics or RERANKING

    def evaluated(lists: Sequence[reranking.RerankingList]) -> dict[str, Any]:
        counts = {"queries": len(lists), "documents": sum(len(one.documents) for one in lists)}
        return {**reranking.evaluate(scorer, lists, names), **counts}

    if not Path(expanded(data)).is_dir():
        return evaluated(reranking.read_lists(data, options.columns, options.target))
    return _of_sets(
        data,
        options,
        lambda one: reranking.lists_of(one, options.rerank_top, options.positives),
        lambda _, lists, __: evaluated(lists),
    )


def _pairs(
    task: str, model: str, data: str, options: Evaluating, runs: list[Run] | None
) -> dict[str, Any]:
    examples = read_examples(data, options.columns, "" if task == "triplets" else options.target)
    function = pairs.triplets if task == "triplets" else pairs.sts
    return {**function(_model_of(model, options), examples), "examples": len(examples)}


def _model_of(model: str, options: Evaluating) -> Retriever | PairScorer:
    if model == BM25:
        raise UserError("bm25 is for --task retrieval; name a model")
    return model_of(options, model)
