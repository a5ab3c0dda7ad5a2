"""Tokens of queries and documents, and their scores."""

import dataclasses

import models
import numpy as np
import pytest

from modernbert_jax import late_interaction
from modernbert_jax.errors import UserError
from modernbert_jax.late_interaction import maxsim, mean_maxsim, pool_tokens, tokenize
from modernbert_jax.pipeline import LateInteraction, TokenPooling
from modernbert_jax.tokenizer import Tokenizer

TOKENIZER = Tokenizer(models.tokenizer(models.MODELS["colbert"]))
Q, D = (TOKENIZER.backend.token_to_id(prefix) for prefix in ("[Q] ", "[D] "))
LATE = LateInteraction(
    query_prefix="[Q] ",
    document_prefix="[D] ",
    query_length=12,
    document_length=9,
    expansion="fixed",
    skiplist=("!", ",", "no such token"),
)


def run(text, late=LATE, **options):
    (tokens,) = tokenize([text], TOKENIZER, late, **{"is_query": True, "longest": 64} | options)
    return tokens


def test_queries_are_filled_up():
    (plain,) = TOKENIZER.encode(["a b"])
    tokens = run("  a b ")
    assert tokens.ids[: len(plain) + 1] == [plain[0], Q, *plain[1:]]
    assert tokens.ids[len(plain) + 1 :] == [TOKENIZER.mask_id] * (11 - len(plain))
    assert tokens.visible == len(plain) + 1 and tokens.counted.all()
    assert run("a b", dataclasses.replace(LATE, attend=True)).visible == 12
    assert len(run("a b", LateInteraction(query_prefix="[Q] ")).ids) == len(plain) + 1


def test_short_queries_are_filled_up_to_a_least_length():
    late = dataclasses.replace(LATE, expansion="min", expansion_length=6, filler="[SEP]")
    tokens = run("a", late)
    assert tokens.ids == [*TOKENIZER.encode(["[Q] a"])[0], *[TOKENIZER.sep_id] * 2]
    assert tokens.visible == 4 and tokens.counted.all() and len(tokens.counted) == 6
    (plain,) = TOKENIZER.encode(["[Q] a b c d"])
    assert 6 < len(plain) < 12 and run("a b c d", late).ids == plain
    assert len(run("a b c d " * 9, late).ids) == 12
    assert len(run("a b c d " * 90, dataclasses.replace(late, query_length=None)).ids) == 64


def test_contradictions_are_refused():
    for message, fields in {
        "expansion is 'max'": {"expansion": "max"},
        "needs expansion_length": {"expansion": "min"},
        "up to 13 tokens, but they may have 12": {"expansion": "min", "expansion_length": 13},
        "the token 'no such', which": {"filler": "no such"},
    }.items():
        with pytest.raises(UserError, match=message):
            run("a", dataclasses.replace(LATE, **fields))


def test_lengths_include_the_prefix():
    assert len(run("a b c d " * 9).ids) == 12
    cut = run("a b c d " * 9, is_query=False)
    assert len(cut.ids) == 9 and cut.ids[:2] == [TOKENIZER.cls_id, D]
    assert cut.ids[-1] == TOKENIZER.sep_id
    assert len(run("a " * 90, LateInteraction(), is_query=False).ids) == 64


def test_documents_leave_words_out():
    tokens = run("a, b!", is_query=False)
    skipped = [TOKENIZER.token(i) for i, c in zip(tokens.ids, tokens.counted, strict=True) if not c]
    assert skipped == [",", "!"]


def test_a_prefix_that_is_no_token_is_text():
    tokens = run("a b", LateInteraction(query_prefix="ask: "))
    assert [tokens.ids] == TOKENIZER.encode(["ask: a b"])
    known = run("c d", LateInteraction(query_prefix="hello"))  # a word of the vocabulary
    assert [known.ids] == TOKENIZER.encode(["helloc d"])


def test_texts_and_prefixes_that_are_text_are_converted_to_lower_case():
    for late in LATE, LateInteraction(query_prefix="Ask: "):
        small = dataclasses.replace(late, query_prefix=late.query_prefix.lower())
        own = run("Hello A", late, lower_case=True)
        assert own.ids == run("hello a", late if Q in own.ids else small).ids
        assert own.ids != run("Hello A", late).ids


def test_pooling_replaces_clusters_by_their_means():
    x = np.eye(6, 4, dtype=np.float32)
    x[4], x[5] = [0, 0.8, 0.6, 0], [1, 0, 0, 0]
    pooled = pool_tokens(x, TokenPooling(factor=2, protected=2, normalize=False))
    assert pooled.shape == (4, 4) and pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled[:2], x[:2])
    np.testing.assert_allclose(pooled[2:], [(x[2] + x[4]) / 2, (x[3] + x[5]) / 2], atol=1e-7)
    assert len(pool_tokens(x, TokenPooling(factor=99, protected=0))) == 1
    np.testing.assert_array_equal(pool_tokens(3 * x, TokenPooling()), x)
    np.testing.assert_array_equal(pool_tokens(3 * x, TokenPooling(normalize=False)), 3 * x)
    assert pool_tokens(x[:0], TokenPooling(factor=2)).shape == (0, 4)
    with pytest.raises(UserError, match="not finite"):
        pool_tokens(np.nan * x, TokenPooling(factor=2))
    for fields, message in (({"factor": 0.5}, "is 0.5; it"), ({"protected": -1}, "-1 vectors")):
        with pytest.raises(UserError, match=message):
            TokenPooling(**fields)


def test_maxsim_equals_loops():
    rng = np.random.default_rng(0)
    queries = [rng.standard_normal((n, 5), np.float32) for n in (1, 7)]
    documents = [rng.standard_normal((n, 5), np.float32) for n in (3, 1, 0)]
    scores = maxsim(queries, documents)
    assert scores.shape == (2, 3) and not scores[:, 2].any()
    for q, query in enumerate(queries):
        for d, document in enumerate(documents[:2]):
            want = sum(max(float(a @ b) for b in document) for a in query)
            assert scores[q, d] == pytest.approx(want, rel=1e-5)
    empty = [*queries, queries[0][:0]]
    np.testing.assert_allclose(mean_maxsim(empty, documents)[:2] * [[1], [7]], scores, rtol=1e-6)
    assert not mean_maxsim(empty, documents)[2].any()
    with pytest.raises(UserError, match="lists of"):
        maxsim(queries[0], documents)


def test_texts_that_are_cut_are_told_from_those_that_are_filled_up():
    cut: list[bool] = []
    texts = ["a b", " ".join(["a b"] * 20)]
    tokens = tokenize(texts, TOKENIZER, LATE, is_query=True, longest=64, cut=cut)
    assert [len(one.ids) for one in tokens] == [12, 12] and cut == [False, True]


def test_scores_of_many_texts_are_those_of_loops(monkeypatch):
    monkeypatch.setattr(late_interaction, "_TOKENS", 20)
    rng = np.random.default_rng(0)
    queries, documents = (
        [rng.standard_normal((int(n), 4)).astype(np.float32) for n in rng.integers(0, 9, count)]
        for count in (5, 30)
    )
    expected = [[(q @ d.T).max(1).sum() if len(d) else 0.0 for d in documents] for q in queries]
    np.testing.assert_allclose(maxsim(queries, documents), expected, atol=1e-5)
    assert maxsim(queries, []).shape == (5, 0) and maxsim([], documents).shape == (0, 30)
