"""Entities, read leniently and strictly, and their metrics are those of seqeval."""

import pytest
import seqeval.metrics
import seqeval.scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from modernbert_jax import UserError
from modernbert_jax.train.tasks import entities, schemes
from modernbert_jax.train.tasks.schemes import Entity

pytestmark = pytest.mark.filterwarnings("ignore")


def tags(scheme, types="XY"):
    prefixes = "BILOU" if scheme == "BILOU" else schemes.SCHEMES[scheme].prefixes
    return ["O", *(f"{p}-{t}" for p in prefixes if p != "O" for t in types)]


def sequences(scheme, **size):
    return st.lists(st.sampled_from(tags(scheme)), **size)


def parsed(result, scheme):
    return [schemes.parse(tag, scheme) for tag in result]


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
def test_strict_entities(scheme):
    theirs = getattr(seqeval.scheme, scheme)

    @settings(max_examples=200, deadline=None)
    @given(sequences(scheme, max_size=8))
    def check(result):
        want = [(e.tag, e.start, e.end) for e in seqeval.scheme.Tokens(result, theirs).entities]
        assert schemes.strict(parsed(result, scheme), scheme) == want

    check()


@pytest.mark.parametrize("scheme", sorted({*schemes.SCHEMES} - {"BILOU"}))
def test_lenient_entities(scheme):
    @settings(max_examples=200, deadline=None)
    @given(sequences(scheme, max_size=8))
    def check(result):
        want = [(kind, start, end + 1) for kind, start, end in get_entities(result)]
        assert schemes.lenient(parsed(result, scheme)) == want

    check()


def test_bilou_is_read_as_iobes():
    assert schemes.lenient(parsed(["U-X", "U-X", "B-Y", "L-Y"], "BILOU")) == [
        Entity("X", 0, 1),
        Entity("X", 1, 2),
        Entity("Y", 2, 4),
    ]


@st.composite
def texts(draw, scheme):
    """Tags of a few texts, actual and predicted."""
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    return [[draw(sequences(scheme, min_size=n, max_size=n)) for n in lengths] for _ in range(2)]


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE2", "IOBES"])
def test_metrics(scheme):
    @settings(max_examples=40, deadline=None)
    @given(texts(scheme))
    def check(case):
        actual, predicted = case
        result = entities.metrics(*([parsed(t, scheme) for t in side] for side in case), scheme)
        strict = {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
        for name in ("precision", "recall", "f1"):
            score = getattr(seqeval.metrics, f"{name}_score")
            assert result[name] == pytest.approx(score(actual, predicted, zero_division=0))
            want = score(actual, predicted, zero_division=0, **strict)
            assert result[f"strict_{name}"] == pytest.approx(want)
        if any(tag != "O" for side in case for tags in side for tag in tags):
            want = seqeval.metrics.f1_score(actual, predicted, average="macro", zero_division=0)
            assert result["f1_macro"] == pytest.approx(want)
        report = seqeval.metrics.classification_report(
            actual, predicted, output_dict=True, zero_division=0
        )
        for kind in {*report} & {"X", "Y"}:
            assert result[f"f1_{kind}"] == pytest.approx(report[kind]["f1-score"])
        want = seqeval.metrics.accuracy_score(actual, predicted)
        assert entities.accuracy(actual, predicted) == pytest.approx(want)

    check()


@st.composite
def marked(draw):
    """A length, and entities that do not overlap."""
    gaps = draw(st.lists(st.tuples(*[st.integers(0, 2), st.integers(1, 3)]), max_size=4))
    result, at = [], 0
    for gap, length in gaps:
        at += gap
        result.append(Entity(draw(st.sampled_from("XY")), at, at + length))
        at += length
    return result, at + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
def test_what_is_written_is_read_again(scheme):
    @settings(max_examples=100, deadline=None)
    @given(marked())
    def check(case):
        result, length = case
        written = parsed(schemes.write(result, length, scheme), scheme)
        assert schemes.first_break(written, scheme) is None
        if scheme != "IOE1":  # seqeval does not read all of its cases
            assert schemes.strict(written, scheme) == result

    check()


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE2", "IOBES", "BILOU"])
def test_tags_break_the_scheme_unless_it_would_write_them(scheme):
    @settings(max_examples=200, deadline=None)
    @given(sequences(scheme, min_size=1, max_size=5))
    def check(result):
        read = schemes.strict(parsed(result, scheme), scheme)
        legal = schemes.write(read, len(result), scheme) == result
        assert (schemes.first_break(parsed(result, scheme), scheme) is None) == legal

    check()


def test_ioe1_breaks():
    assert schemes.first_break(parsed(["I-X", "E-X", "I-X"], "IOE1"), "IOE1") is None
    assert schemes.first_break(parsed(["I-X", "E-X", "O"], "IOE1"), "IOE1") == 1


@pytest.mark.parametrize("tag", ["B-", "X-PER", "PER", "", "BPER", "E-PER"])
def test_unknown_tags(tag):
    with pytest.raises(UserError, match=f"tag '{tag}' is none of IOB2's"):
        schemes.parse(tag, "IOB2")
