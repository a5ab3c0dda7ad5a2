"""The input as rows: every format, any shard in any order, and files that cannot be read."""

import gzip

import embedding
import fsspec
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.embed import inputs
from modernbert_jax.train.embed.config import Embedding
from modernbert_jax.train.embed.texts import texts

RECORDS = embedding.records(50)


def options(path, **changes) -> Embedding:
    values = {"model": "m", "input": (str(path),), "output": "out"}
    return Embedding(**values | changes)


def read(path, order=None, size=8, skipped=None, **changes) -> list[tuple[str, str]]:
    """Ids and texts of all shards, in their order, read in another one."""
    chosen = options(path, **changes)
    sources = inputs.files(chosen.input)
    layout = inputs.survey(sources, chosen.lines, size, lambda done: None)
    shards = range(len(layout.starts))
    found = {}
    with inputs.Reader(sources, layout, chosen.lines) as reader:
        for shard in order or shards:
            found[shard] = [*texts(reader, shard, chosen, {} if skipped is None else skipped)]
    return [tuple(text) for shard in shards for text in found[shard]]


WANTED = [(row["_id"], row["text"]) for row in RECORDS]
FILES = {
    "lines": lambda folder: embedding.write_jsonl(folder / "x.jsonl", RECORDS),
    "blank lines": lambda folder: embedding.write_jsonl(folder / "x.jsonl", RECORDS, blank=3),
    "gzip": lambda folder: embedding.write_jsonl(folder / "x.jsonl.gz", RECORDS, blank=3),
    "zstandard": lambda folder: embedding.write_jsonl(folder / "x.ndjson.zst", RECORDS),
    "parquet": lambda folder: embedding.write_table(folder / "x.parquet", RECORDS),
    "arrow": lambda folder: embedding.write_table(folder / "x.arrow", RECORDS),
    "csv": lambda folder: embedding.write_table(folder / "x.csv", RECORDS),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_in_any_order_of_shards(tmp_path, kind):
    path = FILES[kind](tmp_path)
    assert read(path) == WANTED
    count = len(range(0, 66 if "blank" in kind or kind == "gzip" else 50, 8))
    assert read(path, order=[*range(1, count, 2), *range(0, count, 2)]) == WANTED
    assert read(path, order=[*range(count)][::-1]) == WANTED
    assert read(path, size=1000) == WANTED


def test_a_folder_and_a_url_of_several_files(tmp_path):
    """Shards run over the ends of files; a file whose last line has no end counts it."""
    (tmp_path / "deep").mkdir()
    first = embedding.write_jsonl(tmp_path / "a.jsonl", RECORDS[:20])
    first.write_text(first.read_text().rstrip("\n"))
    embedding.write_table(tmp_path / "b.parquet", RECORDS[20:33])
    embedding.write_jsonl(tmp_path / "deep/c.jsonl.gz", RECORDS[33:])
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert read(tmp_path) == WANTED
    assert read(tmp_path, order=[6, 0, 3, 5, 1, 4, 2]) == WANTED
    memory = fsspec.filesystem("memory")
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            memory.pipe(f"/embed/{path.relative_to(tmp_path)}", path.read_bytes())
    assert read("memory://embed", order=[6, 0, 3, 5, 1, 4, 2]) == WANTED


def test_plain_text_by_file_or_by_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} one\n\n{name} two\n")
    whole = [(str(tmp_path / f"{n}.txt"), f"{n} one\n\n{n} two\n") for n in ("a", "b")]
    assert read(tmp_path) == whole
    lines = [("0", "a one"), ("2", "a two"), ("3", "b one"), ("5", "b two")]
    assert read(tmp_path, lines=True, size=2) == lines


def test_columns_templates_and_ids(tmp_path):
    rows = [{"title": "A", "text": "b", "key": 7, "in": {"x": "y"}}]
    path = embedding.write_jsonl(tmp_path / "x.jsonl", rows)
    assert read(path) == [("0", "A b")]  # as BEIR joins them
    assert read(path, field="in.x", id_field="key") == [("7", "y")]
    assert read(path, field="{title}: {text}", id_field="in.x") == [("y", "A: b")]


def test_ids_are_numbers_of_rows_in_the_whole_input(tmp_path):
    for name in ("a", "b"):
        embedding.write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}] * 3)
    assert [name for name, _ in read(tmp_path, size=2)] == [*map(str, range(6))]


def test_empty_texts_and_repeated_ids_are_kept(tmp_path):
    rows = [{"id": 1, "text": ""}, {"id": 1, "text": " "}]
    assert read(embedding.write_jsonl(tmp_path / "x.jsonl", rows)) == [("1", ""), ("1", " ")]


BAD = {
    '{"text": "cut': "x.jsonl:2: ",
    "[1]": "x.jsonl:2: not a JSON object",
    '{"id": 1}': "x.jsonl:2: has no 'text'",
    '{"id": 1, "text": null}': "x.jsonl:2: 'text' is empty",
    '{"id": 1, "text": ["a"]}': "x.jsonl:2: 'text' is ",
    '{"id": {}, "text": "a"}': "x.jsonl:2: id ",
    '{"id": "", "text": "a"}': "x.jsonl:2: ",
    '{"text": "\\ud800"}': "x.jsonl:2: text: not UTF-8",
}


@pytest.mark.parametrize("line", BAD)
def test_rows_that_cannot_be_used(tmp_path, line):
    path = embedding.write_jsonl(tmp_path / "x.jsonl", [RECORDS[0], line, RECORDS[1]])
    with pytest.raises(UserError, match=BAD[line]) as error:
        read(path)
    assert "--on-error skip" in str(error.value)
    skipped = {}
    assert read(path, on_error="skip", skipped=skipped) == WANTED[:2]
    assert [*skipped.values()] == [1]


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n{"text": "a\0"}\n')
    with pytest.raises(UserError, match=r"x.jsonl:1: not UTF-8"):
        read(path)
    skipped = {}
    assert read(path, on_error="skip", skipped=skipped) == []
    assert skipped == {"not UTF-8": 1, "binary": 1}


def test_files_that_cannot_be_read(tmp_path):
    cut = tmp_path / "x.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"text": "a"}\n' * 9999)[:-20])
    broken = tmp_path / "x.parquet"
    broken.write_bytes(b"PAR1")
    table = embedding.write_table(tmp_path / "y.parquet", RECORDS)
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    mixed = tmp_path / "x.json"
    mixed.write_text("7")
    for path in (cut, broken, table, mixed):
        with pytest.raises(UserError, match=f"{path}: "):
            read(path, on_error="skip")


def test_names_that_mean_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.pdf").write_bytes(b"")
    for path, problem in {
        tmp_path / "no.jsonl": "no such file",
        tmp_path / "empty": "it is empty",
        tmp_path / "other": r"only \.pdf",
        tmp_path / "other/x.pdf": r"\.pdf files hold no texts",
    }.items():
        with pytest.raises(UserError, match=problem):
            inputs.files([str(path)])


def test_the_identity_is_the_content_wherever_it_is(tmp_path):
    def identity(path, lines=False):
        return inputs.identity(inputs.files([str(path)]), lines)

    (tmp_path / "other").mkdir()
    one = embedding.write_jsonl(tmp_path / "a.jsonl", RECORDS)
    two = embedding.write_jsonl(tmp_path / "other/b.jsonl", RECORDS)
    assert identity(one) == identity(two)
    embedding.write_jsonl(two, RECORDS[1:])
    assert identity(one) != identity(two)
    for name in ("a", "b"):  # whose names are ids of whole files
        (tmp_path / f"{name}.txt").write_text("same")
    assert identity(tmp_path / "a.txt") != identity(tmp_path / "b.txt")
    assert identity(tmp_path / "a.txt", True) == identity(tmp_path / "b.txt", True)
