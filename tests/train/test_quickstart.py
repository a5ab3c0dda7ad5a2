"""The demonstration with all its parts, on a smaller corpus and model."""

import itertools

import corpus
import pytest

from modernbert_jax.configs import nano
from modernbert_jax.train import quickstart


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder for the quickstart, with the tests' corpus and configuration."""
    config = corpus.run_config(tmp_path, tmp_path)
    monkeypatch.setattr(nano, "config", lambda: config)
    monkeypatch.setattr(quickstart, "standard_library", corpus.texts)
    return tmp_path / "quickstart"


def test_writes_everything_and_prints_where(small, capsys):
    assert quickstart.quickstart(small)
    message = capsys.readouterr().out
    assert "before" in message and "after" in message and "'def close([MASK]):'" in message
    for name in (
        "corpus.jsonl",
        "tokenizer",
        "data",
        "curves.png",
        "run/export",
        "run/checkpoints",
    ):
        assert (small / name).exists() and str(small / name) in message
    assert (small / "curves.png").read_bytes().startswith(b"\x89PNG")
    outcome = {p: p.stat().st_mtime_ns for p in small.rglob("*") if p.name != "curves.png"}
    assert quickstart.quickstart(small)
    again = {p: p.stat().st_mtime_ns for p in small.rglob("*") if p.name != "curves.png"}
    changed = [p for p, when in again.items() if outcome.get(p) != when and p.is_file()]
    assert {p.name for p in changed} <= {"config.json"}


def test_resumes_from_any_part(small, capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(quickstart, "prepare", stop)
        with pytest.raises(KeyboardInterrupt):
            quickstart.quickstart(small)
    assert sorted(p.name for p in small.iterdir()) == ["corpus.jsonl", "tokenizer"]
    first = (small / "tokenizer" / "tokenizer.json").read_bytes()
    with monkeypatch.context() as context:
        context.setattr(quickstart, "pretrain", stop)
        with pytest.raises(KeyboardInterrupt):
            quickstart.quickstart(small)
    assert (small / "data" / "manifest.json").exists()
    assert (small / "tokenizer" / "tokenizer.json").read_bytes() == first


def test_the_standard_library_is_text_with_docstrings():
    documents = list(itertools.islice(quickstart.standard_library(), 300))
    assert len(documents) == 300 and all(text.strip() for text in documents)
    sources = [text for text in documents if "\nimport " in text or "\ndef " in text]
    assert 20 < len(sources) < 280
