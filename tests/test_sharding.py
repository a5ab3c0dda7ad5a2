"""Sharding of arrays: the mesh's shape, and one rule for every parameter."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from modernbert_jax import UserError
from modernbert_jax.config import PRESETS
from modernbert_jax.embedder import Embedder
from modernbert_jax.heads import Classifier, MaskedLM
from modernbert_jax.pipeline import Dense
from modernbert_jax.sharding import (
    AXES,
    PARAMETERS,
    MeshShape,
    ShardingRules,
    constrain,
    over_rows,
    parameter_spec,
)

DENSE = Dense(name="dense_0", path="2_Dense", in_features=32, out_features=8, residual=True)


@functools.cache
def shapes(config, head=MaskedLM):
    """Path and shape of every parameter."""
    ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    tree = jax.eval_shape(head(config).init, jax.random.key(0), ids, ids, ids)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}


def specs(config, **sizes):
    sizes = dict.fromkeys(AXES, 1) | sizes
    return {path: parameter_spec(path, shape, sizes) for path, shape in shapes(config).items()}


def every_switch():
    return tiny.config(
        num_hidden_layers=6,
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        classifier_bias=True,
        tie_word_embeddings=False,
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_parameter_of_every_preset_matches_one_rule(name):
    assert len(specs(PRESETS[name], fsdp=4, tensor=2)) == len(shapes(PRESETS[name]))


def test_every_rule_is_needed():
    embedder = functools.partial(Embedder, steps=(DENSE,))
    paths = [p for head in (MaskedLM, Classifier, embedder) for p in shapes(every_switch(), head)]
    for ending, _ in PARAMETERS:
        assert any(re.search(rf"(^|/){ending}$", path) for path in paths), ending


def test_specifications_of_base():
    axes = specs(PRESETS["base"], fsdp=8, tensor=2)
    assert axes["encoder/embeddings/embedding"] == P("tensor", "fsdp")
    assert axes["encoder/layer_0/attn/Wqkv/kernel"] == P(None, "fsdp", "tensor")
    assert axes["encoder/groups/local_0/attn/Wqkv/kernel"] == P(None, None, "fsdp", "tensor")
    assert axes["encoder/groups/local_0/attn/Wo/kernel"] == P(None, "tensor", "fsdp")
    assert axes["encoder/groups/global_2/mlp/Wi/kernel"] == P(None, None, "fsdp", "tensor")
    assert axes["encoder/groups/global_2/mlp/Wo/kernel"] == P(None, "tensor", "fsdp")
    assert axes["encoder/final_norm/scale"] == P(None)
    assert axes["decoder/bias"] == P("tensor")


def test_an_axis_that_does_not_divide_is_left_out():
    axes = specs(PRESETS["base"], fsdp=512, tensor=5)
    assert axes["encoder/embeddings/embedding"] == P(None, None)
    assert specs(PRESETS["base"], fsdp=256)["encoder/embeddings/embedding"] == P("tensor", "fsdp")


def test_a_path_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="matches 0 sharding rules"):
        parameter_spec("encoder/layer_0/attn/other/kernel", (3, 3), dict.fromkeys(AXES, 1))


def test_no_axis_twice():
    with pytest.raises(ValueError, match="twice"):
        ShardingRules(embed=("tensor",)).spec("embed", "heads")


def test_sizes_of_a_mesh():
    assert MeshShape().sizes(8) == (8, 1, 1, 1)
    assert MeshShape(data=2, fsdp=-1, tensor=2).sizes(16) == (2, 4, 1, 2)
    assert MeshShape(data=2, fsdp=1, context=4).sizes(8) == (2, 1, 4, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": 3}, "does not fit 8 devices"),
        ({"tensor": 3}, "does not fit 8 devices"),
        ({"fsdp": -1}, "only one axis can be -1"),
        ({"context": 0}, "mesh.context is 0"),
    ],
)
def test_meshes_that_cannot_be(shape, message):
    with pytest.raises(UserError, match=message):
        MeshShape(**shape).sizes(8)


def test_without_a_mesh_nothing_changes():
    x = jnp.ones((2, 4))
    assert constrain(x, "rows", "tokens") is x
    assert over_rows(shapes) is shapes


def test_the_mesh_of_one_device():
    mesh = MeshShape().make(jax.devices()[:1])
    assert mesh.axis_names == AXES and mesh.size == 1
    with jax.set_mesh(mesh):
        assert (jax.jit(lambda x: constrain(x, "rows", None))(jnp.ones((3, 5))) == 1).all()
