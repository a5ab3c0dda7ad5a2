"""Which meshes and microbatches divide a stage's batches evenly among devices."""

import dataclasses
import math

from modernbert_jax.config import FULL, ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.sharding import AXES, RULES, MeshShape

from ..pretrain.batch_size import microbatches
from ..pretrain.config import PretrainConfig, Stage
from ..pretrain.run import check_mesh

LEAST_TOKENS = 256
"""Of a row on one device: twice the halo that sliding layers exchange with their neighbours."""


def own_rows(stage: Stage) -> int:
    """Rows of a microbatch of the stage's full batches, as configured."""
    return stage.rows // microbatches(stage.rows, stage.microbatch_rows)


def microbatch_rows(stage: Stage, pieces: int) -> list[int]:
    """The rows that a microbatch may have so that `pieces` divide it, also while batches grow."""

    def even(rows: int) -> bool:
        sizes = [s.rows // microbatches(s.rows, rows) for s in stage.batches.phases]
        return all(size % pieces == 0 and size <= rows for size in sizes)

    several = range(pieces, stage.rows + 1, pieces)
    return [rows for rows in several if stage.rows % rows == 0 and even(rows)]


def mesh_for(config: PretrainConfig, stage: Stage, devices: int) -> MeshShape:
    """The configured mesh or, where none is and `data` alone does not do, the best that divides.

    Raises:
        UserError: nothing does, or the mesh that was asked for does not.
    """
    if config.mesh != MeshShape():
        sizes = dict(zip(AXES, config.mesh.sizes(devices), strict=True))
        rows = microbatch_rows(stage, _pieces(sizes, RULES.rows))
        shown = dataclasses.replace(stage, microbatch_rows=rows[0]) if rows else stage
        check_mesh(config.model, shown, sizes)
        return config.mesh
    shapes = [s for s in _shapes(devices) if _divides(config.model, stage, s)]
    if not shapes:
        raise UserError(
            f"stage {stage.name}: {stage.rows:,} rows of {stage.length:,} tokens cannot be divided"
            f" among {devices:,} devices by any mesh; change rows, as with --stages.N.rows"
        )
    # Most rows at once, then least to send.
    best = min(shapes, key=lambda s: (-s.data, _traffic(config.model, s)))
    return config.mesh if best.data == devices else best


def _shapes(devices: int) -> list[MeshShape]:
    return [
        MeshShape(data=data, context=context, tensor=devices // data // context)
        for data in _divisors(devices)
        for context in _divisors(devices // data)
    ]


def _divides(model: ModernBertConfig, stage: Stage, shape: MeshShape) -> bool:
    piece, rest = divmod(stage.length, shape.context)
    if rest or (shape.context > 1 and piece < LEAST_TOKENS):
        return False
    # Kernels take heads in pairs.
    if shape.tensor > 1 and (
        model.num_attention_heads % (2 * shape.tensor) or model.intermediate_size % shape.tensor
    ):
        return False
    return bool(microbatch_rows(stage, shape.data))


def _traffic(model: ModernBertConfig, shape: MeshShape) -> float:
    """What a device sends for a token and feature of its rows, but for gradients.

    `context` gathers keys and values of full layers: forward, again, and their gradients. `tensor`
    sums up the outputs of attention and feed-forward, forward and backward, with two parts each.
    """
    full = model.layer_kinds.count(FULL)
    context, tensor = shape.context, shape.tensor
    gathered = 6 * full * (1 - 1 / context) / tensor
    summed = 8 * model.num_hidden_layers * (1 - 1 / tensor) / context
    return gathered + summed


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def _pieces(sizes: dict[str, int], axes: tuple[str, ...]) -> int:
    return math.prod(sizes[axis] for axis in axes)
