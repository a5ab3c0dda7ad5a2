"""Whole fine-tuning runs: every task is learned, and resumed runs equal uninterrupted ones."""

import dataclasses
import json
import shutil
from pathlib import Path

import corpus
import huggingface_hub
import jax
import labelled
import numpy as np
import pytest
import tiny

from modernbert_jax import ModernBert, UserError, cli, convert
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.engine.step import Learner
from modernbert_jax.train.engine.stop import Stop
from modernbert_jax.train.finetune import initial_model, training
from modernbert_jax.train.finetune import run as run_folder
from modernbert_jax.train.finetune.config import FinetuneConfig, from_json, to_json
from modernbert_jax.train.finetune.session import Session
from modernbert_jax.train.report import curves as report
from modernbert_jax.train.tasks import TASKS

MEASURED = ("second", "mfu", "memory", "packing_efficiency")
"""Parts of keys that depend on time, or on what came since the run was resumed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a checkpoint and data for every kind of task."""
    folder = tmp_path_factory.mktemp("finetune")
    labelled.checkpoint(folder / "base", corpus.make_tokenizer(), num_hidden_layers=2)
    for kind, make in labelled.RECORDS.items():
        labelled.write(folder / f"{kind}.jsonl", make(320, 0))
        labelled.write(folder / f"{kind}-dev.jsonl", make(80, 1))
    return folder


def configured(place: Path, kind: str, **changes) -> FinetuneConfig:
    small = {"max_length": 64} | ({"stride": 16} if kind in ("tokens", "questions") else {})
    values = {
        "task": TASKS[kind](**small),
        "model": str(place / "base"),
        "train": str(place / f"{kind}.jsonl"),
        "validation": str(place / f"{kind}-dev.jsonl"),
        "output": str(place / f"run-{kind}"),
        "learning_rate": 4e-3,
        "epochs": 3,
        "batch_examples": 32,
        "attention_dropout": 0.05,
        "log_every": 2,
        "save_every": 5,
    }
    return FinetuneConfig(**values | changes)


@pytest.fixture(scope="module")
def session(place):
    """A session that all runs of classification share, with its programs."""
    config = configured(place, "classification")
    mesh = config.mesh.make(jax.devices()[:1])
    with jax.set_mesh(mesh):
        yield Session.open(config, mesh)


@pytest.fixture(scope="module")
def whole(place, session) -> Path:
    """The folder of a run that was never stopped."""
    result = training.train(session, configured(place, "classification"))
    assert result["best"]["metrics"]["accuracy"] > 0.9
    return place / "run-classification"


def curve(folder: Path) -> list[dict]:
    """All metrics except those that depend on time."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: x for k, x in r.items() if not any(m in k for m in MEASURED)} for r in rows]


def same_run(got: Path, want: Path) -> None:
    """Assert that two runs have the same numbers, bit for bit."""
    assert curve(got) == curve(want)
    params = (jax.tree.leaves(convert.load(folder / "export").params) for folder in (got, want))
    assert all(np.array_equal(a, b) for a, b in zip(*params, strict=True))
    results = [json.loads((folder / "result.json").read_text()) for folder in (got, want)]
    for result in results:
        del result["seconds"], result["examples_per_second"]
    assert results[0] == results[1]
    predictions = [
        (folder / "predictions" / "validation.jsonl").read_text() for folder in (got, want)
    ]
    assert predictions[0] == predictions[1]


def test_a_run_writes_all_its_files(whole, place):
    assert {p.name for p in whole.iterdir()} == {
        "config.json",
        "inputs.json",
        "tokenizer",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "predictions",
        "export",
        "result.json",
    }
    rows = read_rows(whole / "metrics.jsonl")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(2, 31, 2))
    assert [row["step"] for row in rows if "eval_loss" in row] == [10, 20, 30]
    assert [row["tokens"] for row in steps] == sorted({row["tokens"] for row in steps})
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert all(0.3 < row["packing_efficiency"] <= 1 for row in steps)
    rates = [row["learning_rate"] for row in steps]
    assert max(rates) == pytest.approx(4e-3) and rates[-1] < 3e-4
    result = json.loads((whole / "result.json").read_text())
    assert {"accuracy", "f1", "matthews_correlation", "loss"} <= {*result["last"]["metrics"]}
    assert result["new_parameters"] == ["classifier.weight", "classifier.bias"]
    saved = json.loads((whole / "config.json").read_text())
    assert saved["task"]["labels"] == ["first", "second"]
    assert to_json(from_json(saved)) == saved


def test_the_export_is_the_best_model(whole, place):
    checkpoint = convert.load(whole / "export")
    assert checkpoint.head == "sequence_classification"
    assert checkpoint.extra["id2label"] == {"0": "first", "1": "second"}
    assert checkpoint.extra["problem_type"] == "single_label_classification"
    card = (whole / "export" / "README.md").read_text()
    assert "accuracy" in card and "320 for training, 80 for validation" in card
    header = huggingface_hub.ModelCard(card).data  # which checks the model index
    values = {r.metric_type: r.metric_value for r in header.eval_results}
    assert header.eval_results[0].dataset_split == "validation"
    assert 0.8 < values["accuracy"] <= 1
    bert = ModernBert.from_pretrained(whole / "export")
    lines = (place / "classification-dev.jsonl").read_text().splitlines()[:8]
    logits = bert.predict([json.loads(line)["text"] for line in lines])
    predictions = (whole / "predictions" / "validation.jsonl").read_text().splitlines()[:8]
    for x, line in zip(logits, map(json.loads, predictions), strict=True):
        chances = np.exp(x) / np.exp(x).sum()
        assert line["scores"]["second"] == pytest.approx(float(chances[1]), abs=1e-5)


def test_a_checkpoint_of_the_run_is_a_model(whole, tmp_path):
    newest = max((whole / "checkpoints").iterdir(), key=lambda p: int(p.name))
    checkpoint = convert.load(newest)
    assert checkpoint.head == "sequence_classification" and checkpoint.labels == 2
    assert checkpoint.extra["id2label"] == {"0": "first", "1": "second"}
    convert.save(checkpoint, tmp_path / "copy", "hf")
    assert convert.load(tmp_path / "copy").labels == 2


def test_a_finished_run_is_not_repeated(whole, place, session, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    result = training.train(session, configured(place, "classification"))
    assert result == json.loads((whole / "result.json").read_text())
    assert (whole / "metrics.jsonl").read_bytes() == before
    assert "was finished earlier; nothing is trained again" in capsys.readouterr().err


def test_another_configuration_in_the_folder_is_refused(whole, place, session):
    with pytest.raises(UserError, match=r"epochs: 3.0 -> 4"):
        training.train(session, configured(place, "classification", epochs=4))


def test_a_finished_run_whose_inputs_have_changed_is_no_result(whole, place, tmp_path):
    """Data and model are what they contain: not their paths, nor the folder they are in."""
    config = configured(place, "classification")
    shutil.copytree(place, tmp_path / "moved", ignore=shutil.ignore_patterns("run-*"))
    moved = dataclasses.replace(
        configured(tmp_path / "moved", "classification", output=str(whole)),
        task=run_folder.from_json(json.loads((whole / "config.json").read_text())).task,
    )

    def checked() -> None:
        run_folder.folder_of(moved, run_folder.available_inputs(moved)).check()

    checked()
    assert run_folder.available_inputs(moved) == run_folder.available_inputs(config)
    for name in ("classification.jsonl", "classification-dev.jsonl"):
        path = tmp_path / "moved" / name
        content = path.read_text()
        path.write_text(content.replace("first", "secnd", 1))
        with pytest.raises(UserError, match=rf"other content of \w+ \(.*{name}\); restore it"):
            checked()
        path.write_text(content)
    shutil.rmtree(tmp_path / "moved" / "base")
    labelled.checkpoint(
        tmp_path / "moved" / "base", corpus.make_tokenizer(), num_hidden_layers=2, norm_eps=1e-6
    )
    with pytest.raises(UserError, match=r"other content of model \(.*base\); restore it"):
        checked()


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [3, 13, 20])
def test_a_killed_run_equals_an_uninterrupted_one(whole, place, session, monkeypatch, tmp_path, at):
    """Killed before the first checkpoint, between two, and in the middle of an evaluation."""
    config = configured(place, "classification", output=str(tmp_path / "run"))
    monkeypatch.setattr(Stop, "reached", lambda self, step: dies(step == at))
    with pytest.raises(Killed):
        training.train(session, config)
    monkeypatch.undo()
    assert training.train(session, config) is not None
    same_run(tmp_path / "run", whole)


def dies(now: bool) -> bool:
    if now:
        raise Killed
    return False


def test_a_stopped_run_saves_and_resumes(whole, place, session, monkeypatch, tmp_path):
    config = configured(place, "classification", output=str(tmp_path / "run"))
    monkeypatch.setattr(Stop, "reached", lambda self, step: step == 7)
    assert training.train(session, config) is None
    assert (tmp_path / "run" / "checkpoints" / "7").is_dir()
    assert not (tmp_path / "run" / "export").exists()
    monkeypatch.undo()
    assert training.train(session, config) is not None
    same_run(tmp_path / "run", whole)


def test_patience_ends_a_run(place, session, tmp_path):
    config = configured(
        place,
        "classification",
        output=str(tmp_path / "run"),
        epochs=9,
        eval_every=0.5,
        patience=2,
        min_delta=0.5,
    )
    result = training.train(session, config)
    # The first score is better than none; no later one improves by half.
    assert result["last"]["step"] == 15 and result["best"]["step"] in (5, 10, 15)
    shutil.rmtree(tmp_path / "run")
    last = dataclasses.replace(config, keep_best=False, epochs=1, patience=0)
    assert training.train(session, last)["exported"] == "last"


def test_runs_of_a_session_share_one_program(place, session, monkeypatch, tmp_path, whole):
    compiled = []
    monkeypatch.setattr(Learner, "train_step", lambda *_: compiled.append(1))
    config = configured(place, "classification", output=str(tmp_path / "a"))
    changes = {"learning_rate": 1e-4, "weight_decay": 0.1, "epochs": 0.5, "seed": 3, "warmup": 0.5}
    result = training.train(session, dataclasses.replace(config, **changes))
    assert result["last"]["step"] == 5 and not compiled


def test_curves_are_drawn(whole, tmp_path):
    png, page = report.report([whole], tmp_path / "curves")
    assert png.read_bytes().startswith(b"\x89PNG") and "validation accuracy" in page.read_text()


def run(capsys, *args) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program."""
    code = cli.main([str(a) for a in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_evaluate_and_predict(whole, place, capsys, tmp_path):
    model, dev = ["--model", whole / "export"], place / "classification-dev.jsonl"
    code, out, _ = run(capsys, "evaluate", *model, "--task", "classification", "--data", dev)
    result = json.loads((whole / "result.json").read_text())
    metrics = json.loads(out)
    assert code == 0 and metrics.pop("task") == "classification" and metrics.pop("examples") == 80
    assert metrics == pytest.approx(result["best"]["metrics"], rel=1e-5)
    bare = tmp_path / "bare.jsonl"
    records = [json.loads(line) for line in dev.read_text().splitlines()]
    labelled.write(bare, [{"id": f"n{i}", "text": r["text"]} for i, r in enumerate(records)])
    code, out, _ = run(capsys, "predict", *model, "--data", bare, "--output", tmp_path / "out")
    assert code == 0 and out == f"{tmp_path / 'out'}: 80 predictions\n"
    code, out, err = run(capsys, "predict", *model, "--data", bare, "--output", tmp_path / "out")
    assert code == 2 and f"{tmp_path / 'out'}: exists" in err
    predictions = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    wanted = (whole / "predictions" / "validation.jsonl").read_text().splitlines()
    for i, (a, b) in enumerate(zip(predictions, map(json.loads, wanted), strict=True)):
        assert a["id"] == f"n{i}" and a["label"] == b["label"]
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["finetune"], "finetune needs a CONFIG first: classification"),
        (["finetune", "clasification"], "did you mean 'classification'?"),
        (["finetune", "tokens", "--train", "x", "--label-smothing", "1"], "--label-smoothing"),
        (["finetune", "regression", "--class-weights", "balanced"], "class_weights is for"),
        (
            ["finetune", "choice", "--model", "base", "--task.max-length", "20000"],
            "task.max_length is 20,000; the model supports 8,192 tokens at most",
        ),
        (["finetune", "choice", "--warmup", "2"], "warmup is 2.0; it must be between 0 and 1"),
        (["finetune", "classification", "--class-weights", "1,x"], "numbers above 0"),
        (["finetune", "classification", "--model", "base"], "train is empty"),
        (["finetune", "classification", "--model", "base", "--train", "no"], "no: no such file"),
        (
            ["finetune", "classification", "--model", "base", "--train", "tokens.jsonl"],
            "tokens.jsonl: has no column 'text'; it has tokens, ner_tags",
        ),
        (
            ["evaluate", "--model", "base", "--task", "tokens", "--data", "tokens.jsonl"],
            "its head is masked_lm, and tokens needs token_classification",
        ),
        (["predict", "--model", "base", "--data", "x", "--output", "y"], "name a --task"),
        (
            ["predict", "--model", "base", "--data", "tokens.jsonl", "--output", "./tokens.jsonl"],
            "tokens.jsonl: is an input",
        ),
        (["predict", "--model", "base", "--data", "x", "--output", "base/config.json"], "an input"),
        (["predict", "--model", "base", "--data", "x", "--output", "tokens.jsonl"], "exists"),
        (["evaluate", "--model", "base", "--data", "x", "--output", "base"], "is a folder"),
    ],
)
def test_wrong_input_is_reported_in_one_line(place, capsys, monkeypatch, args, message):
    monkeypatch.chdir(place)
    before = {*place.iterdir()}
    code, _, err = run(capsys, *args)
    assert code == 2 and len(err.strip().splitlines()) == 1 and message in err, err
    assert {*place.iterdir()} == before


BEST = {
    "tokens": ("f1", 0.9),
    "multilabel": ("f1_micro", 0.85),
    "regression": ("spearman", 0.85),
    "questions": ("f1", 0.8),
    "choice": ("accuracy", 0.85),
}


@pytest.mark.parametrize(
    "kind", ["tokens", *(pytest.param(k, marks=pytest.mark.slow) for k in [*BEST][1:])]
)
def test_every_kind_of_task_is_learned(place, kind, capsys):
    metric, least = BEST[kind]
    config = configured(place, kind, epochs=4 if kind == "tokens" else 10)
    result = training.finetune(config)
    assert result["metric"] == metric and result["best"]["metrics"][metric] > least
    args = ["evaluate", "--model", f"{config.output}/export", "--data", config.validation]
    code, out, _ = run(capsys, *args)
    wanted = result.get("tuned", result["best"])["metrics"][metric]
    assert code == 0 and json.loads(out)[metric] == pytest.approx(wanted, abs=1e-6)
    words, text = Tokenizer.load(f"{config.output}/export").encode(["ba", " ba"])
    assert (words == text) == (kind == "tokens")


def test_a_default_length_is_lowered_to_that_of_the_model():
    model = tiny.config(max_position_embeddings=256)
    for task in (TASKS["classification"](), TASKS["questions"]()):
        assert initial_model.fitted(task, model).max_length == 256
    tiny_one = tiny.config(max_position_embeddings=96)
    for kind in ("questions", "tokens"):  # windows still advance
        assert initial_model.fitted(TASKS[kind](), tiny_one).stride == 48
    short = TASKS["classification"](max_length=64)
    assert initial_model.fitted(short, model) == short
    with pytest.raises(UserError, match="max_length is 300; the model supports 256"):
        initial_model.fitted(TASKS["classification"](max_length=300), model)
