"""The real training step compiled for absent devices: memory, collectives and warnings."""

import contextlib
import dataclasses
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from modernbert_jax import attention
from modernbert_jax.architecture import FULL, SLIDING
from modernbert_jax.config import Remat

from ..pretrain.config import PretrainConfig, Stage
from ..pretrain.objective import MaskRule, abstract_step
from .collectives import Collective, collectives


class Variant(NamedTuple):
    """Settings of a step that do not change the result of a run."""

    remat: Remat
    """Rematerialisation, as in `Runtime`."""
    rows: int
    """Rows of a microbatch, over all devices."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parameters: int
    optimizer: int
    """Moments of the parameters."""
    batch: int
    """Rows of a whole batch, and the step's other inputs and outputs."""
    temporaries: int
    """Activations, gradients and work space, at the peak."""
    code: int
    """The program itself, which the peak does not include."""
    peak: int
    """Peak as the compiler reports it."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The result of compiling a step."""

    variant: Variant
    peak: int
    """Bytes on each device, also if the compiler refused the program for its size."""
    refused: str = ""
    """The compiler's message if it refused the program."""
    memory: Memory | None = None
    collectives: tuple[Collective, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def compile_step(config: PretrainConfig, stage: Stage, variant: Variant, mesh: Mesh) -> Compiled:
    """Compile the step of a stage's full batch.

    The function is that of `pretrain`, with the same mesh, kernels, donation and shardings; only
    the ids of special tokens, which are constants, are not those of a tokenizer.

    Args:
        config: The run.
        stage: Stage to compile.
        variant: Settings to compile with.
        mesh: Devices, which may be absent.
    """
    began = time.monotonic()
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, remat=variant.remat)
    )
    ids = (config.model.pad_token_id or 0, 0, 1)
    mask = MaskRule(mask_id=1, vocab_size=config.model.vocab_size, special_ids=ids)
    with jax.set_mesh(mesh), _native_messages() as messages:
        stage = dataclasses.replace(stage, microbatch_rows=variant.rows)
        config = dataclasses.replace(config, stages=(stage,))
        step, arguments = abstract_step(config, stage, mask, mesh)
        state, lowered = arguments[0], step.lower(*arguments)
        try:
            compiled = lowered.compile()
        except Exception as error:
            needed = bytes_refused(str(error))
            if needed is None:
                raise
            message = " ".join(str(error).split())[:200]
            return Compiled(variant, needed, message, seconds=time.monotonic() - began)
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    memory = _memory(compiled.memory_analysis(), state, on_tpu)
    text = compiled.as_text()
    assert text is not None  # XLA's compilers have one
    sent = tuple(collectives(text, mesh))
    warnings = tuple(dict.fromkeys(re.findall(r"Involuntary full rematerialization.*", messages())))
    seconds = time.monotonic() - began
    return Compiled(variant, memory.peak, "", memory, sent, warnings, seconds)


def local_bytes(tree: Any) -> int:
    """Bytes on each device of a tree of shapes with shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def attention_of(config: PretrainConfig, stage: Stage, rows: int, mesh: Mesh) -> dict[str, Any]:
    """The implementation of attention for each kind of layer, and why it is chosen."""
    model = config.stage_model(stage)
    names: dict[str, Any] = {}
    shape = (rows, stage.length, model.num_attention_heads, model.head_dim)
    with jax.set_mesh(mesh):
        for kind in sorted({FULL, SLIDING} & set(model.layer_kinds)):
            decision = attention.decide(
                shape,
                config.runtime.dtype,
                window=model.window(kind),
                symmetric=not model.causal,
                implementation=config.runtime.attention_of(kind),
            )
            names[kind] = {"name": decision.choice.name, "why": decision.choice.why}
    return names


def _memory(stats: Any, state: Any, on_tpu: bool) -> Memory:
    parameters, optimizer = local_bytes(state.params), local_bytes(state.opt_state)
    arrays = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    # The TPU compiler counts some temporaries twice, but its peak decides whether a program fits.
    # On GPUs all temporaries are one buffer.
    reported = getattr(stats, "peak_memory_in_bytes", 0) if on_tpu else 0
    peak = reported or arrays + stats.temp_size_in_bytes
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=max(arrays - parameters - optimizer, 0),
        temporaries=max(peak - arrays, 0),
        code=stats.generated_code_size_in_bytes,
        peak=peak,
    )


def bytes_refused(message: str) -> int | None:
    """Bytes that a program needs, from a compiler's error; None if memory is not the reason."""
    if "RESOURCE_EXHAUSTED" not in message and "out of memory" not in message.lower():
        return None
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    for pattern in (r"Used ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds available"):
        if match := re.search(pattern, message):
            return int(float(match[1]) * unit[match[2]])
    return 0


@contextlib.contextmanager
def _native_messages() -> Iterator[Any]:
    """Capture what compilers print, most of which is about hardware that is absent.

    Yields a function that returns the text after the block. If the block fails, the text is shown.
    """
    sys.stderr.flush()
    kept, text = os.dup(2), ""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: text
        except BaseException:
            sys.stderr.flush()
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
