"""Metrics against trec_eval, on runs with ties, unjudged documents and missing queries."""

import math

import numpy as np
import pytest
import pytrec_eval

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.evaluation import metrics
from modernbert_jax.train.retrieval.evaluation.metrics import Metric, by_query, of_run, ranked

THEIRS = {
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "accuracy": "success",
}
CUTS = (1, 2, 3, 10, 100)


def generated(seed: int):
    """A run and its judgements: graded, with equal and nearly equal scores, and odd ids."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(8)] + ["", "é", "z~", "𝔸", "10", "9", "A b"][1:]
    names += [f"n{i}" for i in range(120)]
    scores = [0.0, 1.0, 1.0 + 1e-9, -1.0, 1e-30, 16777216.0, 16777217.0, 0.25]
    run, qrels = {}, {}
    for i in range(12):
        many = rng.choice(names, rng.integers(0, len(names)), replace=False).tolist()
        drawn = rng.choice(scores, len(many)) if i % 2 else rng.standard_normal(len(many))
        if i != 3:
            run[f"q{i}"] = dict(zip(many, drawn.tolist(), strict=True))
        judged = rng.choice(names, rng.integers(1, 20), replace=False).tolist()
        qrels[f"q{i}"] = {d: int(rng.integers(-1, 4)) for d in judged}
    qrels["q5"] = dict.fromkeys(qrels["q5"], 0)
    run["unjudged"] = {"d1": 1.0}
    return run, qrels


@pytest.mark.parametrize("seed", range(25))
def test_they_equal_trec_eval(seed):
    run, qrels = generated(seed)
    cuts = ",".join(map(str, CUTS))
    measures = {f"{name}.{cuts}" for name in THEIRS.values()} | {"map", "ndcg", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    named = {f"{ours}@{k}": f"{name}_{k}" for ours, name in THEIRS.items() for k in CUTS}
    named |= {"map": "map", "ndcg": "ndcg", "mrr": "recip_rank"}
    ours = by_query(run, qrels, named)
    assert set(ours) == set(theirs)
    for query, values in ours.items():
        for name, value in values.items():
            expected = theirs[query][named[name]]
            assert math.isclose(value, expected, abs_tol=1e-9), (query, name, value, expected)
    # The reciprocal rank has no cut there: only the first documents are in the run.
    first = {q: {d: -i for i, d in enumerate(ranked(s)[:10])} for q, s in run.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(first)
    for query, values in by_query(run, qrels, ["mrr@10"]).items():
        assert math.isclose(values["mrr@10"], theirs[query]["recip_rank"], abs_tol=1e-9)


def test_values_by_hand():
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    qrels = {"q": {"b": 2, "x": 1, "a": 0}}
    values = of_run(run, qrels, ["ndcg@3", "mrr@3", "map@3", "recall@3", "precision@4"])
    best = 2 + 1 / math.log2(3)
    assert values["ndcg@3"] == pytest.approx(2 / math.log2(3) / best)
    assert values["mrr@3"] == 0.5 and values["map@3"] == 0.25 and values["recall@3"] == 0.5
    assert values["precision@4"] == 0.25


def test_missing_queries_are_left_out_or_count_as_zero():
    run, qrels = {"a": {"d": 1.0}}, {"a": {"d": 1}, "b": {"d": 1}}
    assert of_run(run, qrels, ["mrr@10"]) == {"mrr@10": 1.0}
    assert of_run(run, qrels, ["mrr@10"], complete=True) == {"mrr@10": 0.5}
    with pytest.raises(UserError, match="no query of the run is judged"):
        of_run({"c": {"d": 1.0}}, qrels)


def test_wrong_names_and_scores_are_named():
    assert str(Metric.parse("map")) == "map" and str(Metric.parse("recall@7")) == "recall@7"
    for name in ("ndgc@10", "ndcg@0", "ndcg@x", "ndcg@", "precision", ""):
        with pytest.raises(UserError, match="metric"):
            Metric.parse(name)
    with pytest.raises(UserError, match="'q': has scores that are NaN"):
        of_run({"q": {"d": math.nan}}, {"q": {"d": 1}})


def test_default_names():
    assert {"ndcg@10", "mrr@10", "map@100", "recall@100", "accuracy@1"} <= set(metrics.METRICS)
