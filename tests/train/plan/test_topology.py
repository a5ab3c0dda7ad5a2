"""Names of machines, and messages about unknown ones."""

import importlib.util
import math
import os

import jax
import pytest

from modernbert_jax import UserError, cli
from modernbert_jax.train.plan import topology as machines


@pytest.mark.parametrize(
    ("chips", "flat", "cube"),
    [
        (1, (1, 1), (1, 1, 1)),
        (4, (2, 2), (2, 2, 1)),
        (8, (2, 4), (2, 2, 2)),
        (16, (4, 4), (2, 2, 4)),
        (64, (8, 8), (4, 4, 4)),
        (128, (8, 16), (4, 4, 8)),
        (256, (16, 16), (4, 8, 8)),
        (512, (16, 32), (8, 8, 8)),
        (24, None, None),
        (0, None, None),
    ],
)
def test_grids(chips, flat, cube):
    assert (machines.grid(chips, 2), machines.grid(chips, 3)) == (flat, cube)


@pytest.fixture
def asked(monkeypatch):
    """Record the options that jax would receive."""
    options = []

    def devices(name, extra, given):
        options.append(given | {"extra": extra})
        return tuple(jax.devices())

    monkeypatch.setattr(machines, "_devices", devices)
    monkeypatch.setattr(machines, "_available", lambda device: None)
    monkeypatch.delenv(machines.FRACTION, raising=False)
    return options


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("v5e:16x16", "v5e:16x16"),
        ("v5e-256", "v5e:16x16"),
        ("v5e-8", "v5e:2x4"),
        ("v5p-128", "v5p:4x4x4"),  # cores, two of them on a chip
        ("v5p:4x4x8", "v5p:4x4x8"),
        ("v4-8", "v4:2x2x1"),
        ("v4:2x2", "v4:2x2x1"),
        ("tpu7x-16", "tpu7x:2x2x2"),
    ],
)
def test_slices(asked, name, layout):
    result = machines.topology(name)
    assert result.name == layout and result.enforced and asked[0]["extra"] == "tpu"
    assert asked[0]["topology_name"] == layout
    assert (asked[0].get("chip_config_name") == "megacore") == layout.startswith("v4")


def test_gpus_get_what_jax_takes_of_their_memory(asked, monkeypatch):
    result = machines.topology("h100:4x8")
    assert asked[0]["topology"] == "1x4x8" and "H100" in asked[0]["target_config"]
    assert result.name == "h100:4x8" and not result.enforced
    assert result.memory == int(0.75 * 84942979072) and "75%" in result.limit
    monkeypatch.setenv(machines.FRACTION, "0.9")
    assert machines.topology("h100:8").memory == int(0.9 * 84942979072)
    assert asked[-1]["topology"] == "1x1x8"
    monkeypatch.setenv(machines.FRACTION, "90%")
    with pytest.raises(UserError, match=f"{machines.FRACTION} is '90%'"):
        machines.topology("h100:8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h10:8", "did you mean 'h100'"),
        ("v9", "known: a100"),
        ("", "known: a100"),
        ("v5e-24", "give the grid of chips, as in v5e:16x16"),
        ("v5e:2x2x2", "as in v5e:16x16"),
        ("v5e:2xy", "as in v5e:16x16"),
        ("v5p-", "as in v5p:4x4x8"),
        ("v5e:32x32", "1,024 chips; a plan is for 512"),
        ("h100", "a number of GPUs, as in h100:8"),
        ("h100:0", "a number of GPUs"),
        ("h100:2x2x2", "a number of GPUs"),
        ("h100:8x", "a number of GPUs"),
    ],
)
def test_machines_that_are_not(asked, name, message):
    with pytest.raises(UserError, match=message):
        machines.topology(name)
    assert not asked


@pytest.mark.parametrize(
    ("name", "extra", "module"),
    [("v5e-4", "tpu", "libtpu"), ("a100:1", "cuda12", "jax_cuda12_plugin")],
)
def test_a_compiler_that_is_missing(name, extra, module, capsys):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    assert cli.main(["plan", "nano", "--topology", name]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"modernbert-jax[{extra}]" in message


def test_the_environment_is_as_it_was_afterwards(monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "0")
    before, platforms = dict(os.environ), jax.config.jax_platforms
    with machines.absent_devices():
        assert os.environ["TPU_SKIP_MDS_QUERY"] == "1" and jax.config.jax_platforms == "cpu"
    assert dict(os.environ) == before and jax.config.jax_platforms == platforms


def test_every_gpu_has_a_description():
    assert {path.stem for path in machines.TARGETS.glob("*.txtpb")} == set(machines.GPUS)
    assert all(math.prod(machines.grid(2**k, n)) == 2**k for k in range(10) for n in (2, 3))
