"""Adapters that we wrote, put onto the base model by PEFT; and PEFT's own, read by us."""

import jax
import numpy as np
import peft as library
import pytest
import tiny
import torch
import transformers

from modernbert_jax import convert
from modernbert_jax.config import Runtime
from modernbert_jax.convert import names
from modernbert_jax.model import Encoder
from modernbert_jax.pipeline import IDENTITY, Dense, Pipeline, Pooling
from modernbert_jax.train.engine import peft
from modernbert_jax.train.engine.lora import Lora
from modernbert_jax.train.engine.partition import Partition
from modernbert_jax.train.retrieval.initial_model import rows_of

CONFIG = tiny.config(num_hidden_layers=5)
HEAD, LABELS = "sequence_classification", 3
WIDTHS = {"in_features": CONFIG.hidden_size, "out_features": 8, "activation": IDENTITY}
ROWS = names.table(CONFIG, HEAD, LABELS)
IDS = [[0, 40, 9, 33, 71, 12, 1], [0, 5, 1], [0, *range(20, 50), 1]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A classifier with random weights as a Hugging Face directory, and its parameters."""
    params: dict = {}
    for path, shape in names.shapes(ROWS).items():
        names.put(params, path, np.zeros(shape, np.float32))
    params = tiny.randomised(params)
    labels = {str(i): f"label {i}" for i in range(LABELS)}
    checkpoint = convert.Checkpoint(
        config=CONFIG, params=params, head=HEAD, extra={"id2label": labels}
    )
    folder = tmp_path_factory.mktemp("base") / "model"
    convert.save(checkpoint, folder, "hf")
    return folder, checkpoint


def logits(model) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([model(torch.tensor([ids])).logits.numpy() for ids in IDS])


def ours(checkpoint: convert.Checkpoint, params) -> np.ndarray:
    from modernbert_jax.heads import Classifier, document_pooling, pool

    module, logits = Classifier(CONFIG, labels=LABELS), []
    for ids in IDS:
        rows = tiny.Rows(np.array([ids]), np.ones((1, len(ids)), int), np.arange(len(ids))[None])
        bound = module.bind({"params": params})
        pooled = pool(bound.hidden(*rows), rows.segment_ids, 1, document_pooling(CONFIG))
        logits.append(np.asarray(bound.logits(pooled))[0])
    return np.concatenate(logits)


def moved(partition: Partition, params):
    """The trees of a partition, with adapters that change the model."""
    trained, fixed = partition.split(params, jax.random.key(0))
    rng = np.random.default_rng(1)
    trained = jax.tree.map(
        lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape, np.float32), trained
    )
    return trained, fixed


@pytest.mark.parametrize(
    ("targets", "whole"),
    [
        (("attn.Wqkv", "attn.Wo"), ("head", "classifier")),
        (("all-linear",), ("head", "classifier")),
        (("attn.Wqkv",), ("head", "classifier", "model.layers.3")),
    ],
)
def test_peft_computes_what_the_merged_model_does(targets, whole, base, tmp_path):
    folder, checkpoint = base
    lora = Lora(rank=3, alpha=5.0, targets=targets, whole=whole)
    partition = Partition.of(CONFIG, HEAD, LABELS, lora=lora)
    trained, fixed = moved(partition, checkpoint.params)
    peft.save(tmp_path / "adapter", partition.adapters, trained, ROWS, HEAD, str(folder))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    plain = logits(model.eval())
    wrapped = library.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    theirs, merged = logits(wrapped), ours(checkpoint, partition.join(trained, fixed))
    np.testing.assert_allclose(theirs, merged, atol=2e-4)
    assert np.abs(theirs - plain).max() > 0.1


def test_an_adapter_of_peft_is_read(base, tmp_path):
    folder, checkpoint = base
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    config = library.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        lora_alpha=7,
        target_modules=["Wqkv", "mlp.Wi"],
        modules_to_save=["head", "classifier"],
        init_lora_weights=False,
    )
    wrapped = library.get_peft_model(model, config).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    adapters, trained = peft.load(tmp_path / "adapter", ROWS)
    partition = Partition.of(CONFIG, HEAD, LABELS, lora=adapters.lora)
    _, fixed = partition.split(checkpoint.params, jax.random.key(0))
    merged = ours(checkpoint, partition.join(trained, fixed))
    np.testing.assert_allclose(logits(wrapped), merged, atol=2e-4)


@pytest.mark.parametrize("whole", [(), ("model.layers.3",)])
def test_peft_puts_adapters_onto_a_bare_encoder(whole, base, tmp_path):
    """Those of an embedding model, whose projection no class of transformers has."""
    folder, checkpoint = base
    steps = (Pooling(modes=("mean",)), Dense(name="dense_0", path="2_Dense", **WIDTHS))
    rows = rows_of(CONFIG, Pipeline(kind="embedding", steps=steps))
    lora = Lora(rank=3, targets=("attn.Wqkv",), whole=("2_Dense", *whole))
    partition = Partition.of_rows(CONFIG, rows, lora=lora)
    params = {"encoder": checkpoint.params["encoder"]}
    for path, shape in names.shapes(rows).items():
        if path[0] != "encoder":
            names.put(params, path, np.ones(shape, np.float32))
    trained, fixed = moved(partition, params)
    peft.save(tmp_path / "adapter", partition.adapters, trained, rows, "none", str(folder))
    merged = partition.join(trained, fixed)["encoder"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    wrapped = library.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    encoder = Encoder(CONFIG, Runtime())
    for ids in IDS:
        rows_ = tiny.Rows(np.array([ids]), np.ones((1, len(ids)), int), np.arange(len(ids))[None])
        with torch.no_grad():
            theirs = wrapped(torch.tensor([ids])).last_hidden_state.numpy()
        np.testing.assert_allclose(theirs, encoder.apply({"params": merged}, *rows_), atol=2e-4)
