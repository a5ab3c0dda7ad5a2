"""The search for the lightest rematerialisation and the largest microbatch, by few compiles."""

import dataclasses

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from modernbert_jax import UserError, configs
from modernbert_jax.config import PRESETS
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.plan import meshes
from modernbert_jax.train.plan.program import Compiled, Variant
from modernbert_jax.train.plan.search import REMATS, Search
from modernbert_jax.train.pretrain.batch_size import microbatches
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage

ROWS = (8, 16, 32, 64, 128, 256, 512)
A_ROW = {"none": 10, "dots": 4, "full": 1}


def search(limit, bias=1.0, fixed=100, refuses=False):
    """A search with memory linear in rows and estimates wrong by a factor."""

    def peak(choice):
        return fixed + A_ROW[choice.remat] * choice.rows

    def compile_(choice):
        too_large = refuses and peak(choice) > limit
        return Compiled(choice, peak(choice), "no memory" if too_large else "")

    return Search(ROWS, limit, lambda choice: bias * peak(choice), compile_)


def truth(limit, fixed=100):
    fitting = [
        Variant(remat, rows)
        for remat in REMATS
        for rows in ROWS
        if fixed + A_ROW[remat] * rows <= limit
    ]
    lightest = [c for c in fitting if c.remat == fitting[0].remat]
    return max(lightest, key=lambda c: c.rows, default=None) if fitting else None


@given(limit=st.integers(50, 6000), bias=st.floats(0.5, 1.09), refuses=st.booleans())
def test_the_best_is_found_whatever_the_estimates(limit, bias, refuses):
    it = search(limit, bias, refuses=refuses)
    best = it.best()
    assert best == truth(limit)
    assert best is None or (best in it.known and it.fits(best))


@given(limit=st.integers(50, 6000), bias=st.floats(1.09, 3.0))
def test_estimates_that_are_far_too_high_cost_no_more_than_a_lighter_choice(limit, bias):
    it = search(limit, bias)
    best = it.best()
    assert best is None or (it.fits(best) and best.rows >= truth(limit).rows)


@pytest.mark.parametrize(("limit", "compiles"), [(10_000, 1), (900, 1), (751, 1), (700, 2)])
def test_few_compiles(limit, compiles):
    it = search(limit)
    assert it.best() == truth(limit)
    assert len(it.known) <= compiles, it.known


def test_estimates_learn_from_what_was_compiled():
    it = search(10_000, bias=1.5)
    assert it.estimate(Variant("none", 64)) == 1.5 * 740
    it.look(Variant("none", 64))
    assert it.estimate(Variant("none", 64)) == pytest.approx(740)
    assert it.estimate(Variant("dots", 64)) == pytest.approx(356)
    it.look(Variant("none", 128))
    assert it.estimate(Variant("none", 512)) == pytest.approx(5220)


def test_what_the_compiler_refuses_does_not_fit_though_it_seemed_to():
    it = search(800, refuses=True)
    it.compile = lambda choice: Compiled(choice, 10, "no memory")
    assert it.best() is None


def stage(rows=64, length=1024, **more):
    fields = {"name": "s", "tokens": 10 * rows * length, "peak_learning_rate": 1e-3}
    return Stage(length=length, rows=rows, **(fields | more))


def test_microbatches_are_even_on_all_devices_and_while_batches_grow():
    assert meshes.microbatch_rows(stage(), 16) == [16, 32, 64]
    assert meshes.microbatch_rows(stage(), 3) == []
    base = configs.load("pretrain", "base")
    for pieces in (8, 64, 256):
        for rows in meshes.microbatch_rows(base.stages[0], pieces):
            for segment in base.stages[0].batches.phases:
                assert segment.rows // microbatches(segment.rows, rows) % pieces == 0
    assert meshes.own_rows(base.stages[0]) == 768


def test_the_default_mesh_stays_where_it_divides():
    config = configs.load("pretrain", "base")
    assert meshes.mesh_for(config, config.stages[0], 256) == MeshShape()
    assert meshes.mesh_for(config, config.stages[1], 64) == MeshShape()


def test_another_mesh_is_found_where_rows_are_too_few():
    base, large = configs.load("pretrain", "base"), configs.load("pretrain", "large")
    # 576 = 64 x 9 rows of 8,192 tokens.
    assert meshes.mesh_for(base, base.stages[1], 256) == MeshShape(data=64, context=4)
    # 616 = 8 x 77.
    result = meshes.mesh_for(large, large.stages[2], 256)
    assert result.data == 8 and result.context * result.tensor == 32 and result.tensor in (2, 4)


def test_a_mesh_that_was_asked_for_is_used_or_refused():
    config = PretrainConfig(model=tiny.config(), stages=(stage(),), mesh=MeshShape(fsdp=8))
    assert meshes.mesh_for(config, config.stages[0], 8) == config.mesh
    with pytest.raises(UserError, match="64 rows of a microbatch cannot be divided among 24"):
        meshes.mesh_for(config, config.stages[0], 24)
    cut = dataclasses.replace(config, mesh=MeshShape(context=3))
    with pytest.raises(UserError, match="1,024 tokens of a row cannot be divided among 3"):
        meshes.mesh_for(cut, cut.stages[0], 3)


def test_rows_that_no_mesh_divides():
    config = PretrainConfig(model=PRESETS["base"], stages=(stage(rows=7, length=999),))
    with pytest.raises(UserError, match="7 rows of 999 tokens cannot be divided among 256 devices"):
        meshes.mesh_for(config, config.stages[0], 256)
