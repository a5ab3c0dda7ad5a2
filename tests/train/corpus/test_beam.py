"""Apache Beam writes the same bytes as local processes."""

import pickle
from functools import partial
from pathlib import Path

import corpus
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.corpus import beam, components, prepare, shards, writer
from modernbert_jax.train.corpus.sources import Corpus


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(components, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(prepare, "WINDOW_DOCUMENTS", 12)


def contents(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def both(tmp_path: Path, run) -> None:
    """Prepare one corpus locally and by `run`, and compare the files."""
    texts = [*corpus.texts(60), *corpus.texts(20)]
    source = corpus.write_jsonl(tmp_path / "text.jsonl", texts)
    tokenizer, outcome = corpus.make_tokenizer(), []
    for name, how in {"local": {"workers": 1}, "other": {"run": run}}.items():
        output = tmp_path / name
        options = {"deduplicate": True} | how
        prepare.prepare(Corpus([source]), tokenizer, output, [64, 128], **options)
        outcome.append(contents(output))
    assert outcome[0] == outcome[1] and len(outcome[0]) > 12


def test_units_in_any_order_and_twice_over_give_the_same(tmp_path):
    """A runner like a cluster: items are pickled, shuffled, and some are retried."""

    def cluster(function, items):
        for item in [*reversed(items), *items[:2]]:
            call, sent = pickle.loads(pickle.dumps((function, item)))
            call(sent)

    both(tmp_path, cluster)


def test_wrong_input_is_written_down_for_the_launcher(tmp_path):
    def wrong(item):
        raise UserError(f"{item}: not JSON")

    beam.call(str(tmp_path), wrong, (3, "a.jsonl"))
    assert (tmp_path / "work/errors/00003.txt").read_text() == "a.jsonl: not JSON"


def test_real_runner_gives_the_same_bytes(tmp_path):
    pytest.importorskip("apache_beam")
    root = writer.work_root(tmp_path / "other")
    both(tmp_path, beam.runner("DirectRunner", [], root))


def test_real_runner_names_wrong_input(tmp_path):
    pytest.importorskip("apache_beam")
    root = writer.work_root(tmp_path / "out")
    run = beam.runner("DirectRunner", ["direct_num_workers=1"], root)
    (tmp_path / "text.jsonl").write_text('{"text": "x"}\noops\n')
    options = {"run": run, "validation": 0}
    with pytest.raises(UserError, match=r"text.jsonl:2: not JSON"):
        prepare.prepare(
            Corpus([tmp_path / "text.jsonl"]),
            corpus.make_tokenizer(),
            tmp_path / "out",
            [64],
            **options,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["text.jsonl"]


def test_options(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", object())
    with pytest.raises(UserError, match="'--project' is not NAME=VALUE"):
        beam.runner("DataflowRunner", ["--project"], str(tmp_path))
    run = beam.runner("FlinkRunner", ["flink_master=here:1", "streaming"], str(tmp_path))
    assert run.keywords["flags"] == ["--runner=FlinkRunner", "--flink_master=here:1", "--streaming"]


def test_without_beam_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'modernbert-jax\[beam\]'"):
        beam.runner("DirectRunner", [], str(tmp_path))


def test_work_can_be_sent_to_other_machines(tmp_path):
    source = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts(5))
    parts = {"x": components.CorpusComponent(corpus=Corpus([source]))}
    for unit in components.work_units(parts):
        assert pickle.loads(pickle.dumps(unit)) == unit
    assert pickle.loads(pickle.dumps(partial(shards.make_unit, 1))).func is shards.make_unit
