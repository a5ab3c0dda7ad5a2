"""Vocabulary transfer: embeddings for the tokens of another tokenizer."""

import corpus
import numpy as np
import pytest

from modernbert_jax import tokenizer
from modernbert_jax.train.pretrain import vocabulary


@pytest.fixture(scope="module")
def old():
    return corpus.make_tokenizer()


@pytest.fixture(scope="module")
def new():
    """A tokenizer of another corpus: old words, new words, and letters of two bytes."""
    texts = [f"{text} wixy wixyzu überall" for text in corpus.texts(40)]
    return tokenizer.train(texts, 384)


@pytest.fixture(scope="module")
def matched(old, new):
    return vocabulary.match(old, new, 448)


def test_shared_tokens_keep_their_embedding(old, new, matched):
    theirs = old.backend.get_vocab(with_added_tokens=True)
    shared = 0
    for id_ in range(new.vocab_size):
        if (token := new.token(id_)) in theirs:
            shared += 1
            assert matched.pieces[id_] == (theirs[token],)
    assert shared == matched.shared > 250
    assert matched.pieces[new.mask_id] == (old.mask_id,) and old.mask_id != new.mask_id


def test_other_tokens_are_the_mean_of_their_pieces(old, new, matched):
    composed = {new.decode([i]): ids for i, ids in enumerate(matched.pieces) if len(ids) > 1}
    assert len(composed) == matched.composed > 20
    assert all(old.decode(ids) == text for text, ids in composed.items())
    params = {
        "encoder": {
            "embeddings": {"embedding": np.arange(320, dtype=np.float32)[:, None] * [1, 2]}
        },
        "decoder": {"bias": np.arange(320, dtype=np.float32)},
        "head": {"norm": {"scale": np.ones(2, np.float32)}},
    }
    fresh = {
        "encoder": {"embeddings": {"embedding": np.full((448, 2), -7, np.float32)}},
        "decoder": {"bias": np.zeros(448, np.float32)},
    }
    transferred = vocabulary.transfer(params, fresh, matched)
    table = transferred["encoder"]["embeddings"]["embedding"]
    for id_, pieces in enumerate(matched.pieces):
        wanted = np.mean([[p, 2 * p] for p in pieces], axis=0) if pieces else [-7, -7]
        np.testing.assert_allclose(table[id_], wanted, rtol=1e-6)
        np.testing.assert_allclose(
            transferred["decoder"]["bias"][id_], wanted[0] if pieces else 0, rtol=1e-6
        )
    assert transferred["head"] is not params["head"] and np.array_equal(
        transferred["head"]["norm"]["scale"], [1, 1]
    )


def test_tokens_that_are_no_text_start_from_random_values(old, new, matched):
    """Both have all bytes, so half characters are shared; ids after the vocabulary are not."""
    assert not any(matched.pieces[new.vocab_size :])
    without = vocabulary.match(old, new, new.vocab_size)
    assert str(without).endswith("0 with random values")
    counts = [int(n.replace(",", "")) for n in str(matched).split() if n.replace(",", "").isdigit()]
    assert sum(counts) == 448 and counts[1] == matched.composed > 0
