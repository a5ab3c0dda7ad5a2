"""Whole runs: their files, and that a killed run ends like an uninterrupted one."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import events
import jax
import labelled
import numpy as np
import pytest
import rows

from modernbert_jax import ModernBert, UserError, cli, configs, convert
from modernbert_jax.io import lock
from modernbert_jax.io.typed_json import to_json
from modernbert_jax.train.engine import RunStopped
from modernbert_jax.train.engine.checkpoint import Checkpoints
from modernbert_jax.train.engine.lora import Lora
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.engine.program import Program
from modernbert_jax.train.engine.run_folder import LOCK
from modernbert_jax.train.pretrain.objective import MaskedLMObjective
from modernbert_jax.train.pretrain.run import PretrainRun, pretrain

CURVE = (
    "step",
    "stage",
    "tokens",
    "loss",
    "masked_accuracy",
    "learning_rate",
    "grad_norm",
    "eval_loss",
)


def curve(folder: Path) -> list[tuple]:
    """Everything in the metrics that does not measure time."""
    return [tuple(row.get(k) for k in CURVE) for row in read_rows(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(place) -> Path:
    return corpus.prepared(place)


@pytest.fixture(scope="module")
def command(place, data):
    """Start the command line in a process of its own, in a folder by name; return the process."""

    def start(name: str) -> subprocess.Popen:
        config = corpus.run_config(place, data, output=str(place / name))
        (place / f"{name}.json").write_text(json.dumps(to_json(config)))
        program = "import sys; from modernbert_jax.cli import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, "pretrain", str(place / f"{name}.json"), "--debug"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def whole(place, command) -> Path:
    """The folder of a run that was never stopped."""
    process = command("whole")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    (place / "whole.log").write_text(output)
    return place / "whole"


def test_a_run_leaves_what_it_should(whole):
    assert {p.name for p in whole.iterdir()} == {
        "config.json",
        "inputs.json",
        "tokenizer",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "export",
    }
    lines = read_rows(whole / "metrics.jsonl")
    steps = [r for r in lines if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, 25))
    assert {r["stage"] for r in steps} == {"short", "long"}
    for key in (
        "tokens",
        "masked_accuracy",
        "grad_norm",
        "update_norm",
        "param_norm",
        "skipped_updates",
        "tokens_per_second",
        "mfu",
        "packing_efficiency",
        "data_wait_seconds",
        "step_seconds_p50",
        "step_seconds_p90",
        "step_seconds_max",
        "device_memory_bytes",
    ):
        assert key in steps[0]
    assert [r["batch_rows"] for r in steps] == [1] * 4 + [2] * 12 + [1] * 8
    assert 0 < steps[9]["step_seconds_p50"] <= steps[9]["step_seconds_max"]
    phases = ("step", "data", "compile", "evaluate", "save", "start")
    assert all(steps[-1][f"seconds_{name}"] > 0 for name in phases)
    evaluations = [r for r in lines if "eval_loss" in r]
    assert [(r["step"], r["stage"]) for r in evaluations] == [
        (0, "short"),
        (6, "short"),
        (12, "short"),
        (16, "short"),
        (16, "long"),
        (18, "long"),
        (24, "long"),
    ]
    assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"] - 0.5
    assert list((whole / "tensorboard").iterdir())
    assert sorted(int(p.name) for p in (whole / "checkpoints").iterdir()) == [16, 20, 24]
    stable = [r["learning_rate"] for r in steps if 5 < r["step"] <= 16]
    assert stable == [float(np.float32(3e-3))] * 11
    assert [r["learning_rate"] / 3e-3 for r in steps[:5]] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_the_export_is_the_last_stage_with_the_data_s_tokenizer(whole):
    bert = ModernBert.from_pretrained(whole / "export")
    assert bert.config.global_rope_theta == 160_000.0
    assert bert.config.cls_token_id == bert.tokenizer.cls_id
    ((token, probability), *_), *_ = bert.fill_mask("the cat sat [MASK] a mat")
    assert isinstance(token, str) and 0 < probability <= 1


def test_only_another_shape_is_compiled(whole, place):
    log = (place / "whole.log").read_text().splitlines()
    compiled = [line for line in log if line.startswith("compiling") and line.endswith("...")]
    assert compiled == [
        "compiling short, batches of 1 x 64 tokens ...",
        "compiling short, batches of 2 x 64 tokens ...",
        "compiling long, batches of 1 x 128 tokens ...",
    ]
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert list((cache / "modernbert-jax" / "compiled").glob("jit_step-*"))


def test_any_checkpoint_can_be_exported(whole, tmp_path, capsys):
    """A run's checkpoint is a format to convert from, with the model of its stage."""
    assert cli.main(["convert", str(whole / "checkpoints" / "24"), str(tmp_path / "last")]) == 0
    assert "(run) ->" in capsys.readouterr().out
    assert convert.verify(tmp_path / "last", whole / "export", tolerance=0.0).equal
    assert (
        convert.load(tmp_path / "last").files.keys() == convert.load(whole / "export").files.keys()
    )
    first = convert.load(whole / "checkpoints" / "16")
    assert first.config.global_rope_theta == 10_000.0 and first.tokenizer.vocab_size == 320
    with pytest.raises(UserError, match=r"a run's folder; name one of its checkpoints, such as"):
        convert.load(whole)


def test_a_finished_run_is_left_alone(whole, place, command):
    before = (whole / "metrics.jsonl").read_bytes()
    output, _ = command("whole").communicate(timeout=900)
    assert "was finished earlier; nothing is trained again" in output
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_the_same(whole, place, command, times):
    folder = place / f"killed-{times}"
    rng = random.Random(time.time_ns())
    kills = 0
    for target in sorted(rng.sample(range(1, 24), times)):
        process = command(folder.name)
        while process.poll() is None and reached(folder) < target:
            time.sleep(0.002)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    output, _ = (last := command(folder.name)).communicate(timeout=900)
    assert last.returncode == 0, output
    assert kills >= times // 2
    assert curve(folder) == curve(whole)
    assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal


def test_a_second_run_in_a_folder_is_refused(whole, place, data, monkeypatch):
    """Nothing of the first is changed, and a finished run needs no lock."""
    shutil.copytree(whole, place / "first")
    shutil.rmtree(place / "first" / "export")
    before = (place / "first" / "metrics.jsonl").read_bytes()
    config = corpus.run_config(place, data, output=str(place / "first"))
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    match = rf"process {os.getpid()} on .* is writing here"
    with lock.held(place / "first" / LOCK, "first"), pytest.raises(UserError, match=match):
        pretrain(config)
    assert (place / "first" / "metrics.jsonl").read_bytes() == before
    assert not (place / "first" / "export").exists()
    with lock.held(whole / LOCK, "whole"):
        assert pretrain(dataclasses.replace(config, output=str(whole)))


@pytest.mark.slow
@pytest.mark.parametrize("times", [100])
def test_two_runs_in_a_folder_at_random_distances_lose_nothing(whole, place, command, times):
    """Each folder sees two runs, one of which is often killed; a last one finishes it."""
    rng, refused = random.Random(0), 0
    for number in range(times):
        folder = place / f"two-{number}"
        first = command(folder.name)
        time.sleep(rng.random() * rng.choice((0.05, 2.0, 8.0)))
        second = command(folder.name)
        time.sleep(rng.random() * rng.choice((0.05, 2.0, 8.0)))
        victim = rng.choice((first, second, None))
        if victim is not None:
            victim.kill()
        for process in (first, second):
            output, _ = process.communicate(timeout=900)
            wanted = (0, 2) if process is not victim else (0, 2, -signal.SIGKILL)
            assert process.returncode in wanted, output
            assert process.returncode != 2 or "is writing here" in output, output
            refused += process.returncode == 2
        output, _ = (last := command(folder.name)).communicate(timeout=900)
        assert last.returncode == 0, output
        assert curve(folder) == curve(whole)
        assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal
        assert {p.name for p in folder.iterdir()} == {p.name for p in whole.iterdir()}
        shutil.rmtree(folder)
    assert refused > times // 4


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_asked_to_stop_it_saves_and_resumes(whole, place, command, number):
    name = f"asked-{number.name}"
    process = command(name)
    while process.poll() is None and reached(place / name) < 7:
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert "stopped, checkpoint saved; run the same pretrain command to resume" in output
    assert 7 <= reached(place / name) < 24
    output, _ = (again := command(name)).communicate(timeout=900)
    assert again.returncode == 0, output
    assert curve(place / name) == curve(whole)


def test_asked_to_stop_during_an_evaluation_it_still_saves(place, data, monkeypatch):
    config = corpus.run_config(place, data, output=str(place / "evaluating"))
    evaluate = MaskedLMObjective.evaluate

    def signalling(self, params, step):
        if step == 6:  # evaluated here, but not saved
            signal.raise_signal(signal.SIGTERM)
        return evaluate(self, params, step)

    monkeypatch.setattr(MaskedLMObjective, "evaluate", signalling)
    assert not pretrain(config)
    saved = {int(p.name) for p in (place / "evaluating" / "checkpoints").iterdir()}
    assert max(saved) == reached(place / "evaluating") >= 6


@pytest.fixture(scope="module")
def mixed(place) -> Path:
    """Prepared rows of two components, one of which may be read only half."""
    sizes, weights = {"code": 200, "prose": 200}, {"code": 1.0, "prose": 3.0}
    options = {"lengths": (64, 128), "epochs": {"prose": 0.5}, "validation": 6}
    return rows.prepared(place / "mixed", sizes, weights=weights, **options)


def mixture_config(place, mixed, name):
    """The first stage with a mixture of its own, the second with the manifest's."""
    run = corpus.run_config(place, mixed, output=str(place / name))
    first = dataclasses.replace(run.stages[0], mixture={"code": 1.0, "prose": 1.0})
    return dataclasses.replace(run, stages=(first, run.stages[1]))


def test_every_stage_notes_its_mixture(place, mixed):
    config = mixture_config(place, mixed, "noted")
    run = PretrainRun.open(config)
    run.folder.claim()
    assert [s.mixture for s in run.config.stages] == [{"code": 1.0, "prose": w} for w in (1.0, 3.0)]
    assert [s.epochs for s in run.config.stages] == [{"prose": 0.5}] * 2
    assert configs.load("pretrain", str(place / "noted" / "config.json")) == run.config
    assert PretrainRun.open(run.config).config == PretrainRun.open(config).config == run.config


def test_a_mixture_is_reported_and_outlives_a_stop(place, mixed, monkeypatch):
    def config(name):
        run = mixture_config(place, mixed, name)
        return dataclasses.replace(run, stages=run.stages[:1])

    def without_times(name):
        lines = read_rows(place / name / "metrics.jsonl")
        times = ("second", "mfu", "memory")
        return [
            {k: v for k, v in line.items() if not any(word in k for word in times)}
            for line in lines
        ]

    assert pretrain(config("mixture"))
    lines = without_times("mixture")
    steps = [r for r in lines if "loss" in r]
    assert np.mean([r["share/prose"] for r in steps]) == pytest.approx(0.5, abs=0.05)
    assert all(r["share/prose"] + r["share/code"] == pytest.approx(1) for r in steps)
    assert 0 < steps[0]["epochs/code"] < steps[-1]["epochs/code"] < 0.5
    evaluations = [r for r in lines if "eval_loss" in r]
    for row in evaluations:
        each = [row["eval_loss/code"], row["eval_loss/prose"]]
        assert min(each) <= row["eval_loss"] <= max(each)

    with monkeypatch.context() as context:
        context.setattr(Program, "step", stopping_at(Program.step, 9))
        assert not pretrain(config("stopped"))
    assert 9 <= reached(place / "stopped") < 16
    assert pretrain(config("stopped"))
    assert without_times("stopped") == lines


def test_a_full_disk_stops_nothing_but_saving(whole, place, data, monkeypatch, full_disk, capsys):
    """No file can grow from step 4 to 13: neither checkpoints nor metrics nor events.

    Programs are compiled only at the start, for other batches, another stage, and the export.
    """
    config = corpus.run_config(place, data, output=str(place / "full"))
    begun, step, save = [0], Program.step, Checkpoints.save
    compiled = set()

    def begin(*args):
        begun.append(len(begun))
        full_disk(3 < begun[-1] < 14)
        return step(*args)

    def finish_saving(*args):
        save(*args)
        if (thread := args[0]._saving) is not None:
            thread.join()  # while the disk is still full

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.add(begun[-1])

    monkeypatch.setattr(Program, "step", begin)
    monkeypatch.setattr(Checkpoints, "save", finish_saving)
    jax.monitoring.register_event_duration_secs_listener(listen)
    assert pretrain(config)
    assert begun[-1] == 24 and {4, 16} <= compiled <= {0, 4, 16, 24}
    folder = place / "full"
    assert curve(folder) == curve(whole)
    lines = capsys.readouterr().err.splitlines()
    messages = {line for line in lines if "not saved" in line}
    failed = {folder / "checkpoints" / step for step in ("5", "10")}
    assert {
        f"{path}: not saved (File too large); training continues" for path in failed
    } <= messages
    assert not [line for line in lines if "Traceback" in line or "Error:" in line]
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [16, 20, 24]
    steps = [event.step for event in events.read(folder / "tensorboard")][1:]
    assert steps == [row["step"] for row in read_rows(folder / "metrics.jsonl")]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(whole, place, command):
    """The newest, and the export is gone, as if the run had been killed before it."""
    folder = place / "rotten"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "export")
    config = json.loads((folder / "config.json").read_text()) | {"output": str(folder)}
    (folder / "config.json").write_text(json.dumps(config))
    file = max((folder / "checkpoints" / "24").rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoints/24: damaged \(.* take another checkpoint"):
        convert.load(folder / "checkpoints" / "24")
    output, _ = (again := command("rotten")).communicate(timeout=900)
    assert again.returncode == 0, output
    assert "/24: damaged (" in output and "/20: used instead" in output
    assert curve(folder) == curve(whole)
    assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal
    shutil.rmtree(folder / "export")
    for path in (folder / "checkpoints").iterdir():
        shutil.rmtree(path / "state" / "d", ignore_errors=True)
    output, _ = (again := command("rotten")).communicate(timeout=900)
    assert again.returncode == 2 and "all checkpoints are damaged: 24, state/d/" in output


def stopping_at(method, count: int):
    """The method, with a wish to stop when it is called for the count-th time."""
    calls = itertools.count(1)

    def called(*args):
        if next(calls) == count:
            signal.raise_signal(signal.SIGTERM)
        return method(*args)

    return called


def test_a_stage_that_needs_more_than_its_epochs_is_refused(place, mixed):
    config = corpus.run_config(place, mixed, output=str(place / "starved"))
    only = dataclasses.replace(config.stages[0], mixture={"prose": 1.0}, epochs={"prose": 0.25})
    config = dataclasses.replace(config, stages=(only, config.stages[1]))
    with pytest.raises(UserError, match=r"stage short reads 28 rows of 64 tokens, and the epochs"):
        PretrainRun.open(config)
    assert not (place / "starved").exists()


def test_a_damaged_file_stops_a_run_before_it_begins(place, mixed, tmp_path):
    shutil.copytree(mixed, tmp_path / "damaged")
    file = next((tmp_path / "damaged" / "code" / "128").glob("train*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    config = corpus.run_config(place, tmp_path / "damaged", output=str(place / "damaged"))
    with pytest.raises(UserError, match=f"{file}: damaged"):
        PretrainRun.open(config)
    assert not (place / "damaged").exists()


def reached(folder: Path) -> int:
    """The last step on record."""
    lines = read_rows(folder / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def test_another_configuration_is_refused(whole, place, data):
    config = corpus.run_config(place, data, output=str(whole), seed=3)
    with pytest.raises(UserError, match=r"another configuration \(seed: 17 -> 3\)"):
        PretrainRun.open(config)
    PretrainRun.open(dataclasses.replace(config, seed=17, log_every=7))


def test_other_data_and_initial_weights_are_refused_and_moved_ones_are_not(place, tmp_path):
    """Whatever their paths; and a run of an earlier version, without fingerprints, resumes."""
    for name, count in (("rows", 90), ("others", 91)):
        rows.prepared(tmp_path / name, {"default": count}, lengths=(64, 128))
    for name in ("base", "other"):
        labelled.checkpoint(
            tmp_path / name, corpus.make_tokenizer(), num_hidden_layers=2, local_attention=16
        )
    path = tmp_path / "other" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    config = corpus.run_config(place, tmp_path / "rows", init_from=str(tmp_path / "base"))
    adopted = {"output": str(tmp_path / "run"), "init_model": "adopted"}
    config = dataclasses.replace(config, **adopted)
    (run := PretrainRun.open(config)).folder.claim(run.data.tokenizer)
    (tmp_path / "rows").rename(tmp_path / "moved [2]")
    config = dataclasses.replace(config, data=str(tmp_path / "moved [2]"))
    PretrainRun.open(config)
    with pytest.raises(UserError, match=r"other content of data \(.*others\)"):
        PretrainRun.open(dataclasses.replace(config, data=str(tmp_path / "others")))
    with pytest.raises(UserError, match=r"other content of init_from \(.*other\)"):
        PretrainRun.open(dataclasses.replace(config, init_from=str(tmp_path / "other")))
    shutil.rmtree(tmp_path / "base")  # needed no more
    PretrainRun.open(config)
    (tmp_path / "run" / "inputs.json").unlink()
    with pytest.raises(UserError, match="another configuration"):
        PretrainRun.open(config)
    (tmp_path / "moved [2]").rename(tmp_path / "rows")
    PretrainRun.open(dataclasses.replace(config, data=str(tmp_path / "run" / ".." / "rows")))


def test_a_vocabulary_that_does_not_fit(place, data):
    config = corpus.run_config(place, data, output=str(place / "small"))
    small = dataclasses.replace(config.model, vocab_size=319)
    with pytest.raises(UserError, match=r"320 ids and model.vocab_size is 319; pass --model.vocab"):
        pretrain(dataclasses.replace(config, model=small))
    assert not (place / "small").exists()


def test_a_folder_with_something_else_is_refused(place, data):
    (place / "other").mkdir()
    (place / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty and not a run"):
        PretrainRun.open(corpus.run_config(place, data, output=str(place / "other")))


def test_starting_from_a_checkpoint(whole, place, data):
    config = corpus.run_config(
        place, data, output=str(place / "next"), init_from=str(whole / "export")
    )
    params = PretrainRun.open(config).initial_params()
    theirs = convert.load(whole / "export").params
    assert np.array_equal(
        params["encoder"]["embeddings"]["embedding"], theirs["encoder"]["embeddings"]["embedding"]
    )
    wider = dataclasses.replace(config.model, hidden_size=64)
    config = dataclasses.replace(config, model=wider, output=str(place / "wider"))
    with pytest.raises(UserError, match=r"do not fit the model: .*hidden_size: 64 -> 32"):
        PretrainRun.open(config).initial_params()


def test_starting_larger_by_tiling(whole, place, data):
    larger = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7}
    config = corpus.run_config(place, data, output=str(place / "larger"), init_model="tiled")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, num_attention_heads=4, **larger),
        init_from=str(whole / "checkpoints" / "24"),
    )
    (place / "larger").mkdir()
    (place / "larger" / "plan.png").touch()  # of a dry run
    params = PretrainRun.open(config).initial_params()
    theirs = convert.load(whole / "export").params["encoder"]["embeddings"]["embedding"]
    assert np.array_equal(params["encoder"]["embeddings"]["embedding"][:, 16:48], theirs)
    with pytest.raises(UserError, match="no such directory"):
        PretrainRun.open(dataclasses.replace(config, init_from="/nowhere/at/all")).initial_params()


def test_going_on_with_another_architecture_and_another_tokenizer(whole, place, data):
    """The model is the checkpoint's; its embeddings follow the tokens."""
    other = corpus.prepared(place / "other-words", vocab_size=290)
    start = str(whole / "export")
    changes = {"init_from": start, "init_model": "adopted", "output": str(place / "other-run")}
    config = corpus.run_config(place, other, **changes)
    unlike = dataclasses.replace(config.model, hidden_size=64, vocab_size=512)
    config = dataclasses.replace(config, model=unlike)
    with pytest.raises(UserError, match=r"tokenizer is not that of .*--init-vocabulary matched"):
        PretrainRun.open(config).initial_params()
    run = PretrainRun.open(dataclasses.replace(config, init_vocabulary="matched"))
    old, new = convert.load(start), run.data.tokenizer
    assert run.config.model.hidden_size == 32 and run.config.model.vocab_size == 320
    assert run.config.model.pad_token_id == new.pad_id
    table = run.initial_params()["encoder"]["embeddings"]["embedding"]
    theirs = old.params["encoder"]["embeddings"]["embedding"]
    assert np.array_equal(table[new.mask_id], theirs[old.tokenizer.mask_id])
    run.folder.claim()
    again = PretrainRun.open(
        dataclasses.replace(config, init_vocabulary="matched", init_from=start)
    )
    assert again.config == run.config


def test_a_run_that_cannot_be_saved_stops_and_names_the_last_good_checkpoint(
    whole, place, data, monkeypatch
):
    """Weights are spoilt after step 7."""
    config = corpus.run_config(place, data, output=str(place / "spoilt"), skip_limit=3)
    step = Program.step

    def spoiling(self, state, *args):
        if state.step == 7:
            state = state._replace(params=jax.tree.map(lambda x: x * np.nan, state.params))
        return step(self, state, *args)

    monkeypatch.setattr(Program, "step", spoiling)
    with pytest.raises(RunStopped) as stopped:
        pretrain(config)
    message, good = str(stopped.value), place / "spoilt" / "checkpoints" / "5"
    assert "3 steps skipped up to step 10: loss is nan" in message
    assert f"the last good checkpoint is {good}; start from it with --init-from {good}" in message
    kept = convert.load(good).params["encoder"]["embeddings"]["embedding"]
    assert np.isfinite(kept).all()
    rows = {r["step"]: r for r in read_rows(place / "spoilt" / "metrics.jsonl") if "loss" in r}
    assert [rows[s]["skipped_in_a_row"] for s in range(1, 11)] == [0] * 7 + [1, 2, 3]
    assert rows[10]["update_norm"] == 0 and rows[10]["loss"] is None
    assert [rows[s]["loss"] for s in range(1, 8)] == [
        r["loss"] for r in read_rows(whole / "metrics.jsonl") if r["step"] < 8 and "loss" in r
    ]


@pytest.mark.parametrize("damage", ["all 24 steps were skipped", "parameters are not finite"])
def test_a_run_that_has_trained_nothing_has_failed(whole, place, data, monkeypatch, damage):
    config = corpus.run_config(place, data, output=str(place / "skipped"))
    shutil.copytree(whole, config.output, dirs_exist_ok=True)
    shutil.rmtree(place / "skipped" / "export")
    restore = Checkpoints.restore

    def skipped(*arguments):
        state, saved = restore(*arguments)
        if damage.startswith("all"):
            return state._replace(guard=state.guard._replace(skipped=state.step)), saved
        spoilt = jax.tree.map(lambda x: x * np.nan, state.params)
        return state._replace(params=spoilt, guard=state.guard._replace(in_a_row=state.step)), saved

    monkeypatch.setattr(Checkpoints, "restore", skipped)
    with pytest.raises(RunStopped, match=damage):
        pretrain(config)
    assert not (place / "skipped" / "export").exists()


def test_report_draws_the_run(whole, tmp_path):
    from modernbert_jax.train.report.curves import curves, report

    png, page = report([whole], tmp_path / "both")
    assert png.read_bytes().startswith(b"\x89PNG") and "data:image/png;base64," in page.read_text()
    assert curves(whole, tmp_path / "curves.png").stat().st_size > 10_000
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        report([tmp_path])


def test_what_fine_tuning_can_do_pretraining_can(whole, place, data, monkeypatch):
    """Adapters on an encoder, gradient clipping, AdamW, the best model, a stop and a resumption."""
    config = corpus.run_config(place, data, output=str(place / "adapted"))
    config = corpus.even_config(
        config,
        rows=2,
        steps=6,
        init_from=str(whole / "export"),
        lora=Lora(rank=2, targets=("attn.Wqkv",), whole=("head",)),
        optimizer="adamw",
        clip_norm=1.0,
        keep_best=True,
        eval_every=2,
    )
    with monkeypatch.context() as context:
        context.setattr(Program, "step", stopping_at(Program.step, 3))
        assert not pretrain(config)
    assert pretrain(config)
    rows = read_rows(place / "adapted" / "metrics.jsonl")
    evaluations = [row for row in rows if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [0, 2, 4, 6]
    assert all(row["score"] == pytest.approx(-row["eval_loss"], rel=1e-6) for row in evaluations)
    tuned, base = (convert.load(f / "export").params for f in (place / "adapted", whole))
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), tuned, base)
    assert same["encoder"]["embeddings"]["embedding"]
    assert not same["encoder"]["layer_0"]["attn"]["Wqkv"]["kernel"]
    assert same["encoder"]["layer_0"]["attn"]["Wo"]["kernel"]
    assert not same["head"]["dense"]["kernel"]
    assert (place / "adapted" / "adapter" / "adapter_model.safetensors").is_file()


def test_out_of_patience_a_run_ends_early(place, data):
    config = corpus.run_config(place, data, output=str(place / "impatient"))
    config = corpus.even_config(
        config, rows=2, steps=20, patience=2, min_delta=100.0, eval_every=2, keep_best=True
    )
    assert pretrain(config)
    rows = read_rows(place / "impatient" / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval_loss" in row] == [0, 2, 4]
    assert pretrain(config)  # it is finished
