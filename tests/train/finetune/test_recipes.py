"""Recipes: published hyperparameters, columns of public data sets, and initial models."""

import dataclasses
import json

import corpus
import pytest

from modernbert_jax import cli, configs
from modernbert_jax.errors import UserError
from modernbert_jax.train import intermediate
from modernbert_jax.train.finetune.config import FinetuneConfig, from_json, to_json
from modernbert_jax.train.tasks.records import Record, Records

# Learning rate, weight decay, epochs: the paper's grid search, base and large.
GLUE = """
cola 8e-5 1e-6  5   3e-5 8e-6  5
mnli 5e-5 5e-6  1   3e-5 1e-5  1
mrpc 5e-5 5e-6 10   8e-5 5e-6  2
qnli 8e-5 5e-6  2   3e-5 5e-6  2
qqp  5e-5 5e-6 10   5e-5 8e-6  2
rte  5e-5 1e-5  3   5e-5 8e-6  3
sst2 8e-5 1e-5  2   1e-5 1e-6  3
stsb 8e-5 5e-6 10   8e-5 1e-5 10
"""

# The research code's: learning rate, weight decay, examples in a batch, epochs.
SUPERGLUE = """
boolq   5e-5 5e-6 48  5
cb      1e-5 1e-5 16 30
copa    1e-5 5e-6 16 30
multirc 5e-5 5e-6 48  6
wic     3e-5 3e-6 16  3
swag    1e-5 5e-6 32  1
"""

PAIR = {"sentence1": "The sky is blue.", "sentence2": "It is not green.", "idx": 0}
ENTAILED = {"premise": "The sky is blue.", "hypothesis": "It is not green.", "idx": 0}
ENDINGS = {f"ending{i}": f"wakes up {i} times." for i in range(4)}
RECORDS = {
    "cola": {"sentence": "They laughed.", "label": 1, "idx": 0},
    "sst2": {"sentence": "a joy", "label": 1, "idx": 0},
    "mrpc": PAIR | {"label": 1},
    "stsb": PAIR | {"label": 3.8},
    "qqp": {"question1": "Why?", "question2": "Why not?", "label": 0, "idx": 0},
    "mnli": ENTAILED | {"label": 2},
    "qnli": {"question": "Why?", "sentence": "Because.", "label": 1, "idx": 0},
    "rte": PAIR | {"label": 1},
    "wnli": PAIR | {"label": 0},
    "boolq": {"question": "is it", "passage": "It is.", "idx": 0, "label": True},
    "cb": ENTAILED | {"label": 2},
    "copa": {
        "premise": "It rained.",
        "choice1": "I got wet.",
        "choice2": "I got rich.",
        "question": "effect",
        "idx": 0,
        "label": 1,
    },
    "multirc": {
        "paragraph": "It rained.",
        "question": "What fell?",
        "answer": "Rain",
        "idx": {"paragraph": 0, "question": 3, "answer": 1},
        "label": 1,
    },
    "wic": PAIR | {"word": "sky", "start1": 4, "end1": 7, "start2": 0, "end2": 2, "label": 1},
    "wsc": {
        "text": "Mark told Pete that he won.",
        "span1_index": 0,
        "span2_index": 4,
        "span1_text": "Mark",
        "span2_text": "he",
        "label": 1,
        "idx": 0,
    },
    "swag": {"sent1": "A man sleeps.", "sent2": "He", "label": 3} | ENDINGS,
    "ner": {"id": "0", "tokens": ["Kim", "sleeps"], "ner_tags": ["B-PER", "O"]},
    "squad": {
        "id": "a",
        "title": "Rain",
        "context": "It rained in Rome.",
        "question": "Where?",
        "answers": {"text": ["Rome"], "answer_start": [13]},
    },
    "squad2": {
        "id": "a",
        "context": "It rained in Rome.",
        "question": "When?",
        "answers": {"text": [], "answer_start": []},
    },
}


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def rows(text: str) -> list[tuple[str, list[float]]]:
    return [(name, [*map(float, rest)]) for name, *rest in map(str.split, text.split("\n")[1:-1])]


@pytest.mark.parametrize(("name", "figures"), rows(GLUE))
def test_glue_has_the_figures_of_the_paper(name, figures):
    base, large = configs.load("finetune", name), configs.load("finetune", f"{name}-large")
    for config, wanted in ((base, figures[:3]), (large, figures[3:])):
        assert [config.learning_rate, config.weight_decay, config.epochs] == wanted
        assert config.batch_examples == 64 and config.task.max_length == 256
        assert (config.pooling, config.schedule, config.warmup) == ("cls", "linear", 0.1)
        assert (config.b1, config.b2, config.eps) == (0.9, 0.98, 1e-6)
        assert config.attention_dropout == 0.1 and not config.clip_norm
    assert base.model.endswith("-base") and large.model.endswith("-large")
    first = "mnli" if name in ("rte", "mrpc", "stsb") else ""
    assert base.intermediate.recipe == base.intermediate.output == first
    assert large.intermediate.recipe == (first and f"{first}-large")


@pytest.mark.parametrize(("name", "figures"), rows(SUPERGLUE))
def test_superglue_has_the_figures_of_the_research_code(name, figures):
    config = configs.load("finetune", name)
    actual = [config.learning_rate, config.weight_decay, config.batch_examples, config.epochs]
    assert actual == figures
    assert config.intermediate.recipe == ("swag" if name == "copa" else "")


@pytest.mark.parametrize("name", RECORDS)
def test_columns_and_labels_are_those_of_the_public_data(name, tokenizer):
    values = RECORDS[name]
    records = Records([Record("file:1", values)], {})
    task = configs.load("finetune", name).task
    (example,) = task.with_labels(records).examples(records, tokenizer)
    if name == "boolq":
        assert example.target == 1 and task.labels == ("False", "True")
    elif isinstance(values.get("label"), int):
        assert example.target == values["label"]
    if name == "swag":
        text = tokenizer.backend.decode(example.sequences[3].tolist())
        assert "A man sleeps." in text and "He wakes up 3 times." in text
    if name == "multirc":
        assert example.source == "3"


def test_best_metrics_are_the_published_ones():
    wanted = {"cola": "matthews_correlation", "stsb": "spearman", "multirc": "multirc"}
    wanted |= {"ner": "f1", "squad": "f1", "squad2": "f1"}
    for name in RECORDS:
        assert configs.load("finetune", name).task.best_metric == wanted.get(name, "accuracy")


def test_every_recipe_survives_json():
    assert {*RECORDS} <= {*configs.presets("finetune")}
    for name in configs.presets("finetune"):
        config = configs.load("finetune", name)
        if isinstance(config, FinetuneConfig):  # the others: tests/configs/test_loading.py
            assert from_json(to_json(config)) == config


def test_a_recipe_starts_from_the_model_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = []

    def finetune(config):
        ran.append(config)
        (tmp_path / config.output / "export").mkdir(parents=True)
        (tmp_path / config.output / "export" / "config.json").write_text("{}")
        return {"best": {}}

    rte = dataclasses.replace(
        configs.load("finetune", "rte"), model="m", train="rte.tsv", microbatch_tokens=99
    )
    with pytest.raises(
        UserError, match=r"rte: starts from the model of mnli.*--intermediate.train"
    ):
        intermediate.prepared(rte, finetune)
    before = dataclasses.replace(rte.intermediate, train="mnli.tsv", validation="mnli-dev.tsv")
    prepared = intermediate.prepared(dataclasses.replace(rte, intermediate=before), finetune)
    (first,) = ran
    assert (first.model, first.train, first.validation) == ("m", "mnli.tsv", "mnli-dev.tsv")
    assert (first.output, first.task) == ("mnli", configs.load("finetune", "mnli").task)
    assert (first.learning_rate, first.epochs) == (5e-5, 1)
    assert prepared.model == "mnli/export" and not prepared.intermediate.recipe
    plain = dataclasses.replace(prepared, model="m", intermediate=rte.intermediate)
    assert plain == rte
    # A finished run is reused by any task, without its data.
    mrpc = dataclasses.replace(configs.load("finetune", "mrpc"), train="mrpc.tsv")
    assert intermediate.prepared(mrpc, finetune).model == "mnli/export" and len(ran) == 1
    # Nor are its data read again if they are named, unless the configuration differs.
    (tmp_path / "mnli" / "result.json").write_text("{}")
    (tmp_path / "mnli" / "config.json").write_text(json.dumps(to_json(first)))
    with_data = dataclasses.replace(rte, intermediate=before)
    assert intermediate.prepared(with_data, finetune) == prepared and len(ran) == 1
    with pytest.raises(FileExistsError):
        intermediate.prepared(dataclasses.replace(with_data, model="other"), finetune)
    # A stop is passed on.
    again = dataclasses.replace(mrpc, intermediate=before)
    assert intermediate.prepared(again, lambda config: None) is None
    without = dataclasses.replace(rte, intermediate=intermediate.Intermediate())
    assert intermediate.prepared(without, finetune) is without
    same = dataclasses.replace(rte, output="mnli")
    with pytest.raises(UserError, match="must differ"):
        intermediate.prepared(same, finetune)


def test_help_shows_a_recipe(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["finetune", "rte", "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--intermediate.train" in shown and "(default: mnli)" in shown
    assert cli.main(["finetune", "rtee"]) == 2
    assert "did you mean 'rte'" in capsys.readouterr().err
