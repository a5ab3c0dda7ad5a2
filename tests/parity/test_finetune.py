"""Fine-tuned models that we write: transformers 4 and 5 load them and predict the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import corpus
import jax
import labelled
import numpy as np
import pytest

from modernbert_jax import alignment, convert
from modernbert_jax.config import Runtime
from modernbert_jax.heads import Classifier
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.engine.objective import draw_params
from modernbert_jax.train.finetune import card, evaluation, run
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.data import Data
from modernbert_jax.train.tasks import TASKS, Record, Records, read
from modernbert_jax.train.tasks.task import sigmoid, softmax

SCRIPT = Path(__file__).parent / "in_transformers.py"
COUNT = 6
PAIRS = {"columns": ("text", "other")}
WORDS = [
    ["Germany", "'s", "U.N.", "(", "ba", "ce", ")", "did", "n't", "do", "it", "."],
    ["[MASK]", "ba", "naïve", "e\u0301t", "日本", "🙂", "1,000", "--"],
    ["ba"],
]
OPTIONS = {"regression": PAIRS}
"""Regression takes pairs, so that the pipeline's pairs are asked too."""


def versions() -> list[str]:
    """This process's transformers, and version 4 if it is installed next to version 5."""
    return ["4", "5"] if "TRANSFORMERS4" in os.environ else ["4"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with an exported model, its examples and its inputs for each kind of task."""
    folder = tmp_path_factory.mktemp("finetuned")
    tokenizer = corpus.make_tokenizer()
    for kind, make in labelled.RECORDS.items():
        examples = make(COUNT, 5)
        for record, other in zip(examples, examples[1:] + examples[:1], strict=True):
            record["other"] = other.get("text", "")
        if kind == "tokens":
            examples = [as_text(record) for record in examples]
        labelled.write(folder / f"{kind}.jsonl", examples)
        records = Records([Record(f"f:{i}", r) for i, r in enumerate(examples)])
        task = TASKS[kind](max_length=256, **OPTIONS.get(kind, {})).with_labels(records)
        model = labelled.model(classifier_pooling="cls" if kind == "choice" else "mean")
        params = draw_params(Classifier(model, Runtime(), task.outputs), jax.random.key(0))
        params = jax.tree.map(noisy, params)
        exported = alignment.spaced(tokenizer) if task.spaced else tokenizer
        data = Data(task, task.examples(records, exported), (), ())
        text = card.text(FinetuneConfig(task=task), task, data, {})
        checkpoint = run.exported(model, params, task, exported.files, {}, text)
        convert.save(checkpoint, folder / kind, "hf")
        (folder / f"{kind}.json").write_text(json.dumps([inputs(kind, r) for r in examples]))
        (folder / f"{kind}-card.json").write_text(json.dumps([named(kind, r) for r in examples]))
    (folder / "words.json").write_text(json.dumps(WORDS))
    for version in versions():
        ask(version, folder)
    return folder


def noisy(x) -> np.ndarray:
    """Nearby values, so that biases and norms count."""
    noise = np.random.default_rng(x.size).standard_normal(x.shape)
    return (np.asarray(x) + 0.1 * noise).astype(np.float32)


def inputs(kind: str, record: dict):
    """A record as an input of transformers."""
    if kind == "choice":
        return record["question"], record["choices"]
    if kind == "questions":
        return record["question"], record["context"]
    if kind == "regression":
        return {"text": record["text"], "text_pair": record["other"]}
    return record["text"]


def named(kind: str, record: dict) -> dict:
    """The names that the code of a card reads."""
    if kind == "tokens":
        return {"words": record["text"].split()}
    if kind == "regression":
        return {"first": record["text"], "second": record["other"]}
    names = {"choice": {"context": "question", "options": "choices"}}
    names["questions"] = {"question": "question", "context": "context"}
    return {name: record[key] for name, key in names.get(kind, {"text": "text"}).items()}


def as_text(record: dict) -> dict:
    """A record of words as a text with spans, of which the pipeline gets the text."""
    ends = np.cumsum([len(word) + 1 for word in record["tokens"]]) - 1
    spans = zip(record["tokens"], record["ner_tags"], ends.tolist(), strict=True)
    entities = [
        {"start": end - len(word), "end": end, "label": tag[2:]}
        for word, tag, end in spans
        if tag != "O"
    ]
    return {"text": " ".join(record["tokens"]), "entities": entities}


def ask(version: str, folder: Path) -> None:
    """Run one version on all kinds, in one process."""
    jobs = [
        ["finetuned", k, *(str(folder / f) for f in (k, f"{k}.json", f"{k}-{version}.json"))]
        for k in labelled.RECORDS
    ]
    for k in labelled.RECORDS:
        asked, answers = folder / f"{k}-card.json", folder / f"{k}-card-{version}.json"
        jobs.append(["card", *map(str, (folder / k, asked, answers))])
    files = (folder / "tokens", folder / "words.json", folder / f"words-{version}.json")
    jobs.append(["words", *map(str, files)])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    path = os.environ.get("TRANSFORMERS4", "") if version == "4" else ""
    paths = [p for p in (path, os.environ.get("PYTHONPATH")) if p]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "jobs.json")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{version}."), done.stdout


@pytest.mark.parametrize("kind", labelled.RECORDS)
def test_transformers_says_the_same(models, kind):
    task, examples, predictions = evaluation.run_model(
        str(models / kind), str(models / f"{kind}.jsonl")
    )
    assert task.kind == kind and len(examples) == COUNT
    for version in versions():
        theirs = json.loads((models / f"{kind}-{version}.json").read_text())
        for example, logits, expected in zip(examples, predictions.outputs, theirs, strict=True):
            same(task, example, logits, expected)


def same(task, example, logits, prediction) -> None:
    if task.kind == "choice":
        np.testing.assert_allclose(np.concatenate(logits), prediction, atol=2e-5)
    elif task.kind == "questions":
        if "logits" in prediction:
            np.testing.assert_allclose(logits[0], prediction["logits"], atol=2e-5)
        else:
            best = task.predictions([example], [logits])[0]
            theirs = prediction["answer"]  # with the space that belongs to its first token
            start = prediction["start"] + len(theirs) - len(theirs.lstrip())
            assert (best["answer"], best["start"]) == (theirs.strip(), start)
    elif task.kind == "tokens":
        chances = softmax(logits[0])[1:-1]
        assert len(prediction) == len(chances)
        for x, one in zip(chances, prediction, strict=True):
            assert task.labels[int(x.argmax())] == one["entity"]
            assert x.max() == pytest.approx(one["score"], abs=1e-5)
    else:
        activation = {"classification": softmax, "multilabel": sigmoid, "regression": np.asarray}
        values = activation[task.kind](logits[0])
        named = {one["label"]: one["score"] for one in prediction}
        assert list(named) == list(task.label_names) or set(named) == set(task.label_names)
        for name, value in zip(task.label_names, values, strict=True):
            assert named[name] == pytest.approx(float(value), abs=2e-5)


@pytest.mark.parametrize("kind", labelled.RECORDS)
def test_the_code_of_the_card_predicts_the_same(models, kind):
    task, examples, predictions = evaluation.run_model(
        str(models / kind), str(models / f"{kind}.jsonl")
    )
    ours = task.predictions(examples, predictions.outputs)
    asked = json.loads((models / f"{kind}-card.json").read_text())
    for version in versions():
        theirs = json.loads((models / f"{kind}-card-{version}.json").read_text())
        for mine, names, prediction in zip(ours, asked, theirs, strict=True):
            if kind == "choice":
                assert prediction == names["options"][mine["choice"]]
            elif kind == "questions":
                assert prediction == mine["answer"]
            elif kind == "tokens":
                assert prediction == mine["tags"]
            elif kind == "multilabel":
                scores = {one["label"]: one["score"] for one in prediction[0]}
                assert scores == pytest.approx(mine["scores"], abs=2e-5)
            else:
                (best,) = prediction if isinstance(prediction, list) else [prediction]
                assert best["score"] == pytest.approx(mine["score"], abs=2e-5)
                assert kind == "regression" or best["label"] == mine["label"]


def test_words_and_their_text_have_our_tokens_in_both_versions(models):
    own = Tokenizer.load(models / "tokens")
    pieces = alignment.words(own, WORDS)
    want = [[own.cls_id, *p.ids.tolist(), own.sep_id] for p in pieces]
    assert want == own.encode([" ".join(words) for words in WORDS])
    for version in versions():
        theirs = json.loads((models / f"words-{version}.json").read_text())
        assert theirs == {"words": want, "text": want}


def test_the_card_names_what_the_hub_wants(models):
    for kind in labelled.RECORDS:
        config = json.loads((models / kind / "config.json").read_text())
        assert config["architectures"] and (models / kind / "README.md").is_file()
        labels = read([models / f"{kind}.jsonl"]) and config.get("id2label")
        assert labels or kind == "choice"
