"""Settings that transformers and sentence-transformers write are read, or ignored on purpose."""

import json

import corpus
import models
import numpy as np
import pytest
import transformers
from tokenizer_files import VARIANTS, variant

from modernbert_jax import ModernBert, hf_config, tokenizer_settings
from modernbert_jax.convert import module_files, module_keys
from modernbert_jax.tokenizer import Tokenizer

WORDS = " ".join(corpus.WORDS[:30])
TEXTS = ["ba ce", "ba <one> ce<two>fi", "  <two>  [SEP] ba[CLS]", WORDS]


@pytest.mark.parametrize("name", VARIANTS)
def test_ids_of_texts_with_tokens_and_settings_outside_tokenizer_json(name, tmp_path):
    files = variant(corpus.make_tokenizer().files, name)
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    own, theirs = Tokenizer(files), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert own.encode(TEXTS) == theirs(TEXTS)["input_ids"]
    cut = {"truncation": True, "max_length": 12}
    assert own.encode(TEXTS, max_length=12) == theirs(TEXTS, **cut)["input_ids"]
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    want = theirs(*map(list, zip(*pairs, strict=True)), **cut)["input_ids"]
    assert own.encode_pairs(pairs, max_length=12) == want
    theirs.save_pretrained(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode(TEXTS) == own.encode(TEXTS)
    keys = {*json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())}
    keys = {key for key in keys if not key.endswith("_token")}
    assert keys <= {*tokenizer_settings.READ, *tokenizer_settings.IGNORED}


@pytest.mark.parametrize(
    "kind", [transformers.ModernBertConfig, transformers.ModernBertDecoderConfig]
)
def test_keys_of_configurations(kind, tmp_path):
    kind(num_labels=3, problem_type="regression").save_pretrained(tmp_path)
    keys = {*json.loads((tmp_path / "config.json").read_text())}
    assert keys <= {*hf_config.KNOWN, *hf_config.CARRIED}


def test_keys_of_modules(tmp_path):
    """Also `test_models.py` reads what the libraries save, without an unknown key."""
    import sentence_transformers

    models.write("dense", tmp_path / "a")
    for module in sentence_transformers.SentenceTransformer(str(tmp_path / "a"), device="cpu"):
        name = type(module).__name__
        allowed = {*module_keys.READ[name], *module_keys.IGNORED[name], *module_keys.NEUTRAL}
        assert {*module.config_keys} <= allowed


def test_vectors_are_cut_as_the_model_asks(tmp_path):
    import sentence_transformers

    models.write("mean", tmp_path / "a")
    theirs = sentence_transformers.SentenceTransformer(
        str(tmp_path / "a"), truncate_dim=8, device="cpu"
    )
    theirs.save_pretrained(str(tmp_path / "b"))
    settings = json.loads((tmp_path / "b" / module_files.SETTINGS).read_text())
    assert {*settings} <= {*module_keys.READ["settings"], *module_keys.IGNORED["settings"]}
    if "truncate_dim" not in settings:  # version 5 does not save it
        settings["truncate_dim"] = 8
        (tmp_path / "b" / module_files.SETTINGS).write_text(json.dumps(settings))
    own, texts = ModernBert.from_pretrained(tmp_path / "b"), models.TEXTS
    for normalize in (False, True):
        want = theirs.encode(texts, normalize_embeddings=normalize)
        got = own.encode(texts, normalize=normalize or None)
        np.testing.assert_allclose(got, want, atol=2e-5)
