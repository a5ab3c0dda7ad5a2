"""JSON of others: read whole, or refused in one line that names the file."""

import json

import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.io import json_reader


def refusal(content, where="a.json"):
    with pytest.raises(UserError) as caught:
        json_reader.parse_json(content, where)
    message = str(caught.value)
    assert message.startswith(f"{where}: ") and "\n" not in message and len(message) < 300
    return message


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "é😀"]}, 10**30, [], 0.1, "x"])
def test_values_are_those_of_the_json_module(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        encoded = [text.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16")]
        for content in (text, "\ufeff" + text, *encoded):
            assert json_reader.parse_json(content) == value


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ("[" * 100_000, "deep"),
        ('{"a":' * 100_000, "deep"),
        ("[" * 65 + "]" * 65, "more than 64 deep"),
        (r'{"a": {"b": [0, "x\ud800"]}}', r"a.b.1: not UTF-8: has \ud800"),
        (r'{"a": {"\uD83d": 1}}', r"a: not UTF-8: has \ud83d"),
        (r'"\udfff"', r"has \udfff"),
        ('"a\udce9"', r"has \udce9"),
        ('{"a": ' + "9" * 400 + "}", "a number of 400 digits"),
    ],
)
def test_other_content_is_refused(content, key):
    assert key in refusal(content)


def test_the_deepest_value_that_is_read():
    assert json_reader.parse_json("[" * 64 + "1" + "]" * 64)


def test_escaped_pairs_are_no_halves():
    assert json_reader.parse_json(r'{"a": "\ud83d\ude00"}') == {"a": "😀"}


def test_a_long_key_above_many_values_costs_no_more_than_its_own_length():
    content = json.dumps({"k" * 10**5: [0] * 10**5 + [{}] * 100})
    assert json_reader.parse_json(content)


@pytest.mark.parametrize(("content", "key"), [(b"null", "null"), (b"[]", "list"), (b"1", "int")])
def test_an_object_is_needed_where_fields_are(content, key):
    with pytest.raises(UserError, match=f"a.json: holds {key}; it must be a JSON object"):
        json_reader.parse_object(content, "a.json")


def test_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        json_reader.read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read"):
        json_reader.read_json(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        json_reader.read_json(tmp_path / "a\0b")
    (tmp_path / "a.json").write_text('{"a": "long"}')
    assert json_reader.read_json(tmp_path / "a.json") == {"a": "long"}
    with pytest.raises(UserError, match="more than 8 bytes"):
        json_reader.read_bytes(tmp_path / "a.json", limit=8)
