"""Late interaction in PyLate or sentence-transformers 6: layouts, expansion, new tokens, scores."""

import dataclasses
import json

import make_models
import models
import numpy as np
import pytest
import transformers

from modernbert_jax import ModernBert, convert
from modernbert_jax.convert.module_files import SETTINGS
from modernbert_jax.late_interaction import pool_tokens
from modernbert_jax.pipeline import (
    IDENTITY,
    Dense,
    LateInteraction,
    Normalize,
    Pipeline,
    TokenPooling,
)

VERSION = int(transformers.__version__.split(".")[0])
LATE = [n for n, m in models.MODELS.items() if m.kind == "late" and (VERSION > 4 or m.expressible)]
only_6 = pytest.mark.skipif(VERSION == 4, reason="sentence-transformers 6 alone")

TEXTS = [*models.TEXTS, "!", "a! b, c."]

NEW = Pipeline(
    kind="late-interaction",
    steps=(
        Dense(name="dense_0", in_features=32, out_features=16, bias=False, activation=IDENTITY),
        Normalize(),
    ),
    similarity="MaxSim",
    late=LateInteraction(
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=12,
        document_length=20,
        expansion="fixed",
        skiplist=("!", ","),
    ),
)
"""A new model with PyLate's settings, in small."""


def theirs(directory):
    """Vectors and scores of this environment's library, with the sizes of its vocabulary."""
    if VERSION == 4:
        from pylate import models as pylate
        from pylate import rank

        model = pylate.ColBERT(str(directory), device="cpu")
        queries = model.encode(models.QUERIES, is_query=True)
        documents = model.encode(TEXTS, is_query=False)
        scores = np.zeros((len(queries), len(TEXTS)), np.float32)
        for number, document in enumerate(documents):
            if not len(document):
                continue
            # One at a time: padding counts there as a token with products of 0.
            ranked = rank.rerank([[0]] * len(queries), queries, [[document]] * len(queries))
            scores[:, number] = [results[0]["score"] for results in ranked]
        table = model[0].auto_model.get_input_embeddings()
    else:
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(str(directory), device="cpu")
        queries, documents = model.encode_query(models.QUERIES), model.encode_document(TEXTS)
        scores = np.asarray(model.similarity(queries, documents))
        table = model[0].model.get_input_embeddings()
    return queries, documents, scores, (len(model.tokenizer), table.num_embeddings)


def assert_equal(directory):
    """The library and this one give the same vectors, scores and rankings."""
    bert = ModernBert.from_pretrained(directory, attention="dense")
    queries = bert.encode_tokens(models.QUERIES, is_query=True)
    documents = bert.encode_tokens(TEXTS)
    their_queries, their_documents, their_scores, sizes = theirs(directory)
    for ours, want in ((queries, their_queries), (documents, their_documents)):
        for a, b in zip(ours, want, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), atol=2e-5, rtol=0)
    scores = bert.similarity(queries, documents)
    empty = np.array([not len(x) for x in documents])
    assert not scores[:, empty].any()  # version 6 scores documents without tokens -1e9
    scores, their_scores = scores[:, ~empty], their_scores[:, ~empty]
    np.testing.assert_allclose(scores, their_scores, atol=2e-4, rtol=0)
    np.testing.assert_array_equal(np.argsort(-scores), np.argsort(-their_scores))
    return sizes


@pytest.mark.parametrize("name", LATE)
def test_vectors_scores_and_rankings(name, tmp_path):
    source = models.write(name, tmp_path / "a")
    convert.convert(source, tmp_path / "b", "sentence-transformers" if VERSION > 4 else "pylate")
    assert_equal(tmp_path / "b")


@only_6
@pytest.mark.parametrize("name", LATE)
def test_the_layout_of_version_6_keeps_what_was_computed(name, tmp_path):
    source = models.write(name, tmp_path / "a")
    convert.convert(source, tmp_path / "b", "sentence-transformers")
    before, after = (make_models.run(name, tmp_path / x) for x in "ab")
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array, err_msg=key)


def new(tmp_path, unused, **changes):
    """A directory of a new model, whose tokenizer has unused tokens or not."""
    base = convert.load(models.write("base", tmp_path / "base"))
    if not unused:
        content = base.files["tokenizer.json"].replace(b'"[unused', b'"[u')
        base = dataclasses.replace(base, files={**base.files, "tokenizer.json": content})
    base = convert.with_tokens(base, ["[Q] ", "[D] "])
    kernel = np.random.default_rng(0).standard_normal((32, 16), np.float32)
    params = {"encoder": base.params, "dense_0": {"linear": {"kernel": kernel}}}
    late = dataclasses.replace(NEW.late, **changes)
    written = convert.with_pipeline(base, dataclasses.replace(NEW, late=late))
    convert.save(dataclasses.replace(written, params=params), tmp_path / "new")
    return tmp_path / "new"


@pytest.mark.parametrize("unused", [True, False])
def test_new_tokens(unused, tmp_path):
    directory = new(tmp_path, unused)
    size = models.VOCAB + (0 if unused else 2)
    assert assert_equal(directory) == (size, size)


@pytest.mark.parametrize(
    "changes",
    [
        {"expansion": "none"},
        {"attend": True},
        {"skiplist": ()},
        {"skiplist": ("[CLS]", "[SEP]", "[D] ", "!", "a")},
        {"query_length": 5, "document_length": 7},
    ],
)
def test_settings(changes, tmp_path):
    assert_equal(new(tmp_path, True, **changes))


@only_6
@pytest.mark.parametrize(
    "changes",
    [
        {"expansion": "min", "expansion_length": 9},
        {"expansion": "min", "expansion_length": 9, "attend": True, "query_length": None},
        {"filler": "[PAD]"},
        {"query_prefix": "find: ", "document_prefix": ""},
        {"query_prefix": "[Q] find: ", "document_prefix": "[D] text: "},
    ],
)
def test_settings_of_version_6(changes, tmp_path):
    assert_equal(new(tmp_path, True, **changes))


def test_prompts_after_the_prefixes(tmp_path):
    directory = new(tmp_path, True, query_prefix="[Q] find: ", document_prefix="[D] text: ")
    assert json.loads((directory / SETTINGS).read_text())["prompts"]["query"] == "find: "
    if VERSION == 4:
        from pylate import models as pylate

        model = pylate.ColBERT(str(directory), device="cpu")
        want = model.encode(models.QUERIES, is_query=True, prompt_name="query")
        bert = ModernBert.from_pretrained(directory, attention="dense")
        ours = bert.encode_tokens(models.QUERIES, is_query=True)
        for a, b in zip(ours, want, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, rtol=0)


@only_6
@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 40])
@pytest.mark.parametrize(("protected", "normalize"), [(1, True), (0, False), (3, True)])
def test_token_pooling(factor, protected, normalize):
    import torch
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    pooling = TokenPooling(factor=factor, protected=protected, normalize=normalize)
    own = HierarchicalTokenPooling(
        factor, num_protected_tokens=protected, normalize_embeddings=normalize
    )
    rng = np.random.default_rng(0)
    for tokens in (0, 1, 2, 5, 31, 180):
        x = rng.standard_normal((tokens, 16)).astype(np.float32)
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
        (want,) = own.pool([torch.tensor(x)])
        np.testing.assert_allclose(pool_tokens(x, pooling), want.numpy(), atol=1e-6)
