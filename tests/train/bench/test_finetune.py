"""Sides of the `finetune` comparison; the Trainer's is tested among those of parity."""

import corpus
import labelled
import pytest

from modernbert_jax import UserError, cli
from modernbert_jax.train.bench import finetune
from modernbert_jax.train.bench.finetune import Turn
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import TASKS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    labelled.checkpoint(folder / "base", corpus.make_tokenizer(), num_hidden_layers=2)
    for kind in ("classification", "regression", "tokens"):
        labelled.write(folder / f"{kind}.jsonl", labelled.RECORDS[kind](160, 0))
        labelled.write(folder / f"{kind}-dev.jsonl", labelled.RECORDS[kind](40, 1))
    return folder


def configured(place, kind, **changes):
    return FinetuneConfig(
        task=TASKS[kind](max_length=64, **({"stride": 16} if kind == "tokens" else {})),
        model=str(place / "base"),
        train=str(place / f"{kind}.jsonl"),
        validation=str(place / f"{kind}-dev.jsonl"),
        **changes,
    )


@pytest.mark.parametrize("kind", ["classification", "regression", "tokens"])
def test_a_bag_of_words_suffices_for_the_tests_data(place, kind):
    config = configured(place, kind)
    (turn,) = finetune.compare(config, (0, 1), ("words",))
    assert turn.side == "words" and turn.metrics[config.task.best_metric] > 0.9


@pytest.mark.slow
def test_the_command_writes_what_it_shows(place, capsys, tmp_path):
    files = [f"--{n}={place / f}" for n, f in (("train", "regression.jsonl"), ("model", "base"))]
    files += ["--validation", str(place / "regression-dev.jsonl"), "--task.max-length", "64"]
    options = ["--epochs", "1", "--seeds", "3", "4", "--sides", "ours", "random"]
    output = tmp_path / "turns.json"
    command = ["bench", "finetune", "regression", *files, *options, "--json", str(output)]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert "here, from random weights" in out and "spearman" in out and "seed 4" in err
    assert output.read_text().count('"side"') == 4


def test_a_summary_has_means_deviations_and_the_best_speed():
    turns = [
        Turn(side="ours", seed=i, metrics={"f1": f}, examples_per_second=s, seconds=9.0)
        for i, (f, s) in enumerate([(0.5, 10.0), (0.7, 30.0)])
    ]
    result = finetune.summary(turns, "f1")["ours"]
    assert result["mean"] == pytest.approx(0.6)
    assert result["deviation"] == pytest.approx(0.1 * 2**0.5)
    assert result["examples_per_second"] == 30.0


def test_what_cannot_be_compared_is_refused(place):
    def refusal(config, sides=("ours",)):
        with pytest.raises(UserError) as refused:
            next(finetune.compare(config, (0,), sides))
        return str(refused.value)

    config = configured(place, "classification")
    assert "no side 'torch'" in refusal(config, ("torch",))
    assert "task is choice" in refusal(FinetuneConfig(task=TASKS["choice"]()))
    assert "--validation" in refusal(FinetuneConfig(task=config.task))
