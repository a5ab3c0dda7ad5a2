"""A run from texts to an exported late-interaction model, and the settings that it has."""

import dataclasses
import json

import numpy as np
import pairs
import pytest

from modernbert_jax import ModernBert, cli, convert
from modernbert_jax.errors import UserError
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.data import read_run, write_run
from modernbert_jax.train.retrieval.late import LateInteractionModel, pipeline_of
from modernbert_jax.train.retrieval.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    pairs.model(folder / "base")
    pairs.write(folder / "train.jsonl", pairs.records(60, negatives=2))
    pairs.write(folder / "dev.jsonl", pairs.records(20, seed=2))
    search = folder / "search"
    (search / "qrels").mkdir(parents=True)
    held_out = pairs.records(12, negatives=0, seed=3)
    for name, column in (("queries", "query"), ("corpus", "positive")):
        rows = [{"_id": str(i), "text": one[column]} for i, one in enumerate(held_out)]
        pairs.write(search / f"{name}.jsonl", rows)
    lines = [f"{i}\t{i}\t1\n" for i in range(12)]
    (search / "qrels" / "test.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *lines]))
    return folder


def config_of(folder, **changes):
    values = {
        "kind": "late-interaction",
        "model": str(folder / "base"),
        "train": (str(folder / "train.jsonl"),),
        "validation": (str(folder / "dev.jsonl"),),
        "evaluation": (str(folder / "search"),),
        "output": str(folder / "run"),
        "prompts": {"query": "[Q] ", "document": "[D] "},
        "lengths": {"query": 16, "document": 48},
        "projection_hidden": (24,),
        "projection_dims": 16,
        "skiplist": "no le",
        "loss": LossConfig(scale=4.0),
        "learning_rate": 1e-2,
        "epochs": 5,
        "batch_examples": 20,
        "eval_every": 0,
        "log_every": 1,
        "save_every": 100,
        "keep_best": False,
    }
    return RetrievalConfig(**values | changes)


@pytest.fixture(scope="module")
def run(folder):
    return training.train(config_of(folder))


def test_it_learns(run, folder):
    rows = read_rows(folder / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 15 and np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
    assert run["last"]["metrics"]["accuracy"] > 0.6
    assert run["new_parameters"][-2:] == ["1_Dense/linear.weight", "2_Dense/linear.weight"]


def test_the_export_ranks_as_the_run_did(run, folder):
    """Read by the library: prefixes as tokens, queries filled up, skipped tokens left out."""
    model = ModernBert.from_pretrained(folder / "run" / "export")
    late = model.pipeline.late
    assert (late.query_prefix, late.document_prefix) == ("[Q] ", "[D] ")
    assert (late.query_length, late.document_length, late.expansion) == (16, 48, "fixed")
    assert late.skiplist == ("no", "le") and model.pipeline.similarity == "MaxSim"
    lines = (folder / "dev.jsonl").read_text().splitlines()
    examples = [json.loads(line) for line in lines]
    queries = model.encode_tokens([e["query"] for e in examples], is_query=True)
    assert {len(query) for query in queries} == {16} and queries[0].shape[1] == 16
    right, wrong = (
        np.diagonal(model.similarity(queries, model.encode_tokens([e[k] for e in examples])))
        for k in ("positive", "negative_0")
    )
    assert np.mean(right > wrong) == pytest.approx(run["last"]["metrics"]["accuracy"])
    corpus, asked = (
        [json.loads(line)["text"] for line in (folder / "search" / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    scores = model.similarity(
        model.encode_tokens(asked, is_query=True), model.encode_tokens(corpus)
    )
    rank = (scores >= np.diagonal(scores)[:, None]).sum(1)
    ndcg = np.mean(np.where(rank <= 10, 1 / np.log2(rank + 1), 0))
    assert run["last"]["metrics"]["retrieval_ndcg@10"] == pytest.approx(ndcg, abs=1e-4)
    card = (folder / "run" / "export" / "README.md").read_text()
    assert "MultiVectorEncoder" in card and "| dimensions of a token | 16 |" in card


def test_commands_search_and_rerank_with_it(run, folder, tmp_path, capsys):
    """All documents, resumably; or those of a run."""
    export, data = str(folder / "run" / "export"), str(folder / "search")
    assert cli.main(["evaluate", "--model", export, "--task", "retrieval", "--data", data]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = run["last"]["metrics"]["retrieval_ndcg@10"]
    assert found["ndcg@10"] == pytest.approx(expected, abs=1e-6)
    search = ["search", "--model", export, "--corpus", data, "--top-k", "5", "--output"]
    for name in ("first.run", "second.run"):
        assert cli.main([*search, str(tmp_path / name), "--cache", str(tmp_path / "kept")]) == 0
    runs = [read_run(tmp_path / name) for name in ("first.run", "second.run")]
    assert runs[0] == runs[1] and {len(scores) for scores in runs[0].values()} == {5}
    flat = {query: dict.fromkeys(scores, 0.0) for query, scores in runs[0].items()}
    write_run(tmp_path / "flat.run", flat)
    again = ["--run-file", str(tmp_path / "flat.run"), "--rerank", export, "--corpus", data]
    assert cli.main(["search", *again, "--output", str(tmp_path / "third.run")]) == 0
    third = read_run(tmp_path / "third.run")
    for query, scores in runs[0].items():
        assert third[query] == pytest.approx(scores, abs=1e-4)
    assert cli.main([*search, str(tmp_path / "no.run"), "--pooling", "mean"]) == 2
    assert "a vector for each token" in capsys.readouterr().err


def test_a_late_interaction_model_keeps_its_settings(run, folder):
    """What a run does not name is that of the checkpoint, without new layers."""
    path = str(folder / "run" / "export")
    config = config_of(
        folder,
        model=path,
        output=str(folder / "next"),
        prompts={},
        projection_dims=0,
        projection_hidden=(),
        skiplist="checkpoint",
        lengths={"document": 32},
    )
    session = Session.open(config, config.mesh.make())
    late = session.trainee.pipeline.late
    assert (late.query_prefix, late.query_length, late.document_length) == ("[Q] ", 16, 32)
    assert late.skiplist == ("no", "le") and late.expansion == "fixed"
    assert session.trainee.begin().new == ()
    assert session.train[0].tokens.lengths.max() <= 32


def test_data_sets_have_losses_of_their_own(folder):
    """Contrastive pairs beside scored lists: batches name their loss."""
    pairs.write(folder / "scored.jsonl", pairs.scored(12))
    config = config_of(
        folder,
        output=str(folder / "both"),
        train=(str(folder / "train.jsonl"), str(folder / "scored.jsonl")),
        losses={"scored": LossConfig(name="distill-kl", normalize_scores=True)},
    )
    session = Session.open(config, config.mesh.make())
    objective = session.objective(session.trainee.begin(), folder / "none")
    assert [(x.kind.name, x.columns, x.targets) for x in objective.losses] == [
        ("multiple-negatives-ranking", 4, 0),
        ("distill-kl", 4, 3),
    ]
    for step in range(session.sampler.steps(1)):
        assert int(objective.batch(step).loss) == session.sampler.members(step).dataset
    bad = dataclasses.replace(config, losses={"train": LossConfig(name="distill-kl")})
    with pytest.raises(UserError, match=r"train: loss distill-kl takes a score.*; scored: has"):
        Session.open(bad, config.mesh.make())


def test_only_the_usual_prefixes_become_tokens(folder):
    """Other text stays text, whether the run or the model names it."""
    prompts = {"query": "[Q] ask: ", "document": "say: "}
    config = config_of(folder, output=str(folder / "text"), prompts=prompts)
    checkpoint = LateInteractionModel.open(config).checkpoint
    found = {t: checkpoint.tokenizer.backend.token_to_id(t) for t in ("[Q] ", "[D] ", "say: ")}
    assert found["[Q] "] is not None and found["[D] "] is found["say: "] is None


def test_settings_of_a_run(folder):
    checkpoint = convert.load(folder / "base")
    plain = RetrievalConfig(kind="late-interaction", model=str(folder / "base"))
    pipeline = pipeline_of(plain, checkpoint)
    assert pipeline.width(64) == 128 and len(pipeline.steps) == 2
    assert pipeline.late.query_length == 32 and "!" in pipeline.late.skiplist
    changed = pipeline_of(
        RetrievalConfig(
            kind="late-interaction",
            query_expansion="min",
            expansion_length=8,
            attend_to_expansion=True,
            skiplist="none",
            scoring="mean-maxsim",
        ),
        checkpoint,
    )
    assert (changed.late.expansion, changed.late.expansion_length) == ("min", 8)
    assert changed.late.attend and changed.late.skiplist == ()
    assert changed.similarity == "MeanMaxSim"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "mean"}, "pooling is not for kind late-interaction"),
        ({"loss": LossConfig(name="cosent")}, "it is one of kind embedding"),
        (
            {"loss": LossConfig(name="distill-kl")},
            "a score of each document, and the data has none",
        ),
        ({"lengths": {"document": 9000}}, "takes texts of 9,000 tokens; the model supports"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(folder, changes, words):
    with pytest.raises(UserError, match=words):
        config = config_of(folder, output=str(folder / "other"), **changes)
        Session.open(config, config.mesh.make())
