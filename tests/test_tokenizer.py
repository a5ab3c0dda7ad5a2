"""Tokenizers: trained ones have ModernBERT's make, and loaded ones forget what was baked in."""

import json

import corpus
import pytest
import tokenizers

from modernbert_jax import UserError
from modernbert_jax.tokenizer import Tokenizer, train


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    return corpus.make_tokenizer()


def test_template_and_special_tokens(made):
    (ids,) = made.encode(["the cat"])
    assert ids[0] == made.cls_id and ids[-1] == made.sep_id
    assert made.decode(ids, skip_special=True) == "the cat"
    assert made.encode_raw(["the cat"]) == [ids[1:-1]]
    pair = made.backend.encode("the", "cat").ids
    assert pair.count(made.sep_id) == 2 and pair[0] == made.cls_id
    tokens = [made.token(i) for i in made.special_ids]
    assert tokens == ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def test_unused_ids_are_those_that_fill_up_the_vocabulary():
    made = train(corpus.texts(), 321)
    spelled = {i for i in range(made.vocab_size) if str(made.token(i)).startswith("[unused")}
    assert spelled and set(made.unused_ids) == spelled
    assert not spelled & set(made.special_ids)


def test_mask_takes_the_space_before_it(made):
    assert made.encode(["the [MASK]"])[0] == [
        made.cls_id,
        *made.encode_raw(["the"])[0],
        made.mask_id,
        made.sep_id,
    ]


@pytest.mark.parametrize("wanted", [300, 320, 321])
def test_size_is_a_multiple_of_64_filled_with_unused(wanted):
    made = train(corpus.texts(), wanted)
    assert made.vocab_size % 64 == 0 and wanted <= made.vocab_size < wanted + 64
    unused = made.vocab_size - wanted
    assert made.token(made.vocab_size - 1) == (f"[unused{unused - 1}]" if unused else "[MASK]")


def test_any_text_survives(made):
    text = "naïve 中文 🙂\n\ttabs  and   spaces\x7f"
    assert made.decode(made.encode_raw([text])[0]) == text


def test_training_is_deterministic(made):
    assert corpus.make_tokenizer().files == made.files


def test_vocabulary_too_small():
    with pytest.raises(UserError, match="vocab_size is 100; it must be 261 or more"):
        train(["text"], 100)


def test_save_and_load_keep_every_byte(made, tmp_path):
    made.save(tmp_path)
    assert Tokenizer.load(tmp_path).files == made.files
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(["a cat"]) == made.encode(["a cat"])


def test_baked_truncation_and_padding_are_switched_off(made):
    backend = tokenizers.Tokenizer.from_str(made.files["tokenizer.json"].decode())
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    baked = Tokenizer({"tokenizer.json": backend.to_str().encode()})
    text = "the cat sat on a mat"
    assert baked.encode([text]) == made.encode([text])


def test_max_length_keeps_the_last_special_token(made):
    full = made.encode(["the cat sat on a mat and saw one big dog"])[0]
    short = made.encode(["the cat sat on a mat and saw one big dog"], max_length=5)[0]
    assert short == [*full[:4], made.sep_id]


def test_roles_are_read_from_the_configuration(made):
    spec = json.loads(made.files["tokenizer.json"])
    config = {"mask_token": {"content": "[UNK]"}, "cls_token": "[CLS]"}
    named = Tokenizer(
        {
            "tokenizer.json": json.dumps(spec).encode(),
            "tokenizer_config.json": json.dumps(config).encode(),
        }
    )
    assert named.mask_id == made.unk_id


def test_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json: no such tokenizer file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)
