"""The step of training and the forward pass compile for every accelerator, in bounded memory."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.architecture import FULL, SLIDING
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import MeshShape, rows_sharding
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage
from modernbert_jax.train.pretrain.objective import MaskRule, abstract_step

TPUS = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2")
GPUS = ("a100", "l4", "h100", "b200")
TARGETS = (*TPUS, *GPUS)

SHORT, LONG = 1024, 8192
HEADS = 2
SCORES = HEADS * LONG * LONG * 4
"""Bytes of all scores of one layer, in float32."""


def model(layers: int = 7, **changes) -> ModernBertConfig:
    """Layer 0 and two groups of three; two heads of 64, a window of 128."""
    return ModernBertConfig(
        vocab_size=512,
        hidden_size=64 * HEADS,
        intermediate_size=192,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        pad_token_id=0,
        **changes,
    )


def lowered_step(devices, length: int, remat: str, model: ModernBertConfig, **sizes: int):
    """The real step of training in bfloat16, on a mesh of these sizes."""
    rows = sizes.get("data", 1) * sizes.get("fsdp", 1)
    capacity = {"tokens": 100 * rows * length, "length": length, "rows": rows}
    stage = Stage(name="only", peak_learning_rate=1e-3, **capacity)
    runtime = Runtime(dtype="bfloat16", remat=remat)
    config = PretrainConfig(model=model, stages=(stage,), runtime=runtime)
    mask = MaskRule(mask_id=1, vocab_size=model.vocab_size, special_ids=(0, 1))
    mesh = MeshShape(**sizes).make(devices)
    with jax.set_mesh(mesh):
        step, arguments = abstract_step(config, stage, mask, mesh)
        return step.lower(*arguments)


def step_memory(device, length: int, remat: str, model: ModernBertConfig) -> int:
    """Temporary bytes of the compiled step of training, which takes over its state's memory."""
    memory = lowered_step([device], length, remat, model).compile().memory_analysis()
    batch = len(Rows._fields) * 4 * length
    assert memory.alias_size_in_bytes > state_bytes(model)
    assert memory.argument_size_in_bytes - memory.alias_size_in_bytes < 2 * batch
    return memory.temp_size_in_bytes


def state_bytes(model: ModernBertConfig) -> int:
    """Parameters and two moments."""
    return 3 * 4 * model.parameter_count()


def test_the_targets_are_what_their_names_say(device):
    kinds = {target: device(target).device_kind for target in TARGETS}
    assert kinds == {
        "v4:2x2x1": "TPU v4",
        "v5e:2x2": "TPU v5 lite",
        "v5p:2x2x1": "TPU v5",
        "v6e:2x2": "TPU v6 lite",
        "a100": "NVIDIA A100-SXM4-80GB",
        "l4": "NVIDIA L4",
        "h100": "NVIDIA H100 80GB HBM3",
        "b200": "NVIDIA B200",
    }


@pytest.mark.parametrize(
    ("target", "remat"), [("v5e:2x2", "full"), ("h100", "full"), ("h100", "none")]
)
def test_memory_of_training_grows_with_the_length_and_not_its_square(device, target, remat):
    short, long = (step_memory(device(target), n, remat, model()) for n in (SHORT, LONG))
    # Any scores kept would be kept for every layer, or for the three of a group at a time.
    assert long < {"none": 7 * SCORES / 4, "full": SCORES / 2}[remat]
    # Twice the ratio of the lengths, for what compilers do otherwise; its square is 64.
    assert long < 2 * (LONG / SHORT) * short


@pytest.mark.parametrize(
    ("target", "remat"),
    [("v5e:2x2", "none"), *((t, "full") for t in ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2", "a100"))],
)
def test_training_compiles(device, target, remat):
    # None at all on a v5e that rematerialises nothing: VMEM holds it.
    assert step_memory(device(target), SHORT, remat, model()) < SCORES


@pytest.mark.parametrize(
    ("sizes", "most"), [({"fsdp": 2, "tensor": 2}, 0.4), ({"data": 2, "context": 2}, 1.1)]
)
def test_training_on_a_mesh(devices, sizes, most):
    """State is sharded over `fsdp` and `tensor`; with `tensor`, each device has one head."""
    lowered = lowered_step(devices("v5e:2x2"), SHORT, "full", model(4), **sizes)
    compiled = lowered.compile()
    kernel = "splash_mha" if "tensor" in sizes else "global_attention_backward"
    assert kernel in compiled.as_text()
    assert compiled.memory_analysis().alias_size_in_bytes < most * state_bytes(model(4))


def test_layers_outside_a_loop_are_rematerialised_too(device):
    irregular = model(5, layer_types=(FULL, FULL, SLIDING, SLIDING, FULL))
    full, none = (step_memory(device("h100"), SHORT, r, irregular) for r in ("full", "none"))
    assert full < 0.75 * none


@pytest.mark.parametrize("target", TARGETS)
def test_the_forward_pass(device, target):
    module = MaskedLM(model(), Runtime(dtype="bfloat16"))
    mesh = MeshShape().make([device(target)])
    with jax.set_mesh(mesh):
        row = jax.ShapeDtypeStruct((1, LONG), jnp.int32, sharding=rows_sharding(mesh))
        batch = Rows(*(row for _ in Rows._fields))
        variables = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x), *batch)
        whole = NamedSharding(mesh, P())
        variables = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables
        )
        lowered = jax.jit(module.apply).lower(variables, *batch)
    if target in GPUS:
        assert "attention_fwd" in lowered.as_text()
    compiled = lowered.compile()
    assert compiled.memory_analysis().temp_size_in_bytes < SCORES / 4


@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_the_program_does_not_grow_with_depth(device, target):
    def lines(layers: int) -> int:
        return lowered_step([device(target)], SHORT, "full", model(layers)).as_text().count("\n")

    # With fewer groups than four, helpers that split keys happen to be shared with others.
    assert lines(13) == lines(28)
