"""Tokenizers: trained ones have ModernBERT's make, and loaded ones forget what was baked in."""

import json

import corpus
import pytest
import tokenizers

from modernbert_jax import UserError, tokenizer_backend
from modernbert_jax.tokenizer import Tokenizer, train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return corpus.make_tokenizer()


def test_template_and_special_tokens(tokenizer):
    (ids,) = tokenizer.encode(["the cat"])
    assert ids[0] == tokenizer.cls_id and ids[-1] == tokenizer.sep_id
    assert tokenizer.decode(ids, skip_special=True) == "the cat"
    assert tokenizer.encode_raw(["the cat"]) == [ids[1:-1]]
    pair = tokenizer.backend.encode("the", "cat").ids
    assert pair.count(tokenizer.sep_id) == 2 and pair[0] == tokenizer.cls_id
    tokens = [tokenizer.token(i) for i in tokenizer.special_ids]
    assert tokens == ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def test_unused_ids_are_those_that_fill_up_the_vocabulary():
    tokenizer = train(corpus.texts(), 321)
    spelled = {
        i for i in range(tokenizer.vocab_size) if str(tokenizer.token(i)).startswith("[unused")
    }
    assert spelled and set(tokenizer.unused_ids) == spelled
    assert not spelled & set(tokenizer.special_ids)


def test_mask_takes_the_space_before_it(tokenizer):
    assert tokenizer.encode(["the [MASK]"])[0] == [
        tokenizer.cls_id,
        *tokenizer.encode_raw(["the"])[0],
        tokenizer.mask_id,
        tokenizer.sep_id,
    ]


@pytest.mark.parametrize("wanted", [300, 320, 321])
def test_size_is_a_multiple_of_64_filled_with_unused(wanted):
    tokenizer = train(corpus.texts(), wanted)
    assert tokenizer.vocab_size % 64 == 0 and wanted <= tokenizer.vocab_size < wanted + 64
    unused = tokenizer.vocab_size - wanted
    assert tokenizer.token(tokenizer.vocab_size - 1) == (
        f"[unused{unused - 1}]" if unused else "[MASK]"
    )


def test_any_text_survives(tokenizer):
    text = "naïve 中文 🙂\n\ttabs  and   spaces\x7f"
    assert tokenizer.decode(tokenizer.encode_raw([text])[0]) == text


def test_training_is_deterministic(tokenizer):
    assert corpus.make_tokenizer().files == tokenizer.files


def test_vocabulary_too_small():
    with pytest.raises(UserError, match="vocab_size is 100; it must be 261 or more"):
        train(["text"], 100)


def test_save_and_load_keep_every_byte(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).files == tokenizer.files
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(["a cat"]) == tokenizer.encode(
        ["a cat"]
    )


def test_baked_truncation_and_padding_are_switched_off(tokenizer):
    backend = tokenizers.Tokenizer.from_str(tokenizer.files["tokenizer.json"].decode())
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    baked = Tokenizer({"tokenizer.json": backend.to_str().encode()})
    text = "the cat sat on a mat"
    assert baked.encode([text]) == tokenizer.encode([text])


def test_texts_and_pairs_that_were_cut_are_told(tokenizer):
    texts = ["the cat", "the cat sat on a mat and saw one big dog"]
    pairs = [(first, second) for first in texts for second in texts]
    for encode, inputs in ((tokenizer.encode, texts), (tokenizer.encode_pairs, pairs)):
        whole = [len(ids) for ids in encode(inputs)]
        for most in sorted({*whole}):
            cut: list[bool] = []
            lengths = [len(ids) for ids in encode(inputs, max_length=most, cut=cut)]
            assert cut == [full > most for full in whole]
            assert lengths == [min(full, most) for full in whole]
        cut = []
        assert encode(inputs, cut=cut) and cut == [False] * len(inputs)


def test_max_length_keeps_the_last_special_token(tokenizer):
    full = tokenizer.encode(["the cat sat on a mat and saw one big dog"])[0]
    short = tokenizer.encode(["the cat sat on a mat and saw one big dog"], max_length=5)[0]
    assert short == [*full[:4], tokenizer.sep_id]


def test_roles_are_read_from_the_configuration(tokenizer):
    spec = json.loads(tokenizer.files["tokenizer.json"])
    config = {"mask_token": {"content": "[UNK]"}, "cls_token": "[CLS]"}
    named = Tokenizer(
        {
            "tokenizer.json": json.dumps(spec).encode(),
            "tokenizer_config.json": json.dumps(config).encode(),
        }
    )
    assert named.mask_id == tokenizer.unk_id


def test_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json: no such tokenizer file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: not JSON"):
        Tokenizer.load(tmp_path)


# --- files that the library cannot handle -------------------------------------------------------


def changed(**parts) -> bytes:
    """A tokenizer's file with other parts; `model` changes keys of the model."""
    spec = json.loads(corpus.make_tokenizer().files["tokenizer.json"])
    spec["model"] |= parts.pop("model", {})
    return json.dumps(spec | parts).encode()


def split(pattern):
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def template(special):
    """A template whose special token has another id."""
    part = json.loads(corpus.make_tokenizer().files["tokenizer.json"])["post_processor"]
    part["single"][0]["SpecialToken"]["id"] = special
    return part


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (lambda: changed(model={"continuing_subword_prefix": "xx"}), "not a tokenizer"),  # panics
        (lambda: changed(pre_tokenizer=split("(a+)+$")), "not a tokenizer"),
        (lambda: changed(model={"vocab": {"a": 2**31}, "merges": []}), "id 2147483648"),
        (lambda: changed(model={"vocab": {"a": True}, "merges": []}), "id True"),
        (lambda: changed(model={"vocab": {}, "merges": []}, added_tokens=[]), "t.json"),
        (lambda: changed(post_processor=template(["[CLS]"])), "not a tokenizer"),
        (lambda: b"[]", "JSON object"),
        (lambda: b"[" * 10**5, "deep"),
        (lambda: changed(model={"vocab": {"\ud800": 1}}), "surrogate"),
    ],
)
def test_files_that_the_library_cannot_handle_are_refused(capfd, content, key):
    with pytest.raises(UserError, match=key) as caught:
        Tokenizer({"tokenizer.json": content()}, "t.json")
    assert str(caught.value).startswith("t.json: ") and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_other_tokenizers_are_tried_and_read():
    content = changed(pre_tokenizer=split(r"\w+|[^\w\s]+"), decoder=None)
    tokenizer = Tokenizer({"tokenizer.json": content})
    assert tokenizer.encode_raw(["the, cat"]) != tokenizer.encode_raw(["the cat"])


def test_a_crash_of_the_library_is_an_error(monkeypatch):
    monkeypatch.setattr(tokenizer_backend, "_TRIAL", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(UserError, match="the tokenizers library crashes"):
        Tokenizer({"tokenizer.json": changed(pre_tokenizer=split("crash"))}, "t.json")


def test_usual_tokenizers_need_no_trial(monkeypatch, tokenizer):
    monkeypatch.setattr(tokenizer_backend, "_trial", None)
    assert Tokenizer(tokenizer.files).encode(["the cat"]) == tokenizer.encode(["the cat"])


def test_texts_with_half_a_surrogate_pair_are_named(tokenizer):
    for call in (tokenizer.encode, tokenizer.encode_raw):
        with pytest.raises(UserError, match=r"text 1: not UTF-8: has .ud800"):
            call(["a", "b\ud800"])
    with pytest.raises(UserError, match="not UTF-8"):
        tokenizer.encode_pairs([("a", "\udfff")])


def test_other_files_of_a_checkpoint_are_no_files_of_its_tokenizer(tmp_path):
    """Such as those of modules, whose folders do not exist where a tokenizer is saved."""
    files = corpus.make_tokenizer().files
    Tokenizer({**files, "modules.json": b"[]", "1_Dense/config.json": b"{}"}).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*files}
