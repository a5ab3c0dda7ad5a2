"""Tokens that a checkpoint lacks: taken over from unused ones, or with rows of their own."""

import dataclasses
import json

import models
import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError

PREFIXES = ("[Q] ", "[D] ")
FULL = models.VOCAB


def checkpoint(name, tmp_path, *, unused=True, files=()):
    loaded = convert.load(models.write(name, tmp_path / "source"))
    content = loaded.files["tokenizer.json"].replace(b'"[unused', b'"[unused' if unused else b'"[u')
    return dataclasses.replace(
        loaded, files={**loaded.files, "tokenizer.json": content, **dict(files)}
    )


def test_unused_tokens_are_taken_over(tmp_path):
    old = "[unused0]"
    settings = {"additional_special_tokens": [old, "[unused1]"], "cls_token": "[CLS]"}
    settings["added_tokens_decoder"] = {
        str(i): {"content": f"[unused{i - 340}]", "special": True} for i in (340, 341)
    }
    files = {"tokenizer_config.json": json.dumps(settings).encode(), "vocab.txt": b"a\n[unused1]\n"}
    before = checkpoint("masked_lm", tmp_path, files=files)
    after = convert.with_tokens(before, ["[Q] ", "[MASK]", "[D] ", "[Q] "])
    assert after.params == before.params and after.config == before.config
    assert [after.tokenizer.backend.token_to_id(x) for x in PREFIXES] == [340, 341]
    assert after.tokenizer.vocab_size == FULL and 340 not in after.tokenizer.unused_ids
    (ids,) = after.tokenizer.encode(["[Q] a"])
    assert ids == [336, 340, *before.tokenizer.encode(["a"])[0][1:]]
    config = json.loads(after.files["tokenizer_config.json"])
    assert config["additional_special_tokens"] == [*PREFIXES] and config["cls_token"] == "[CLS]"
    assert config["added_tokens_decoder"]["341"]["content"] == "[D] "
    assert after.files["vocab.txt"] == b"a\n[D] \n"
    assert convert.with_tokens(after, PREFIXES) is after


@pytest.mark.parametrize("name", ["masked_lm", "untied", "base"])
def test_other_tokens_get_rows_around_the_mean(tmp_path, name):
    before = checkpoint(name, tmp_path, unused=False, files={"added_tokens.json": b'{"<x>": 384}'})
    after = convert.with_tokens(before, PREFIXES)
    assert after.config.vocab_size == after.tokenizer.vocab_size == FULL + 3
    assert [after.tokenizer.backend.token_to_id(x) for x in ("<x>", *PREFIXES)] == [384, 385, 386]
    assert json.loads(after.files["added_tokens.json"])["[D] "] == 386
    again = convert.with_tokens(before, PREFIXES)
    left, right = names.flatten(before.params), names.flatten(after.params)
    grown = []
    for path, array in right.items():
        np.testing.assert_array_equal(array, names.leaf(again.params, path))
        if array.shape == left[path].shape:
            assert array is left[path]
            continue
        grown.append(path[-1])
        axis = array.shape.index(FULL + 3)
        old, new = np.split(np.moveaxis(array, axis, 0), [FULL])
        np.testing.assert_array_equal(old, np.moveaxis(left[path], axis, 0))
        assert (np.abs(new - old.mean(0)) < 4.5 * old.std(0)).all()
        assert array.dtype == left[path].dtype and len(np.unique(new, axis=0)) == 3
    assert grown == ["embedding", *{"masked_lm": ["bias"], "untied": ["kernel"]}.get(name, [])]
    convert.save(after, tmp_path / "saved")
    saved = convert.load(tmp_path / "saved")
    assert saved.config == after.config and convert.verify(tmp_path / "saved", after).equal


def test_tokens_with_a_meaning_are_kept(tmp_path):
    before = checkpoint("colbert", tmp_path)
    settings = json.loads(before.files["config_sentence_transformers.json"])
    settings["query_prefix"] = "[unused0]"
    files = {"config_sentence_transformers.json": json.dumps(settings).encode()}
    before = dataclasses.replace(before, files={**before.files, **files})
    after = convert.with_tokens(before, ["[X]"])
    assert [after.tokenizer.backend.token_to_id(x) for x in ("[unused0]", "[X]")] == [340, 341]


def test_what_cannot_be_added_is_refused(tmp_path):
    before = checkpoint("base", tmp_path)
    with pytest.raises(UserError, match="at least one character"):
        convert.with_tokens(before, [""])
    with pytest.raises(UserError, match="no tokenizer"):
        convert.with_tokens(dataclasses.replace(before, files={}), ["[Q] "])
