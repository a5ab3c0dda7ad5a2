"""Facts of a finished run over examples."""

from types import SimpleNamespace

from modernbert_jax.train.examples import run


def test_a_metric_without_a_value_stays_in_the_history():
    """It is null in `metrics.jsonl`, and has been null in `result.json`."""
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "eval_loss": 1.0, "eval_spearman": None, "score": None},
        {"step": 4, "eval_loss": 0.5, "eval_spearman": 0.25, "score": 0.25},
    ]
    outcome = SimpleNamespace(rows=rows, best_step=2, state=SimpleNamespace(step=4))
    assert run.history(outcome) == {
        "best": {"step": 2, "metrics": {"loss": 1.0, "spearman": None}},
        "last": {"step": 4, "metrics": {"loss": 0.5, "spearman": 0.25}},
    }
