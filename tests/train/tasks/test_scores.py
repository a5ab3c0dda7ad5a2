"""Metrics of labels and numbers are those of scikit-learn and scipy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from modernbert_jax.train import tasks
from modernbert_jax.train.tasks import scores

pytestmark = pytest.mark.filterwarnings("ignore")


@st.composite
def labelled(draw):
    """Number of classes, and equally many labels and predictions."""
    classes = draw(st.integers(2, 5))
    pairs = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    return classes, *zip(*draw(st.lists(pairs, min_size=1, max_size=30)), strict=True)


@settings(max_examples=40, deadline=None)
@given(labelled())
def test_labels(case):
    classes, actual, predicted = case
    want = {"accuracy": metrics.accuracy_score(actual, predicted)}
    for average in ("macro", "micro", "weighted"):
        result = metrics.precision_recall_fscore_support(
            actual, predicted, average=average, zero_division=0
        )
        names = (f"{name}_{average}" for name in ("precision", "recall", "f1"))
        want |= dict(zip(names, result[:3], strict=True))
    if classes == 2:
        result = metrics.precision_recall_fscore_support(
            actual, predicted, labels=[0, 1], zero_division=0
        )
        want |= dict(zip(("precision", "recall", "f1"), (x[1] for x in result[:3]), strict=True))
    for name in scores.SAME_AS_ACCURACY:
        assert want.pop(name) == pytest.approx(want["accuracy"])
    want["matthews_correlation"] = metrics.matthews_corrcoef(actual, predicted)
    assert scores.label_metrics(actual, predicted, classes) == pytest.approx(want, abs=1e-12)
    assert {*scores.LABEL_METRICS} <= {*want}


NUMBERS = st.lists(
    st.tuples(*2 * [st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6, width=32))]),
    min_size=2,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_correlations(pairs):
    x, y = np.array(pairs, np.float64).T
    if np.ptp(x) < 1e-3 or np.ptp(y) < 1e-3:  # scipy's are not defined, or noise
        return
    want = scipy.stats.pearsonr(x, y).statistic
    assert scores.pearson(x, y) == pytest.approx(want, abs=1e-6)
    assert scores.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y)[0], abs=1e-9)
    np.testing.assert_array_equal(scores.ranks(x), scipy.stats.rankdata(x))


def test_a_constant_has_no_correlation():
    assert scores.pearson([1, 1, 1], [1, 2, 3]) == scores.spearman([2, 2], [1, 3]) == 0


def test_correlation_of_tiny_and_of_huge_numbers():
    x = np.array([1.0, 2.0, 4.0])
    assert scores.pearson(x * 1e-200, x * 1e200) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=30))
def test_auroc(pairs):
    actual, result = zip(*pairs, strict=True)
    want = metrics.roc_auc_score(actual, result) if len({*actual}) == 2 else 0
    assert scores.auroc(actual, result) == pytest.approx(want)


def test_multirc_counts_answers_and_questions():
    groups = ["a", "a", "a", "b", "b"]
    result = scores.grouped(groups, [1, 0, 1, 1, 0], [1, 0, 0, 1, 0])
    assert result["f1a"] == pytest.approx(metrics.f1_score([1, 0, 1, 1, 0], [1, 0, 0, 1, 0]))
    assert result["exact_match"] == 0.5
    assert result["multirc"] == pytest.approx((result["f1a"] + 0.5) / 2)


def test_no_metric_has_two_names_but_both_select_the_best_model():
    actual, predicted = [0, 1, 2, 2, 1, 0, 2, 2], [0, 2, 2, 2, 0, 0, 1, 2]
    values = list(scores.label_metrics(actual, predicted, 3).values())
    assert len({round(value, 9) for value in values}) == len(values)
    for task in (tasks.Classification, tasks.TokenClassification):
        options = {"scheme": "none"} if task is tasks.TokenClassification else {}
        for name in scores.SAME_AS_ACCURACY:
            assert task(best_metric=name, **options).best_metric == "accuracy"
            assert name not in task(**options).metric_names
    assert tasks.MultiLabel(best_metric="recall_micro").best_metric == "recall_micro"
