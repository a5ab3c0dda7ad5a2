"""A batch of late interaction: loss and gradient beside sentence-transformers and PyLate.

Whichever is installed: sentence-transformers 6 has a MultiVectorEncoder, PyLate runs beside 5.
"""

import jax
import numpy as np
import pairs
import pytest
import sentence_transformers
import torch

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.engine.gradients import gradients
from modernbert_jax.train.retrieval import late_texts
from modernbert_jax.train.retrieval.batches import Batches
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.late import LateInteractionModel

NEW = hasattr(sentence_transformers, "MultiVectorEncoder")
COLUMNS = ("query", "positive", "negative_0", "negative_1")
EXAMPLES = pairs.records(6, negatives=2)
SCORES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
SHAPE = Shape(rows=2, length=64, documents=8, microbatches=8)


def peer(path, loss: str, scale: float):
    """The peer's loss of the batch and its gradients by name."""
    columns = [[example[name] for example in EXAMPLES] for name in COLUMNS]
    labels = torch.from_numpy(SCORES)
    if NEW:
        from sentence_transformers.multi_vector_encoder import losses

        model = sentence_transformers.MultiVectorEncoder(str(path), device="cpu")
        tasks = ["query", *["document"] * 3]
        features = [
            {**model.preprocess(texts, prompt=model.prompts[task], task=task), "task": task}
            for texts, task in zip(columns, tasks, strict=True)
        ]
        if loss == "distill-kl":
            module = losses.MultiVectorDistillKLDivLoss(model)
        else:
            module = losses.MultiVectorMultipleNegativesRankingLoss(model, scale=scale)
    else:
        from pylate import losses, models

        model = models.ColBERT(str(path), device="cpu")
        if loss == "distill-kl":
            # All documents of a query stand together.
            lists = [text for row in zip(*columns[1:], strict=True) for text in row]
            columns = [columns[0], lists]
            module = losses.Distillation(model)
        else:
            module = losses.Contrastive(model, temperature=1 / scale)
        features = [
            model.tokenize(texts, is_query=number == 0) for number, texts in enumerate(columns)
        ]
    model.eval()
    value = module(features, labels)
    value.backward()
    return value.item(), {name: p.grad.numpy() for name, p in model.named_parameters()}


def peer_name(name: str) -> str:
    """The peer's name of a tensor: that of its module's number and of the tensor in it."""
    folder, _, tensor = name.rpartition("/")
    if folder:
        return f"{folder[0]}.{tensor}"
    return name.replace("model.", "0.model." if NEW else "0.auto_model.", 1)


@pytest.mark.parametrize("loss", ["multiple-negatives-ranking", "distill-kl"])
def test_a_batch_has_the_loss_and_gradient_of_the_peer(loss, tmp_path):
    scaled = {"normalize_scores": True} if loss == "distill-kl" and not NEW else {}
    scaled |= {"scale": 2.0} if loss != "distill-kl" else {}
    config = RetrievalConfig(
        kind="late-interaction",
        model=str(pairs.model(tmp_path / "base", pad_token_id=318)),
        loss=LossConfig(name=loss, **scaled),
        lengths={"query": 16, "document": 48},
        projection_dims=16,
        batch_examples=6,
        skiplist="none" if not NEW else "no le",
    )
    trainee = LateInteractionModel.open(config)
    start = trainee.begin()
    convert.save(start.exported(start.params), tmp_path / "start", "pylate")
    value, wanted = peer(tmp_path / "start", loss, 2.0)

    dataset = pairs.dataset(EXAMPLES)
    late = trainee.pipeline.late
    tokenizer = trainee.checkpoint.tokenizer
    texts = late_texts.tokenize(trainee.config, dataset, tokenizer, trainee.model, late)
    if loss == "distill-kl":
        texts.targets.resize((6, 3), refcheck=False)
        texts.targets[:] = SCORES
    objective = trainee.objective(SHAPE)
    batch = Batches([texts], SHAPE, 6, targets=texts.targets.shape[1], columns=4)

    @jax.jit
    def compute(params, batch):
        microbatches = objective.microbatches(batch, jax.random.key(0))
        return gradients(objective, lambda p: p, params, microbatches)

    sums, own = compute(start.params, batch.of(pairs.members(*range(6))))
    assert float(sums.loss) / 6 == pytest.approx(value, rel=2e-5)
    flat = names.flatten(own)
    for name, row in trainee.rows.items():
        of_peer = wanted.pop(peer_name(name))
        got = row.transform.to_foreign(np.asarray(flat[row.path])) / 6
        largest = np.abs(of_peer).max()
        np.testing.assert_allclose(got, of_peer, atol=2e-4 * largest, err_msg=name)
    assert not wanted
