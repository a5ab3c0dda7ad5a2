"""The vectors of an input: as those of `ModernBert.encode`, in every format and type, resumable."""

import dataclasses
import json
from pathlib import Path

import embedding
import fsspec
import models
import numpy as np
import program
import pytest

from modernbert_jax import ModernBert, UserError
from modernbert_jax.train.embed import models as loading
from modernbert_jax.train.embed import run, shard
from modernbert_jax.train.embed.config import Embedding
from modernbert_jax.train.retrieval import on_devices

COUNT = 60
KINDS = {"dense": "mean", "late": "colbert_plain", "sparse": "sparse"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An input and a model of every kind."""
    folder = tmp_path_factory.mktemp("embed")
    embedding.write_jsonl(folder / "x.jsonl", embedding.records(COUNT))
    for name in KINDS.values():
        models.write(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def encoders():
    """Encoders that were made, so that their programs are compiled once."""
    return {}


@pytest.fixture
def options(folder, tmp_path, encoders, monkeypatch):
    """Options of an embedding in shards of 16 rows and small windows."""
    for kind in {*loading.RETRIEVERS.values(), loading.TextEncoder}:
        monkeypatch.setattr(kind, "of", classmethod(_shared(kind.of.__func__, encoders)))

    def make(kind="dense", name="out", **changes) -> Embedding:
        values = {
            "model": str(folder / KINDS[kind]),
            "input": (str(folder / "x.jsonl"),),
            "output": str(tmp_path / name),
            "shard_texts": 16,
            "window_tokens": 256,
            "batch_tokens": 128,
        }
        return Embedding(**values | changes)

    return make


def _shared(make, encoders):
    def of(kind, checkpoint, mesh, query, document, *, name, **own):
        key = name, own["weights"]
        if key not in encoders:
            encoders[key] = make(kind, checkpoint, mesh, query, document, name=name, **own)
        settings = kind.settings(checkpoint, query, document, name)
        return dataclasses.replace(encoders[key], **settings)

    return of


@pytest.fixture(scope="module")
def wanted(folder):
    """What the library computes, by kind of model."""
    berts = {kind: ModernBert.from_pretrained(folder / name) for kind, name in KINDS.items()}
    texts = embedding.texts(COUNT)
    return {
        "dense": berts["dense"].encode(texts, prompt_name="document"),
        "late": berts["late"].encode_tokens(texts),
        "sparse": berts["sparse"].sparse(texts, prompt_name="document"),
        "bert": berts["dense"],
    }


IDS = [f"d{i}" for i in range(COUNT)]


@pytest.mark.parametrize("format", ("parquet", "arrow", "npy"))
@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16", "int8", "binary"))
def test_vectors_of_every_format_and_type(options, wanted, format, dtype):
    chosen = options(format=format, dtype=dtype, calibration_texts=1000)
    summary = run.embed(chosen)
    assert summary["texts"] == COUNT and summary["shards"] == 4 and not summary["missing"]
    ids, columns = embedding.read(Path(chosen.output))
    assert ids == IDS and [*columns] == ["vector"]
    stored, exact = columns["vector"], wanted["dense"]
    if dtype == "binary":
        assert stored.dtype == np.uint8 and stored.shape == (COUNT, 4)
        np.testing.assert_array_equal(np.unpackbits(stored, axis=1), exact > 0)
    elif dtype == "int8":
        low, high = np.load(Path(chosen.output) / "ranges.npy")
        np.testing.assert_allclose(low, exact.min(0), atol=1e-5)  # the sample is the whole input
        step = (high - low) / 255
        assert stored.dtype == np.int8 and stored.min() == -128 and stored.max() == 127
        error = np.abs((stored.astype(np.float32) + 128) * step + low - exact)
        assert (error <= step * 0.51).all()
    else:
        assert stored.dtype.name == dtype
        tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        np.testing.assert_allclose(stored.astype(np.float32), exact, atol=tolerance)


@pytest.mark.parametrize(("format", "dtype"), [("parquet", "int8"), ("arrow", "float16"),
                                               ("npy", "binary"), ("npy", "float32")])  # fmt: skip
def test_token_vectors(options, wanted, format, dtype):
    chosen = options("late", format=format, dtype=dtype)
    run.embed(chosen)
    ids, columns = embedding.read(Path(chosen.output))
    flat = np.concatenate(wanted["late"])
    assert ids == IDS and columns["length"].tolist() == [len(x) for x in wanted["late"]]
    if dtype == "binary":
        np.testing.assert_array_equal(np.unpackbits(columns["vectors"], axis=1), flat > 0)
    elif dtype == "int8":
        assert columns["vectors"].dtype == np.int8 and columns["vectors"].shape == flat.shape
    else:
        np.testing.assert_allclose(columns["vectors"].astype(np.float32), flat, atol=1e-3)


@pytest.mark.parametrize(
    ("format", "dtype"), [("parquet", "float32"), ("arrow", "bfloat16"), ("npy", "float16")]
)
def test_sparse_vectors(options, wanted, format, dtype):
    chosen = options("sparse", format=format, dtype=dtype)
    run.embed(chosen)
    ids, columns = embedding.read(Path(chosen.output))
    assert ids == IDS and columns["values"].dtype.name == dtype
    texts = np.repeat(np.arange(COUNT), columns["length"])
    found, exact = np.zeros((2, COUNT, models.VOCAB), np.float32)
    found[texts, columns["indices"]] = columns["values"].astype(np.float32)
    for row, vector in zip(exact, wanted["sparse"], strict=True):
        row[vector.indices] = vector.values
    assert (np.diff(columns["indices"])[np.diff(texts) == 0] > 0).all()
    np.testing.assert_allclose(found, exact, atol=1e-5 if dtype == "float32" else 1e-2)


def test_prompts_dims_pooling_and_length(options, wanted):
    cases = {
        "query": ({"side": "query"}, {"prompt_name": "query"}),
        "none": ({"side": "none"}, {}),
        "prompt": ({"prompt": "a b: ", "dims": 8, "normalize": True},
                   {"prompt": "a b: ", "truncate_dim": 8, "normalize": True}),
        "named": ({"prompt_name": "query", "max_length": 12},
                  {"prompt_name": "query", "max_length": 12}),
        "pooling": ({"pooling": "max", "prompt": ""}, {"pooling": "max", "prompt": ""}),
    }  # fmt: skip
    for name, (own, same) in cases.items():
        chosen = options(name=name, **own)
        run.embed(chosen)
        _, columns = embedding.read(Path(chosen.output))
        exact = wanted["bert"].encode(embedding.texts(COUNT), **same)
        np.testing.assert_allclose(columns["vector"], exact, atol=1e-6, err_msg=name)


def test_weights_in_fewer_bits(options, folder, tmp_path):
    run.embed(options(weights="int8"))
    _, columns = embedding.read(tmp_path / "out")
    bert = ModernBert.from_pretrained(folder / KINDS["dense"], weights="int8")
    exact = bert.encode(embedding.texts(COUNT), prompt_name="document")
    np.testing.assert_allclose(columns["vector"], exact, atol=1e-6)
    with pytest.raises(UserError, match="weights: 'int8' -> 'float32'"):
        run.embed(options())


def test_rows_that_are_left_out_and_shards_without_any(options, folder, tmp_path):
    """A run that stopped at a bad row resumes with --on-error skip."""
    rows = [*embedding.records(16), *(["{}"] * 16), *embedding.records(20)[16:]]
    path = embedding.write_jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(UserError, match=r"x\.jsonl:17: has no 'text'"):
        run.embed(options(input=(str(path),)))
    first = tmp_path / "out/shard-00000.parquet"
    before = first.stat().st_mtime_ns
    summary = run.embed(options(input=(str(path),), on_error="skip"))
    assert first.stat().st_mtime_ns == before
    assert summary["texts"] == 20 and summary["skipped"] == {"has no 'text'; it has nothing": 16}
    assert embedding.read(tmp_path / "out")[0] == IDS[:20]
    run.embed(options(name="whole", input=(str(path),), on_error="skip"))
    assert embedding.digests(tmp_path / "out") == embedding.digests(tmp_path / "whole")


def test_an_input_without_texts(options, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n\n")
    for format in ("parquet", "arrow", "npy"):
        summary = run.embed(options(name=format, input=(str(path),), format=format))
        assert summary["texts"] == 0 and summary["shards"] == 1 and summary["full"] is None
        assert embedding.read(tmp_path / format)[1]["vector"].shape == (0, 32)
    path.write_text("")
    assert run.embed(options(name="no rows", input=(str(path),)))["shards"] == 0
    path.write_text("\n")
    with pytest.raises(UserError, match="no texts from which"):
        run.embed(options(name="int8", input=(str(path),), dtype="int8"))


def test_what_exists_is_kept_and_what_is_missing_is_made_again(options, tmp_path):
    run.embed(options())
    whole = embedding.digests(tmp_path / "out")
    (tmp_path / "out/shard-00001.json").unlink()
    (tmp_path / "out/shard-00002.parquet").unlink()
    kept = [tmp_path / f"out/shard-0000{i}.parquet" for i in (0, 3)]
    before = [path.stat().st_mtime_ns for path in kept]
    assert run.embed(options())["tokens_per_second"] > 0
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert embedding.digests(tmp_path / "out") == whole
    assert run.embed(options())["tokens_per_second"] is None


def test_the_folder_is_not_listed_for_each_shard(options, monkeypatch):
    """Listing it takes time that grows with the number of shards, and at a URL requests."""
    listed = []
    store = run.Folder("x").store.__class__
    names = store.names

    def counted(self, folder):
        listed.append(folder)
        return names(self, folder)

    monkeypatch.setattr(store, "names", counted)
    for output in ("leases", "memory://listed/vectors"):
        counts = []
        for size in (30, 4):
            chosen = options(name=f"{output}-{size}", shard_texts=size)
            if "://" in output:
                chosen = dataclasses.replace(chosen, output=f"{output}-{size}")
            listed.clear()
            assert run.embed(chosen)["shards"] == COUNT // size
            counts.append(len(listed))
        assert counts[0] == counts[1] <= 6, output


class Killed(BaseException):
    """The end of this process, at some moment."""


@pytest.mark.parametrize("format", ("parquet", "npy"))
def test_interrupted_at_any_write(options, tmp_path, monkeypatch, format):
    """Every file may be the last one that is written."""
    run.embed(options(name="whole", format=format))
    whole = embedding.digests(tmp_path / "whole")
    writing = run.Folder("x").store.__class__.writing
    for count in range(0, len(whole), 3):
        left = [count]

        def counted(store, name, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return writing(store, name)

        with monkeypatch.context() as patched:
            patched.setattr("modernbert_jax.io.store.Store.writing", counted)
            with pytest.raises(Killed):
                run.embed(options(name=f"out-{count}", format=format))
        run.embed(options(name=f"out-{count}", format=format))
        assert embedding.digests(tmp_path / f"out-{count}") == whole


def test_other_settings_are_refused(options, folder, tmp_path):
    run.embed(options())
    for changes, key in (
        ({"dtype": "int8"}, "dtype: 'float32' -> 'int8'"),
        ({"dims": 8}, "dims: None -> 8"),
        ({"shard_texts": 8}, "shard_texts: 16 -> 8"),
        ({"side": "query"}, "prompt: 'doc: ' -> 'query: '"),
        ({"pooling": "cls"}, "pooling: None -> 'cls'"),
        ({"format": "npy"}, "format: 'parquet' -> 'npy'"),
        ({"kind": "sparse"}, "model: "),
    ):
        with pytest.raises(UserError, match="holds vectors of other settings") as error:
            run.embed(options(**changes))
        assert key in str(error.value)
    other = embedding.write_jsonl(tmp_path / "y.jsonl", embedding.records(COUNT)[1:])
    with pytest.raises(UserError, match=r"other settings \(input: '\w+' -> '\w+'\)"):
        run.embed(options(input=(str(other),)))


def test_wrong_options(options, folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "file").touch()
    for changes, problem in (
        ({"name": "full"}, "holds other files, such as x"),
        ({"name": "file"}, "is a file"),
        ({"input": (str(tmp_path),), "name": "full/new"}, "is in the input"),
        ({"dims": 33}, "vectors of .* have 32"),
        ({"kind": "late", "normalize": True}, "leave out --normalize"),
        ({"kind": "late", "dims": 4}, "leave out pooling, dims"),
        ({"kind": "late", "side": "none"}, "--side is document or query"),
        ({"kind": "late", "prompt_name": "query"}, "leave out --prompt-name"),
        ({"kind": "sparse", "dtype": "binary"}, "is a kind of float"),
        ({"prompt_name": "nothing"}, "nothing"),
        ({"model": str(tmp_path / "none")}, "none"),
    ):
        with pytest.raises(UserError, match=problem):
            run.embed(options(**changes))
    for changes in ({"process": 1}, {"prompt": "", "prompt_name": "a"}, {"batch_tokens": 0}):
        with pytest.raises(UserError, match="--"):
            options(**changes)


def test_vectors_that_are_not_finite_are_refused(options, monkeypatch, tmp_path):
    def vectors(*_):
        yield np.full((16, 32), np.nan, np.float32)

    monkeypatch.setattr(on_devices.TextModel, "vectors", vectors)
    with pytest.raises(UserError, match="NaN or infinite"):
        run.embed(options())
    assert not [*tmp_path.glob("out/shard*")] and not [*tmp_path.glob("out/.*")]


def test_processes_that_divide_the_shards(options, tmp_path):
    """As where the output is at a URL, which has no leases."""
    run.embed(options(name="whole"))
    for process in (0, 1):
        left = run.embed(options(processes=2, process=process))["missing"]
        assert left == 2 - 2 * process
    assert embedding.digests(tmp_path / "out") == embedding.digests(tmp_path / "whole")


def test_an_output_at_a_url(options, tmp_path):
    run.embed(options(name="whole"))
    chosen = dataclasses.replace(options(), output="memory://embedded/vectors")
    assert run.embed(chosen)["texts"] == COUNT
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "whole").iterdir():
        assert memory.cat_file(f"/embedded/vectors/{path.name}") == path.read_bytes()
    assert run.embed(chosen)["tokens_per_second"] is None
    with pytest.raises(UserError, match="dims: None -> 8"):
        run.embed(dataclasses.replace(chosen, dims=8))


def test_rows_are_full(options, tmp_path, folder):
    """With windows of usual size rows of mixed lengths hold hardly any padding."""
    path = embedding.write_jsonl(tmp_path / "x.jsonl", embedding.records(2000))
    chosen = options(input=(str(path),), shard_texts=2000, window_tokens=2**19, batch_tokens=2048)
    assert run.embed(chosen)["full"] > 0.95  # of one window of 60 rows, as tests have


def test_the_command(folder, tmp_path, capsys, options):
    output = tmp_path / "out"
    words = ["embed", "--model", folder / "mean", "--input", folder / "x.jsonl", "--output", output]
    words += ["--shard-texts", "16", "--window-tokens", "256", "--batch-tokens", "128"]
    code, out, err = program.run(capsys, *words)
    assert code == 0 and f"{output}: 60 texts of" in out and "% full" in out and "tokens/s" in err
    code, out, _ = program.run(capsys, *words, "--json")
    assert code == 0 and json.loads(out)["texts"] == COUNT
    assert "dtype: 'float32' -> 'binary'" in program.refused(capsys, *words, "--dtype", "binary")
    assert "no such file" in program.refused(capsys, *words[:3], "--input", "no", *words[5:])


def test_a_sample_of_the_whole_input(options, folder, monkeypatch):
    """Calibration reads the first texts of shards at even distances."""
    read = []
    original = shard.texts

    def recorded(reader, number, *rest):
        for text in original(reader, number, *rest):
            read.append((number, text.id))
            yield text

    monkeypatch.setattr(shard, "texts", recorded)
    monkeypatch.setattr(shard, "_SAMPLED", 2)
    run.embed(options(dtype="int8", calibration_texts=4))
    assert read[:4] == [(0, "d0"), (0, "d1"), (2, "d32"), (2, "d33")]
