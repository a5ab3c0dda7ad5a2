"""Damaged and odd input to the program as a process: one line that names the remedy, or success."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import labelled
import numpy as np
import pyarrow as pa
import pytest
import torch_archive
from whole_program import edit, ended, names, refused, run, start

from modernbert_jax.io.typed_json import to_json

pytestmark = pytest.mark.slow

NESTED = '{"a":' + "[" * 100_000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A checkpoint `model`, labelled `train.jsonl`, text `text.jsonl`, prepared `data`, a run."""
    folder = tmp_path_factory.mktemp("inputs")
    labelled.checkpoint(folder / "model", corpus.make_tokenizer())
    labelled.write(folder / "train.jsonl", labelled.classification(40))
    data = corpus.prepared(folder)
    config = corpus.even_config(corpus.run_config(folder, data), rows=2, eval_every=100)
    (folder / "small.json").write_text(json.dumps(to_json(config)))
    return folder


@pytest.fixture
def place(inputs, tmp_path) -> Path:
    """A folder with links to the inputs, and a copy of the checkpoint to damage."""
    for path in inputs.iterdir():
        if path.name != "model":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "model").mkdir()
    for path in (inputs / "model").iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    return tmp_path


FINETUNE = ("finetune", "classification", "--model", "model", "--output", "out")
PRETRAIN = ("pretrain", "small.json", "--data", "data", "--output", "out")
PREPARE = ("prepare", "--tokenizer", "model", "--length", "64", "--output", "out")


def _tokenizer(**changes: Any) -> Callable[[Path], None]:
    return lambda m: edit(m / "tokenizer.json", lambda t: t["model"].update(changes))


def _huge_id(model: Path) -> None:
    edit(model / "tokenizer.json", lambda t: t["model"]["vocab"].update(zz=2**31))


def _kind(model: Path) -> None:
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (model / "modules.json").write_text(json.dumps([module]))
    (model / "config_sentence_transformers.json").write_text('{"model_type": [1]}')


def _pickle(data: bytes) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / "model.safetensors").unlink()
        torch_archive.write(model / "pytorch_model.bin", data)

    return write


def _equal_hashes() -> bytes:
    keys = (b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N" for k in range(1, 60_000))
    return b"\x80\x02}(" + b"".join(keys) + b"u."


def _deep_repr() -> bytes:
    pairs = (b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(40))
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    return b"\x80\x02]q\x00" + b"".join(pairs) + storage + b"h\x28tQ."


@pytest.mark.parametrize(
    "damage,word",
    [
        (lambda m: (m / "config.json").write_text(NESTED), "config.json"),
        (lambda m: edit(m / "config.json", lambda c: c.update(x="\ud800")), "config.json"),
        (lambda m: edit(m / "config.json", lambda c: c.update(hidden_size=[])), "hidden_size"),
        (_kind, "model_type"),
        (_pickle(_equal_hashes()), "pytorch_model.bin"),
        (_pickle(_deep_repr()), "pytorch_model.bin"),
        (_pickle(pickle.dumps(os.getcwd)), "pytorch_model.bin"),
        (
            lambda m: (m / "model.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
            ),
            "LFS",
        ),
    ],
    ids=["nested", "surrogate", "list", "kind", "equal hashes", "deep", "foreign", "LFS"],
)
@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_damaged_checkpoints(place, command, damage, word):
    damage(place / "model")
    words = ("model",) if command == "inspect" else ("model", "out")
    assert word.lower() in refused(place, command, *words).lower()


@pytest.mark.parametrize(
    "damage,word",
    [
        (lambda m: (m / "tokenizer_config.json").write_text(NESTED), "tokenizer_config.json"),
        (_tokenizer(continuing_subword_prefix="\0"), "tokenizer.json"),
        (_tokenizer(continuing_subword_prefix="xx"), "tokenizer.json"),
        (_huge_id, "tokenizer.json"),
    ],
    ids=["nested", "NUL prefix", "unknown prefix", "huge id"],
)
def test_damaged_tokenizers(place, damage, word):
    """`convert` carries them as they are."""
    damage(place / "model")
    assert word in refused(place, "inspect", "model")
    assert word in refused(place, *PREPARE, "--input", "corpus.jsonl")


def test_text_of_a_checkpoint_is_no_markup(place):
    edit(place / "model/config.json", lambda c: c.update(architectures=["[/x] $a$"]))
    code, out, err = run(place, "inspect", "model")
    assert code == 0 or "[/x]" in err, (out, err)
    assert "Traceback" not in err


def _records(*records: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
        (folder / "bad.jsonl").write_text("".join(line + "\n" for line in lines))
        return "bad.jsonl"

    return write


def _flipped_arrow(folder: Path) -> str:
    texts = [f"document {i}" for i in range(10)] * 3
    table = pa.table({"text": texts, "label": [str(i % 2) for i in range(30)]})
    path = str(folder / "bad.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    content = bytearray((folder / "bad.arrow").read_bytes())
    at = content.find(struct.pack("<3i", 0, 10, 20))
    content[at + 4 : at + 12] = struct.pack("<2i", 0x70000000, 0x7F000000)
    (folder / "bad.arrow").write_bytes(content)
    return "bad.arrow"


GOOD = ({"text": "ba ce", "label": "first"}, {"text": "di fo", "label": "second"}) * 5


@pytest.mark.parametrize(
    "write,word",
    [
        (_records(*GOOD, '{"text": "\\ud800", "label": "first"}'), "bad.jsonl:11"),
        (_records(*GOOD, '{"text": "a", "label": "\\ud800"}'), "bad.jsonl:11"),
        (_records(*GOOD, {"text": "a", "label": None}), "bad.jsonl:11"),
        (_records(*GOOD, '{"text": "a", "label": NaN}'), "bad.jsonl:11"),
        (_records('{"text": NaN, "label": "first"}', *GOOD), "bad.jsonl:1"),
        (_records("[1]", "{"), "bad.jsonl:1"),
        (_records({"text": "a", "label": 0.25}, {"text": "b", "label": 0.5}), "regression"),
        (_flipped_arrow, "bad.arrow"),
    ],
)
def test_records_that_cannot_be_trained_on(place, write, word):
    assert word in refused(place, *FINETUNE, "--train", write(place))


@pytest.mark.parametrize(
    "name,content,count",
    [
        ("a.jsonl", '{"text": "ba ce"}\n{"text": "di"}\n', 2),
        ("A.JSONL", '{"text": "ba ce"}\n{"text": "di"}\n', 2),
        ("a.ndjson", '\ufeff{"text": "ba ce"}\r\n{"text": "di"}\r\n', 2),
        ("a.json", '{"text": "ba ce"}\n{"text": "di"}\n', 2),
        ("b.json", '[{"text": "ba ce"}, {"text": "di"}]', 2),
        ("[2] a.jsonl", '{"text": "ba ce"}\n{"text": "di"}\n', 2),
        ("a.csv", "text,id\nba ce,1\ndi,2\n", 2),
        ("a.txt", "ba ce\n", 1),
    ],
)
def test_texts_of_every_ending(place, name, content, count):
    (place / name).write_text(content)
    result = run(place, *PREPARE, "--input", name, "--validation", "0")
    assert result.code == 0, result
    facts = json.loads(run(place, "data", "out", "--json").out)
    assert f'"documents": {count}' in json.dumps(facts)


@pytest.mark.parametrize(
    "words",
    [
        ("--seed", "-1"),
        ("--length", "0"),
        ("--length", "1000000000"),
        ("--input", "nothing.jsonl"),
    ],
)
def test_preparing_is_refused_before_the_work(place, words):
    refused(place, *PREPARE, "--input", "corpus.jsonl", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--b1", "1.5"),
        ("--eval-mask-rate", "2"),
        ("--eval-rows", "-3"),
        ("--seed", "-1"),
        ("--stages.0.peak-learning-rate", "nan"),
        ("--stages.0.weight-decay", "nan"),
        ("--stages.0.rows", "-1"),
        ("--output", "small.json"),
        ("--output", "/proc/nope"),
        ("--lr", "1e-3"),
    ],
)
def test_pretraining_is_refused_before_the_work(place, words):
    refused(place, *PRETRAIN, *words)


@pytest.fixture(scope="module")
def finetuned(inputs) -> Path:
    """The inputs with a fine-tuned model in `tuned/export`."""
    words = ("--train", "train.jsonl", "--epochs", "1", "--output", "tuned")
    assert run(inputs, *FINETUNE[:4], *words).code == 0
    return inputs


@pytest.mark.parametrize("output", ["mine.jsonl", "./mine.jsonl", "link", "old.jsonl", "folder"])
def test_predictions_replace_nothing(finetuned, place, output):
    records = (finetuned / "train.jsonl").read_text()
    (place / "mine.jsonl").write_text(records)
    (place / "old.jsonl").write_text("old")
    (place / "link").symlink_to("mine.jsonl")
    (place / "folder").mkdir()
    model = str(finetuned / "tuned/export")
    refused(place, "predict", "--model", model, "--data", "mine.jsonl", "--output", output)
    assert (place / "mine.jsonl").read_text() == records
    assert (place / "old.jsonl").read_text() == "old"


@pytest.mark.parametrize("output", ["/proc/nope/x.jsonl", "/dev/full", "/etc"])
def test_predictions_that_cannot_be_written(finetuned, place, output):
    model = str(finetuned / "tuned/export")
    refused(place, "predict", "--model", model, "--data", "train.jsonl", "--output", output)


def test_results_are_printed_in_ascii(place):
    result = run(place, "fill-mask", "--model", "model", "ba [MASK]", PYTHONIOENCODING="ascii")
    assert result.code == 0 and result.out, result


def test_weights_that_are_not_finite_give_no_results(place):
    from safetensors.numpy import load_file, save_file

    path = place / "model/model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if "Wqkv" in n)
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, path)
    result = run(place, "fill-mask", "--model", "model", "ba [MASK]")
    assert result.code in (1, 2) and "NaN" in result.err, result


def test_other_labels_are_another_run(place):
    records = labelled.classification(40)
    labelled.write(place / "mine.jsonl", records)
    words = (*FINETUNE, "--train", "mine.jsonl", "--epochs", "1")
    assert run(place, *words).code == 0
    assert "finished" in run(place, *words).err + run(place, *words).out
    for record in records:
        record["label"] = {"first": "second", "second": "first"}[record["label"]]
    labelled.write(place / "mine.jsonl", records)
    assert "mine.jsonl" in refused(place, *words)


def _torn(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "garbage", *lines[2:]]) + "\n")


def _emptied(run: Path) -> None:
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _torn,
        _emptied,
        lambda run: (run / "checkpoints/999").mkdir(),
        lambda run: (run / "checkpoints/100").write_text("x"),
    ],
    ids=["torn line", "emptied checkpoint", "empty folder", "stray file"],
)
def test_a_damaged_run_is_resumed(place, damage):
    words = (*PRETRAIN, "--save-every", "2", "--keep", "9")
    assert run(place, *words).code == 0
    whole = (place / "out/export/model.safetensors").read_bytes()
    for path in (place / "out/export").iterdir():
        path.unlink()
    (place / "out/export").rmdir()
    damage(place / "out")
    result = run(place, *words)
    assert result.code == 0, result
    assert (place / "out/export/model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    "words",
    [("convert", "model", "out"), (*PREPARE, "--input", "corpus.jsonl")],
    ids=lambda w: w[0],
)
def test_of_two_at_once_one_is_refused(place, words):
    before = names(place)
    first, second = (start(place, *words) for _ in range(2))
    results = [ended(first), ended(second)]
    assert sorted(result.code for result in results) in ([0, 2], [0, 0]), results
    assert {name.split("/")[0] for name in names(place) - before} == {"out"}


def test_two_conversions_to_a_research_file_are_alike(place):
    for name in ("a/out.pt", "b/out.pt"):
        assert run(place, "convert", "model", name).code == 0
    assert (place / "a/out.pt").read_bytes() == (place / "b/out.pt").read_bytes()


def test_a_link_to_an_empty_folder_is_filled(place):
    (place / "empty").mkdir()
    (place / "out").symlink_to("empty")
    assert run(place, "convert", "model", "out").code == 0
    assert (place / "out").is_symlink() and any((place / "empty").iterdir())
