"""Tokens of words, of pairs and of windows are those that transformers gives its models."""

import numpy as np
import pytest
import tokenizers
import transformers

from modernbert_jax import alignment, tokenizer
from modernbert_jax.train.tasks import (
    IGNORED,
    QuestionAnswering,
    Record,
    Records,
    TokenClassification,
)

VERSION = int(transformers.__version__.split(".")[0])
ALPHABET = [
    *(
        "the",
        "a",
        "cat",
        "dogs",
        "U.S.",
        "naïve",
        "e\u0301t",
        "日本",
        "🙂",
        "x1,000",
        "don't",
        "--",
    ),
    *("[MASK]", "a[SEP]b", "[CLS]", "  ", "\t", " lead", "trail ", "\n", "\u200e", "..."),
]
TEXTS = [" ".join(ALPHABET), "the cat and the dogs", "naïve cat (don't) 1,000 U.S. dogs."] * 3


@pytest.fixture(scope="module")
def own() -> tokenizer.Tokenizer:
    return tokenizer.train(TEXTS, 330, max_length=512)


@pytest.fixture(scope="module")
def folder(own, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    own.save(path)
    return path


def texts(count: int, longest: int, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [
        [ALPHABET[i] for i in rng.integers(0, len(ALPHABET), rng.integers(1, longest))]
        for _ in range(count)
    ]


def spaced(folder):
    """A tokenizer that puts a space before words. Version 5 ignores the option; it is set here."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    if VERSION > 4:
        theirs.backend_tokenizer.pre_tokenizer = level
    return theirs


def test_words(own, folder):
    sentences = texts(300, 20)
    want = spaced(folder)(sentences, is_split_into_words=True, add_special_tokens=False)
    for i, pieces in enumerate(alignment.words(own, sentences)):
        assert pieces.ids.tolist() == want["input_ids"][i], sentences[i]
        words = [-1 if w is None else w for w in want.word_ids(i)]
        assert pieces.words.tolist() == words, sentences[i]


@pytest.mark.parametrize("all_pieces", [False, True])
def test_labels_of_tokens(own, folder, all_pieces):
    """The layout of transformers' example for token classification."""
    names = ("O", "B-X", "I-X", "B-Y")
    rng = np.random.default_rng(1)
    sentences = texts(50, 12, seed=1)
    tags = [[("O", "B-X", "B-Y")[i] for i in rng.integers(0, 3, len(words))] for words in sentences]
    records = Records(
        Record(f"x:{i}", {"tokens": w, "ner_tags": t})
        for i, (w, t) in enumerate(zip(sentences, tags, strict=True))
        if any(map(str.strip, w))
    )
    theirs = spaced(folder)
    task = TokenClassification(labels=names, label_all_pieces=all_pieces, max_length=512)
    for example, record in zip(task.examples(records, own), records, strict=True):
        encoded = theirs(record.values["tokens"], is_split_into_words=True)
        assert example.sequences[0].tolist() == encoded["input_ids"]
        want, before = [], None
        for word in encoded.word_ids():
            if word is None:
                want.append(IGNORED)
            else:
                tag = record.values["ner_tags"][word]
                later = "I-X" if tag == "B-X" else tag
                later = names.index(later) if all_pieces else IGNORED
                want.append(names.index(tag) if word != before else later)
            before = word
        assert example.target[0].tolist() == want


@pytest.mark.parametrize("max_length", [9, 16, 40])
def test_pairs_are_cut_alike(own, folder, max_length):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [tuple(" ".join(t) for t in texts(2, 25, seed)) for seed in range(100)]
    want = theirs(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=max_length)
    assert own.encode_pairs(pairs, max_length=max_length) == want["input_ids"]


@pytest.mark.parametrize("max_length,stride", [(64, 16), (40, 0), (512, 128)])
def test_windows_of_a_long_text(own, folder, max_length, stride):
    """Ids, offsets and places of answers, as transformers' example for SQuAD has them."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(2)
    for seed in range(40):
        question, context = (" ".join(t) for t in texts(2, 6 if seed % 2 else 9, seed))
        context += int(seed / 4) * " the cat naïve dogs don't 1,000"
        words = context.split()
        answer = words[rng.integers(len(words))]
        start = context.index(answer)
        record = {
            "question": question + "?",
            "context": context,
            "answers": {"text": [answer], "answer_start": [start]},
        }
        task = QuestionAnswering(max_length=max_length, stride=stride)
        (example,) = task.examples(Records([Record("x:1", record)]), own)
        encoded = theirs(
            record["question"].lstrip(),
            context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert [s.tolist() for s in example.sequences] == encoded["input_ids"]
        for i, spans in enumerate(example.source.spans):
            of_text = np.array([s == 1 for s in encoded.sequence_ids(i)])
            offsets = np.array(encoded["offset_mapping"][i])
            np.testing.assert_array_equal(spans[of_text], offsets[of_text])
            assert (spans[~of_text] == -1).all()
            assert example.target[i] == theirs_of(offsets, of_text, start, start + len(answer))


def theirs_of(offsets, of_text, start: int, stop: int) -> tuple[int, int]:
    """The token where the answer begins, and that where it ends, by going along the tokens."""
    tokens = [i for i in range(len(offsets)) if of_text[i]]
    if not tokens or offsets[tokens[0]][0] > start or offsets[tokens[-1]][1] < stop:
        return 0, 0
    first = next(i for i in tokens if offsets[i][0] <= start < offsets[i][1])
    last = next(i for i in reversed(tokens) if offsets[i][0] < stop <= offsets[i][1])
    return first, last
