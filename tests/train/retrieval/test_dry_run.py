"""Dry runs of retrieval training: negatives, steps, learning rates and FLOPs by hand."""

import dataclasses
import json

import corpus
import labelled
import pytest

from modernbert_jax import UserError, cli, configs
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.train.engine.machine import Machine, duration
from modernbert_jax.train.retrieval import dry_run
from modernbert_jax.train.retrieval.config import LossConfig

MACHINE = Machine.named("h100", 8, 0.5)


def test_dpr_as_its_authors_corrected_it():
    config = configs.load("finetune", "dpr-base")
    sizes = dry_run.assumed(config, 1_250_000, (10, 80))
    facts = dry_run.plan(config, MACHINE, sizes)
    (data,) = facts["datasets"]
    assert (data["documents"], data["negatives"], data["steps"]) == (2, 2 * 4096 - 1, 306)
    assert facts["warmup_steps"] == 15 and facts["learning_rate"][1] == 8e-5
    assert data["passes"] == 2 and data["tokens_of_a_batch"] == 170 * 4096
    model = ModernBertConfig.preset("base")
    forward = 10 * model.flops_per_token(10) + 160 * model.flops_per_token(80)
    assert facts["flops"] == pytest.approx(4 * forward * 1_250_000)
    assert facts["hours"] == pytest.approx(facts["flops"] / (8 * 989e12 * 0.5) / 3600)
    text = dry_run.text(config, MACHINE, facts)
    assert "FLOPs: 48.5 seconds on 8 x" in text
    assert "8,191" in text and "306 steps of 4,096 examples" in text


def test_durations_have_a_unit_in_which_they_are_seen():
    assert list(map(duration, (0, 1 / 3600, 0.5, 1, 1234.5))) == [
        *("0.0 seconds", "1.0 seconds", "30.0 minutes", "1.0 hours", "1,234.5 hours")
    ]


def test_a_reranker_reads_pairs_once_and_has_no_negatives_in_its_batch():
    config = configs.load("finetune", "ettin-reranker-17m")
    (data,) = dry_run.plan(config, MACHINE, dry_run.assumed(config, 10_240, (10, 80)))["datasets"]
    assert (data["negatives"], data["steps"], data["passes"]) == (0, 10, 1)
    assert data["tokens_of_a_batch"] == 89 * 1024
    ranked = dataclasses.replace(config, loss=LossConfig(name="multiple-negatives-ranking"))
    sizes = [dry_run.DataSize("triplets", 10_240, (10.0, 80.0, 80.0))]
    (data,) = dry_run.plan(ranked, MACHINE, sizes)["datasets"]
    assert data["negatives"] == 4 + 1


def test_the_command_measures_data_and_trains_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled.checkpoint(tmp_path / "model", corpus.make_tokenizer(), num_hidden_layers=1)
    rows = [{"query": "ab", "positive": f"cd {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["finetune", "embedding", "--model", "model", "--train", "pairs.jsonl", "--dry-run"]
    command += ["--batch-examples", "8", "--epochs", "2", "--max-length", "3", "--json"]
    assert cli.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    (data,) = facts["datasets"]
    assert (data["name"], data["examples"], data["steps"]) == ("pairs", 20, 6)
    assert data["tokens"] == [3, 3] and data["negatives"] == 7
    assert {path.name for path in tmp_path.iterdir()} == {"model", "pairs.jsonl"}
    assert cli.main([*command, "--train-examples", "8"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["examples"] == 8
    assert cli.main(["finetune", "dpr-base", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["examples"] == 1_250_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gooaq"], "--examples N"),
        (["boolq"], "pretraining and retrieval"),
        (["embedding", "--examples", "5", "--model", "nobody/knows"], "nobody/knows"),
        (["embedding", "--examples", "5", "--loss.name", "mnr"], "loss 'mnr'"),
    ],
)
def test_a_dry_run_that_is_impossible_is_refused(words, message, capsys):
    assert cli.main(["finetune", *words, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_published_models_are_known_by_name():
    assert dry_run.architecture("jhu-clsp/ettin-encoder-1b").hidden_size == 1792
    with pytest.raises(UserError, match="no such folder"):
        dry_run.architecture("answerdotai/ModernBERT-huge")


def test_late_interaction_fills_queries_up_and_compares_all_tokens():
    config = configs.load("finetune", "colbert-base")
    (size,) = dry_run.assumed(config, 1600, (8, 80), documents=4)
    assert size.tokens == (32, 80, 80, 80, 80)
    facts = dry_run.plan(config, MACHINE, [size])
    model = ModernBertConfig.preset("base")
    lengths = sum(n * model.flops_per_token(n) for n in size.tokens)
    products = 2 * 128 * 32 * 4 * 80 * 16  # of a query with the documents of the batch
    assert facts["flops"] == pytest.approx(3 * (lengths + products) * 1600)
    short = dataclasses.replace(config, query_expansion="min", expansion_length=16)
    assert dry_run.assumed(short, 1, (8, 80))[0].tokens[0] == 16
