"""Labelled records from files of every format, and the messages about bad ones."""

import csv
import gzip
import io
import json
import struct
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from modernbert_jax import UserError
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import Classification, read

ROWS = [
    {"id": "a", "text": "one, two", "label": 1},
    {"id": "b", "text": 'said "no"\nand left', "label": 0},
    {"id": "c", "text": "три", "label": 1},
]
NAMES = ["bad", "good"]
FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
}


def values(path):
    return [dict(r.values) for r in read([path])]


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_table(path, delimiter=",", rows=ROWS, **dialect):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter, **dialect)
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(rows=ROWS, features=None) -> pa.Table:
    result = pa.Table.from_pylist(rows)
    if features:
        noted = {"huggingface": json.dumps({"info": {"features": features}})}
        result = result.replace_schema_metadata(noted)
    return result


def write_arrow(path, rows=ROWS, stream=False, features=None):
    outcome = table(rows, features)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, outcome.schema) as writer:
        writer.write_table(outcome, max_chunksize=2)
    return path


def write_saved(folder, rows=ROWS, features=FEATURES, **state):
    """Write a folder as `Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    files = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    write_arrow(folder / files[0], rows[:2], stream=True)
    write_arrow(folder / files[1], rows[2:], stream=True)
    state = {"_data_files": [{"filename": f} for f in files], "_split": "train"} | state
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def test_json_lines(tmp_path):
    content = b"\xef\xbb\xbf" + jsonl(ROWS).replace(b"\n", b"\n\n", 1)
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content, mtime=0))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(content))
    (tmp_path / "a.json").write_bytes(content)
    for path in tmp_path.iterdir():
        assert values(path) == ROWS
        assert [r.place for r in read([path])] == [f"{path}:{n}" for n in (1, 3, 4)]
    assert len(read([tmp_path / "a.*"])) == 12
    assert len(read(str(tmp_path / "a.json"))) == 3


def test_json(tmp_path):
    path = tmp_path / "a.json"
    for content in (ROWS, {"data": ROWS}):
        path.write_text(json.dumps(content, indent=1))
        assert values(path) == ROWS
    path.write_text(json.dumps(ROWS[0], indent=1))
    assert values(path) == ROWS[:1]


def test_the_nesting_of_squad(tmp_path):
    qas = [{"id": "1", "question": "what?", "answers": [{"text": "x", "answer_start": 0}]}]
    article = {"title": "t", "paragraphs": [{"context": "x y", "qas": qas}]}
    (tmp_path / "a.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    assert values(tmp_path / "a.json") == [{"context": "x y", **qas[0]}]


def test_tables(tmp_path):
    want = [{k: str(v) for k, v in row.items()} for row in ROWS]
    path = write_table(tmp_path / "a.csv")
    assert values(path) == want
    assert [r.place for r in read([path])] == [f"{path}:{n}" for n in (2, 3, 5)]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes(), mtime=0))
    assert values(tmp_path / "a.csv.gz") == want
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Hm" he said\t\nlong ' + "x" * 200_000 + "\t1\n")
    first, last = values(tmp_path / "a.tsv")
    assert first == {"text": '"Hm" he said', "label": None} and len(last["text"]) == 200_005


def test_conll(tmp_path):
    (tmp_path / "a.conll").write_text(
        "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP B-PER"
    )
    result = read([tmp_path / "a.conll"])
    assert [r.place[-2:] for r in result] == [":3", ":7"]
    assert [dict(r.values) for r in result] == [
        {"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "ner_tags": ["B-PER"]},
    ]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream", "folder"])
def test_arrow_and_names_of_labels(tmp_path, kind):
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(table(features=FEATURES), path, row_group_size=2)
    elif kind == "folder":
        path = write_saved(tmp_path / "a")
    else:
        path = write_arrow(tmp_path / "a.arrow", stream=kind == "stream", features=FEATURES)
    records = read([path])
    assert [dict(r.values) for r in records] == [r | {"label": NAMES[r["label"]]} for r in ROWS]
    assert records.names == {"label": ("bad", "good")}
    assert [r.place for r in records] == [f"{path}:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("nested", ["Sequence", "List", "old"])
def test_names_of_lists_of_labels(tmp_path, nested):
    rows = [{"tokens": ["a", "b"], "ner_tags": [1, 0]}] * 2 + [{"tokens": ["c"], "ner_tags": [-1]}]
    label = {"names": ["O", "B-X"], "_type": "ClassLabel"}
    feature = [label] if nested == "old" else {"feature": label, "_type": nested}
    result = read([write_saved(tmp_path / "a", rows, {"ner_tags": feature})])
    assert [r.values["ner_tags"] for r in result] == [["B-X", "O"], ["B-X", "O"], [None]]


def test_files_that_agree_about_labels_and_files_that_do_not(tmp_path):
    first = write_saved(tmp_path / "a")
    assert len(read([first, write_arrow(tmp_path / "plain.arrow", ROWS)])) == 6
    other = FEATURES | {"label": {"names": NAMES[::-1], "_type": "ClassLabel"}}
    second = write_saved(tmp_path / "b", features=other)
    with pytest.raises(UserError, match="b: declares labels of 'label' that differ"):
        read([first, second])


def test_a_url(tmp_path):
    import fsspec

    with fsspec.open("memory://tasks/a.jsonl", "wb") as file:
        file.write(jsonl(ROWS))
    assert values("memory://tasks/a.jsonl") == ROWS


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jsonl(ROWS))))
    result = read(["-"])
    assert [dict(r.values) for r in result] == ROWS and result[2].place == "-:3"
    with pytest.raises(UserError, match=r"train is '-'.*store"):
        FinetuneConfig(task=Classification(), train="-")


def bad(path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read([path])
    message = str(error.value)
    assert "\n" not in message and message.startswith(str(path))
    return message.replace(str(path), path.name)


def test_bad_lines_are_reported_together(tmp_path):
    content = jsonl(ROWS[:1]) + b'{"a"\n[1]\n\xff\n"x"\n{\n\x00\n' + b"7\n" * 3
    message = bad(tmp_path / "a.jsonl", content)
    assert message.startswith("a.jsonl:2: not JSON (")
    assert "a.jsonl:3: not a JSON object (and 4 more like this); " in message
    assert "; a.jsonl:4: not UTF-8 at byte 0; a.jsonl:6: not JSON" in message
    content = b"".join(b"x" * n + b"\xff\n" for n in range(9))
    assert bad(tmp_path / "a.jsonl", content).endswith("5: not UTF-8 at byte 4; and 4 more")
    assert bad(tmp_path / "a.jsonl", b"[1]\n") == "a.jsonl:1: not a JSON object"


@pytest.mark.parametrize(
    "name,content,want",
    [
        ("a.jsonl", "", "a.jsonl: holds no records"),
        ("a.csv", "text,label\n", "a.csv: holds no records"),
        ("a.csv", "x,y\n1,2\n3\n4,5,6\n", "a.csv:3: has 1 fields"),
        ("a.csv", "x,y,x\n1,2,3\n", "a.csv: names column 'x' twice"),
        ("a.csv", b"x,y\n1,\xff\n", "a.csv: line 2: not UTF-8 at byte 2"),
        ("a.csv", 'x\n"a"b\n', "a.csv: line 2: not CSV"),
        ("a.json", "7", "a.json: holds neither"),
        ("a.json", "[1]", "a.json:1: not a JSON object"),
        ("a.json", "{", "a.json: not JSON"),
        ("a.conll", "EU B-ORG\nrejects\n", "a.conll:1: line 2 has"),
        ("a.jsonl.gz", gzip.compress(jsonl(ROWS), mtime=0)[:-12], "a.jsonl.gz: damaged"),
        ("a.jsonl.zst", zstandard.compress(jsonl(ROWS))[:-9], "a.jsonl.zst: damaged"),
        ("a.parquet", "PAR1", "a.parquet: damaged"),
        ("a.arrow", "ARROW1", "a.arrow: damaged"),
        ("a.pickle", "x", "a.pickle: .pickle is not read; known: .jsonl"),
    ],
)
def test_bad_files(tmp_path, name, content, want):
    assert bad(tmp_path / name, content).startswith(want)


def test_bad_folders(tmp_path):
    def message(path):
        with pytest.raises(UserError) as error:
            read([path])
        return str(error.value).replace(str(tmp_path), "")

    assert message(tmp_path / "none*") == "/none*: no such file"
    (tmp_path / "plain").mkdir()
    assert "not a saved dataset" in message(tmp_path / "plain")
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert message(tmp_path / "dict").endswith("name one of them: /dict/train, /dict/test")
    outside = write_saved(tmp_path / "out", _data_files=[{"filename": "../x.arrow"}])
    assert message(outside).startswith("/out: state.json: _data_files")
    damaged = write_saved(tmp_path / "damaged")
    (damaged / "data-00001-of-00002.arrow").write_bytes(b"ARROW1")
    assert message(damaged).startswith("/damaged: data-00001-of-00002.arrow: damaged")
    shuffled = write_saved(tmp_path / "order", _indices_data_files=[{"filename": "i.arrow"}])
    assert "flatten_indices()" in message(shuffled)
    wrong = write_saved(tmp_path / "wrong", [*ROWS[:2], ROWS[2] | {"label": 2}])
    assert message(wrong).startswith("/wrong:3: label 2")


def test_damaged_offsets_of_arrow_are_found_before_values_are_read(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", [{"text": "x" * 8}, {"text": "y" * 8}])
    content = path.read_bytes()
    offsets = struct.pack("<3i", 0, 8, 16)
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<3i", 0, 2**30, 2**31 - 1)))
    with pytest.raises(UserError, match=r"a.arrow: damaged or unreadable"):
        values(path)


@pytest.mark.parametrize(
    "article",
    [
        {"paragraphs": ["x"]},
        {"paragraphs": [{"context": "c", "qas": 5}]},
        {"paragraphs": [{"context": "c", "qas": ["x"]}]},
        {"paragraphs": [[]]},
        "x",
    ],
)
def test_other_types_in_the_nesting_of_squad(tmp_path, article):
    (tmp_path / "a.json").write_text(json.dumps({"data": [article]}))
    with pytest.raises(UserError, match=r"a.json:1: (a paragraph must be|not a JSON object)"):
        values(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (r'{"text": "cut \ud83d off"}', "text"),
        (r'{"label": ["a", "\udfff"]}', "label.1"),
        (r'{"\ud83d": "a"}', "not UTF-8"),
    ],
)
def test_halves_of_surrogate_pairs_are_named(tmp_path, row, where):
    for name, content in (("a.jsonl", '{"text": "fine"}\n' + row), ("a.json", f"[{{}}, {row}]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=f"{name}:2: {where}.*half a surrogate pair"):
            values(tmp_path / name)


def test_deep_json_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": ' + "[" * 10**5)
    with pytest.raises(UserError, match=r"a.jsonl:2: not JSON"):
        values(tmp_path / "a.jsonl")
