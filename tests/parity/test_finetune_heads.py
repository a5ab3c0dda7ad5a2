"""Loss and gradients of every head in packed rows, against transformers' own on padded batches."""

import corpus
import jax
import labelled
import numpy as np
import pytest
import torch
import transformers

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.heads import Classifier
from modernbert_jax.inference import shapes
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.engine.gradients import gradients
from modernbert_jax.train.engine.objective import draw_params
from modernbert_jax.train.finetune import batches, losses, run
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.objective import TaskObjective
from modernbert_jax.train.tasks import IGNORED, TASKS, Record, Records

SHAPE = Shape(rows=3, length=128, documents=8, microbatches=6)
CASES = [
    ("classification", "cls"),
    ("classification", "mean"),
    ("multilabel", "mean"),
    ("regression", "cls"),
    ("tokens", "mean"),
    ("questions", "mean"),
    ("choice", "cls"),
    ("choice", "mean"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def ours(task, examples, model, params) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss, and gradients by transformers' names."""
    still = {f"{place}_dropout": 0.0 for place in ("attention", "classifier", "mlp")}
    of = losses.of_task(task, SHAPE.documents)
    config = FinetuneConfig(task=task, **still)
    objective = TaskObjective(config, model, task.outputs, of, SHAPE.documents)
    layout = shapes.arrange(batches.lengths_of(examples), SHAPE, of.grouped)
    assert max(len(row) for rows in layout for row in rows) > 1
    parts = [batches.fill(examples, rows, SHAPE, of) for rows in layout]
    batch = batches.stack(parts, SHAPE, of)

    @jax.jit
    def summed(params, batch):
        microbatches = objective.microbatches(batch, jax.random.key(0))
        return gradients(objective, lambda p: p, params, microbatches)

    sums, grads = summed(params, batch)
    grads = jax.tree.map(lambda g: np.asarray(g / sums.count), grads)
    table = names.table(model, task.head, task.outputs)
    return float(sums.loss / sums.count), names.to_tensors(grads, table)


def padded(sequences, pad: int, value: int = 0, width: int = 0) -> torch.Tensor:
    width = max(width, *(len(s) for s in sequences))
    filled = [[*s, *[value] * (width - len(s))] for s in sequences]
    return torch.tensor(np.array(filled, np.int64))


def inputs(task, examples, pad: int):
    """Batches for transformers' model: a single one, except for choices and questions."""

    def batch(sequences, **labels):
        mask = padded([np.ones(len(s)) for s in sequences], pad)
        return {"input_ids": padded(sequences, pad, pad), "attention_mask": mask, **labels}

    if task.kind == "choice":
        for e in examples:
            arrays = batch(e.sequences)
            yield {k: x[None] for k, x in arrays.items()} | {"labels": torch.tensor([e.target])}
        return
    sequences = [s for e in examples for s in e.sequences]
    if task.level == "token":
        targets = [t for e in examples for t in e.target]
    if task.kind == "tokens":
        yield batch(sequences, labels=padded(targets, pad, IGNORED))
    elif task.kind == "questions":
        # Alone: transformers' loss counts padding among the places where an answer could be.
        for sequence, (first, last) in zip(sequences, targets, strict=True):
            places = {
                "start_positions": torch.tensor([first]),
                "end_positions": torch.tensor([last]),
            }
            yield batch([sequence], **places)
    else:
        yield batch(sequences, labels=torch.tensor(np.array([e.target for e in examples])))


@pytest.mark.parametrize("kind,pooling", CASES)
def test_loss_and_gradients(kind, pooling, tokenizer, tmp_path):
    rows = labelled.RECORDS[kind](9, 3)
    records = Records([Record(f"f:{i}", r) for i, r in enumerate(rows)])
    small = {"max_length": 40, "stride": 8} if kind in ("questions", "tokens") else {}
    task = TASKS[kind](**small).with_labels(records)
    examples = task.examples(records, tokenizer)
    model = labelled.model(classifier_pooling=pooling)
    rng = np.random.default_rng(1)
    config = FinetuneConfig(task=task)
    params = draw_params(Classifier(model, config.runtime, task.outputs), jax.random.key(0))
    params = jax.tree.map(
        lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape, np.float32), params
    )
    convert.save(run.exported(model, params, task, tokenizer.files, {}, ""), tmp_path / "a", "hf")
    loss, grads = ours(task, examples, model, params)
    theirs = getattr(transformers, names.HEADS[task.head]).from_pretrained(
        tmp_path / "a", attn_implementation="sdpa"
    )
    theirs.eval()
    batches = list(inputs(task, examples, tokenizer.pad_id))
    for one in batches:
        dtype = {"regression": torch.float32, "multilabel": torch.float32}.get(kind)
        if dtype:
            one["labels"] = one["labels"].to(dtype)
    losses = [theirs(**one).loss for one in batches]
    total = sum(losses) / len(losses)
    total.backward()
    assert loss == pytest.approx(total.item(), rel=2e-5)
    want = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert grads.keys() == want.keys()
    norm = np.sqrt(sum(np.square(g).sum() for g in want.values()))
    for name, grad in want.items():
        error = np.linalg.norm(grads[name] - grad)
        assert error <= 2e-5 * max(np.linalg.norm(grad), 0.01 * norm), name
