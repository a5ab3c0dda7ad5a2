"""LoRA: new adapters change nothing, trained ones are merged exactly, files are those of PEFT."""

import dataclasses
import json

import corpus
import jax
import jax.numpy as jnp
import labelled
import numpy as np
import optax
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from modernbert_jax import configs, convert
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import IDENTITY, Dense
from modernbert_jax.train.engine import peft
from modernbert_jax.train.engine.lora import Adapters, Lora
from modernbert_jax.train.engine.partition import Partition
from modernbert_jax.train.finetune import training

CONFIG = tiny.config(num_hidden_layers=8)  # layer 0, two groups of three, a tail of one
HEAD, LABELS = "sequence_classification", 3
ROWS = names.table(CONFIG, HEAD, LABELS)


@pytest.fixture(scope="module")
def params():
    tree: dict = {}
    for path, shape in names.shapes(ROWS).items():
        names.put(tree, path, np.zeros(shape, np.float32))
    return tiny.randomised(tree)


def trained_adapters(lora: Lora, params, seed: int = 3):
    """A partition and its trees in numpy, with nonzero adapters."""
    partition = Partition.of(CONFIG, HEAD, LABELS, lora=lora)
    shapes, _ = jax.eval_shape(partition.split, params, jax.random.key(1))
    rng = np.random.default_rng(seed)
    noise = jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), shapes)
    return partition, noise, {"encoder": params["encoder"]}


def test_a_new_adapter_leaves_the_model_unchanged(params):
    partition = Partition.of(CONFIG, HEAD, LABELS, lora=Lora(rank=4))
    trained, fixed = jax.jit(partition.split)(params, jax.random.key(1))
    trained, fixed = jax.tree.map(np.asarray, (trained, fixed))
    jax.tree.map(np.testing.assert_array_equal, partition.join(trained, fixed), params)
    a = [x for p, x in names.flatten(trained).items() if p[-1] == "lora_A"]
    assert all(0.5 < np.abs(x).max() * 32**0.5 <= 1 for x in a)  # each layer is drawn separately
    assert len({np.asarray(x[i]).tobytes() for x in a if x.ndim == 3 for i in range(2)}) == 12


@pytest.mark.parametrize(
    "targets", [("attn.Wqkv", "attn.Wo"), ("all-linear",), ("layers.4.mlp.Wi", "Wqkv")]
)
def test_merging_equals_numpy_on_the_files_of_peft(targets, params, tmp_path):
    lora = Lora(rank=2, alpha=6.0, targets=targets)
    partition, trained, fixed = trained_adapters(lora, params)
    peft.save(tmp_path / "adapter", partition.adapters, trained, ROWS, HEAD, "base")
    files = load_file(tmp_path / "adapter" / peft.WEIGHTS)
    settings = json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())
    assert (settings["r"], settings["lora_alpha"], settings["task_type"]) == (2, 6.0, "SEQ_CLS")
    expected = names.to_tensors(params, ROWS)
    with_adapter = 0
    for name in expected:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"base_model.model.{name}" in files:
            expected[name] = files[f"base_model.model.{name}"]
        elif f"{module}.lora_A.weight" in files:
            a, b = (files[f"{module}.lora_{x}.weight"] for x in "AB")
            # PEFT selects modules whose name is a target or ends with "." and a target.
            hits = [module.endswith(f".{t}") for t in settings["target_modules"]]
            assert a.shape[0] == b.shape[1] == 2 and any(hits)
            expected[name] = expected[name] + 6.0 / 2 * b.astype(np.float64) @ a
            with_adapter += 1
    assert with_adapter == {2: 16, 1: 32}.get(len(targets)) or (with_adapter == 9 and targets[1:])
    merged = jax.tree.map(np.asarray, partition.join(trained, fixed))
    for name, x in names.to_tensors(merged, ROWS).items():
        np.testing.assert_allclose(x, expected[name], atol=2e-6, err_msg=name)
    again, loaded = peft.load(tmp_path / "adapter", ROWS)
    assert dataclasses.replace(again.lora, targets=targets) == lora
    jax.tree.map(np.testing.assert_array_equal, loaded, trained)


def test_only_adapters_head_and_classifier_are_trained(params):
    partition, trained, fixed = trained_adapters(Lora(rank=2), params)

    @jax.jit
    def step(trained, fixed, opt_state):
        def loss(trained):
            params = partition.join(trained, fixed)
            return sum(jnp.sin(3 * x).mean() for x in jax.tree.leaves(params))

        value, grads = jax.value_and_grad(loss)(trained)
        updates, opt_state = tx.update(grads, opt_state, trained)
        return value, optax.apply_updates(trained, updates), opt_state

    tx = optax.sgd(1e-2, momentum=0.9)
    state = jax.jit(tx.init)(trained)
    held = sum(x.size for x in jax.tree.leaves(state))
    assert held == sum(x.size for x in jax.tree.leaves(trained))
    assert held < sum(x.size for x in jax.tree.leaves(params)) / 8
    losses = []
    before, after = jax.tree.map(np.asarray, trained), trained
    for _ in range(3):
        value, after, state = step(after, fixed, state)
        losses.append(float(value))
    assert losses[2] < losses[0]
    after = jax.tree.map(np.asarray, after)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after, before)
    assert all(jax.tree.leaves(moved))
    plain, before = partition.join(after, fixed), partition.join(before, fixed)
    checkpoint = convert.Checkpoint(config=CONFIG, params=plain, head=HEAD, extra={"num_labels": 3})
    names.check_params(checkpoint.params, ROWS, "merged")
    same = jax.tree.map(lambda a, b: bool((a == b).all()), plain, before)
    assert same["encoder"]["embeddings"] == {"embedding": True, "norm": {"scale": True}}
    assert same["encoder"]["layer_0"]["mlp"]["Wi"]["kernel"]
    assert not same["encoder"]["layer_0"]["attn"]["Wqkv"]["kernel"]


def test_a_layer_may_be_trained_in_full(params, tmp_path):
    lora = Lora(rank=2, whole=("model.layers.4", "classifier"))
    partition, trained, _ = trained_adapters(lora, params)
    fixed = partition.split(params, jax.random.key(0))[1]
    peft.save(tmp_path / "adapter", partition.adapters, trained, ROWS, HEAD, "base")
    files = load_file(tmp_path / "adapter" / peft.WEIGHTS)
    settings = json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())
    assert (
        "model.layers.3.attn.Wo" in settings["target_modules"]
        and len(settings["target_modules"]) == 14
    )
    whole = {n.removeprefix("base_model.model.") for n in files if "lora" not in n}
    expected = {n for n in ROWS if n.startswith(("model.layers.4.", "classifier."))}
    assert whole == expected and len(files) == len(expected) + 2 * 14
    merged = names.to_tensors(jax.tree.map(np.asarray, partition.join(trained, fixed)), ROWS)
    for name in expected:
        np.testing.assert_array_equal(merged[name], files[f"base_model.model.{name}"])
    again, loaded = peft.load(tmp_path / "adapter", ROWS)
    jax.tree.map(np.testing.assert_array_equal, loaded, trained)
    assert {*again.places} == {*partition.adapters.places}


def test_adapters_of_a_bare_encoder_have_its_names(tmp_path):
    """The layers after it are trained whole; PEFT's files, which know none of them, have none."""
    widths = {"in_features": CONFIG.hidden_size, "out_features": 8, "activation": IDENTITY}
    rows = names.table(CONFIG, "none", 1, layers=[Dense(name="dense_0", path="2_Dense", **widths)])
    lora = Lora(rank=2, targets=("attn.Wo",), whole=("2_Dense", "model.layers.4"))
    partition = Partition.of_rows(CONFIG, rows, lora=lora)
    tree: dict = {}
    for path, shape in names.shapes(rows).items():
        names.put(tree, path, np.zeros(shape, np.float32))
    trained, _ = jax.eval_shape(partition.split, tree, jax.random.key(0))
    trained = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), trained)
    assert {*trained.pop("dense_0")["linear"]} == {"kernel", "bias"}
    peft.save(tmp_path / "adapter", partition.adapters, trained, rows, "none", "base")
    settings = json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())
    assert settings["task_type"] == "FEATURE_EXTRACTION"
    assert settings["modules_to_save"] == ["layers.4"]
    assert "layers.3.attn.Wo" in settings["target_modules"]
    _, loaded = peft.load(tmp_path / "adapter", names.table(CONFIG, "none", prefix=""))
    jax.tree.map(np.testing.assert_array_equal, loaded, trained["encoder"])


def test_dropout_affects_only_adapters(params):
    lora = Lora(rank=2, dropout=0.5, targets=("layers.0.attn.Wo",))
    partition, trained, fixed = trained_adapters(lora, params)
    base = names.flatten(params)
    clear = names.flatten(partition.join(trained, fixed))
    means = np.zeros(())
    path = ("encoder", "layer_0", "attn", "Wo", "kernel")
    merged = jax.jit(partition.adapters.merged)
    for seed in range(200):
        dropped = names.leaf(merged(params, trained, jax.random.key(seed)), path)
        delta, whole = np.asarray(dropped) - base[path], np.asarray(clear[path]) - base[path]
        hidden = np.isclose(delta, 0, atol=1e-7).all(1)  # rows of the kernel are input features
        np.testing.assert_allclose(delta[~hidden], 2 * whole[~hidden], atol=1e-5)
        means = means + hidden.mean() / 200
    assert abs(means - 0.5) < 0.03


def test_decoders_share_a_matrix_among_three_modules(tmp_path):
    config = tiny.config(causal=True)
    rows = names.table(config, HEAD, LABELS)
    lora = Lora(
        rank=2, targets=("attn.q_proj", "attn.k_proj", "attn.v_proj"), whole=("classifier",)
    )
    adapters = Adapters.of(lora, rows)
    shapes = names.shapes(rows)
    params = {}
    for path, shape in shapes.items():
        names.put(params, path, np.zeros(shape, np.float32))
    trained = jax.tree.map(lambda x: np.asarray(x) + 0.5, adapters.init(jax.random.key(0), params))
    trained["classifier"] = params["classifier"]
    peft.save(tmp_path / "adapter", adapters, trained, rows, HEAD, "base")
    again, loaded = peft.load(tmp_path / "adapter", rows)
    assert {*again.places} == {p for p in shapes if p[-2:] == ("Wqkv", "kernel")}
    jax.tree.map(np.testing.assert_array_equal, loaded, trained)
    with pytest.raises(UserError, match=r"attn\.k_proj.*one tensor"):
        Adapters.of(Lora(rank=2, targets=("attn.q_proj",)), rows)


def test_errors(params, tmp_path):
    with pytest.raises(UserError, match=r"named 'attn.Wq'; did you mean 'attn.Wqkv'"):
        Partition.of(CONFIG, HEAD, LABELS, lora=Lora(rank=2, targets=("attn.Wq",)))
    for wrong, message in (
        ({"rank": -1}, "lora.rank"),
        ({"alpha": 0.0}, "lora.alpha"),
        ({"dropout": 1.0}, "lora.dropout"),
        ({"targets": ()}, "lora.targets"),
        ({"init": "zeros"}, "lora.init"),
    ):
        with pytest.raises(UserError, match=message):
            Lora(**wrong)
    with pytest.raises(UserError, match="starts with 'layers'"):
        Partition.of(CONFIG, HEAD, LABELS, lora=Lora(rank=2, whole=("layers",)))
    with pytest.raises(UserError, match="freeze and lora exclude each other"):
        Partition.of(CONFIG, HEAD, LABELS, lora=Lora(rank=2), freeze_layers=1)
    partition, trained, _ = trained_adapters(Lora(rank=2), params)
    folder = tmp_path / "adapter"
    peft.save(folder, partition.adapters, trained, ROWS, HEAD, "base")
    settings = json.loads((folder / peft.CONFIG).read_text())
    for key, value in (("use_rslora", True), ("peft_type", "IA3"), ("rank_pattern", {"a": 4})):
        (folder / peft.CONFIG).write_text(json.dumps(settings | {key: value}))
        with pytest.raises(UserError, match=key):
            peft.load(folder, ROWS)
    (folder / peft.CONFIG).write_text(json.dumps(settings))
    tensors = load_file(folder / peft.WEIGHTS)
    tensors["other"] = tensors.pop("base_model.model.classifier.weight")
    save_file(tensors, folder / peft.WEIGHTS)
    with pytest.raises(UserError, match=r"missing .*classifier.weight .*unexpected other"):
        peft.load(folder, ROWS)
    (folder / peft.WEIGHTS).unlink()
    with pytest.raises(UserError, match="no such file"):
        peft.load(folder, ROWS)


def test_a_run_writes_its_adapters_and_a_plain_model(tmp_path):
    model = labelled.checkpoint(tmp_path / "model", corpus.make_tokenizer(), num_hidden_layers=1)
    data = labelled.write(tmp_path / "train.jsonl", labelled.classification(48))
    config = dataclasses.replace(
        configs.load("finetune", "classification"),
        model=str(model),
        train=str(data),
        output=str(tmp_path / "run"),
        lora=Lora(rank=2, dropout=0.1),
        layer_decay=0.5,
        learning_rate=1e-2,
        epochs=2.0,
        batch_examples=16,
    )
    assert training.finetune(config)["last"]["step"] == 6
    before, after = convert.load(model), convert.load(tmp_path / "run" / "export")
    rows = after.rows()
    base, merged = (names.to_tensors(c.params, c.rows()) for c in (before, after))
    adapters, trained = peft.load(tmp_path / "run" / "adapter", rows)
    changed = {n for n in merged if n in base and not np.array_equal(base[n], merged[n])}
    layer = "model.layers.0.attn"
    wanted = {f"{layer}.Wqkv.weight", f"{layer}.Wo.weight", "head.dense.weight", "head.norm.weight"}
    assert changed == wanted
    fixed = names.to_params(merged | {n: base[n] for n in wanted}, rows, "base")
    again = names.to_tensors(adapters.merged(fixed, trained), rows)
    for name in wanted - {"head.dense.weight", "head.norm.weight"}:
        np.testing.assert_allclose(again[name], merged[name], atol=1e-6)
    assert sum(x.size for x in jax.tree.leaves(trained)) < after.count / 2
    with pytest.raises(UserError, match=r"holds only what its run trains.*run/export"):
        convert.load(tmp_path / "run" / "checkpoints" / "6")
