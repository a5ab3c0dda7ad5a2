"""Lines about what a run has read, and the loss of predictions that read no text."""

import corpus
import jax.numpy as jnp
import labelled
import numpy as np
import pytest

from modernbert_jax.train.examples import report
from modernbert_jax.train.finetune import losses, summary
from modernbert_jax.train.finetune.baseline import constant_loss
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.data import Data
from modernbert_jax.train.tasks import TASKS, Example, Record, Records


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def described(task, records, tokenizer, **changes):
    records = Records([Record(f"f:{i}", values) for i, values in enumerate(records)])
    task = task.with_labels(records)
    examples = task.examples(records, tokenizer)
    config = FinetuneConfig(task=task, **changes)
    loss = losses.of_task(task, 8, config.label_smoothing)
    lines = summary.lines(config, Data(task, examples[:-2], examples[-2:]), loss)
    return {line[:14].strip(): line[14:] for line in lines}, examples[:-2]


def test_records_lengths_labels_and_baseline_are_told(tokenizer):
    texts = ["ab", "ab " * 40, "b", "ab " * 50, "b", "a", "b"]
    records = [{"text": t, "label": "xy"[len(t) > 3]} for t in texts]
    told, train = described(TASKS["classification"](max_length=16), records, tokenizer)
    lengths = [len(e.sequences[0]) for e in train]
    assert max(lengths) == 16 and [e.cut for e in train] == [False, True, False, True, False]
    assert told["train"] == (
        f"5 examples, {min(lengths)} to 16 tokens, mean {np.mean(lengths):.0f};"
        " 2 (40.0%) cut at max_length 16"
    )
    assert told["validation"].startswith("2 examples") and "none cut" in told["validation"]
    assert told["validation"].endswith("held out, 10% of train")
    assert told["labels"] == "x: 3, y: 2" and "not in train" not in told
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    assert told["to beat"].startswith(f"loss {entropy:.4f} and accuracy 0.6000, by the freq")


def test_many_labels_are_counted_and_absent_ones_named(tokenizer):
    names = tuple(f"l{i:02}" for i in range(20))
    task = TASKS["classification"](labels=names)
    records = [{"text": "a b", "label": names[i % 3]} for i in range(8)]
    told, _ = described(task, records, tokenizer, validation="dev.jsonl")
    assert (
        told["labels"].startswith("l00: 2, l01: 2, l02: 2, l03: 0")
        and "20 in all" in told["labels"]
    )
    assert told["not in train"].startswith("l03, l04") and "held out" not in told["validation"]


def test_long_labels_are_clipped(tokenizer):
    names = ("a", "b" * 200)
    records = [{"text": "a", "label": names[i % 2]} for i in range(6)]
    told, _ = described(TASKS["classification"](labels=names), records, tokenizer)
    assert told["labels"].startswith("a: 2, bbb") and len(told["labels"]) < 100


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_is_described(kind, tokenizer):
    told, train = described(TASKS[kind](), labelled.RECORDS[kind](9), tokenizer)
    assert (
        told["train"].startswith(f"{len(train)} examples") and "cut at max_length" in told["train"]
    )
    assert {"labels", "numbers", "questions", "right option"} & {*told}
    assert float(told["to beat"].split()[1].strip(",")) > 0


def test_an_export_without_validation_is_announced(tokenizer):
    task = TASKS["regression"]()
    records = Records([Record(f"f:{i}", {"text": "a", "label": i}) for i in range(3)])
    data = Data(task, task.examples(records, tokenizer))
    lines = summary.lines(FinetuneConfig(task=task), data, losses.SquaredError())
    assert lines[1] == "validation    none; the model of the last step is exported"
    assert lines[2:] == [
        "numbers       0 to 2, mean 1, deviation 0.8165",
        "to beat       loss 0.6667, by the mean of the numbers alone",
    ]


@pytest.mark.parametrize(
    ("loss", "targets", "outputs"),
    [
        (losses.CrossEntropy("document", 0.1, (0.5, 2.0, 1.5)), [0, 2, 2, 1, 0, 0, 1], 3),
        (losses.BinaryCrossEntropy(2, (3.0, 0.5)), [[0, 1], [1, 1], [0, 0], [0, 1]], 2),
    ],
)
def test_no_constant_prediction_has_a_lower_loss(loss, targets, outputs):
    examples = [
        Example(id=str(i), sequences=(np.zeros(3, np.int32),), target=np.array(t, np.float32))
        for i, t in enumerate(targets)
    ]
    rng, wanted = np.random.default_rng(0), jnp.asarray(targets)[None]
    ones = jnp.ones((1, len(targets)))

    def mean(logits):
        logits = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (1, len(targets), outputs))
        sums = loss.sums(logits, wanted, ones, None)
        return float(sums.loss / sums.count)

    least = constant_loss(loss, examples, outputs)
    trials = [mean(logits) for logits in 1.5 * rng.normal(size=(300, outputs))]
    assert least <= min(trials) + 1e-5 and min(trials) == pytest.approx(least, rel=0.02)


def test_the_result_says_which_model_is_exported_and_why():
    best = {"step": 10, "metrics": {"loss": 0.5, "f1": 0.25, "f1/one": 0.5, "recall@100/two": 0}}
    text = report.text({"metric": "f1", "best": best, "exported": "best"})
    assert text.splitlines()[1:] == [
        "loss    0.5000",
        "f1      0.2500",
        "best by f1: step 10; the best model is exported",
    ]
