"""Pairs of query and document: their tokens, drawn negatives, labels, and refusals."""

import corpus
import numpy as np
import pairs
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.retrieval.data import ExampleSet, TextExample
from modernbert_jax.train.retrieval.losses import RERANKER_LOSSES
from modernbert_jax.train.retrieval.rerank_pairs import pairs_of

LISTS = RERANKER_LOSSES["list-net"]


def dataset(*examples, targets="none", columns=("query", "positive", "negative")):
    """A data set of (texts, target)."""
    made = [TextExample(texts, target, f"f:{i + 1}") for i, (texts, target) in enumerate(examples)]
    return ExampleSet("small", columns, made, targets)


def tokenized(examples, loss=LISTS, tokenizer=None, pipeline=None, **options):
    pipeline = pipeline or Pipeline(kind="reranker")
    tokenizer = tokenizer or corpus.make_tokenizer()
    return pairs_of(examples, loss, tokenizer, pairs.architecture(), pipeline, **options)


TEXTS = dataset(
    (("ba ce", "di fo gu", "ha"), ()),
    (("ba ce di fo gu", "ha", "la me no pa re si to"), ()),
)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [9, 128])
def test_pairs_have_the_tokens_of_the_tokenizer(side, length):
    """Cut like those of `encode_pairs`, from texts that are tokenized once."""
    tokenizer = Tokenizer(
        {
            "tokenizer.json": corpus.make_tokenizer().files["tokenizer.json"],
            "tokenizer_config.json": b'{"truncation_side": "%s"}' % side.encode(),
        }
    )
    pipeline = Pipeline(
        kind="reranker", max_length=length, prompts={"web": "si: "}, default_prompt="web"
    )
    made = tokenized(TEXTS, tokenizer=tokenizer, pipeline=pipeline)
    texts = [("si: " + e.texts[0], d) for e in TEXTS.examples for d in e.texts[1:]]
    wanted = tokenizer.encode_pairs(texts, max_length=length)
    assert [made.tokens[number] for number in made.of_batch(np.arange(2)).ravel()] == wanted
    assert [n for of_one in made.lengths() for n in of_one] == [len(ids) for ids in wanted]
    cut: list[bool] = []
    tokenizer.encode_pairs(texts, max_length=length, cut=cut)
    assert made.cut == sum(cut) and (made.cut > 0) == (length == 9)
    assert made.starts(np.array([3, -1])).tolist() == [len(tokenizer.encode(["si: "])[0]) - 1, 0]


def test_drawn_negatives_are_documents_of_other_queries():
    examples = pairs.dataset(pairs.records(6, negatives=1))
    ranking = RERANKER_LOSSES["multiple-negatives-ranking"]
    made = tokenized(examples, ranking, drawn=3, seed=5)
    chosen = np.array([4, 0, 2, 5])
    numbers = made.of_batch(chosen)
    assert numbers.shape == (4, 5) and made.width == 5
    base = len(made.tokens.texts)
    own = made.documents[chosen]
    np.testing.assert_array_equal(numbers // base, np.repeat(made.queries[chosen, None], 5, 1))
    for row, documents in zip(numbers % base, own, strict=True):
        np.testing.assert_array_equal(row[:2], documents)
        drawn = row[2:]
        assert len({*drawn}) == 3 and not {*drawn} & {*documents} and {*drawn} <= {*own.ravel()}
    # They follow from the seed and the batch alone.
    np.testing.assert_array_equal(made.of_batch(chosen), numbers)
    other = tokenized(examples, ranking, drawn=3, seed=6)
    assert (other.of_batch(chosen) != numbers).any()
    # A small batch has fewer, and bounds hold for any draw.
    assert (made.of_batch(chosen[:2]) >= 0).sum(1).tolist() == [4, 4]
    longest = made.longest()
    for example, row in zip(chosen, numbers, strict=True):
        lengths = [len(made.tokens[number]) for number in row]
        assert sum(lengths) <= sum(longest[example])


def test_no_known_positive_is_drawn():
    """The positive of another example of the same query is one, also if another query has it."""
    examples = dataset(*(((query, positive), ()) for query, positive in ("ab", "ac", "dc", "de")))
    ranking = RERANKER_LOSSES["multiple-negatives-ranking"]
    made = tokenized(examples, ranking, drawn=2)
    drawn = made.of_batch(np.array([0, 2, 3]))[:, 1:]
    b, e = made.documents[[0, 3], 0]
    a, d = made.queries[[0, 2]]
    wanted = made.tokens.numbers(np.array([a, d, d]), np.array([e, b, b]))
    assert np.sort(drawn).tolist() == [[-1, number] for number in wanted]


def test_positives_and_negatives_are_labels_where_the_loss_has_labels():
    made = tokenized(TEXTS)
    assert made.kind == "scores" and made.targets.tolist() == [[1, 0], [1, 0]]
    assert tokenized(TEXTS, RERANKER_LOSSES["mse"]).kind == "none"
    scored = dataset((("ba", "ce", "di"), (3.5, -2.0)), targets="scores")
    assert tokenized(scored, RERANKER_LOSSES["mse"]).targets.tolist() == [[3.5, -2.0]]


@pytest.mark.parametrize(
    ("examples", "loss", "options", "message"),
    [
        (
            dataset((("ba", "ce"), (2.0,)), (("di", "fo"), (-1.0,)), targets="label"),
            "binary-cross-entropy",
            {},
            r"f:1: label 2 must be 0 to 1.*mse",
        ),
        (
            TEXTS,
            "list-net",
            {"pipeline": Pipeline(kind="reranker", max_length=4, prompts={"a": "ba ce "},
                                  default_prompt="a")},
            "leaves no room in pairs of 4 tokens",
        ),
    ],
)  # fmt: skip
def test_refusals(examples, loss, options, message):
    with pytest.raises(UserError, match=message):
        tokenized(examples, RERANKER_LOSSES[loss], **options)
