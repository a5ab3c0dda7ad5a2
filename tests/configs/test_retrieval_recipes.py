"""Recipes of retrieval against the published figures."""

import pytest

from modernbert_jax import configs
from modernbert_jax.io.typed_json import from_json, to_json
from modernbert_jax.train.retrieval.config import RetrievalConfig

# Learning rate, examples a step, warm-up, schedule, epochs, steps between evaluations.
EMBEDDING = """
dpr-base               8e-5  4096 0.05   linear 1 500
dpr-large              1e-4  4096 0.05   linear 1 500
gooaq                  8e-5  2048 0.05   linear 1  50
modernbert-embed-pairs 2e-4 16384 0.0488 cosine 1 500
modernbert-embed       2e-5   256 0.0602 linear 1 500
matryoshka             2e-5   256 0.0602 linear 1 500
"""

# Loss, learning rate, examples a step, epochs, warm-up, tokens of a query and of a document.
LATE = """
colbert-base            distill-kl                 1e-4    16 1 0.05  32  180
colbert-large           distill-kl                 3e-5    16 1 0.05  32  180
gte-moderncolbert       distill-kl                 3e-5    16 3 0     32  300
reason-moderncolbert    multiple-negatives-ranking 1e-5   256 3 0    128 8192
colbert-zero-pretrain   multiple-negatives-ranking 3e-4 16384 1 0     39  187
colbert-zero-supervised multiple-negatives-ranking 8e-6    64 1 0     39  512
colbert-zero-distil     distill-kl                 4e-6   128 1 0     39  512
edge-colbert-17m        distill-kl                 8e-5    16 1 0.05  32  180
edge-colbert-32m        distill-kl                 8e-5    16 1 0.05  32  180
"""

# Learning rate, examples a step.
RERANKERS = """
17m  2.4e-4 1024
32m  1.2e-4  512
68m  3e-5    256
150m 1.5e-5  192
400m 7e-6    256
1b   3e-6    512
"""


def rows(table):
    return [line.split() for line in table.strip().splitlines()]


@pytest.mark.parametrize("row", rows(EMBEDDING), ids=lambda row: row[0])
def test_embedding_models_have_the_published_figures(row):
    config = configs.load("finetune", row[0])
    assert (config.kind, config.loss.name) == ("embedding", "multiple-negatives-ranking")
    assert config.learning_rate == float(row[1]) and config.batch_examples == int(row[2])
    assert config.warmup == pytest.approx(float(row[3]), abs=5e-5)
    assert (config.schedule, config.epochs, config.eval_every) == (row[4], 1, int(row[6]))
    assert (config.optimizer, config.pooling, config.runtime.dtype) == ("adamw", "mean", "bfloat16")
    assert config.loss.similarity == config.similarity == "cosine"
    nomic = "dpr" not in row[0] and row[0] != "gooaq"
    assert config.loss.scale == (50 if nomic else 20)
    assert config.weight_decay == (0.01 if nomic else 0)
    assert bool(config.prompts) == nomic and not config.allow_duplicates
    assert config.train_examples == (1_250_000 if "dpr" in row[0] else 0)


def test_stages_of_modernbert_embed_differ_as_their_authors_say():
    pairs, lists, matryoshka = (
        configs.load("finetune", name)
        for name in ("modernbert-embed-pairs", "modernbert-embed", "matryoshka")
    )
    assert (pairs.max_length, lists.max_length) == (128, 512)
    assert pairs.prompt("any", "title", 0) == "search_query: "
    assert lists.prompt("any", "negative_7", 8) == "search_document: "
    assert lists.matryoshka_dims == (768, 256) and lists.matryoshka_weights == (1, 1)
    assert matryoshka.matryoshka_dims == (768, 512, 256, 128, 64)
    assert lists.model == f"{pairs.output}/export" and pairs.matryoshka_dims == ()


def test_dpr_takes_the_steps_of_the_corrected_batch():
    base, large = (configs.load("finetune", f"dpr-{size}") for size in ("base", "large"))
    assert round(1_250_000 / base.batch_examples) == 305
    assert base.model.endswith("base") and large.model.endswith("large")
    assert base.columns == ("query", "positive", "negative") and base.max_length == 0


@pytest.mark.parametrize("row", rows(LATE), ids=lambda row: row[0])
def test_late_interaction_has_the_published_figures(row):
    config = configs.load("finetune", row[0])
    assert (config.kind, config.loss.name) == ("late-interaction", row[1])
    assert (config.learning_rate, config.batch_examples) == (float(row[2]), int(row[3]))
    assert (config.epochs, config.warmup) == (float(row[4]), float(row[5]))
    assert config.lengths == {"query": int(row[6]), "document": int(row[7])}
    assert config.loss.normalize_scores == (True if row[1] == "distill-kl" else None)
    assert config.schedule == "linear" and config.runtime.dtype == "bfloat16"
    first = {"colbert-base": 810_000, "colbert-large": 810_000, "colbert-zero-distil": 640_000}
    assert config.train_examples == first.get(row[0], 0)
    zero = row[0].startswith("colbert-zero")
    assert bool(config.prompts) == zero
    scales = {"colbert-zero-pretrain": 1 / 0.02, "colbert-zero-supervised": 1 / 0.2}
    if row[1] != "distill-kl":
        assert config.loss.scale == pytest.approx(scales.get(row[0], 1.0))


def test_edge_models_have_stacked_projections():
    small, large = (configs.load("finetune", f"edge-colbert-{size}") for size in ("17m", "32m"))
    assert (small.projection_hidden, small.projection_dims) == ((512,), 48)
    assert (large.projection_hidden, large.projection_dims) == ((768,), 64)


@pytest.mark.parametrize("row", rows(RERANKERS), ids=lambda row: row[0])
def test_ettin_rerankers_have_the_published_figures(row):
    config = configs.load("finetune", f"ettin-reranker-{row[0]}")
    assert (config.kind, config.loss.name, config.pooling) == ("reranker", "mse", "cls")
    assert config.head == "modules"
    assert config.learning_rate == float(row[1]) and config.batch_examples == int(row[2])
    assert (config.warmup, config.schedule, config.epochs) == (0.03, "linear", 1)
    assert config.model == f"jhu-clsp/ettin-encoder-{row[0]}"
    assert config.runtime.dtype == "bfloat16"


def test_recipes_survive_json():
    names = [*(row[0] for row in rows(EMBEDDING)), "ettin-reranker-17m"]
    for config in (configs.load("finetune", name) for name in names):
        assert from_json(RetrievalConfig, to_json(config)) == config


def test_sparse_encoders_have_the_published_figures():
    weights = {"splade": (5e-5, 1e-3), "splade-margin-mse": (0.1, 0.08)}
    for name, flops in weights.items():
        config = configs.load("finetune", name)
        assert (config.kind, config.query_flops, config.document_flops) == ("sparse", *flops)
        assert (config.learning_rate, config.batch_examples, config.warmup) == (2e-5, 16, 0.1)
        assert (config.max_length, config.epochs, config.schedule) == (256, 1, "linear")
        assert config.flops_ramp == pytest.approx(1 / 3) and not config.loss.options
        assert from_json(RetrievalConfig, to_json(config)) == config
    assert config.loss.name == "margin-mse"
