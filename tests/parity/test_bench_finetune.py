"""The Trainer's side of `bench finetune`: it learns what we learn."""

import importlib.util

import corpus
import labelled
import pytest

from modernbert_jax.train.bench import finetune
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import TASKS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="the Trainer needs accelerate"
)


@pytest.mark.parametrize("kind", ["classification", "regression", "tokens"])
def test_the_trainer_learns_what_we_learn(tmp_path, kind):
    labelled.checkpoint(tmp_path / "base", corpus.make_tokenizer(), num_hidden_layers=2)
    labelled.write(tmp_path / "train.jsonl", labelled.RECORDS[kind](320, 0))
    labelled.write(tmp_path / "dev.jsonl", labelled.RECORDS[kind](80, 1))
    config = FinetuneConfig(
        task=TASKS[kind](max_length=64, **({"stride": 16} if kind == "tokens" else {})),
        model=str(tmp_path / "base"),
        train=str(tmp_path / "train.jsonl"),
        validation=str(tmp_path / "dev.jsonl"),
        learning_rate=4e-3,
        epochs=4,
    )
    turns = {turn.side: turn for turn in finetune.compare(config, (0,), ("ours", "trainer"))}
    ours, theirs = (t.metrics[config.task.best_metric] for t in (turns["ours"], turns["trainer"]))
    assert ours > 0.8 and theirs > 0.8
    assert turns["trainer"].examples_per_second > 0
