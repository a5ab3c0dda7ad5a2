"""The TPU kernels in jax's TPU interpreter: collected by `make test-kernels` alone.

It models what plain interpretation does not: copies between memories that overlap with work,
buffers that begin as NaN, and outputs that share memory; and it looks for races among them.
"""

import os

import pytest

if os.environ.get("MODERNBERT_JAX_KERNELS") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def tpu_interpreter():
    """Run kernels in the interpreter; fail if it detected a race."""
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call
    from jax.experimental.pallas import tpu as pltpu

    parameters = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(parameters):
        yield
    assert interpret_pallas_call.races is not None, "nothing was interpreted"
    assert not interpret_pallas_call.races.races_found
