"""The server with the clients that people have: openai's and Hugging Face's."""

import numpy as np
import pytest
import serving

from modernbert_jax.serving.settings import Settings

openai = pytest.importorskip("openai")
huggingface_hub = pytest.importorskip("huggingface_hub")

TEXTS = ["hello", "hello world, hello there"]
KEY = "key-of-the-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def embedding(folder):
    made = serving.service("mean", folder)
    with serving.running(made, [KEY]) as port:
        yield made.bert, f"http://127.0.0.1:{port}"


def openai_client(address: str, key: str = KEY):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def test_openai(embedding):
    bert, address = embedding
    client = openai_client(address)
    want = bert.encode(TEXTS, normalize=True)
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model="any", input=TEXTS, **encoding)
        vectors = [item.embedding for item in answer.data]
        if encoding == {"encoding_format": "base64"} and isinstance(vectors[0], str):
            continue  # the client decodes only what it asked for by itself
        np.testing.assert_allclose(vectors, want, atol=1e-5)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens > 4
    cut = client.embeddings.create(model="any", input=TEXTS[0], dimensions=4).data[0].embedding
    np.testing.assert_allclose(
        cut, bert.encode(TEXTS[:1], normalize=True, truncate_dim=4)[0], atol=1e-5
    )
    ids = bert.tokenizer.encode(TEXTS)
    answer = client.embeddings.create(model="any", input=ids)
    np.testing.assert_allclose([item.embedding for item in answer.data], want, atol=1e-5)
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve(model.id).id == "tiny/mean"


def test_openais_errors(embedding):
    _, address = embedding
    client = openai_client(address)
    with pytest.raises(openai.BadRequestError, match="dimensions must be 1 to 32") as bad:
        client.embeddings.create(model="any", input="a", dimensions=1000)
    assert bad.value.param == "dimensions"
    with pytest.raises(openai.APIStatusError, match="more than 24 tokens") as long:
        client.embeddings.create(model="any", input="a b " * 100)
    assert long.value.status_code == 413
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("other")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        openai_client(address, "wrong").models.list()


def test_openais_client_comes_again_when_the_queue_is_full(folder):
    made = serving.service("mean", folder, Settings(queue_requests=1, batch_tokens=128), real=False)
    made.programs.gate.clear()
    with serving.running(made) as port:
        client = openai_client(f"http://127.0.0.1:{port}")
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(client.embeddings.create, model="any", input="a")
            while not made.programs.batches:
                pass
            with pytest.raises(openai.RateLimitError):
                client.embeddings.create(model="any", input="a")
            made.programs.gate.set()
            assert len(first.result().data) == 1
        again = client.with_options(max_retries=2).embeddings.create(model="any", input="a")
        assert len(again.data) == 1


def test_hugging_face(embedding):
    bert, address = embedding
    client = huggingface_hub.InferenceClient(model=address, token=KEY)
    want = bert.encode(TEXTS, normalize=True)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0]), want[:1], atol=1e-5)
    np.testing.assert_allclose(client.feature_extraction(TEXTS), want, atol=1e-5)
    options = {"normalize": False, "prompt_name": "query", "truncate": True}
    np.testing.assert_allclose(
        client.feature_extraction(TEXTS[0], **options, truncation_direction="left"),
        bert.encode(TEXTS[:1], prompt_name="query", normalize=False),
        atol=1e-5,
    )
    own = bert.similarity(want[:1], want)[0]
    np.testing.assert_allclose(
        client.sentence_similarity(TEXTS[0], other_sentences=TEXTS), own, atol=1e-5
    )
    with pytest.raises(Exception, match=r"413|422"):
        client.feature_extraction("a b " * 100)


def test_hugging_faces_classification_and_masks(folder):
    made = serving.service("sequence", folder)
    with serving.running(made) as port:
        client = huggingface_hub.InferenceClient(model=f"http://127.0.0.1:{port}")
        answer = client.text_classification(TEXTS[0], top_k=2)
        answer = answer if isinstance(answer, list) else [answer]
        logits = made.bert.predict(TEXTS[:1])[0]
        powers = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-powers)[:2]
        assert [item.label for item in answer] == [made.labels[i] for i in best]
        np.testing.assert_allclose([item.score for item in answer], powers[best], atol=1e-5)
    made = serving.service("masked_lm", folder)
    with serving.running(made) as port:
        client = huggingface_hub.InferenceClient(model=f"http://127.0.0.1:{port}/fill-mask")
        answer = client.fill_mask("hello [MASK]", top_k=3)
        ((*want,),) = made.bert.fill_mask("hello [MASK]", top_k=3)
        assert [item.token_str for item in answer] == [token for token, _ in want]


def test_hugging_faces_entities_and_answers(folder):
    made = serving.service("token", folder)
    with serving.running(made) as port:
        client = huggingface_hub.InferenceClient(model=f"http://127.0.0.1:{port}")
        for strategy in ("none", "simple"):
            answer = client.token_classification(
                TEXTS[1], aggregation_strategy=strategy, ignore_labels=[], stride=8
            )
            assert [item.word for item in answer] == ["hello", "world", ",", "hello", "there"]
            labels = {item.entity if strategy == "none" else item.entity_group for item in answer}
            assert labels <= {*made.bert.labels}
    made = serving.service("span", folder)
    with serving.running(made) as port:
        client = huggingface_hub.InferenceClient(model=f"http://127.0.0.1:{port}")
        want = made.bert.answer(TEXTS[0], TEXTS[1])
        got = client.question_answering(TEXTS[0], TEXTS[1])
        assert (got.answer, got.start, got.end) == (want["answer"], want["start"], want["end"])
        assert len(client.question_answering(TEXTS[0], TEXTS[1], top_k=3)) == 3
