"""jax's interpreter of Hopper kernels on a CPU: threads, barriers and copies as on the device."""

import contextlib
import functools
import threading

import jax


@contextlib.contextmanager
def interpreter(detect_races: bool = False):
    """Run kernels in the interpreter; fail if it detected a race.

    Memory begins as NaN. The interpreter compiles a kernel for each thread of each block; here it
    compiles it once.
    """
    from jax._src.pallas.mosaic.interpret import thread_map
    from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call
    from jax._src.pallas.mosaic_gpu.interpret.params import (
        InterpretGPUParams,
        force_gpu_interpret_mode,
    )

    compiled, lock = {}, threading.Lock()

    def run(jaxpr, consts, *arguments):
        with lock:
            if id(jaxpr) not in compiled:
                function = jax.jit(functools.partial(jax.core.eval_jaxpr, jaxpr))
                compiled[id(jaxpr)] = jaxpr, function.lower(consts, *arguments).compile()
        compiled[id(jaxpr)][1](consts, *arguments)

    original, thread_map._run_jaxpr = thread_map._run_jaxpr, run
    parameters = InterpretGPUParams(detect_races=detect_races, uninitialized_memory="nan")
    try:
        with force_gpu_interpret_mode(parameters):
            yield
        if detect_races:
            races = interpret_pallas_call.get_races()
            assert races is not None, "nothing was interpreted"
            assert not races.races_found
    finally:
        thread_map._run_jaxpr = original
        interpret_pallas_call.reset_gpu_interpret_mode_state()
