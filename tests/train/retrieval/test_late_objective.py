"""Late interaction's objective: packed = alone, microbatches = one, MaxSim by its definition."""

import functools

import corpus
import jax
import numpy as np
import pairs
import pytest

from modernbert_jax.embedder import Embedder
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import Dense, LateInteraction, Normalize
from modernbert_jax.train.engine.gradients import gradients as engine_gradients
from modernbert_jax.train.retrieval import late_texts, losses
from modernbert_jax.train.retrieval.batches import Batches
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.late_objective import LateObjective

EXAMPLES = pairs.records(7, negatives=2)
EXAMPLES[3].pop("negative_1")  # an example with fewer documents
ONE = Shape(rows=4, length=128, documents=16)
MANY = Shape(rows=1, length=64, documents=4, microbatches=24)
LATE = LateInteraction(expansion="fixed", skiplist=("no", "le", "Ġba"))
STEPS = (
    Dense(
        name="dense_0",
        in_features=64,
        out_features=8,
        bias=False,
        activation="torch.nn.modules.linear.Identity",
    ),
    Normalize(),
)
CONFIG = RetrievalConfig(
    kind="late-interaction",
    loss=LossConfig(scale=2.0, learn_scale=True),
    prompts={"query": "ba: ", "document": "di: "},
    lengths={"query": 12, "document": 40},
    max_length=48,
    batch_examples=8,
    attention_dropout=0.2,
    embedding_dropout=0.1,
)


@functools.cache
def texts():
    tokenizer = corpus.make_tokenizer()
    return late_texts.tokenize(
        CONFIG, pairs.dataset(EXAMPLES), tokenizer, pairs.architecture(), LATE
    )


def objective(shape: Shape, config: RetrievalConfig = CONFIG, **changes):
    tokenizer = corpus.make_tokenizer()
    ids = tuple(tokenizer.backend.token_to_id(word) for word in LATE.skiplist)
    assert None not in ids
    made = LateObjective(
        config=config,
        model=pairs.architecture(),
        loss_kind=config.loss.loss(config.kind),
        documents=shape.documents,
        steps_after=STEPS,
        query_tokens=12,
        skipped_ids=ids,
        **changes,
    )
    return made, jax.jit(made.init)(jax.random.key(0))


def batch(shape: Shape, at_once: bool = False):
    made = Batches([texts()], shape, CONFIG.batch_examples, targets=0, columns=4)
    return made.of(pairs.members(*range(7)), at_once)


@functools.partial(jax.jit, static_argnums=0)
def gradients(objective, params, batch):
    return engine_gradients(
        objective, lambda p: p, params, objective.microbatches(batch, jax.random.key(1))
    )


def test_the_loss_does_not_depend_on_packing_and_microbatches():
    """Dropout, mask tokens, a short batch and a learned scale included."""
    (one, params), (many, _) = objective(ONE), objective(MANY)
    sums, grads = gradients(one, params, batch(ONE, at_once=True))
    other, others = gradients(many, params, batch(MANY))
    assert int(batch(MANY).used) > 3
    assert float(other.loss) == pytest.approx(float(sums.loss), rel=1e-5)
    assert abs(float(grads["log_scale"])) > 1e-3
    for x, y in zip(jax.tree.leaves(others), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * max(float(np.abs(y).max()), 1e-2))


@pytest.mark.parametrize("scoring", ["maxsim", "mean-maxsim"])
def test_scores_are_those_of_the_token_vectors_of_each_text_alone(scoring):
    made, params = objective(MANY, scoring=scoring)
    scores, loss = jax.jit(made.evaluated)(params, batch(MANY))
    own, tokens = texts(), texts().tokens
    rows = np.zeros((3, len(tokens), 48), np.int32)
    for number in range(len(tokens)):
        ids = tokens[number]
        rows[:, number, : len(ids)] = ids, np.ones(len(ids)), np.arange(len(ids))
    embedder = Embedder(made.model, steps=STEPS)
    rest = {name: x for name, x in params.items() if name != "log_scale"}
    visible = rows[2] < own.start[:, None]
    vectors = np.asarray(jax.jit(embedder.apply)({"params": rest}, *rows, visible=visible))
    expected = np.zeros((3, 7, 7), np.float32)
    for n, sequences in enumerate(own.sequences):
        for k, document in enumerate(sequences[1:]):
            if document < 0:
                continue
            counted = ~np.isin(tokens[document], made.skipped_ids)
            of_document = vectors[document, : len(counted)][counted]
            for q, (query, *_) in enumerate(own.sequences):
                products = vectors[query, : len(tokens[query])] @ of_document.T
                expected[k, n, q] = products.max(1).sum()
    assert {len(tokens[query]) for query, *_ in own.sequences} == {12}  # filled up
    expected /= 12 if scoring == "mean-maxsim" else 1
    np.testing.assert_allclose(scores[:, :7, :7], expected, atol=2e-5)
    mask = (own.sequences.T >= 0)[1:]
    kind = losses.LATE_LOSSES["multiple-negatives-ranking"]
    assert float(loss) == pytest.approx(float(kind(expected, mask=mask, scale=2.0)), rel=1e-5)


def test_tokens_that_count_and_that_others_attend_to():
    own = texts()
    documents, queries = own.sequences[:, 1:], own.sequences[:, 0]
    lengths = own.tokens.lengths
    assert (own.start[documents[documents >= 0]] == lengths[documents[documents >= 0]]).all()
    assert (own.start[queries] < lengths[queries]).all()  # mask tokens are not attended to
    skipped = objective(ONE)[0].skipped_ids
    in_documents = np.concatenate([own.tokens[i] for i in documents[documents >= 0]])
    assert np.isin(in_documents, skipped).any()
