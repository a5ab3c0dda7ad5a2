"""Search by a sparse encoder: against products of dense vectors, stored, and what is refused."""

import dataclasses
import json
from pathlib import Path

import models
import numpy as np
import pytest

from modernbert_jax import ModernBert, UserError
from modernbert_jax.train.retrieval.data import read_run
from modernbert_jax.train.retrieval.search import stored
from modernbert_jax.train.retrieval.search.config import Searching
from modernbert_jax.train.retrieval.search.run import run_search
from modernbert_jax.train.retrieval.sparse_encoding import SparseTextEncoder

QUERIES = {"q1": "who is there", "q2": "the lazy fox"}


def ids() -> list[str]:
    return [f"d{i}" for i in range(len([*models.TEXTS, *models.QUERIES]))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, queries, a sparse encoder, late interaction and a reranker."""
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "beir").mkdir()
    texts = dict(zip(ids(), [*models.TEXTS, *models.QUERIES], strict=True))
    for name, rows in (("corpus", texts), ("queries", QUERIES)):
        lines = (json.dumps({"_id": i, "text": text}) + "\n" for i, text in rows.items())
        (folder / f"beir/{name}.jsonl").write_text("".join(lines))
    for kind, name in (("sparse", "model"), ("colbert", "colbert"), ("reranker_raw", "reranker")):
        models.write(kind, folder / name)
    return folder


def options(folder: Path, **changes) -> Searching:
    values = {"model": str(folder / "model"), "corpus": str(folder / "beir"), "top_k": 3}
    return Searching(**values | {"output": folder / "out.run"} | changes)


def test_a_search_ranks_by_products(folder, monkeypatch):
    """Prompts of either side; vectors of the corpus are stored in parts of four documents."""
    monkeypatch.setattr(stored, "PART", 4)
    assert run_search(options(folder))["documents"] == 7
    run = read_run(folder / "out.run")
    model = ModernBert.from_pretrained(folder / "model")
    queries = model.sparse([*QUERIES.values()], prompt_name="query")
    documents = model.sparse([*models.TEXTS, *models.QUERIES], prompt_name="document")
    scores = model.similarity(queries, documents)
    for query, own in zip(QUERIES, scores, strict=True):
        best = np.argsort(-own, kind="stable")[:3]
        assert [*run[query]] == [f"d{i}" for i in best]
        np.testing.assert_allclose([*run[query].values()], own[best], rtol=1e-4)
    encoder = SparseTextEncoder.load(str(folder / "model"))
    pairs = encoder.pairs(queries, documents[:2])
    np.testing.assert_allclose(pairs, np.diagonal(scores), rtol=1e-5)
    assert (
        encoder.prompt("document") == "doc: " and encoder.symmetric().prompt("document") != "doc: "
    )


@pytest.mark.parametrize("first", ["model", "colbert"])
def test_a_reranker_orders_what_another_kind_of_model_finds(first, folder):
    """Late interaction over a sparse first stage, and a reranker over late interaction."""
    second = {"model": "colbert", "colbert": "reranker"}[first]
    plain = options(folder, model=str(folder / first), output=folder / f"{first}.run")
    run_search(plain)
    both = dataclasses.replace(
        plain, rerank=str(folder / second), rerank_top=3, output=folder / f"{first}-2.run"
    )
    run_search(both)
    found, again = read_run(plain.output), read_run(both.output)
    bert = ModernBert.from_pretrained(folder / second)
    texts = dict(zip(ids(), [*models.TEXTS, *models.QUERIES], strict=True))
    for query, text in QUERIES.items():
        assert {*again[query]} == {*found[query]}
        documents = [texts[d] for d in again[query]]
        if second == "reranker":
            scores = bert.predict([(text, d) for d in documents])
        else:
            vectors = bert.encode_tokens([text], is_query=True), bert.encode_tokens(documents)
            scores = bert.similarity(*vectors)[0]
        np.testing.assert_allclose([*again[query].values()], np.ravel(scores), atol=1e-4)
        assert [*again[query].values()] == sorted(again[query].values(), reverse=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": "some.faiss"}, "--index is not for sparse models"),
        ({"dims": 8}, "has weights of ids; leave out pooling, dims"),
    ],
)
def test_options_of_vectors_are_refused(folder, changes, message):
    changes = {k: Path(v) if k == "index" else v for k, v in changes.items()}
    with pytest.raises(UserError, match=message):
        run_search(options(folder, output=folder / "other.run", **changes))
    assert not (folder / "other.run").exists()
