"""The automatic number of virtual devices: rows that divide evenly, and memory."""

import dataclasses

import pytest

from modernbert_jax import configs
from modernbert_jax.cli import devices
from modernbert_jax.sharding import MeshShape


@pytest.fixture
def memory(monkeypatch):
    """Sets the memory that this process may use, in bytes."""
    size = [1 << 60]
    monkeypatch.setattr(devices, "memory", lambda: size[0])
    return lambda value: size.__setitem__(0, value)


def largest(fits, processes: int = 1, cores: int = 16) -> int:
    return next((n for n in range(cores, 1, -1) if fits(n * processes, processes)), 1)


def pretraining(rows: int, microbatch_rows: int = 0, **mesh):
    config = configs.load("pretrain", "nano")
    stage = dataclasses.replace(config.stages[0], rows=rows, microbatch_rows=microbatch_rows)
    return dataclasses.replace(config, stages=(stage,), mesh=MeshShape(**mesh))


@pytest.mark.parametrize(
    ("config", "processes", "number"),
    [
        (configs.load("pretrain", "nano"), 1, 1),
        (pretraining(8), 1, 8),
        (pretraining(8), 2, 4),
        (pretraining(12), 1, 12),
        (pretraining(10), 1, 10),
        (pretraining(48, 6), 1, 6),
        (pretraining(7), 1, 7),
        (pretraining(8, fsdp=2), 1, 8),
        (pretraining(8, data=1, fsdp=2), 1, 2),
        (pretraining(1, data=1, context=-1), 1, 16),
        (pretraining(8, data=1, tensor=-1), 1, 2),
    ],
)
def test_pretraining(memory, config, processes, number):
    assert largest(devices.for_pretraining(config), processes) == number


def test_copies_of_the_state_fit_into_half_of_the_memory(memory):
    config = pretraining(8)
    copy = 16 * config.model.parameter_count()
    memory(2 * 4 * copy)
    assert largest(devices.for_pretraining(config)) == 4
    assert largest(devices.for_pretraining(config), processes=2) == 4
    assert largest(devices.for_pretraining(pretraining(8, data=1, fsdp=-1))) == 8


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    return str(tmp_path)


def test_finetuning(memory, model):
    config = dataclasses.replace(configs.load("finetune", "classification"), model=model)
    assert largest(devices.for_finetuning(config)) == 8  # rows of 1,024 tokens in a microbatch
    few = dataclasses.replace(config, batch_examples=3)
    assert largest(devices.for_finetuning(few)) == 3
    tensor = dataclasses.replace(config, mesh=MeshShape(data=1, tensor=-1))
    assert largest(devices.for_finetuning(tensor)) == 1
    pairs = dataclasses.replace(config, mesh=MeshShape(tensor=2))
    assert largest(devices.for_finetuning(pairs)) == 16
    memory(2 * 3 * 4000)
    assert largest(devices.for_finetuning(config)) == 3


def test_inference(memory, model):
    assert largest(devices.for_inference(model, 4096)) == 4
    assert largest(devices.for_inference(model, 100)) == 1
    memory(2 * 2 * 1000)
    assert largest(devices.for_inference(model, 8192)) == 2
