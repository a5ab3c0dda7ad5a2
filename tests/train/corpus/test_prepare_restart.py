"""After any interruption `prepare` resumes, and ends with the same bytes."""

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


def test_other_settings_do_not_resume_work(tmp_path, monkeypatch):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    tokenizer = corpus.make_tokenizer()

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(shards.PackingWindow, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], workers=1)
    with pytest.raises(UserError, match=r"out.partial: .*seed: 0 -> 1"):
        prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], seed=1, workers=1)
    with source.open("a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(UserError, match=r"text.jsonl: \d+ -> \d+"):
        prepare(Corpus([source]), tokenizer, tmp_path / "out", [64], workers=1)


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
