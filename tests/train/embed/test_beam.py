"""The model handler of Apache Beam: its batches by weight, and its vectors on DirectRunner."""

import models
import numpy as np
import pytest

from modernbert_jax import ModernBert, UserError
from modernbert_jax.train.embed import beam


def test_without_beam_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(beam, "_ModelHandler", object)
    with pytest.raises(UserError, match=r"pip install 'modernbert-jax\[beam\]'"):
        beam.TextEmbedding("model")


def test_a_text_weighs_its_tokens():
    assert beam.weight(("id", "")) == 2
    assert beam.weight(("id", "a" * 400)) == 102


@pytest.mark.slow
def test_vectors_of_a_pipeline(tmp_path, monkeypatch):
    """Slow, because Beam is; it is not among the packages of the tests."""
    apache_beam = pytest.importorskip("apache_beam")
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.testing.util import assert_that

    models.write("mean", tmp_path / "model")
    texts = {f"d{i}": text * (i + 1) for i, text in enumerate(models.TEXTS)}
    wanted = ModernBert.from_pretrained(tmp_path / "model").encode(
        [*texts.values()], prompt_name="document"
    )
    handler = beam.TextEmbedding(str(tmp_path / "model"), batch_weight=40)
    assert handler.batch_elements_kwargs()["element_size_fn"](("", "abcdefgh")) == 4

    def same(found):
        found = dict(found)
        assert set(found) == set(texts)
        for name, vector in zip(texts, wanted, strict=True):
            np.testing.assert_allclose(found[name], vector, atol=1e-5)

    with apache_beam.Pipeline("DirectRunner") as pipeline:
        vectors = pipeline | apache_beam.Create([*texts.items()]) | RunInference(handler)
        assert_that(vectors, same)
