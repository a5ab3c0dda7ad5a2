"""A run from texts to an exported embedding model, and what is refused before anything starts."""

import dataclasses
import json

import jax
import numpy as np
import pairs
import pytest

from modernbert_jax import ModernBert, convert
from modernbert_jax.errors import UserError
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.retrieval import initial_model, training
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.embedding import Embedding
from modernbert_jax.train.retrieval.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    pairs.model(folder / "base")
    examples = pairs.records(60, negatives=2)
    pairs.write(folder / "first.jsonl", examples)
    pairs.write(folder / "second.jsonl", pairs.records(40, negatives=0, seed=1))
    for example in examples:
        example.pop("negative_1")
    pairs.write(folder / "dev.jsonl", examples[:40])
    return folder


def config_of(folder, **changes):
    values = {
        "kind": "embedding",
        "model": str(folder / "base"),
        "train": (str(folder / "first.jsonl"), str(folder / "second.jsonl")),
        "validation": (str(folder / "dev.jsonl"),),
        "output": str(folder / "run"),
        "prompts": {"query": "ba: "},
        "include_prompt": False,
        "projection_dims": 16,
        "normalize": "yes",
        "max_length": 64,
        "loss": LossConfig(learn_scale=True),
        "learning_rate": 1e-2,
        "epochs": 4,
        "batch_examples": 20,
        "eval_every": 10,
        "log_every": 1,
        "save_every": 100,
        "keep_best": False,
    }
    return RetrievalConfig(**values | changes)


@pytest.fixture(scope="module")
def run(folder):
    """A run on pairs and triples in turn, with losses of their own and new layers."""
    symmetric = LossConfig(directions=("query_to_doc", "doc_to_query"), scale=10.0)
    config = config_of(folder, losses={"second": symmetric})
    return config, training.train(config), training


def test_it_learns(run, folder):
    """The loss falls, over batches of either data set, and positives rise above negatives."""
    _, result, _ = run
    rows = read_rows(folder / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 20 and np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    assert result["metric"] == "accuracy" and result["last"]["metrics"]["accuracy"] > 0.75
    assert [row["step"] for row in rows if "eval_loss" in row] == [10, 20]
    assert result["losses"] == {"second": "multiple-negatives-ranking"}
    assert result["scale"] != pytest.approx(20.0, abs=1e-3)
    assert result["new_parameters"] == ["2_Dense/linear.weight", "2_Dense/linear.bias"]


def test_the_export_has_the_trained_vectors(run, folder):
    """Read by the library: modules, prompts, and vectors that rank as in the validation."""
    _, result, _ = run
    model = ModernBert.from_pretrained(folder / "run" / "export")
    assert model.pipeline.prompts == {"query": "ba: "} and model.pipeline.similarity == "cosine"
    examples = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    query, positive, negative = ([e[k] for e in examples] for k in examples[0])
    queries = model.encode(query, prompt_name="query")
    assert queries.shape == (40, 16)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), 1, atol=1e-5)
    right, wrong = (np.sum(queries * model.encode(t), -1) for t in (positive, negative))
    assert np.mean(right > wrong) == pytest.approx(result["last"]["metrics"]["accuracy"])
    card = (folder / "run" / "export" / "README.md").read_text()
    assert "first.jsonl" in card and 'prompt_name="query"' in card and "| dimensions | 16 |" in card


def test_a_checkpoint_of_the_run_is_a_model(run, folder):
    """That of its last step is the export, with modules and prompts, without the loss's scale."""
    checkpoint, export = (
        convert.load(folder / "run" / name) for name in ("checkpoints/20", "export")
    )
    assert checkpoint.pipeline == export.pipeline and checkpoint.head == export.head
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, export.params)
    assert checkpoint.tokenizer.encode(["ba ce"]) == export.tokenizer.encode(["ba ce"])


def test_a_finished_run_is_not_repeated(run, capsys):
    config, result, _ = run
    assert training.train(config) == result
    assert "finished earlier" in capsys.readouterr().err


def test_another_configuration_is_refused(run):
    config, *_ = run
    with pytest.raises(UserError, match=r"another configuration.*batch_examples"):
        training.train(dataclasses.replace(config, batch_examples=10))


def collection(folder, rows="ab", judged="b"):
    pairs.write_collection(folder, {}, {"q": "ce"}, {"q": {judged: 1}})
    pairs.write(folder / "corpus.jsonl", [{"_id": row, "text": f"ba {row}"} for row in rows])
    return str(folder)


def opened(folder, **changes):
    """What a run needs, before its first step."""
    config = config_of(folder, **changes)
    return Session.open(config, config.mesh.make())


def test_a_resumed_run_has_the_same_collections_and_the_same_guide(folder, tmp_path):
    guide = pairs.model(tmp_path / "guide")
    changes = {
        "evaluation": (collection(tmp_path / "search"),),
        "loss": LossConfig(name="gist"),
        "guide": str(guide),
    }
    before = opened(folder, **changes).inputs
    assert opened(folder, **changes).inputs == before
    collection(tmp_path / "search", judged="a")
    (guide / "config.json").write_text((guide / "config.json").read_text() + "\n")
    after = opened(folder, **changes).inputs
    assert {name for name in after if after[name] != before[name]} == {"evaluation", "guide"}


def test_positives_without_a_label_count_as_1_beside_data_with_labels(folder):
    pairs.write(folder / "labels.jsonl", LABELLED)
    train = (str(folder / "first.jsonl"), str(folder / "labels.jsonl"))
    session = opened(folder, train=train, loss=LossConfig(name="angle"), validation=())
    assert [np.unique(dataset.targets).tolist() for dataset in session.train] == [[1], [0, 1]]


def test_dimensions_can_be_drawn_each_step_and_labels_be_left_out(folder):
    pairs.write(folder / "scored.jsonl", [{**r, "label": 1} for r in pairs.records(8)])
    session = opened(
        folder,
        train=(str(folder / "scored.jsonl"),),
        target="none",
        matryoshka_dims=(16, 8),
        matryoshka_dims_per_step=1,
    )
    assert session.train[0].kind == "none"


def test_a_role_without_a_prompt_has_that_of_the_checkpoint(folder):
    config = config_of(folder, prompts={"query": "new: "})
    trainee = Embedding.open(config)
    prompts = {"query": "old: ", "passage": "text: "}
    pipeline = dataclasses.replace(trainee.pipeline, prompts=prompts)
    checkpoint = convert.with_pipeline(trainee.checkpoint, pipeline)
    resolved = initial_model.resolved(config, checkpoint)
    assert resolved.prompts == {"query": "new: ", "document": "text: "}


def test_prompts_of_columns_are_those_of_queries_and_documents_in_evaluations(folder):
    """And in the export, with their own names; other data sets of training keep theirs."""
    prompts = {"first.query": "ba ce: ", "positive": "di: "}
    session = opened(folder, prompts=prompts)
    exported = session.trainee.begin().exported({})
    roles = {"query": "ba ce: ", "document": "di: "}
    assert exported.pipeline.prompts == {**prompts, **roles}
    first, second = session.train
    assert first.start[first.sequences[:, 0]].all() and not second.start[second.sequences[0, 0]]
    (dev,) = session.validation
    np.testing.assert_array_equal(
        dev.start[dev.sequences[:, 0]], first.start[first.sequences[0, 0]]
    )
    # A prompt that is named for a role counts before those of columns.
    named = opened(folder, prompts={**prompts, "query": "ba: "}).trainee
    assert (
        named.pipeline.prompts["query"] == "ba: " and named.pipeline.prompts["document"] == "di: "
    )


def test_data_sets_have_losses_with_their_own_needs(folder):
    """Texts may repeat where other examples are no negatives, and columns be fewer."""
    pairs.write(folder / "labels.jsonl", LABELLED)
    train = (str(folder / "first.jsonl"), str(folder / "labels.jsonl"))
    own = {"labels": LossConfig(name="cosent"), "dev": LossConfig(name="triplet")}
    session = opened(folder, train=train, losses=own, batch_examples=4)
    objective = session.objective(session.trainee.begin(), folder / "none")
    assert [(x.kind.name, x.columns, x.targets) for x in objective.losses] == [
        ("multiple-negatives-ranking", 4, 0),
        ("cosent", 2, 1),
    ]
    held_out = session.trainee.losses(session.validation)
    assert [(x.kind.name, x.columns) for x in held_out] == [("triplet", 3)]
    steps = range(session.sampler.steps(1))
    batches = [(session.sampler.members(step), objective.batch(step)) for step in steps]
    assert all(int(batch.loss) == members.dataset for members, batch in batches)
    assert [len(members.examples) for members, _ in batches if members.dataset] == [4]


LABELLED = [{"sentence1": "ba ce", "sentence2": "di fo", "label": i % 2} for i in range(4)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": ()}, "train is empty"),
        ({"batch_examples": 1}, "first: loss multiple-negatives-ranking.*a batch of 1"),
        ({"loss": LossConfig(name="cosent")}, "first: loss cosent takes 2 columns"),
        ({"loss": LossConfig(name="margin-mse")}, "first: .*a score of each document.*--target"),
        ({"matryoshka_dims": (64,)}, "matryoshka_dims has 64; vectors have 16"),
        ({"prompts": {"answer": "a"}}, "prompts has 'answer'"),
        ({"lengths": {"query": 9000}}, "texts of 9,000 tokens"),
        ({"train": ("none.jsonl",)}, "none.jsonl"),
        ({"validation": ("labels.jsonl",)}, "labels: has labels, which loss"),
        ({"freeze": ("no such",)}, "matches no tensor"),
        ({"train": ("same.jsonl",)}, "no batch has two examples"),
        ({"losses": {"frist": LossConfig()}}, "'frist', which is no data set.*'first'"),
        ({"losses": {"second": LossConfig(name="cosent")}}, "second: loss cosent takes a label"),
        ({"evaluation": ("twice",)}, "corpus.jsonl:3: id 'a' occurs before"),
        ({"evaluation": ("lacks",)}, "id 'z' is not in"),
        ({"evaluation": ("good", "other/good")}, "two folders called 'good'"),
        ({"loss": LossConfig(name="gist"), "guide": "absent", "train": ("none.jsonl",)}, "absent"),
        ({"loss": LossConfig(name="embed-distill"), "guide": "base", "train": ("none.jsonl",)},
         "base: gives vectors of 32 dimensions, .* compares 16; .*--projection-dims 32"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(changes, words, folder, tmp_path):
    pairs.write(folder / "labels.jsonl", LABELLED)
    pairs.write(folder / "same.jsonl", [{"query": "ba", "positive": t} for t in ("ce", "di", "fo")])
    for name, rows, judged in (
        ("twice", "aba", "b"),
        ("lacks", "ab", "z"),
        ("good", "ab", "b"),
        ("other/good", "ab", "b"),
    ):
        collection(folder / name, rows, judged)
    if "guide" in changes:
        changes = changes | {"guide": str(folder / changes["guide"])}
    for name in ("train", "validation", "evaluation"):
        if changes.get(name):
            changes = changes | {name: tuple(str(folder / path) for path in changes[name])}
    with pytest.raises(UserError, match=words):
        training.train(config_of(folder, output=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()
