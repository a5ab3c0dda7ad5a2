"""Tokens and settings outside `tokenizer.json` count as in transformers.

`tests/parity/test_settings.py` compares the same files with transformers.
"""

import corpus
import pytest
from tokenizer_files import VARIANTS, variant

from modernbert_jax import UserError
from modernbert_jax.tokenizer import Tokenizer

TEXT = "ba <one> ce <two> fi"


def tokenizer(name: str) -> Tokenizer:
    return Tokenizer(variant(corpus.make_tokenizer().files, name))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "plain"])
def test_added_tokens_are_one_token_each(name):
    plain, own = tokenizer("plain"), tokenizer(name)
    added = [token for token in ("<one>", "<two>") if own.backend.token_to_id(token) is not None]
    assert added == VARIANTS[name].added
    for i, token in enumerate(added):
        assert own.backend.token_to_id(token) == plain.vocab_size + i
        assert own.encode_raw([token]) == [[plain.vocab_size + i]]
        assert (plain.vocab_size + i in own.special_ids) == VARIANTS[name].special
    assert own.encode(["ba ce"]) == plain.encode(["ba ce"])


def test_texts_are_cut_at_the_side_that_the_files_name():
    plain, left = tokenizer("plain"), tokenizer("left")
    words = " ".join(corpus.WORDS[:30])
    whole = plain.encode_raw([words])[0]
    (cut,) = left.encode([words], max_length=12)
    assert cut == [left.cls_id, *whole[-10:], left.sep_id]
    assert tokenizer("left in tokenizer.json").encode([words], max_length=12) == [cut]
    (right,) = plain.encode([words], max_length=12)
    assert right == [plain.cls_id, *whole[:10], plain.sep_id]
    ((*pair, end),) = left.encode_pairs([("ba", words)], max_length=12)
    assert end == left.sep_id and pair[-3:] == whole[-3:]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"added_tokens_decoder": ["<one>"]}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"x": {"content": "<one>"}}}, "'x'"),
        ({"added_tokens_decoder": {"400": 3}}, "added_tokens_decoder"),
        ({"additional_special_tokens": "<one>"}, "additional_special_tokens"),
    ],
)
def test_wrong_settings_are_named(config, word):
    from tokenizer_files import with_config

    with pytest.raises(UserError, match=word):
        Tokenizer(with_config(corpus.make_tokenizer().files, config))
