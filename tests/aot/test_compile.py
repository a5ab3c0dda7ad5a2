"""The step of training and the forward pass compile for every accelerator, in bounded memory."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from modernbert_jax.config import FULL, SLIDING, ModernBertConfig, Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.packing import Rows
from modernbert_jax.train.config import PretrainConfig, Stage
from modernbert_jax.train.step import MaskRule, init_state, train_step

TPUS = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2")
GPUS = ("a100", "l4", "h100", "b200")
TARGETS = (*TPUS, *GPUS)

KERNELS = all(
    importlib.util.find_spec(f"modernbert_jax.attention.{name}")
    for name in ("pallas_tpu", "splash", "two_block")
)
"""Without these, TPUs compute attention by `xla_range`."""

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


def runtime(device, remat: str = "none") -> Runtime:
    """In bfloat16; attention is what is chosen on the device."""
    known = device.platform != "tpu" or KERNELS
    return Runtime(dtype="bfloat16", remat=remat, attention="auto" if known else "xla_range")


def on(device):
    """A context in which programs are for the device: attention is chosen by what it is."""
    auto = (jax.sharding.AxisType.Auto,)
    return jax.set_mesh(jax.sharding.Mesh([device], ("data",), axis_types=auto))


def abstract(tree, device):
    """Shapes and dtypes of a tree of arrays that lie on a device."""
    placed = SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), tree)


def rows(length: int) -> Rows:
    return Rows(*(jax.ShapeDtypeStruct((1, length), jnp.int32) for _ in Rows._fields))


def lowered_step(device, length: int, remat: str, model: ModernBertConfig):
    """The real step of training in bfloat16, for one row."""
    stage = Stage(name="only", tokens=100 * length, length=length, rows=1, peak_learning_rate=1e-3)
    config = PretrainConfig(model=model, stages=(stage,), runtime=runtime(device, remat))
    state = jax.eval_shape(functools.partial(init_state, config))
    mask = MaskRule(mask_id=1, vocab_size=model.vocab_size, special_ids=(0, 1))
    with on(device):
        return train_step(config, stage, 0, mask).lower(*abstract((state, rows(length)), device))


def step_memory(device, length: int, remat: str, model: ModernBertConfig) -> int:
    """Temporary bytes of the compiled step of training, which takes over its state's memory."""
    memory = lowered_step(device, length, remat, model).compile().memory_analysis()
    state = 3 * 4 * model.parameter_count()
    batch = len(Rows._fields) * 4 * length
    assert memory.alias_size_in_bytes > state
    assert memory.argument_size_in_bytes - memory.alias_size_in_bytes < 2 * batch
    return memory.temp_size_in_bytes


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
    assert step_memory(device(target), SHORT, remat, model()) > 0


def test_layers_outside_a_loop_are_rematerialised_too(device):
    irregular = model(5, layer_types=(FULL, FULL, SLIDING, SLIDING, FULL))
    full, none = (step_memory(device("h100"), SHORT, r, irregular) for r in ("full", "none"))
    assert full < 0.75 * none


@pytest.mark.parametrize("target", TARGETS)
def test_the_forward_pass(device, target):
    module = MaskedLM(model(), runtime(device(target)))
    batch = rows(LONG)
    variables = jax.eval_shape(module.init, jax.random.key(0), *batch)
    with on(device(target)):
        lowered = jax.jit(module.apply).lower(*abstract((variables, *batch), device(target)))
    if target in GPUS:
        assert "attention_fwd" in lowered.as_text()
    compiled = lowered.compile()
    assert compiled.memory_analysis().temp_size_in_bytes < SCORES / 4


@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_the_program_does_not_grow_with_depth(device, target):
    def lines(layers: int) -> int:
        return lowered_step(device(target), SHORT, "full", model(layers)).as_text().count("\n")

    # With fewer groups than four, helpers that split keys happen to be shared with others.
    assert lines(13) == lines(28)
