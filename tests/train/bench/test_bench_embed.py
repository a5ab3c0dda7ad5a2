"""The `embed` suite: texts of natural lengths, sides in processes of their own that must agree."""

import corpus
import numpy as np
import pytest
import tiny

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench import Options, embed
from modernbert_jax.train.bench.embed_worker import SIDES


def test_texts_have_natural_lengths():
    texts = embed.mixed(["a b c", "d e"], 3000)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) >= 4 and max(lengths) <= 360
    assert np.median(lengths) == pytest.approx(embed._WORDS, rel=0.1)
    assert texts[0].split()[:6] == ["a", "b", "c", "d", "e", "a"]
    assert texts == embed.mixed(["a b c", "d e"], 3000)


def test_workloads():
    small, base = embed.workloads(Options()).values()
    assert small.texts == 20_000 and small.config.num_hidden_layers == 4
    assert base.texts == 500 and base.config.num_hidden_layers == 22
    assert [*embed.workloads(Options(models=("base",), texts=80))] == ["base, 2 texts"]
    with pytest.raises(UserError, match="no model 'large'; known: base, small"):
        embed.workloads(Options(models=("large",)))
    assert set(SIDES) == {"ours", *embed.PEERS}


@pytest.mark.slow
def test_sides_take_turns_and_agree(tmp_path):
    """Beside sentence-transformers if it is installed; otherwise ours alone."""
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    corpus.make_tokenizer().save(tmp_path)
    options = Options(input=(str(source),), tokenizer=tmp_path, repeats=1)
    config = tiny.config(vocab_size=1024, max_position_embeddings=1024)
    speed, *rest = embed.compare({"a few": embed.EmbedWorkload(config, 60)}, options)
    assert speed.unit == "tokens/s" and speed.ours > 0
    assert (speed.ratio is not None) == embed.peer_installed()
    named = {measurement.name: measurement.ours for measurement in rest}
    assert 0 < named["a few, rows"] <= 100 and named["a few, peak memory"] > 0.05
    assert named["a few, time relative to a tenth of the texts"] > 0


def test_a_disagreement_is_an_error(monkeypatch, tmp_path):
    def take_turns(script, arguments, sides, repeats, enough):
        for i, side in enumerate(sides):
            np.save(arguments[2] / f"{side}.npy", np.full((2, 3), 1e-2 * i))
        return {}, {}

    monkeypatch.setattr(embed, "peer_installed", lambda: True)
    monkeypatch.setattr(embed, "take_turns", take_turns)
    with pytest.raises(RuntimeError, match=r"peer differ from ours by 1\.0e-02"):
        next(embed._compare("two", ["a", "b"], tmp_path, tmp_path, 1))
