"""Tokens lead back to the words and characters that they came from."""

import json

import numpy as np
import pytest
import tokenizers

from modernbert_jax import alignment
from modernbert_jax.tokenizer import Tokenizer, train

TEXT = 'The naïve cat (don\'t) said: "1,000 U.S. e\u0301tés" \n\n 🙂日本  and left.'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([TEXT] * 3, 300)


def test_words_are_spelled_as_within_a_text(tokenizer):
    words = ["The", "cat", "", "(", "日本", " spaced", "[MASK]"]
    (pieces,) = alignment.words(tokenizer, [words])
    for i, word in enumerate(words):
        ids = pieces.ids[pieces.words == i].tolist()
        assert tokenizer.decode(ids).strip() == word.strip()
        if word == "cat":
            assert ids == tokenizer.encode_raw([" cat"])[0] != tokenizer.encode_raw(["cat"])[0]
        assert bool(ids) == bool(word)
    assert (np.diff(pieces.words) >= 0).all()


def test_words_get_a_space_from_other_kinds_of_tokenizers():
    """Gemma's writes spaces as ▁ by a normalizer, and has no level of bytes to tell."""
    spec = tokenizers.Tokenizer(
        tokenizers.models.BPE({"▁": 0, "a": 1, "▁a": 2, "b": 3}, [("▁", "a")])
    )
    spec.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer = Tokenizer({"tokenizer.json": spec.to_str().encode()})
    (pieces,) = alignment.words(tokenizer, [["a", "b", "a"]])
    assert pieces.ids.tolist() == [2, 0, 3, 2] and pieces.words.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("byte_level", [True, False])
def test_a_spaced_tokenizer_gives_words_and_their_text_the_same_tokens(tokenizer, byte_level):
    """Also in transformers 5, which reads nothing but tokenizer.json."""
    if not byte_level:
        spec = tokenizers.Tokenizer(
            tokenizers.models.BPE({"▁": 0, "a": 1, "▁a": 2, "b": 3}, [("▁", "a")])
        )
        spec.normalizer = tokenizers.normalizers.Replace(" ", "▁")
        tokenizer = Tokenizer({"tokenizer.json": spec.to_str().encode()})
    words = ["a", "b", "a"] if not byte_level else ["The", "cat", "(", "n't", "日本", "1,000"]
    spaced = alignment.spaced(tokenizer)
    (pieces,) = alignment.words(tokenizer, [words])
    plain = tokenizers.Tokenizer.from_str(spaced.files["tokenizer.json"].decode())
    split = plain.encode(words, is_pretokenized=True, add_special_tokens=False)
    joined = plain.encode(" ".join(words), add_special_tokens=False)
    assert split.ids == joined.ids == pieces.ids.tolist()
    assert plain.encode(" a").ids == plain.encode("a").ids
    if byte_level:  # transformers 4 takes the space away without this key
        assert json.loads(spaced.files["tokenizer_config.json"])["add_prefix_space"] is True


def test_pieces_of_a_text_are_within_their_words(tokenizer):
    ((pieces, borders),) = alignment.pieces(tokenizer, [TEXT])
    assert pieces.ids.tolist() == tokenizer.encode_raw([TEXT])[0]
    words = [TEXT[a:b] for a, b in borders]
    assert words[:7] == ["The", "naïve", "cat", "(", "don", "'t", ")"]
    assert all(word == word.strip() != "" for word in words)
    assert "".join(words) == "".join(TEXT.split())
    assert {*pieces.words.tolist()} - {-1} == {*range(len(words))}


def test_a_word_of_a_text_begins_where_it_does_among_words(tokenizer):
    """Also where the vocabulary has no token of the space and a letter, but one of the space."""
    spaced, texts = alignment.spaced(tokenizer), [["The", "zz", "cat"], ["日本", "q"]]
    joined = alignment.pieces(spaced, [" ".join(words) for words in texts])
    for split, (whole, _) in zip(alignment.words(tokenizer, texts), joined, strict=True):
        assert split.ids.tolist() == whole.ids.tolist()
        assert split.words.tolist() == whole.words.tolist()


def test_a_text_of_nothing_but_space_has_no_words(tokenizer):
    ((pieces, borders),) = alignment.pieces(tokenizer, [" \n "])
    assert len(pieces.ids) and (pieces.words == -1).all() and borders.shape == (0, 2)


def test_windows_share_tokens_and_cover_the_text(tokenizer):
    question, room = "the cat", 12
    first = len(tokenizer.encode_raw([question])[0])
    (windows,) = alignment.windows(tokenizer, [(question, TEXT)], first + 3 + room, 5)
    inner = [w.ids[w.spans[:, 0] >= 0].tolist() for w in windows]
    assert all(len(ids) == room for ids in inner[:-1]) and len(inner) > 3
    joined = inner[0]
    for ids in inner[1:]:
        assert joined[-5:] == ids[:5]
        joined = joined + ids[5:]
    assert joined == tokenizer.encode_raw([TEXT])[0]
    for w in windows:
        assert w.ids[0] == tokenizer.cls_id and w.ids[-1] == tokenizer.sep_id
        assert w.ids[: first + 2].tolist() == windows[0].ids[: first + 2].tolist()


def test_a_short_pair_is_one_window_and_a_long_question_leaves_none(tokenizer):
    short, none = alignment.windows(tokenizer, [("a", "cat"), (TEXT, TEXT)], 40, 30)
    assert [w.ids.tolist() for w in short] == tokenizer.encode_pairs([("a", "cat")])
    assert none == []


def test_around(tokenizer):
    assert alignment.around(tokenizer) == ([tokenizer.cls_id], [tokenizer.sep_id])
    spec = json.loads(tokenizer.files["tokenizer.json"]) | {"post_processor": None}
    assert alignment.around(Tokenizer({"tokenizer.json": json.dumps(spec).encode()})) == ([], [])
