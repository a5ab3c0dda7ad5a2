"""Packed rows of texts: every token once and in its place, with any number of workers."""

import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import corpus
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modernbert_jax import UserError
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.corpus import components, deduplicate, tokenise
from modernbert_jax.train.corpus import prepare as preparing
from modernbert_jax.train.corpus.components import read_mixture
from modernbert_jax.train.corpus.prepare import prepare
from modernbert_jax.train.corpus.sources import Corpus
from modernbert_jax.train.corpus.tokenise import bounds
from modernbert_jax.train.rows import manifest
from modernbert_jax.train.rows.prepared import Prepared
from modernbert_jax.train.rows.records import read_row, row_record

MDS = Path(__file__).parents[2] / "fixtures" / "mds"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return corpus.make_tokenizer()


@pytest.fixture
def small(monkeypatch):
    """Small units and windows, so that the tests' corpora have several of each."""
    monkeypatch.setattr(components, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(preparing, "WINDOW_DOCUMENTS", 12)


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of its bytes."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def cut(body, size, least):
    return [body[a:b] for a, b in bounds(len(body), size, least)]


def test_cut_loses_and_repeats_nothing():
    assert tokenise.LEAST == 64
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
    for split, component in itertools.product(splits, data.manifest.components):
        if not data.manifest.shards(component, length, split):
            continue
        rows = data.rows(split, length, component)
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
        outcome = component.lengths[str(length)]["train"]
        assert outcome.rows == len(data.rows("train", length))
        assert outcome.efficiency == outcome.tokens / (outcome.rows * length) > 0.97


def test_unprepared_length_and_folder(data, tmp_path):
    with pytest.raises(UserError, match=r"no rows of length 99"):
        data.rows("train", 99)
    with pytest.raises(UserError, match=r"not a prepared corpus"):
        Prepared(tmp_path)


def test_nothing_usable_leaves_nothing(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    bad = Corpus.find([str(tmp_path / "empty.txt")], on_error="skip")
    with pytest.raises(UserError, match=r"no usable text \(1 empty\)"):
        prepare(bad, corpus.make_tokenizer(), tmp_path / "out", [64])
    with pytest.raises(UserError, match="--on-error skip"):
        prepare(
            Corpus.find([str(tmp_path / "*.txt")]), corpus.make_tokenizer(), tmp_path / "out", [64]
        )
    assert [p.name for p in tmp_path.iterdir()] == ["empty.txt"]


def test_a_huge_document_becomes_many_samples(tmp_path):
    text = " ".join(corpus.WORDS) * 20_000
    (tmp_path / "huge.txt").write_text(text)
    outcome = prepare(
        Corpus([tmp_path / "huge.txt"]), corpus.make_tokenizer(), tmp_path / "out", [512]
    )
    assert outcome.components["default"].documents["train"] == 1
    assert outcome.components["default"].lengths["512"]["train"].efficiency > 0.999
    assert len(text) > 1 << 20


def samples(tokenizer, texts, length) -> Counter:
    """Samples that rows must hold, computed directly."""
    wanted = []
    for ids in tokenizer.encode_raw(list(texts)):
        for piece in cut(np.asarray(ids), length - 2, 64):
            wanted.append((tokenizer.cls_id, *piece.tolist(), tokenizer.sep_id))
    return Counter(wanted)


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
TEXT = st.lists(WORD, min_size=1, max_size=60).map(" ".join).filter(str.strip)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=40),
    length=st.integers(8, 200),
    window=st.integers(1, 50),
    unit=st.sampled_from([50, 500, 50_000]),
    validation=st.sampled_from([0.0, 0.3]),
    deduplicate=st.booleans(),
)
def test_every_token_is_there_once_and_no_segment_mixes_documents(
    tmp_path, tokenizer, monkeypatch, texts, length, window, unit, validation, deduplicate
):
    monkeypatch.setattr(components, "UNIT_BYTES", unit)
    monkeypatch.setattr(preparing, "WINDOW_DOCUMENTS", window)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
    source = corpus.write_jsonl(tmp_path / "text.jsonl", texts)
    options = {"validation": validation, "deduplicate": deduplicate, "workers": 1}
    try:
        outcome = prepare(Corpus([source]), tokenizer, tmp_path / "out", [length, 256], **options)
    except UserError as error:
        assert validation and "all documents were kept for validation" in str(error)
        return
    data = Prepared(tmp_path / "out")
    kept = list(dict.fromkeys(texts)) if deduplicate else texts
    for n in (length, 256):
        assert Counter(documents_of(data, n)) == samples(tokenizer, kept, n)
    component = outcome.components["default"]
    assert sum(component.documents.values()) == len(kept)
    assert component.duplicates == len(texts) - len(kept)
    assert component.sources[0].documents == len(texts)
    assert sum(component.tokens.values()) == sum(map(len, tokenizer.encode_raw(kept)))
    held_out = [set(documents_of(data, 256, [split])) for split in ("train", "validation")]
    assert len(set(kept)) != len(kept) or not held_out[0] & held_out[1]


def test_long_texts_give_the_same_tokens_in_pieces(tokenizer, monkeypatch):
    text = " ".join(corpus.texts()[:40])
    (whole,) = tokenizer.encode_raw([text])
    monkeypatch.setattr(tokenise, "PIECE", 100)
    ((_, _, ids),) = tokenise.tokenise([(0, text)], tokenizer, np.dtype(np.uint16))
    assert len(list(tokenise.split(text))) > 20 and ids.tolist() == whole


def test_rows_do_not_depend_on_the_number_of_workers(tmp_path, tokenizer, small):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    for workers in (1, 2):
        prepare(
            Corpus([source]),
            tokenizer,
            tmp_path / f"out{workers}",
            [64, 128],
            deduplicate=True,
            workers=workers,
        )
    first = files(tmp_path / "out1")
    assert first == files(tmp_path / "out2") and len([n for n in first if n.endswith("cord")]) > 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out1", "out2", "text.jsonl"]


def test_seed_orders_rows_and_nothing_else(tmp_path, tokenizer):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    rows = []
    for seed in (1, 2):
        prepare(Corpus([source]), tokenizer, tmp_path / f"{seed}", [64], seed=seed, workers=1)
        data = Prepared(tmp_path / f"{seed}")
        dataset = data.rows("train", 64)
        rows.append([tuple(dataset[i]["token_ids"]) for i in range(len(dataset))])
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1])


def test_duplicates_in_other_files_and_buckets(tmp_path, tokenizer, small, monkeypatch):
    monkeypatch.setattr(deduplicate, "BUCKET_DOCUMENTS", 10)
    texts = corpus.texts(50)
    (tmp_path / "2.txt").write_bytes(b"\0" * 20_000)  # a unit without any document
    for i in range(4):
        corpus.write_jsonl(tmp_path / f"{i}.jsonl", [f"only in {i}", *texts, *texts[: 5 * i]])
    texts_only = Corpus([tmp_path], on_error="skip")
    outcome = prepare(texts_only, tokenizer, tmp_path / "out", [64], deduplicate=True)
    component = outcome.components["default"]
    assert sum(component.documents.values()) == 54
    assert component.duplicates == 3 * 50 + 5 + 10 + 15
    kept = [*texts, *(f"only in {i}" for i in range(4))]
    assert Counter(documents_of(Prepared(tmp_path / "out"), 64)) == samples(tokenizer, kept, 64)


def test_tokenised_corpora_keep_their_token_ids(tmp_path, tokenizer):
    ids = [[7, 8, 9], [tokenizer.cls_id, 20, tokenizer.sep_id, tokenizer.pad_id]]
    pq.write_table(pa.table({"input_ids": ids}), tmp_path / "ids.parquet")
    sources = Corpus([MDS / "ids_shaped", tmp_path / "ids.parquet"])
    outcome = prepare(sources, tokenizer, tmp_path / "out", [64], validation=0, workers=1)
    assert outcome.components["default"].tokens == {"train": 3 * 7 + 3 + 1, "validation": 0}
    packed = Counter(documents_of(Prepared(tmp_path / "out"), 64))
    wanted = [*([*range(i, i + 7)] for i in range(3)), [7, 8, 9], [20]]
    assert packed == Counter((tokenizer.cls_id, *w, tokenizer.sep_id) for w in wanted)
    with pytest.raises(UserError, match=r"ids_uint16/.*token ids from 400 to 411"):
        prepare(Corpus([MDS / "ids_uint16"]), tokenizer, tmp_path / "bad", [64], workers=1)


def test_corrupt_rows_are_named(tmp_path, data):
    shutil.copytree(data.folder, tmp_path / "data")
    (shard,) = data.manifest.shards("default", 64, "train")
    manifest.check(tmp_path / "data", shard)
    path = tmp_path / "data" / shard.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name}: damaged.*checksum"):
        manifest.check(tmp_path / "data", shard)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{path.name}: damaged.*[\d,]+ bytes"):
        manifest.check(tmp_path / "data", shard)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format is 1"),
        ({"seed": "x"}, r"damaged \(manifest.seed"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"components": {}}, "components is empty"),
    ],
)
def test_damaged_manifests(tmp_path, data, change, message):
    content = json.loads((data.folder / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        manifest.read(tmp_path)


def test_a_manifest_cannot_point_outside(tmp_path, data):
    content = json.loads((data.folder / "manifest.json").read_text())
    for file in ("../../etc/passwd", "default/64/../../x", "/etc/passwd", "other/64/x"):
        content["components"]["default"]["lengths"]["64"]["train"]["shards"][0]["file"] = file
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="is not its file"):
            manifest.read(tmp_path)


def test_manifest_round_trip(data):
    assert manifest.read(data.folder) == data.manifest
    facts = manifest.read(data.folder).to_json()
    assert facts["components"]["default"]["sources"][0]["path"].endswith("corpus.jsonl")
    lengths = manifest.histogram(np.array([1, 1, 5, 6, 7, 1024, 10**9]))
    assert sum(lengths.values()) == 7 and lengths["1"] == 2 and lengths["1024"] == 1


MIXTURE = """
[components.web]
input = ["web/*.jsonl"]
weight = 2.0
epochs = 1.5

[components.code]
input = "code.jsonl"
weight = 1
field = "content"
"""


def test_mixture(tmp_path, tokenizer):
    (tmp_path / "web").mkdir()
    texts = corpus.texts()
    corpus.write_jsonl(tmp_path / "web" / "a.jsonl", texts[:80])
    (tmp_path / "code.jsonl").write_text(
        "".join(json.dumps({"content": text}) + "\n" for text in texts[80:])
    )
    (tmp_path / "mixture.toml").write_text(MIXTURE, encoding="utf-8-sig", newline="\r\n")
    parts = read_mixture(tmp_path / "mixture.toml")
    outcome = prepare(parts, tokenizer, tmp_path / "out", [64], validation=0, workers=1)
    web, code = outcome.components["web"], outcome.components["code"]
    assert (web.weight, web.epochs, code.weight, code.epochs) == (2.0, 1.5, 1.0, None)
    assert web.documents["train"] == 80 and code.documents["train"] == 40
    assert [s.file for s in outcome.shards("code", 64, "train")] == [
        "code/64/train-00000-0000.arrayrecord"
    ]
    assert Counter(documents_of(Prepared(tmp_path / "out"), 64)) == samples(tokenizer, texts, 64)

    # Weights can be changed later: the rows stay.
    (tmp_path / "mixture.toml").write_text(MIXTURE.replace("2.0", "3.0"))
    parts = read_mixture(tmp_path / "mixture.toml")
    rows = (tmp_path / "out" / "web" / "64" / "train-00000-0000.arrayrecord").stat()
    again = prepare(parts, tokenizer, tmp_path / "out", [64], validation=0, workers=1)
    assert again.components["web"].weight == 3.0 and manifest.read(tmp_path / "out") == again
    assert (tmp_path / "out" / "web" / "64" / "train-00000-0000.arrayrecord").stat() == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = [", "not TOML"),
        ("", "has no .components.NAME."),
        ("[component.a]", "did you mean 'components'"),
        ("[components.a]\nweight = 1", "input is None"),
        ("[components.a]\ninput = ['*']\nwieght = 1", "did you mean 'weight'"),
        ("[components.a]\ninput = ['*']\nweight = 0", "weight is 0"),
        ("[components.a]\ninput = ['*']\nepochs = true", "epochs is True"),
        ("[components.'../a']\ninput = ['*']", "component '../a'"),
        ("[components.tokenizer]\ninput = ['*']", "component 'tokenizer'"),
        ("[components.a]\ninput = '-'", "standard input .*--input alone"),
        ("[components.a]\ninput = ['none-*']", "none-.*: no such file"),
    ],
)
def test_wrong_mixtures(tmp_path, content, message):
    (tmp_path / "m.toml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_mixture(tmp_path / "m.toml")


def test_mixtures_in_the_home_folder_and_folders_with_brackets(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v[1]").mkdir()
    corpus.write_jsonl(tmp_path / "v[1]" / "a.jsonl", ["x"])
    for i, where in enumerate(["a.jsonl", "*.jsonl", "~/v[1]/a*", f"{tmp_path}/v[1]"]):
        (tmp_path / "v[1]" / "m.toml").write_text(f"[components.a]\ninput = {where!r}")
        (component,) = read_mixture("~/v[1]/m.toml").values()
        assert [s.path for s in component.corpus.sources] == [f"{tmp_path}/v[1]/a.jsonl"], i


def test_writes_to_urls(tmp_path, tokenizer, small):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    options = {"workers": 1, "deduplicate": True}
    prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], **options)
    outcome = prepare(Corpus([source]), tokenizer, "memory://made/out", [64], **options)
    memory = fsspec.filesystem("memory")
    memory.get("/made/out", str(tmp_path / "copy"), recursive=True)
    assert files(tmp_path / "copy") == files(tmp_path / "out")
    assert prepare(Corpus([source]), tokenizer, "memory://made/out", [64], **options) == outcome
    with pytest.raises(UserError, match="out: exists"):
        prepare(Corpus([source]), tokenizer, "memory://made/out", [128], **options)
    memory.rm("/made", recursive=True)


def test_a_finished_folder_is_not_written_again(tmp_path, tokenizer):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")  # a link to an empty folder is as good as the folder
    outcome = prepare(Corpus([source]), tokenizer, tmp_path / "link", [64], workers=1)
    assert {p.name for p in tmp_path.iterdir()} == {"text.jsonl", "out", "link"}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], workers=1) == outcome
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    for other in ({"seed": 1}, {"validation": 0.5}, {"deduplicate": True}):
        with pytest.raises(UserError, match="out: exists"):
            prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], **other)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="taken: exists"):
        prepare(Corpus([source]), tokenizer, tmp_path / "taken", [64])


@pytest.mark.parametrize(
    "options",
    [{"lengths": [7]}, {"lengths": []}, {"validation": 1.0}, {"workers": 0}, {"seed": -1}],
)
def test_invalid_settings_are_refused(tmp_path, tokenizer, options):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts(3))
    options = {"lengths": [64]} | options
    with pytest.raises(UserError, match=r"below|8 tokens or more|must be 1 or more"):
        prepare(Corpus([source]), tokenizer, tmp_path / "out", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["text.jsonl"]


def test_bad_text_in_a_worker_is_one_line(tmp_path, tokenizer, small):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    with source.open("a") as file:
        file.write("oops\n")
    with pytest.raises(UserError, match=r"text.jsonl:121: not JSON"):
        prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], workers=2)


@pytest.mark.slow
@pytest.mark.skipif("MODERNBERT_JAX_CORPUS" not in os.environ, reason="no real corpus")
def test_real_text_fills_its_rows(tmp_path):
    """$MODERNBERT_JAX_CORPUS has tokenizer.json, and a folder `corpus` with megabytes of text."""
    place = Path(os.environ["MODERNBERT_JAX_CORPUS"])
    real = Tokenizer.load(place / "tokenizer.json")
    outcome = prepare(Corpus([place / "corpus"]), real, tmp_path / "out", [1024, 8192])
    component = outcome.components["default"]
    for length in ("1024", "8192"):
        assert component.lengths[length]["train"].efficiency >= 0.999
        tokens = sum(rows.tokens - 2 * rows.samples for rows in component.lengths[length].values())
        assert tokens == sum(component.tokens.values())


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("a = " + "[" * 10**5, "not TOML"),
        (f"[components.{'x' * 5000}]\ninput = 'a'", "5,000 bytes"),
        ('[components."a\\u0001"]\ninput = "a"', "control character"),
    ],
)
def test_mixtures_that_are_no_mixtures(tmp_path, content, key):
    (tmp_path / "m.toml").write_text(content)
    with pytest.raises(UserError, match=key):
        read_mixture(tmp_path / "m.toml")
