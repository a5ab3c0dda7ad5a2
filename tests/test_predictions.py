"""Predictions with names from Python and the command line, and uploads to a fake hub."""

import json
import types

import corpus
import jax
import labelled
import numpy as np
import pytest

from modernbert_jax import ModernBert, UserError, alignment, cli, convert
from modernbert_jax.config import Runtime
from modernbert_jax.heads import Classifier
from modernbert_jax.train.engine.objective import draw_params
from modernbert_jax.train.finetune import evaluation, run
from modernbert_jax.train.tasks import TASKS, Record, Records

KINDS = ("classification", "tokens", "questions")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Exported models of three tasks with random classifiers, and their examples."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        rows = labelled.RECORDS[kind](6, 5)
        labelled.write(folder / f"{kind}.jsonl", rows)
        records = Records([Record(f"f:{i}", r) for i, r in enumerate(rows)])
        task = TASKS[kind](max_length=64, **({} if kind == KINDS[0] else {"stride": 8}))
        task = task.with_labels(records)
        model = labelled.model(num_hidden_layers=1)
        params = draw_params(Classifier(model, Runtime(), task.outputs), jax.random.key(0))
        params = jax.tree.map(lambda x: np.asarray(x) + 0.1, params)
        tokenizer = corpus.make_tokenizer()
        files = (alignment.spaced(tokenizer) if task.spaced else tokenizer).files
        checkpoint = run.exported(model, params, task, files, {}, "# A card\n")
        convert.save(checkpoint, folder / kind, "hf")
    return folder


@pytest.fixture(scope="module")
def berts(models):
    return {kind: ModernBert.from_pretrained(models / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_the_command(models, berts, kind):
    task, examples, outputs = evaluation.run_model(
        str(models / kind), str(models / f"{kind}.jsonl")
    )
    want = task.predictions(examples, outputs.outputs)
    rows = [json.loads(line) for line in (models / f"{kind}.jsonl").read_text().splitlines()]
    got = berts[kind].predictions(rows)
    assert len(got) == 6
    for mine, theirs in zip(got, want, strict=True):
        theirs.pop("id")
        assert mine.keys() == theirs.keys()
        for key in ("label", "tags", "answer"):
            assert mine.get(key) == theirs.get(key)


def test_labels_and_what_the_model_is(berts):
    assert berts["classification"].labels == ("first", "second")
    assert berts["tokens"].labels == ("O", "B-A", "B-B") or "O" in berts["tokens"].labels
    assert "sequence_classification" in repr(berts["classification"])
    assert "parameters" in repr(berts["tokens"])
    assert {"labels", "predictions", "entities", "answer", "encode"} <= {*dir(berts["tokens"])}


def test_entities_of_texts_and_words(berts):
    texts = ["ba ce fi", "ce ba"]
    rows = berts["tokens"].entities(texts)
    for text, entities in zip(texts, rows, strict=True):
        assert all(text[e["start"] : e["end"]] == e["text"] for e in entities)
    split = berts["tokens"].entities([text.split() for text in texts])
    assert [[e["text"] for e in row] for row in split] == [[e["text"] for e in r] for r in rows]
    with pytest.raises(UserError, match="token classifier"):
        berts["classification"].entities(texts)


def test_answers(berts):
    context = "ba ce fi go"
    answer = berts["questions"].answer("ba?", context)
    assert answer["answer"] == context[answer["start"] : answer["end"]]
    with pytest.raises(UserError, match="questions"):
        berts["tokens"].answer("a", "b")


def test_one_text_on_the_command_line(models, berts, capsys):
    assert cli.main(["predict", "--model", str(models / "classification"), "--text", "ba ce"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["label"] == berts["classification"].predictions([{"text": "ba ce"}])[0]["label"]
    for more in ([], ["--text", "a", "b"], ["--text", "a", "--data", "x.jsonl"]):
        assert cli.main(["predict", "--model", str(models / "classification"), *more]) == 2
    error = capsys.readouterr().err
    assert "--data and --output, or --text" in error and "give 1 texts" in error


def test_uploads(models, berts, monkeypatch):
    uploads = {}

    class Api:
        def __init__(self, token=None):
            uploads["token"] = token

        def create_repo(self, name, private, exist_ok):
            return types.SimpleNamespace(repo_id=f"me/{name}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            if repo_id == "me/refused":
                raise RuntimeError("403 Forbidden\nmore")
            uploads[repo_id] = {p.name: p.read_bytes() for p in folder_path.iterdir()}
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    bert = berts["classification"]
    assert bert.push_to_hub("mine", token="secret") == "https://hub/commit"
    files = uploads["me/mine"]
    assert {"config.json", "model.safetensors", "README.md", "task.json"} <= {*files}
    assert files["README.md"] == b"# A card\n" and uploads["token"] == "secret"
    stored = (models / "classification" / "model.safetensors").read_bytes()
    assert files["model.safetensors"] == stored
    with pytest.raises(UserError, match="refused: not uploaded"):
        bert.push_to_hub("refused")
    with pytest.raises(UserError, match="owner/name"):
        bert.push_to_hub("../x")
