"""The real step of training, compiled for devices that are not there, and what it takes."""

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
from modernbert_jax.config import FULL, SLIDING

from ..pretrain.config import PretrainConfig, Stage
from ..pretrain.objective import MaskRule, abstract_step
from .collectives import Collective, collectives


class Choice(NamedTuple):
    """What may be chosen without changing the result of a run."""

    remat: str
    """Of `Runtime`."""
    rows: int
    """Of a microbatch, over all devices."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parameters: int
    optimizer: int
    """Moments."""
    batch: int
    """The rows of a whole batch, and the rest of what goes into the step and comes out."""
    temporaries: int
    """Activations, gradients and work space."""
    """At the peak."""
    code: int
    """Beside all the others."""
    peak: int
    """By the compiler's own account."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step."""

    choice: Choice
    peak: int
    """Bytes on each device, also where the compiler refused for want of them."""
    refused: str = ""
    """What the compiler said if it did."""
    memory: Memory | None = None
    collectives: tuple[Collective, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def compile_step(config: PretrainConfig, stage: Stage, choice: Choice, mesh: Mesh) -> Compiled:
    """Compiles the step of a stage's full batch.

    The function is that of `pretrain`, with the same mesh, kernels, donation and places of arrays;
    only ids of special tokens, which are constants, are not those of a tokenizer.
    """
    began = time.monotonic()
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, remat=choice.remat)
    )
    ids = (config.model.pad_token_id or 0, 0, 1)
    mask = MaskRule(mask_id=1, vocab_size=config.model.vocab_size, special_ids=ids)
    with jax.set_mesh(mesh), _native_messages() as messages:
        stage = dataclasses.replace(stage, microbatch_rows=choice.rows)
        config = dataclasses.replace(config, stages=(stage,))
        step, arguments = abstract_step(config, stage, mask, mesh)
        state, lowered = arguments[0], step.lower(*arguments)
        try:
            compiled = lowered.compile()
        except Exception as error:
            needed = _refused(str(error))
            if needed is None:
                raise
            said = " ".join(str(error).split())[:200]
            return Compiled(choice, needed, said, seconds=time.monotonic() - began)
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    memory = _memory(compiled.memory_analysis(), state, on_tpu)
    found = tuple(collectives(compiled.as_text(), mesh))
    warnings = tuple(dict.fromkeys(re.findall(r"Involuntary full rematerialization.*", messages())))
    seconds = time.monotonic() - began
    return Compiled(choice, memory.peak, "", memory, found, warnings, seconds)


def local_bytes(tree: Any) -> int:
    """Bytes on each device of arrays, given as shapes with shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def attention_of(config: PretrainConfig, stage: Stage, rows: int, mesh: Mesh) -> dict[str, Any]:
    """For each kind of layer, the implementation of attention and why it was chosen."""
    model, found = config.stage_model(stage), {}
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
            found[kind] = {"name": decision.choice.name, "why": decision.choice.why}
    return found


def _memory(stats: Any, state: Any, on_tpu: bool) -> Memory:
    parameters, optimizer = local_bytes(state.params), local_bytes(state.opt_state)
    arrays = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    # The TPU compiler counts some temporaries twice, and compares its peak with what there is; GPUs
    # get all temporaries as one buffer.
    told = getattr(stats, "peak_memory_in_bytes", 0) if on_tpu else 0
    peak = told or arrays + stats.temp_size_in_bytes
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=max(arrays - parameters - optimizer, 0),
        temporaries=max(peak - arrays, 0),
        code=stats.generated_code_size_in_bytes,
        peak=peak,
    )


def _refused(message: str) -> int | None:
    """The bytes that a program would take of which a compiler says that it has too few."""
    if "RESOURCE_EXHAUSTED" not in message and "out of memory" not in message.lower():
        return None
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    for pattern in (r"Used ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds available"):
        if found := re.search(pattern, message):
            return int(float(found[1]) * unit[found[2]])
    return 0


@contextlib.contextmanager
def _native_messages() -> Iterator[Any]:
    """Catches what compilers print; they print much, and half of it about hardware not found.

    Yields a function that gives the text. It is shown after all if the block fails.
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
