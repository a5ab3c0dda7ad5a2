"""Documents from local and remote files of every format, and from damaged ones."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from modernbert_jax import UserError
from modernbert_jax.train.corpus.components import CorpusComponent, work_units
from modernbert_jax.train.corpus.sources import Corpus, Piece, documents, fetched, mds
from modernbert_jax.train.corpus.sources.document import Damaged

MDS = Path(__file__).parents[2] / "fixtures" / "mds"
WRITTEN = json.loads((MDS / "expected.json").read_text())
"""Documents that the real library wrote, by folder."""

TEXTS = ["one", "two\nlines", "три"]


def lines(texts, key="text") -> bytes:
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def everything(*patterns, **options) -> list:
    """All documents, token ids as lists."""
    corpus, skipped, result = Corpus.find([str(p) for p in patterns], **options), {}, []
    for source in corpus.sources:
        with fetched(source) as path:
            piece = Piece(source=source)
            result += documents(piece, path, corpus.field, corpus.on_error, skipped)
    return [d if isinstance(d, str) else d.tolist() for d in result]


def test_every_kind(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffplain")
    (tmp_path / "b.jsonl").write_bytes(lines(TEXTS))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines(TEXTS)))
    frames = [zstandard.compress(lines([text])) for text in TEXTS]
    (tmp_path / "d.jsonl.zst").write_bytes(b"".join(frames))
    pq.write_table(pa.table({"id": [1, 2, 3], "text": TEXTS}), tmp_path / "e.parquet")
    shutil.copytree(MDS / "text_raw", tmp_path / "f")
    wanted = ["plain", *TEXTS * 4, *WRITTEN["text_raw"]]
    assert everything(tmp_path / "*") == wanted
    assert everything(tmp_path) == wanted, "a folder stands for what can be read in it"
    assert list(Corpus.find([str(tmp_path)])) == wanted


@pytest.mark.parametrize("folder", WRITTEN)
def test_mds_as_the_real_library_writes_it(folder):
    assert everything(MDS / folder) == WRITTEN[folder]
    assert everything(MDS / folder / "index.json") == WRITTEN[folder]


def test_mds_prefers_what_is_decompressed_already(tmp_path):
    shutil.copytree(MDS / "text_zstd", tmp_path / "f")
    zipped = (tmp_path / "f" / "shard.00000.mds.zstd").read_bytes()
    (tmp_path / "f" / "shard.00000.mds").write_bytes(zstandard.decompress(zipped))
    result = [Path(s.path).name for s in Corpus.find([str(tmp_path / "f")]).sources]
    assert result == ["shard.00000.mds", "shard.00001.mds.zstd"]
    assert everything(tmp_path / "f") == WRITTEN["text_zstd"]


def index_with(folder: Path, **changes) -> Path:
    """A copy of an MDS folder with changes to its first shard's entry in the index."""
    shutil.copytree(MDS / "text_raw", folder)
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0] |= changes
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column_encodings": ["str", "int", "pkl"]}, r"'text' is encoded as 'pkl'"),
        ({"format": "json"}, "MDS version 2"),
        ({"column_names": ["a", "b", "c"]}, r"no column 'text'.*a, b, c"),
        ({"column_sizes": [None]}, "different numbers of facts"),
        ({"samples": "many"}, "damaged index"),
        ({"raw_data": {"basename": "../x", "bytes": 1, "hashes": {}}}, r"'../x' is not the name"),
        ({"raw_data": {"basename": "/etc/x", "bytes": 1, "hashes": {}}}, "is not the name"),
        ({"raw_data": {"basename": "a\0b", "bytes": 1}}, "control character"),
        ({"raw_data": {"basename": "x" * 5000, "bytes": 1}}, "5,000 bytes"),
        ({"raw_data": {"basename": "x.mds", "bytes": 10**12}}, "below 2.32"),
        ({"raw_data": {"basename": 5, "bytes": 1}}, "holds int, not a text"),
        ({"raw_data": [1]}, "raw_data has no basename"),
        ({"zip_data": {"basename": "x", "bytes": 1}, "compression": None}, "compression is None"),
        ({"column_sizes": ["x", None]}, "column_sizes is not"),
        ({"column_sizes": [-4, None]}, "column_sizes is not"),
        ({"column_encodings": [5, "str"]}, "column_encodings is not a list of texts"),
        ({"column_names": "ab"}, "column_names is not a list of texts"),
        ({"samples": True}, "samples is True"),
        ({"samples": 3}, "shard.00000.mds: damaged or unreadable .*samples, not 3"),
        ({"column_sizes": [None, 4, None]}, r"shard.00000.mds: damaged.*do not fill it"),
    ],
)
def test_wrong_mds_index(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        everything(index_with(tmp_path / "f", **changes))


@pytest.mark.parametrize("folder", ["text_raw", "text_zstd", "text_gz", "text_bz2", "ids_uint16"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_mds_shards_are_named_and_can_be_skipped(tmp_path, folder, damage):
    shutil.copytree(MDS / folder, tmp_path / "f")
    path = sorted((tmp_path / "f").glob("shard*"))[0]
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-7])
    elif "hashes" not in json.loads((tmp_path / "f" / "index.json").read_text())["shards"][0]:
        pytest.skip("nothing to compare with")
    else:
        path.write_bytes(content[:2] + bytes([content[2] ^ 255]) + content[3:])
    with pytest.raises(UserError, match=rf"{path.name}.*: damaged or unreadable"):
        everything(tmp_path / "f")
    left = everything(tmp_path / "f", on_error="skip")
    assert 0 < len(left) < len(WRITTEN[folder])


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS, pa.string()),
        pa.array(TEXTS, pa.large_string()),
        pa.array([t.encode() for t in TEXTS], pa.binary()),
        pa.array(TEXTS).dictionary_encode(),
    ],
)
def test_parquet_texts_of_every_type(tmp_path, column):
    pq.write_table(pa.table({"body": column}), tmp_path / "x.parquet")
    assert everything(tmp_path / "x.parquet", field="body") == TEXTS


def test_parquet_of_token_ids_and_of_neither(tmp_path):
    ids = [[1, 2, 3], [4], list(range(9))]
    pq.write_table(pa.table({"input_ids": pa.array(ids, pa.list_(pa.uint16()))}), tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "x.parquet")
    assert everything(tmp_path / "x.parquet") == ids
    pq.write_table(pa.table({"body": TEXTS}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"no column 'text'.*--field"):
        everything(tmp_path / "x.parquet")
    pq.write_table(pa.table({"text": [1.5]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="column 'text' holds double"):
        everything(tmp_path / "x.parquet")
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x.parquet, row 2: no text"):
        everything(tmp_path / "x.parquet")
    assert everything(tmp_path / "x.parquet", on_error="skip") == ["a", "b"]


BAD = {
    "empty.txt": (b"  \n", "empty"),
    "nothing.txt": (b"", "empty"),
    "nothing.jsonl": (b"", "empty"),
    "nothing.jsonl.gz": (gzip.compress(b""), "empty"),
    "binary.txt": (b"\x7fELF\0\1", "binary"),
    "latin.txt": ("café".encode("latin-1"), "not UTF-8 at byte 3"),
    "broken.jsonl": (b'{"text": "x"\n', "broken.jsonl:1: not JSON"),
    "field.jsonl": (b'{"txt": "x"}\n', "field.jsonl:1: has no 'text'"),
    "list.jsonl": (b'["text"]\n', "list.jsonl:1: not a JSON object"),
    "number.jsonl": (b'{"text": 3}\n', "'text' is not a string"),
    "hollow.jsonl": (b'{"text": ""}\n', "hollow.jsonl:1: empty"),
    "zeros.jsonl": (b'{"text": "a\\u0000b"}\n', "zeros.jsonl:1: binary"),
    "lonely.jsonl": (b'{"text": "a\\ud800b"}\n', "lonely.jsonl:1: not UTF-8"),
    "latin.jsonl": (b'\n{"text": "caf\xe9"}\n', "latin.jsonl:2: not UTF-8"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "x"}\n' * 99)[:-9], "damaged"),
    "cut.jsonl.zst": (zstandard.compress(b'{"text": "x"}\n' * 99)[:-5], "damaged"),
    "noise.jsonl.zst": (b"(\xb5/\xfd nonsense", "damaged"),
    "noise.jsonl.gz": (b"nonsense", "damaged"),
    "noise.parquet": (b"PAR1 nonsense PAR1", "damaged"),
    "nothing.parquet": (b"", "damaged"),
    "archive.zip": (b"PK", ".zip files are not read"),
    "text.gz": (gzip.compress(b"x"), ".gz files are not read"),
    "data.PKL": (b"x", ".PKL files are not read"),
    "lines.backup": (b'{"text": "x"}\n' * 2, "JSON lines under another ending"),
    "none.json": (b"", "empty"),
    "other.json": (b'[{"txt": "x"}]', "other.json:1: has no 'text'"),
    "number.json": (b"7", "damaged or unreadable (holds neither"),
    "broken.json": (b'[{"text": "x"', "damaged or unreadable (not JSON"),
    "bare.csv": (b"body\nx\n", "bare.csv:2: has no 'text'"),
    "hole.csv": (b"id,text\n1,\n", "hole.csv:2: has no 'text'"),
    "ragged.tsv": (b"id\ttext\n1\n", "ragged.tsv:2: has 1 fields"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_documents_stop_or_are_skipped(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "good.txt").write_text("the cat sat")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(Corpus.find([str(tmp_path / "*")]))
    assert name in str(error.value) and message in str(error.value)
    assert "--on-error skip" in str(error.value)
    skipping = Corpus.find([str(tmp_path / "*")], on_error="skip")
    assert "the cat sat" in list(skipping) and sum(skipping.skipped.values()) == 1


WRITINGS = {
    "x.JSONL": lines(TEXTS),
    "x.ndjson.bz2": bz2.compress(lines(TEXTS)),
    "x.jsonl.xz": lzma.compress(lines(TEXTS)),
    "x.json": lines(TEXTS),
    "c4.00000-of-01024.json.gz": gzip.compress(lines(TEXTS)),
    "list.json": json.dumps([{"text": t} for t in TEXTS], indent=1).encode(),
    "line.json.zst": zstandard.compress(json.dumps([{"text": t} for t in TEXTS]).encode()),
    "bom.json": b"\xef\xbb\xbf" + lines(TEXTS),
    "x.csv": b'\xef\xbb\xbfid,text\r\n1,one\r\n2,"two\nlines"\r\n3,' + TEXTS[2].encode(),
}


@pytest.mark.parametrize("name", WRITINGS)
def test_endings_in_use_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(WRITINGS[name])
    assert everything(tmp_path / name) == TEXTS
    assert everything(tmp_path) == TEXTS, "a folder stands for it"


def test_text_is_plain_under_any_other_ending(tmp_path):
    (tmp_path / "a.py").write_text("{}\n")
    (tmp_path / "b.txt").write_bytes(lines(TEXTS))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"c"))
    assert everything(tmp_path / "*") == ["{}\n", lines(TEXTS).decode(), "c"]


def test_json_lines_are_not_read_as_a_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(lines(TEXTS) + b"oops\n")
    corpus = iter(Corpus.find([str(tmp_path / "a.json")]))
    assert [next(corpus) for _ in TEXTS] == TEXTS
    with pytest.raises(UserError, match=r"a.json:4: not JSON"):
        next(corpus)


def test_a_folder_stands_for_data_alone(tmp_path):
    for name in ("._a.jsonl", ".ipynb_checkpoints/a.jsonl", "a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines(["x"]))
    for name in ("README.md", "dataset_info.json", "index.json"):
        (tmp_path / name).write_text("{}")
    assert [Path(s.path).name for s in Corpus([tmp_path]).sources] == ["a.jsonl"]


def test_mds_folders_without_a_usable_index(tmp_path):
    shutil.copytree(MDS / "text_zstd", tmp_path / "f")
    index = tmp_path / "f" / "index.json"
    index.write_text('{"version": 2, "shards": []}')
    for path in (tmp_path, index):
        with pytest.raises(UserError, match="lists no shards"):
            everything(path)
    index.write_text("")
    for path in (tmp_path, index):
        with pytest.raises(UserError, match=r"index.json: not JSON"):
            everything(path)
    index.unlink()
    with pytest.raises(UserError, match=r"MDS shard that no index.json"):
        everything(tmp_path)


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(TEXTS))))
    corpus = Corpus.find(["-"])
    (source,) = corpus.sources
    assert (source.path, source.bytes) == ("-", len(lines(TEXTS)))
    assert list(corpus) == list(corpus) == TEXTS, "it can be read twice"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text\n")))
    with pytest.raises(UserError, match=r"^-:1: not JSON"):
        list(Corpus.find(["-"]))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        Corpus.find(["-"])


def test_nested_fields(tmp_path):
    nested = {"id": 1, "meta": {"text": "inner"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(nested))
    (tmp_path / "b.json").write_text(json.dumps([nested, {"meta.text": "outer", "meta": 1}]))
    pq.write_table(pa.table({"meta": [{"text": "inner"}, None]}), tmp_path / "c.parquet")
    assert everything(tmp_path / "*.js*", field="meta.text") == ["inner", "inner", "outer"]
    with pytest.raises(UserError, match=r"c.parquet, row 2: no meta.text"):
        everything(tmp_path / "c.parquet", field="meta.text")
    assert everything(tmp_path / "c.parquet", field="meta.text", on_error="skip") == ["inner"]
    with pytest.raises(UserError, match=r"no column 'meta.body'.*--field"):
        everything(tmp_path / "c.parquet", field="meta.body")


def test_no_such_file(tmp_path):
    for pattern in (str(tmp_path / "*.txt"), str(tmp_path / "x.txt"), "memory://nowhere/*.txt"):
        with pytest.raises(UserError, match="no such file"):
            Corpus.find([pattern])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: has no files .*it is empty"):
        Corpus.find([str(tmp_path / "empty")])
    (tmp_path / "good.txt").write_text("x")
    assert everything(tmp_path / "*") == ["x"], "a pattern may match folders that hold nothing"
    (tmp_path / "empty" / "a.md").touch()
    with pytest.raises(UserError, match=r"only .md"):
        Corpus.find([str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"nonsense://x: .*nonsense"):
        Corpus.find(["nonsense://x"])


def test_urls():
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.jsonl.gz", gzip.compress(lines(TEXTS)))
    memory.pipe("/bucket/deep/b.txt", b"plain")
    memory.put(str(MDS / "text_zstd"), "/bucket/shards", recursive=True)
    assert everything("memory://bucket/a.jsonl.gz", "memory://bucket/deep/*.txt") == [
        *TEXTS,
        "plain",
    ]
    assert everything("memory://bucket/shards") == WRITTEN["text_zstd"]
    assert everything("memory://bucket") == [*TEXTS, "plain", *WRITTEN["text_zstd"]]
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("unit", [1, 7, 40, 100, 10_000])
def test_a_file_in_pieces_has_every_line_once(tmp_path, monkeypatch, unit, ending):
    monkeypatch.setattr("modernbert_jax.train.corpus.components.UNIT_BYTES", unit)
    texts = [f"text {i} " + "x" * (i * 13 % 40) for i in range(30)]
    (tmp_path / "a.jsonl").write_bytes(lines(texts).replace(b"\n", ending.encode()))
    table = pa.table({"text": texts})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=4)
    outcome = work_units({"x": CorpusComponent(corpus=Corpus([tmp_path]))})
    assert unit > 1000 or len(outcome) > 4
    result = [
        document
        for one in outcome
        for piece in one.pieces
        for document in documents(piece, Path(piece.source.path), "text", "stop", {})
    ]
    assert result == texts * 2


def test_a_bad_line_in_a_later_piece_is_counted_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("modernbert_jax.train.corpus.components.UNIT_BYTES", 50)
    (tmp_path / "a.jsonl").write_bytes(lines(["x"] * 40) + b"oops\n")
    outcome = work_units({"x": CorpusComponent(corpus=Corpus([tmp_path]))})
    assert len(outcome) > 5
    piece = outcome[-1].pieces[-1]
    with pytest.raises(UserError, match=r"a.jsonl:41: not JSON"):
        list(documents(piece, tmp_path / "a.jsonl", "text", "stop", {}))


def test_units_are_alike_and_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr("modernbert_jax.train.corpus.components.UNIT_BYTES", 1000)
    rng = np.random.default_rng(0)
    for i in range(60):
        (tmp_path / f"{i:02}.txt").write_text("x" * int(rng.integers(20, 400)))
    outcome = work_units({"x": CorpusComponent(corpus=Corpus([tmp_path]))})
    paths = [piece.source.path for one in outcome for piece in one.pieces]
    assert paths == sorted(str(p) for p in tmp_path.iterdir())
    sizes = [sum(p.source.bytes for p in one.pieces) for one in outcome]
    assert len(outcome) == round(sum(sizes) / 1000) and min(sizes) > 500 and max(sizes) < 1500
    assert [one.number for one in outcome] == list(range(len(outcome)))


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("ndarray:(i4", b"\0" * 8, "unknown type"),
        ("ndarray:object", b"\0" * 8, "unknown type"),
        ("ndarray:float32", b"\0" * 8, "not integers"),
        ("ndarray", b"", "unknown type"),
        ("ndarray", b"\x21", "has no shape"),
        ("ndarray", b"\x21\xff", "does not fill"),
    ],
)
def test_arrays_of_mds_that_are_no_token_ids(encoding, content, message):
    with pytest.raises(Damaged, match=message):
        mds._array(content, encoding)


def test_missing_ids_in_parquet_are_a_reason_to_skip(tmp_path):
    pq.write_table(pa.table({"input_ids": [[1, 2], [3, None], None]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 2: input_ids with a missing id"):
        everything(tmp_path / "a.parquet")
    assert everything(tmp_path / "a.parquet", on_error="skip") == [[1, 2]]


def test_halves_of_surrogate_pairs_matter_in_the_text_only(tmp_path):
    rows = [r'{"text": "a", "title": "\ud83d"}', r'{"text": "cut \ud83d off"}', "[" * 10**5]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"a.jsonl:2: not UTF-8"):
        everything(tmp_path)
    assert everything(tmp_path, on_error="skip") == ["a"]
