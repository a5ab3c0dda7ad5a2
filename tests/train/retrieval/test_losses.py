"""Losses of retrieval: values and gradients of sentence-transformers, blocks, meshes, errors."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import loss_cases
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval import losses

RANKING, GIST = losses.LOSSES["multiple-negatives-ranking"], losses.LOSSES["gist"]


def short_batch(name: str):
    """Loss and columns of a case, with an example that does not exist, all of it NaN."""
    columns, targets, guide, mask = loss_cases.inputs(name)
    options = {"targets": padded(targets, 0), "valid": np.arange(6) < loss_cases.EXAMPLES}
    if mask is not None:
        options["mask"] = np.pad(mask, ((0, 0), (0, 1)), constant_values=True)
    if guide is not None:
        options["guide"] = padded(guide, 1)
    whole = padded(columns, 1)
    if loss_cases.CASES[name].kind == "late-interaction":
        whole = padded(whole, 2)  # the query of the example
    return functools.partial(loss_cases.loss_of(name), **options), jnp.asarray(whole)


def padded(x: np.ndarray | None, axis: int) -> np.ndarray | None:
    """The array with one entry of NaN more."""
    if x is None:
        return None
    return np.concatenate([x, np.full_like(x.take([0], axis), np.nan)], axis)


@pytest.fixture(scope="module")
def computed():
    """Values and gradients of all cases, by one program."""
    cases = {name: short_batch(name) for name in loss_cases.CASES}

    @jax.jit
    def compute(columns):
        return {name: jax.value_and_grad(loss)(columns[name]) for name, (loss, _) in cases.items()}

    return jax.tree.map(np.asarray, compute({name: x for name, (_, x) in cases.items()}))


GOLDEN = loss_cases.golden()


@pytest.mark.parametrize("name", loss_cases.CASES)
def test_values_and_gradients_are_those_of_sentence_transformers(name, computed):
    """They have no part of the example that does not exist, either."""
    (value, gradient), (expected, expected_gradient) = computed[name], GOLDEN[name]
    largest = np.abs(expected_gradient).max()
    assert largest > 1e-3  # the case tests something
    assert value.dtype == np.float32 and value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    if loss_cases.CASES[name].kind == "late-interaction":
        gradient, of_missing = np.split(gradient, [loss_cases.EXAMPLES], axis=2)
        assert not of_missing.any()
    gradient, of_missing = np.split(gradient, [loss_cases.EXAMPLES], axis=1)
    np.testing.assert_allclose(gradient, expected_gradient, atol=3e-5 * largest)
    assert not of_missing.any()


def test_every_loss_has_a_golden():
    cases = {(case.kind, case.loss) for case in loss_cases.CASES.values()}
    assert {(kind, name) for kind, table in losses.TABLES.items() for name in table} < cases


def test_a_loss_of_labels_without_labels_names_the_remedies():
    entropy, ranked = (losses.RERANKER_LOSSES[n] for n in ("binary-cross-entropy", "mse"))
    with pytest.raises(UserError, match=r"label of each document.*--target.*negatives.*multiple-"):
        entropy.check(2, 0)
    with pytest.raises(UserError, match=r"score of each document.*--target, or name a loss"):
        ranked.check(2, 0)


def test_blocks_and_meshes_compute_the_same():
    """Thirteen queries in blocks of three, and one at a time on eight devices."""
    script = Path(__file__).with_name("losses_on_mesh.py")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, script],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=600,
    )


def test_memory_grows_with_the_batch_and_not_with_its_square():
    queries, dims = 8192, 8
    columns = jax.ShapeDtypeStruct((2, queries, dims), jnp.float32)
    compiled = jax.jit(jax.grad(RANKING)).lower(columns).compile()
    blocks = 4 * 2**22  # bytes of the scores of a block
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * blocks < queries**2 * 4


@pytest.mark.parametrize("hole", ["example", "negative"])
def test_a_text_that_is_missing_is_no_negative(hole):
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(3, 4, 5)).astype(np.float32)
    mask = np.ones((2, 4), bool)
    if hole == "negative":
        mask[1] = False
        smaller = columns[:2]
    else:
        mask[0, 2] = False  # a query without its positive
        mask[1, 2] = False
        smaller = np.delete(columns, 2, axis=1)
    loss, expected = jax.jit(lambda: (RANKING(columns, mask=mask), RANKING(smaller)))()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_the_scale_can_be_learned():
    columns = np.random.default_rng(2).normal(size=(2, 4, 5)).astype(np.float32)
    loss = jax.jit(lambda scale: RANKING(columns, scale=scale))
    slope = (loss(3.0 + 1e-2) - loss(3.0 - 1e-2)) / 2e-2
    assert float(jax.grad(loss)(3.0)) == pytest.approx(float(slope), rel=1e-2)
    assert abs(float(slope)) > 1e-3


def test_dimensions_of_a_step_are_drawn_by_its_key():
    columns = np.random.default_rng(3).normal(size=(2, 4, 6)).astype(np.float32)
    each = jax.jit(
        lambda: [RANKING.matryoshka([d], [weight])(columns) for d, weight in ((6, 1), (2, 3))]
    )()
    drawn = jax.jit(functools.partial(RANKING.matryoshka([6, 2], [1, 3], 1), columns))
    draws = [float(drawn(key=jax.random.key(i))) for i in (*range(8), *range(8))]
    assert draws[:8] == draws[8:]
    assert {round(x, 4) for x in draws} == {round(float(x), 4) for x in each}
    with pytest.raises(UserError, match="needs a key"):
        RANKING.matryoshka([6, 2], n_dims_per_step=1)(columns)


def test_a_column_that_no_example_has_does_not_weigh():
    columns, guide = np.random.default_rng(5).normal(size=(2, 4, 3, 6)).astype(np.float32)
    mask = np.ones((3, 3), bool)
    mask[1:] = False
    loss = losses.LOSSES["embed-distill"]
    wide, alone = loss(columns, mask=mask, guide=guide), loss(columns[:2], guide=guide[:2])
    assert float(wide) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_label_is_compared_with_its_mean(label):
    columns = np.random.default_rng(4).normal(size=(2, 6, 3)).astype(np.float32)
    a, b = columns / np.linalg.norm(columns, axis=-1, keepdims=True)
    distances = 1 - (a * b).sum(-1)
    mean = distances.mean()
    hard = distances[distances > mean] if label else 2.0 - distances[distances < mean]
    loss = jax.jit(lambda: losses.online_contrastive(*columns, np.full(6, label), margin=2.0))()
    assert float(loss) == pytest.approx((hard**2).sum(), rel=1e-5)


COLUMNS = {2: np.ones((2, 3, 4)), 3: np.ones((3, 3, 4))}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.triplet(*COLUMNS[2]), "triplet: needs 3 columns of texts.* are 2"),
        (lambda: losses.cosent(*COLUMNS[2], None), "cosent: needs a label of each pair"),
        (lambda: losses.cosent(*COLUMNS[2], np.ones((3, 2))), r"cosent.*shape \(3, 2\)"),
        (lambda: losses.angle(*COLUMNS[2]), "angle: needs a label"),
        (lambda: losses.gist(*COLUMNS[2]), "gist: needs the vectors of a guide"),
        (lambda: GIST(COLUMNS[3], guide=np.ones((2, 3, 4))), "guide's vectors have shape"),
        (lambda: RANKING(COLUMNS[2], valid=np.ones(2)), "`valid`"),
        (lambda: RANKING(COLUMNS[2], scale=0), "scale must be above 0"),
        (lambda: RANKING(COLUMNS[2], directions=("doc_to_query",)), "must contain query_to_doc"),
        (lambda: RANKING(COLUMNS[2], directions=("to_doc",)), "directions is 'to_doc'"),
        (
            lambda: RANKING(
                COLUMNS[2],
                directions=("query_to_doc", "doc_to_doc"),
                partition_mode="per_direction",
            ),
            "doc_to_doc never contains the positive pair",
        ),
        (lambda: losses.multiple_negatives_ranking(np.ones((3, 4)), np.ones((2, 4))), "do not fit"),
        (lambda: losses.margin_mse(COLUMNS[3][0], COLUMNS[3][1:], np.ones((3, 4))), "2 or 1 per"),
        (lambda: losses.embed_distill(*COLUMNS[2], guide=np.ones((2, 3, 9))), "projection of 9"),
        (lambda: losses.matryoshka(losses.gist, [8])(*COLUMNS[2]), "exceed the 4 dimensions"),
        (lambda: losses.matryoshka(losses.gist, [4, 4]), "different numbers"),
        (lambda: losses.matryoshka(losses.gist, [4], [1, 2]), "2 weights for 1 dims"),
        (lambda: losses.RERANKER_LOSSES["mse"](np.ones(3), np.ones(3)), "documents, queries"),
        (lambda: losses.RERANKER_LOSSES["mse"].matryoshka([4]), "one of scores"),
    ],
)
def test_wrong_shapes_and_options_are_one_clear_line(call, words):
    with pytest.raises(UserError, match=words):
        call()


@pytest.mark.parametrize(
    ("name", "columns", "targets", "more", "words"),
    [
        ("triplet", 2, 0, {}, "takes 3 columns of texts, query included; the data has 2"),
        ("cosent", 2, 0, {}, "takes a label of each example, and the data has none"),
        ("margin-mse", 5, 2, {}, "takes 4 or 3 targets"),
        ("multiple-negatives-ranking", 2, 0, {"examples": 1}, "a batch of 1 has none"),
        ("gist", 2, 0, {"options": {"margni": 1}}, "did you mean 'margin'"),
        ("gist", 2, 0, {"options": {"margin_strategy": "both"}}, "known: absolute, relative"),
    ],
)
def test_what_does_not_fit_is_found_before_training(name, columns, targets, more, words):
    with pytest.raises(UserError, match=words):
        losses.LOSSES[name].check(columns, targets, **more)


@pytest.mark.parametrize("table", losses.TABLES)
def test_losses_accept_what_they_say_they_need(table):
    for kind in losses.TABLES[table].values():
        for columns in range(kind.least, (kind.most or kind.least + 2) + 1):
            for targets in kind.target_sizes(columns):
                kind.check(columns, targets)


def test_the_documentation_has_every_loss_with_its_options_and_defaults():
    text = (Path(__file__).parents[3] / "docs" / "reference" / "retrieval-losses.md").read_text()
    sections = {
        "embedding": text.partition("## Late interaction")[0],
        "late-interaction": text.partition("## Rerankers")[0],
        "reranker": text,
    }
    for table, section in sections.items():
        for name, kind in losses.TABLES[table].items():
            row = section[section.rindex(f"| `{name}` |") :].partition("\n")[0]
            options = row.split("|")[-2]
            assert {*options.split("`")[1::2]} == {*kind.options}, name
            for option, parameter in kind.options.items():
                if isinstance(parameter.default, str | bool | int | float):
                    default = str(parameter.default).removesuffix(".0")
                    assert f"`{option}` {default}" in options
