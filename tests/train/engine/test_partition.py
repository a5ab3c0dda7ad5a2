"""Partitions: frozen tensors do not change and need no moments; layers have their own rates."""

import jax
import numpy as np
import optax
import pytest
import tiny

from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.train.engine.partition import Partition
from modernbert_jax.train.optimizer import stable_adamw

CONFIG = tiny.config(num_hidden_layers=8)  # layer 0, two groups of three, a tail of one
# The same model without a repeating unit: nothing is stacked.
KINDS = [("sliding" if i % 3 else "full") + "_attention" for i in range(7)]
UNROLLED = tiny.config(layer_types=(*KINDS, "full_attention"), num_hidden_layers=8)
HEAD, LABELS = "sequence_classification", 3
ROWS, FLAT = (names.table(config, HEAD, LABELS) for config in (CONFIG, UNROLLED))


@pytest.fixture(scope="module")
def params():
    tree: dict = {}
    for path, shape in names.shapes(ROWS).items():
        names.put(tree, path, np.zeros(shape, np.float32))
    return tiny.randomised(tree)


def train(partition: Partition, params, tx, steps: int = 3):
    """Train towards ones; return parameters and the optimizer's state."""
    trained, fixed = partition.split(params)

    @jax.jit
    def step(trained, state):
        def loss(trained):
            leaves = jax.tree.leaves(partition.join(trained, fixed))
            return sum(((x - 1) ** 2).sum() for x in leaves)

        updates, state = tx.update(jax.grad(loss)(trained), state, trained)
        return optax.apply_updates(trained, updates), state

    state = jax.jit(tx.init)(trained)
    for _ in range(steps):
        trained, state = step(trained, state)
    return partition.join(trained, fixed), state


def tensors(params, rows) -> dict[str, np.ndarray]:
    return names.to_tensors(jax.tree.map(np.asarray, params), rows)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({"freeze_layers": 3}, lambda n: "embeddings" in n or n[13:14] in {*"012"}),
        ({"freeze": (r"layers\.[046]\.", "mlp")}, lambda n: n[13:14] in {*"046"} or "mlp" in n),
        ({}, lambda n: False),
    ],
)
def test_frozen_tensors_are_unchanged_and_have_no_moments(options, frozen, params):
    partition = Partition.of(CONFIG, HEAD, LABELS, **options)
    tx = stable_adamw(0.1, weight_decay=0.01)
    after, state = train(partition, params, tx)
    before, after = tensors(params, ROWS), tensors(after, ROWS)
    held = 0
    for name, x in before.items():
        same = x.tobytes() == after[name].tobytes()
        assert same == bool(frozen(name)), name
        held += 0 if same else x.size
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * held + 1


def test_a_stack_of_layers_has_the_rates_of_separate_layers(params):
    foreign = tensors(params, ROWS)
    flat = names.to_params(foreign, FLAT, "unrolled")
    assert not any("groups" in path for path in names.flatten(flat))
    results = []
    for config, rows, tree in ((CONFIG, ROWS, params), (UNROLLED, FLAT, flat)):
        partition = Partition.of(config, HEAD, LABELS, freeze=(r"layers\.2\.mlp",))
        tx = partition.layerwise(stable_adamw(0.01, weight_decay=0.1), 0.7)
        results.append(tensors(train(partition, tree, tx, steps=2)[0], rows))
    for name, x in results[0].items():
        np.testing.assert_allclose(x, results[1][name], atol=1e-6, err_msg=name)


def test_rates_fall_from_the_head_to_the_embeddings(params):
    partition = Partition.of(CONFIG, HEAD, LABELS)
    tx = partition.layerwise(optax.sgd(1.0), 0.5)
    updates, _ = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    for name, x in tensors(updates, ROWS).items():
        layer = int(name.split(".")[2]) if "layers" in name else None
        depth = 0 if "embeddings" in name else 9 if layer is None else layer + 1
        assert (x == -(0.5 ** (9 - depth))).all(), name
    assert partition.layerwise(tx, 1.0) is tx


def test_errors(params):
    def of(**options):
        return Partition.of(CONFIG, HEAD, LABELS, **options)

    with pytest.raises(
        UserError,
        match=r"'layer.3': matches no tensor; known: .*layers.0.attn.Wo",
    ):
        of(freeze=("layer.3",))
    with pytest.raises(UserError, match="not a regular expression"):
        of(freeze=("layers.(",))
    with pytest.raises(UserError, match="freeze_layers is 9; it must be 0 to 8"):
        of(freeze_layers=9)
    with pytest.raises(UserError, match="nothing to train"):
        of(freeze=(".",))
    for decay in (0.0, 1.5):
        with pytest.raises(UserError, match="layer_decay"):
            of().layerwise(optax.sgd(1.0), decay)
    with pytest.raises(ValueError, match="differ"):
        of().split(params["encoder"])
