"""Tokenized data sets: equal texts, prompts, lengths by column, targets, and what is refused."""

import dataclasses

import corpus
import numpy as np
import pairs
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.retrieval.config import RetrievalConfig
from modernbert_jax.train.retrieval.data import ExampleSet, TextExample
from modernbert_jax.train.retrieval.texts import Tokens, tokenize

TEXTS = (("ba ce", "di fo gu", "ka le"), ("mi no", "ba ce"), ("di fo gu", "ba ce", "ka le"))
MODEL = pairs.architecture()


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def data(targets="none", values=((), (), ())):
    examples = [TextExample(t, v, "f:1") for t, v in zip(TEXTS, values, strict=True)]
    return ExampleSet("web", ("query", "positive", "negative"), examples, targets)


def config(**changes):
    return RetrievalConfig(**{"kind": "embedding", "max_length": 16} | changes)


def test_texts_and_sequences_have_numbers(tokenizer):
    texts = tokenize(config(prompts={"query": "pu: "}), data(), tokenizer, MODEL)
    assert texts.texts.tolist() == [[0, 1, 2], [3, 0, -1], [1, 0, 2]]
    assert (texts.sequences >= 0).tolist() == (texts.texts >= 0).tolist()
    assert texts.sequences[0, 2] == texts.sequences[2, 2]  # a text is tokenized once for a prompt
    assert texts.sequences[0, 0] != texts.sequences[1, 1]
    prompted, plain = tokenizer.encode(["pu: ba ce", "ba ce"])
    assert texts.tokens[texts.sequences[0, 0]].tolist() == prompted
    assert texts.tokens[texts.sequences[1, 1]].tolist() == plain
    prompt = len(tokenizer.encode(["pu: "])[0]) - 1
    assert texts.start[texts.sequences[:, 0]].tolist() == [prompt] * 3
    assert not texts.start[texts.sequences[0, 1:]].any()
    assert texts.lengths()[1] == [len(tokenizer.encode(["pu: mi no"])[0]), len(plain)]


def test_columns_have_their_own_length(tokenizer):
    texts = tokenize(config(lengths={"query": 8}), data(), tokenizer, MODEL)
    longest = texts.tokens.lengths[texts.sequences]
    assert longest[:, 0].max() <= 8 and texts.cut == sum(
        len(ids) > length
        for column, length in (((0, 1, 2), 8), ((0, 1, 2), 16))
        for ids in tokenizer.encode(sorted({t[0] for t in TEXTS}) if length == 8 else [])
    )


def test_targets_are_filled_up(tokenizer):
    values = ((1.0, 0.5), (2.0,), (0.0, 3.0))
    texts = tokenize(config(), data("scores", values), tokenizer, MODEL)
    assert texts.targets.tolist() == [[1.0, 0.5], [2.0, 0.0], [0.0, 3.0]]
    assert texts.targets.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": {"positive": 10_000}}, "positive takes texts of 10,000 tokens.*8,192"),
        ({"prompts": {"query": "ba ce di fo gu ka le mi no pu " * 3}}, "leaves no room"),
        ({"max_length": 2}, "special tokens leave no room in texts of 2 tokens"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(changes, words, tokenizer):
    with pytest.raises(UserError, match=words):
        tokenize(config(**changes), data(), tokenizer, MODEL)


def test_a_text_may_have_no_tokens():
    tokens = Tokens.join([[], [3]], 4)
    assert tokens.lengths.tolist() == [0, 1]


def test_unknown_ids_are_refused(tokenizer):
    with pytest.raises(UserError, match="those of the model are 0 to 317"):
        tokenize(
            config(prompts={"query": "[MASK]"}),
            data(),
            tokenizer,
            dataclasses.replace(MODEL, vocab_size=318, pad_token_id=None),
        )
