"""After any interruption `prepare` resumes, and ends with the same bytes."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import pytest

from modernbert_jax import UserError
from modernbert_jax.io import lock
from modernbert_jax.train.corpus import shards
from modernbert_jax.train.corpus.prepare import prepare
from modernbert_jax.train.corpus.sources import Corpus

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}


def interrupted(folder: Path, mishap: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, SUPPORT / "interrupted.py", folder, mishap],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(results: list[dict]) -> None:
    for result in results:
        assert result["then"].startswith("finished") and result["same"], result
        assert not result["redone"] and not result["rubbish"], result
    assert max(result["kept"] for result in results) >= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step(tmp_path):
    results = interrupted(tmp_path, "kill")
    assert {result["said"] for result in results} == {"killed"}
    check(results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_full_disk_leaves_nothing_that_a_reader_would_accept(tmp_path):
    results = interrupted(tmp_path, "full")
    for result in results:
        assert "cannot be written (" in result["said"] and not result["whole"], result
        assert "same command again" in result["said"]
    check(results)


WORK = """
import sys
from pathlib import Path
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.corpus import components, prepare
from modernbert_jax.train.corpus.sources import Corpus

if __name__ == "__main__":
    folder, components.UNIT_BYTES, prepare.WINDOW_DOCUMENTS = Path(sys.argv[1]), 100_000, 40
    tokenizer = Tokenizer.load(folder / "tokenizer")
    source = Corpus([folder / "text.jsonl"])
    prepare.prepare(source, tokenizer, folder / sys.argv[2], [64, 128], workers=2)
"""


def test_killed_from_outside_with_workers(tmp_path):
    """Workers end by themselves after SIGKILL to their parent alone."""
    (tmp_path / "tokenizer").mkdir()
    corpus.make_tokenizer().save(tmp_path / "tokenizer")
    texts = [f"{i} {text}" for i in range(12) for text in corpus.texts()]
    corpus.write_jsonl(tmp_path / "text.jsonl", texts)
    (tmp_path / "work.py").write_text(WORK)

    def start(name):
        return subprocess.Popen(
            [sys.executable, tmp_path / "work.py", tmp_path, name],
            env=ENVIRONMENT,
            start_new_session=True,
        )

    process = start("out")
    partial = tmp_path / "out.partial"
    while not list(partial.glob("work/default/window-*")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert partial.exists() and not (tmp_path / "out").exists()
    deadline = time.monotonic() + 60
    while alive(process.pid):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
    assert start("out").wait() == 0 and start("whole").wait() == 0
    files = {name: contents(tmp_path / name) for name in ("out", "whole")}
    assert files["out"] == files["whole"] and len(files["out"]) > 40
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("out", "."))) == ["out"]


def alive(group: int) -> bool:
    """Whether a process of the group still runs, zombies aside."""
    if Path("/proc/self/stat").exists():
        processes = [process_state(p) for p in Path("/proc").glob("[0-9]*/stat")]
        return any(number == group and state != "Z" for state, number in processes)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def process_state(stat: Path) -> tuple[str, int]:
    try:
        state, _, group = stat.read_text().rsplit(")", 1)[1].split()[:3]
    except OSError:  # it has just ended
        return "Z", 0
    return state, int(group)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Prepare, and stop when a number of windows is written."""
    monkeypatch.setattr("modernbert_jax.train.corpus.prepare.WINDOW_DOCUMENTS", 20)
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())

    def stop(windows: int) -> Path:
        write, left = shards.PackingWindow.write, itertools.count()

        def written(*args):
            if next(left) == windows:
                raise KeyboardInterrupt
            return write(*args)

        with monkeypatch.context() as context:
            context.setattr(shards.PackingWindow, "write", written)
            with pytest.raises(KeyboardInterrupt):
                prepared(source)
        return source

    return stop


def prepared(source: Path, **options):
    tokenizer = corpus.make_tokenizer()
    return prepare(Corpus([source]), tokenizer, source.parent / "out", [64], workers=1, **options)


def test_other_settings_do_not_resume_work(stopped):
    source = stopped(1)
    with pytest.raises(UserError, match=r"out.partial: .*seed: 0 -> 1"):
        prepared(source, seed=1)
    content = source.read_text()
    for changed, words in (
        (content + '{"text": "more"}\n', r"text.jsonl: [\d,]+ bytes -> [\d,]+"),
        (content.replace("ba", "be", 1), "text.jsonl: its content has changed"),
    ):
        source.write_text(changed)
        with pytest.raises(UserError, match=words):
            prepared(source)
    source.write_text(content)
    moved = source.rename(source.with_name("moved [2].jsonl"))
    assert prepared(moved).components["default"].documents["train"] > 100


def test_work_without_a_result_blocks_no_other_command(stopped, tmp_path):
    """That of an error in the first window, of a kill there, and of documents all held out."""
    source = stopped(0)
    assert not (tmp_path / "out.partial").exists()
    (tmp_path / "out.partial" / "work").mkdir(parents=True)
    (tmp_path / "out.partial" / "work" / "plan.json").write_text('{"seed": 7}')
    with pytest.raises(UserError, match="kept for validation; pass --validation 0"):
        prepared(source, validation=0.999999)
    assert not (tmp_path / "out.partial").exists()
    assert prepared(source, validation=0.0, seed=1)
    assert sorted(os.listdir(tmp_path)) == ["out", "text.jsonl"]


def test_finished_work_is_that_of_its_sources(stopped, tmp_path):
    """By the hashes in the manifest, whatever the paths."""
    source = stopped(1)
    made = prepared(source)
    moved = source.rename(tmp_path / "moved.jsonl")
    assert prepared(moved) == made
    content = moved.read_text()
    moved.write_text(content.replace("ba", "be", 1))
    with pytest.raises(UserError, match=r"out: exists, made from other sources \(.*its content"):
        prepared(moved)
    moved.write_text(content)
    named = moved.rename(tmp_path / "moved.txt")
    with pytest.raises(UserError, match=r"made from other sources \(.*text.jsonl -> .*moved.txt"):
        prepared(named)


def test_one_writer_of_an_output(stopped, tmp_path):
    source = stopped(1)
    before = contents(tmp_path)
    with (
        lock.held(tmp_path / ".out.lock", "out"),
        pytest.raises(UserError, match=rf"out: process {os.getpid()} on .* is writing here"),
    ):
        prepared(source)
    assert contents(tmp_path) == before


def test_work_of_an_earlier_version_resumes(stopped, tmp_path):
    """Its plan has sizes of sources only."""
    source = stopped(1)
    path = tmp_path / "out.partial" / "work" / "plan.json"
    plan = json.loads(path.read_text())
    plan["components"]["default"]["sources"] = {str(source): source.stat().st_size}
    path.write_text(json.dumps(plan))
    window = path.parent / "default" / "window-00000-0000.json"
    before = window.stat().st_mtime_ns
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        prepared(source, seed=1)
    assert window.stat().st_mtime_ns == before and prepared(source)


def test_bad_text_late_in_the_corpus_keeps_finished_work(tmp_path, monkeypatch):
    """Bad files can be corrected or skipped without starting over."""
    monkeypatch.setattr("modernbert_jax.train.corpus.components.UNIT_BYTES", 20_000)
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    with source.open("a") as file:
        file.write("oops\n")
    tokenizer, out = corpus.make_tokenizer(), tmp_path / "out"
    with pytest.raises(UserError, match=r"text.jsonl:121: not JSON"):
        prepare(Corpus([source]), tokenizer, out, [64], workers=1)
    kept = sorted((tmp_path / "out.partial").rglob("*.arrayrecord"))
    before = [p.stat().st_mtime_ns for p in kept]
    outcome = prepare(Corpus([source], on_error="skip"), tokenizer, out, [64], workers=1)
    assert outcome.components["default"].skipped == {"not JSON": 1}
    now = [out / p.relative_to(tmp_path / "out.partial") for p in kept]
    assert kept and [p.stat().st_mtime_ns for p in now] == before


@pytest.mark.parametrize("place", ["file/out", "/proc/nowhere/out"])
def test_an_output_that_cannot_be_written(tmp_path, place):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts(5))
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / place
    with pytest.raises(UserError, match=r"cannot be (written|read) \(.+\)"):
        prepare(Corpus([source]), corpus.make_tokenizer(), output, [64], workers=1)


def test_no_permission(tmp_path, monkeypatch):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts(5))
    tokenizer = corpus.make_tokenizer()

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shards, "write_records", refuse)
    with pytest.raises(UserError, match=r"train-00000-0000.arrayrecord: .*\(Permission denied\)"):
        prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["text.jsonl"]
