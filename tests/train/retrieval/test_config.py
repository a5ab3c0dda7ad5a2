"""The configuration of retrieval training: prompts and lengths by column, and what is refused."""

import dataclasses

import numpy as np
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.retrieval import config as retrieval
from modernbert_jax.train.retrieval import losses
from modernbert_jax.train.retrieval.columns import check_keys
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig


def test_the_most_particular_prompt_wins():
    config = RetrievalConfig(
        kind="embedding",
        prompts={"query": "q: ", "document": "d: ", "answer": "a: ", "gooaq.document": "g: "},
        lengths={"query": 32, "web.title": 64},
        max_length=128,
    )
    assert config.prompt("web", "question", 0) == "q: "
    assert config.prompt("web", "title", 1) == "d: "
    assert config.prompt("web", "answer", 1) == "a: "
    assert config.prompt("gooaq", "answer", 1) == "g: "
    lengths = [config.length("web", name, i) for i, name in enumerate(("query", "title", "text"))]
    assert lengths == [32, 64, 128]


def test_keys_without_a_column_are_refused():
    columns = {"web": ("query", "title")}
    check_keys({"web.title": 1, "document": 2, "title": 3}, "prompts", columns)
    with pytest.raises(UserError, match=r"'web.titel'.*did you mean 'web.title'"):
        check_keys({"web.titel": 1}, "prompts", columns)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": ("-",)}, "standard input"),
        ({"train": ("a.jsonl", "a.jsonl")}, "train names a file twice"),
        ({"matryoshka_dims_per_step": 1}, "matryoshka_dims_per_step is 1; matryoshka_dims has 0"),
        ({"matryoshka_dims": (8, 8)}, "matryoshka_dims"),
        ({"matryoshka_dims": (8, 4), "matryoshka_weights": (1.0,)}, "matryoshka_weights"),
        ({"kind": "rerank"}, "did you mean 'reranker'"),
        ({"loss": LossConfig(name="tripelt")}, "did you mean 'triplet'"),
        ({"loss": LossConfig(name="lambda-loss")}, "lambda-loss.*of kind reranker"),
        ({"loss": LossConfig(name="triplet", scale=2.0)}, "triplet has no option 'scale'"),
        ({"loss": LossConfig(name="triplet", learn_scale=True)}, "no scale or temperature"),
        ({"loss": LossConfig(name="distill-kl", learn_scale=True)}, "no scale or temperature"),
        ({"loss": LossConfig(name="gist")}, "needs a guide"),
        ({"kind": "reranker", "loss": LossConfig(orthogonality=1.0)}, "for losses of vectors"),
        ({"guide": "model"}, "guide is for"),
        ({"losses": {"web": LossConfig(name="tripelt")}}, "did you mean 'triplet'"),
        ({"losses": {"web": LossConfig(name="gist")}}, "gist needs a guide"),
        ({"losses": {"web": LossConfig(learn_scale=True)}}, "losses.web: learn_scale"),
    ],
)
def test_bad_values_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        RetrievalConfig(**{"kind": "embedding"} | changes)


def test_a_loss_has_the_options_that_are_given():
    loss = LossConfig(name="gist", temperature=0.05, contrast_anchors=False)
    assert loss.of("embedding").options == {"temperature": 0.05, "contrast_anchors": False}
    assert LossConfig().of("embedding").name == "multiple-negatives-ranking"


def test_a_data_set_may_have_a_loss_of_its_own():
    made = RetrievalConfig(kind="embedding", losses={"sts": LossConfig(name="cosent", scale=9.0)})
    assert [made.loss_of(name).name for name in ("sts", "web")] == [
        *("cosent", "multiple-negatives-ranking")
    ]
    assert retrieval.from_json(retrieval.to_json(made)) == made
    assert made.with_losses(["web", "sts"]).losses == {
        "web": LossConfig(name="multiple-negatives-ranking"),
        "sts": made.losses["sts"],
    }


def test_orthogonality_is_added_to_a_loss():
    columns = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    plain, both = (LossConfig(orthogonality=x).loss("embedding") for x in (0.0, 0.5))
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 1]], bool)
    penalty = losses.global_orthogonal_regularization(columns[0], columns[1:], mask=mask)
    wanted = plain(columns, mask=mask) + 0.5 * penalty
    np.testing.assert_allclose(both(columns, mask=mask), wanted, rtol=1e-6)
    assert penalty > 1e-3 and both.options == plain.options


def test_every_option_of_a_loss_can_be_configured():
    kinds = [kind for table in losses.TABLES.values() for kind in table.values()]
    options = {name for kind in kinds for name in kind.options}
    fields = {field.name: field.default for field in dataclasses.fields(LossConfig)}
    assert options == fields.keys() - {"name", "learn_scale", "orthogonality"}
    assert {value for name, value in fields.items() if name in options} == {None, ()}
