"""Results of the server are those of `ModernBert`, for every kind of model and any batch."""

import base64
import concurrent.futures

import jax
import models
import numpy as np
import pytest
import serving

from modernbert_jax import ModernBert
from modernbert_jax.serving.service import Service
from modernbert_jax.serving.settings import Settings

TEXTS = ["hello", "hello world, hello there: a b c d!", "(naive) - 12 + 30 = 42.", "a " * 9]


@pytest.fixture(scope="module", autouse=True)
def programs_in_common(tmp_path_factory):
    """`encode` finds the programs that the server has compiled in a cache."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("cache")), 0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def close(got, want) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=1e-5)


@pytest.fixture(scope="module")
def embedding(folder):
    return serving.service("no_prompt", folder)


def test_vectors_are_those_of_encode(embedding):
    """The prompt is not pooled, and differs between requests of one batch."""
    bert = embedding.bert
    with serving.client(embedding) as http:
        answer = http.post("/v1/embeddings", json={"input": TEXTS}).json()
        close([item["embedding"] for item in answer["data"]], bert.encode(TEXTS, normalize=True))
        tokens = sum(map(len, bert.tokenizer.encode(TEXTS)))
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        close(
            http.post("/embed", json={"inputs": TEXTS, "normalize": False}).json(),
            bert.encode(TEXTS),
        )
        close(
            http.post("/embed", json={"inputs": TEXTS, "prompt_name": "query"}).json(),
            bert.encode(TEXTS, normalize=True, prompt_name="query"),
        )
        cut = http.post("/v1/embeddings", json={"input": TEXTS[0], "dimensions": 5}).json()
        want = bert.encode(TEXTS[:1], normalize=True, truncate_dim=5)
        close([cut["data"][0]["embedding"]], want)
        body = {"input": TEXTS, "encoding_format": "base64"}
        coded = http.post("/v1/embeddings", json=body).json()["data"]
        vectors = [np.frombuffer(base64.b64decode(c["embedding"]), "<f4") for c in coded]
        close(vectors, [item["embedding"] for item in answer["data"]])
        ids = bert.tokenizer.encode(TEXTS)
        close(http.post("/embed", json={"inputs": ids}).json(), bert.encode(TEXTS, normalize=True))
        close(http.post("/embed_all", json={"inputs": TEXTS}).json(), bert.hidden(ids))
        source = {"source_sentence": TEXTS[0], "sentences": TEXTS}
        own = bert.similarity(bert.encode(TEXTS[:1]), bert.encode(TEXTS))
        close(http.post("/similarity", json={"inputs": source}).json(), own[0])


@pytest.fixture(scope="module")
def compilations():
    """Names of what is compiled, from now on."""
    names: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **more: names.append(name) if "compile" in name else None
    )
    return names


def test_nothing_is_compiled_after_the_start(embedding, compilations):
    """Texts of every length, alone and together; each result is that of its own request."""
    compilations.clear()
    words = ["hello", "there", "what", "is", "this", "about", "and", "why", "not", "again"]
    texts = [" ".join(words[: n % 11]) + " a" * (n % 7) for n in range(120)]
    small = serving.like(embedding, Settings(wait_ms=20))
    with (
        serving.client(small) as http,
        concurrent.futures.ThreadPoolExecutor(20) as threads,
    ):

        def ask(numbers: range) -> list:
            body = {"inputs": [texts[n] for n in numbers], "truncate": True}
            response = http.post("/embed", json=body)
            assert response.status_code == 200, response.text
            return response.json()

        parts = [range(n, min(n + 1 + n % 4, 120)) for n in range(120)]
        answers = list(threads.map(ask, parts))
        fills = small.metrics.batches.values
    assert not compilations
    assert sum(fills.values()) < 100  # requests shared batches
    want = embedding.bert.encode(texts, normalize=True)
    for part, answer in zip(parts, answers, strict=True):
        close(answer, want[part.start : part.stop])


def test_late_interaction(folder):
    made = serving.service("colbert", folder)
    bert = made.bert
    with serving.client(made) as http:
        for is_query in (True, False):
            want = bert.encode_tokens(TEXTS, is_query=is_query)
            body = {"inputs": TEXTS, "is_query": is_query}
            close(http.post("/embed_all", json=body).json(), want)
            body = {"input": TEXTS, "is_query": is_query, "encoding_format": "base64"}
            for item, vectors in zip(
                http.post("/v1/embeddings", json=body).json()["data"], want, strict=True
            ):
                flat = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
                assert item["shape"] == [*vectors.shape]
                close(flat.reshape(item["shape"]), vectors)
        ranks = http.post("/rerank", json={"query": TEXTS[0], "texts": TEXTS}).json()
        own = bert.similarity(
            bert.encode_tokens(TEXTS[:1], is_query=True), bert.encode_tokens(TEXTS)
        )[0]
        assert [rank["index"] for rank in ranks] == np.argsort(-own).tolist()
        np.testing.assert_allclose([rank["score"] for rank in ranks], sorted(own)[::-1], rtol=1e-5)
        assert http.post("/embed", json={"inputs": "x"}).status_code == 424
        assert http.post("/v1/embeddings", json={"input": [[3, 4]]}).status_code == 400


def test_sparse_vectors(folder):
    made = serving.service("sparse_native", folder)
    with serving.client(made) as http:
        answer = http.post("/embed_sparse", json={"inputs": TEXTS}).json()
        for got, want in zip(answer, made.bert.sparse(TEXTS), strict=True):
            assert [item["index"] for item in got] == want.indices.tolist()
            close([[item["value"] for item in got]], [want.values])
        body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}}
        own = made.bert.similarity(made.bert.sparse(TEXTS[:1]), made.bert.sparse(TEXTS))
        close(http.post("/similarity", json=body).json(), own[0])


def test_rerankers(folder, compilations):
    made = serving.service("reranker_prompt", folder)
    bert = made.bert
    with serving.client(made) as http:
        compilations.clear()
        for count in (1, 3, 4):
            body = {"query": TEXTS[0], "texts": TEXTS[:count]}
            assert len(http.post("/rerank", json=body).json()) == count
        assert not compilations
        scores = bert.predict([(TEXTS[0], text) for text in TEXTS])
        body = {"query": TEXTS[0], "texts": TEXTS, "return_text": True}
        ranks = http.post("/rerank", json=body).json()
        assert [rank["index"] for rank in ranks] == np.argsort(-scores).tolist()
        close([[rank["score"] for rank in ranks]], [np.sort(scores)[::-1]])
        assert [rank["text"] for rank in ranks] == [TEXTS[rank["index"]] for rank in ranks]
        raw = http.post("/rerank", json={**body, "raw_scores": True}).json()
        logits = bert.predict(
            [(TEXTS[0], t) for t in TEXTS], activation="torch.nn.modules.linear.Identity"
        )
        close([[rank["score"] for rank in raw]], [np.sort(logits)[::-1]])


def test_classifiers(folder):
    made = serving.service("sequence", folder)
    logits = made.bert.predict(TEXTS)
    powers = np.exp(logits)
    with serving.client(made) as http:
        answer = http.post("/predict", json={"inputs": [[text] for text in TEXTS]}).json()
        for got, scores in zip(answer, powers / powers.sum(-1, keepdims=True), strict=True):
            assert [p["label"] for p in got] == [made.labels[i] for i in np.argsort(-scores)]
            close([[p["score"] for p in got]], [np.sort(scores)[::-1]])
        (pair,) = made.bert.predict([(TEXTS[0], TEXTS[1])])
        raw = http.post("/predict", json={"inputs": TEXTS[:2], "raw_scores": True}).json()
        close([[p["score"] for p in raw]], [np.sort(pair)[::-1]])
        mixed = [[TEXTS[0]], TEXTS[:2]]
        both = http.post("/predict", json={"inputs": mixed, "raw_scores": True}).json()
        close([[p["score"] for p in of] for of in both], np.sort([logits[0], pair])[:, ::-1])


def test_filled_masks(folder):
    made = serving.service("masked_lm", folder)
    text = "hello [MASK], what is [MASK]?"
    with serving.client(made) as http:
        body = {"inputs": text, "parameters": {"top_k": 3}}
        answer = http.post("/fill-mask", json=body).json()
        for got, want in zip(answer, made.bert.fill_mask(text, top_k=3), strict=True):
            assert [item["token_str"] for item in got] == [token for token, _ in want]
            close([[item["score"] for item in got]], [[score for _, score in want]])
        best = answer[0][0]
        assert best["sequence"].startswith(f"hello{best['token_str']}, what is[MASK]?")
        close(http.post("/embed", json={"inputs": TEXTS}).json(),
              made.bert.encode(TEXTS, normalize=True))  # fmt: skip


def test_a_model_in_fewer_bits(folder):
    """Vectors and masks of a model whose matrices are int8."""
    path = folder / "masked_lm"
    bert = ModernBert.from_pretrained(
        path if path.exists() else models.write("masked_lm", path), weights="int8"
    )
    made = Service(bert, "tiny/int8", serving.TINY)
    made.programs.compile()
    with serving.client(made) as http:
        got = http.post("/embed", json={"inputs": TEXTS}).json()
        close(got, bert.encode(TEXTS, normalize=True))
        answer = http.post("/fill-mask", json={"inputs": "hello [MASK]"}).json()
        ((*want,),) = bert.fill_mask("hello [MASK]")
        assert [item["token_str"] for item in answer] == [token for token, _ in want]
