"""From text to rows: every token once and in its place, and bad text named."""

import gzip
import json
from collections import Counter

import corpus
import numpy as np
import pytest
import zstandard

from modernbert_jax import UserError
from modernbert_jax.train.data import Prepared
from modernbert_jax.train.prepare import prepare
from modernbert_jax.train.records import read_row, row_record
from modernbert_jax.train.sources import Corpus
from modernbert_jax.train.tokenise import bounds


def cut(body, size, least):
    return [body[a:b] for a, b in bounds(len(body), size, least)]


def test_cut_loses_and_repeats_nothing():
    for length in (1, 63, 64, 65, 99, 100, 101, 130, 200, 201, 463):
        body = np.arange(length)
        pieces = cut(body, size=100, least=12)
        assert np.array_equal(np.concatenate(pieces), body)
        assert all(len(p) <= 100 for p in pieces)
        assert length <= 100 or min(map(len, pieces)) >= 12


def test_row_record_round_trip():
    for dtype in (np.dtype(np.uint16), np.dtype(np.uint32)):
        documents = [np.arange(n, dtype=dtype) + n for n in (5, 1, 9)]
        ids, lengths = read_row(row_record(documents, dtype), dtype)
        assert np.array_equal(ids, np.concatenate(documents)) and lengths.tolist() == [5, 1, 9]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    return Prepared(corpus.prepared(tmp_path_factory.mktemp("prepared")))


def documents_of(data, length, splits=("train", "validation")):
    """Every packed document, token ids as a tuple."""
    for split in splits:
        rows = data.rows(split, length)
        for i in range(len(rows)):
            row = rows[i]
            for s in range(1, row["segment_ids"].max() + 1):
                yield tuple(row["token_ids"][row["segment_ids"] == s].tolist())


@pytest.mark.parametrize("length", [64, 128])
def test_rows_hold_every_document_once_with_its_special_tokens(data, length):
    tokenizer = data.tokenizer
    packed = list(documents_of(data, length))
    assert all(d[0] == tokenizer.cls_id and d[-1] == tokenizer.sep_id for d in packed)
    wanted = []
    for text in corpus.texts():
        (ids,) = tokenizer.encode_raw([text])
        pieces = cut(np.asarray(ids), length - 2, 64)
        wanted += [(tokenizer.cls_id, *p.tolist(), tokenizer.sep_id) for p in pieces]
    assert Counter(packed) == Counter(wanted)


def test_rows_are_right(data):
    rows = data.rows("train", 128)
    for i in range(len(rows)):
        row = rows[i]
        segments = row["segment_ids"]
        assert row["token_ids"].shape == (128,) and row["token_ids"].dtype == np.int32
        assert (row["token_ids"][segments == 0] == data.tokenizer.pad_id).all()
        for s in range(1, segments.max() + 1):
            at = np.flatnonzero(segments == s)
            assert np.array_equal(row["positions"][at], np.arange(len(at)))
            assert at[-1] - at[0] == len(at) - 1


def test_manifest(data):
    manifest = data.manifest
    assert manifest.dtype == "uint16" and manifest.vocab_size == 320
    component = manifest.components["default"]
    assert sum(component.documents.values()) == 120
    assert 1 <= component.documents["validation"] <= 30
    for length in (64, 128):
        made = component.lengths[str(length)]["train"]
        assert made.rows == len(data.rows("train", length))
        assert made.efficiency == made.tokens / (made.rows * length) > 0.97


def test_unprepared_length_and_folder(data, tmp_path):
    with pytest.raises(UserError, match=r"no rows of length 99, only of 64, 128; prepare it with"):
        data.rows("train", 99)
    with pytest.raises(UserError, match=r"not a prepared corpus"):
        Prepared(tmp_path)


def test_sources_of_every_kind(tmp_path):
    texts = ["one", "two", "three"]
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "b.jsonl").write_bytes(lines)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(lines))
    assert list(Corpus.find([str(tmp_path / "*")])) == ["plain", *texts, *texts, *texts]


BAD = {
    "empty.txt": (b"  \n", "empty"),
    "binary.txt": (b"\x7fELF\0\1", "binary"),
    "latin.txt": ("café".encode("latin-1"), "not UTF-8 at byte 3"),
    "broken.jsonl": (b'{"text": "x"\n', "broken.jsonl:1: not JSON"),
    "field.jsonl": (b'{"txt": "x"}\n', "field.jsonl:1: has no 'text'"),
    "number.jsonl": (b'{"text": 3}\n', "'text' is not a string"),
    "hollow.jsonl": (b'{"text": ""}\n', "hollow.jsonl:1: empty"),
    "latin.jsonl": (b'{"text": "caf\xe9"}\n', "latin.jsonl:1: not UTF-8"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "x"}\n' * 99)[:-9], "damaged"),
    "cut.jsonl.zst": (b"(\xb5/\xfd nonsense", "damaged"),
    "table.parquet": (b"PAR1", "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_documents_stop_or_are_skipped(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "good.txt").write_text("the cat sat")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(Corpus.find([str(tmp_path / "*")]))
    assert name in str(error.value) and message in str(error.value)
    skipping = Corpus.find([str(tmp_path / "*")], on_error="skip")
    assert "the cat sat" in list(skipping) and sum(skipping.skipped.values()) == 1


def test_nothing_usable_leaves_nothing(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    bad = Corpus.find([str(tmp_path / "empty.txt")], on_error="skip")
    with pytest.raises(UserError, match=r"no usable text \(1 empty\)"):
        prepare(bad, corpus.make_tokenizer(), tmp_path / "out", [64])
    with pytest.raises(UserError, match="remove it, or pass --on-error skip"):
        prepare(
            Corpus.find([str(tmp_path / "*.txt")]), corpus.make_tokenizer(), tmp_path / "out", [64]
        )
    assert [p.name for p in tmp_path.iterdir()] == ["empty.txt"]


def test_a_huge_document_becomes_many_samples(tmp_path):
    text = " ".join(corpus.WORDS) * 20_000
    (tmp_path / "huge.txt").write_text(text)
    made = prepare(
        Corpus([tmp_path / "huge.txt"]), corpus.make_tokenizer(), tmp_path / "out", [512]
    )
    assert made.components["default"].documents["train"] == 1
    assert made.components["default"].lengths["512"]["train"].efficiency > 0.999
    assert len(text) > 1 << 20
