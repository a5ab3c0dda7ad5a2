"""The plan of a run on a machine: needs of each stage, whether it fits, and a better choice."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.sharding import AXES, MeshShape, row_pieces

from ..engine.hardware import peak_of
from ..pretrain.config import PretrainConfig, Stage
from ..pretrain.objective import MaskedLMObjective, MaskRule, learner
from ..pretrain.run import check_mesh
from .activations import Activations
from .meshes import mesh_for, microbatch_rows, own_rows
from .program import Compiled, Variant, attention_of, compile_step, local_bytes
from .search import Search
from .topology import Topology

Which = Literal["both", "configured", "suggested"]
"""What to compile: the configuration, the best variant of it, or both."""

Say = Callable[[str], None]


def plan(
    config: PretrainConfig,
    topology: Topology,
    *,
    stages: tuple[str, ...] = (),
    mfu: float = 0.4,
    which: Which = "both",
    say: Say = lambda line: None,
    compiled: dict[Any, Compiled] | None = None,
) -> dict[str, Any]:
    """Plan a run on a machine; the result is a JSON object. Each program takes minutes to compile.

    Args:
        config: The run. If its mesh is the default one and does not divide a stage's rows, the
            stage gets the best mesh that does.
        topology: The machine.
        stages: Names of the stages to plan; empty means all.
        mfu: Model FLOPs utilisation that times are given for.
        which: What to compile.
        say: Receives a line when compiling begins or ends.
        compiled: Programs of earlier plans of this run on this machine; updated in place.

    Raises:
        UserError: there is no such stage, or it cannot be divided among the devices.
    """
    names = [stage.name for stage in config.stages]
    for name in stages:
        if name not in names:
            raise UserError(f"no stage is named {name!r}; {did_you_mean(name, names)}")
    if not 0 < mfu <= 1:
        raise UserError(f"mfu is {mfu}; it must be above 0 and up to 1")
    wanted = [
        (stage, start)
        for stage, start in zip(config.stages, config.starts, strict=False)
        if not stages or stage.name in stages
    ]
    shapes = [mesh_for(config, stage, len(topology.devices)) for stage, _ in wanted]
    compiled = {} if compiled is None else compiled
    facts = [
        _Planner(config, stage, start, shape, topology, say, compiled).facts(which, mfu)
        for (stage, start), shape in zip(wanted, shapes, strict=True)
    ]
    return {
        "topology": topology.name,
        "device": topology.devices[0].device_kind,
        "devices": len(topology.devices),
        "memory_bytes": topology.memory,
        "memory_limit": topology.limit,
        "parameters": config.model.parameter_count(),
        "mfu": mfu,
        "jax": jax.__version__,
        "stages": facts,
        "fits": all((s["configured"] or s["suggested"] or {}).get("fits", False) for s in facts),
    }


def state_bytes(config: PretrainConfig, mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Bytes on each device of the parameters, and of the whole state of training."""
    with jax.set_mesh(mesh):
        objective = MaskedLMObjective(config, config.stages[0], MaskRule(0, 1, ()))
        state, _ = learner(objective).shapes(mesh)
    return local_bytes(state.params), local_bytes(state)


@dataclasses.dataclass
class _Planner:
    """One stage on one machine."""

    config: PretrainConfig
    stage: Stage
    start: int
    shape: MeshShape
    topology: Topology
    say: Say
    compiled: dict[Any, Compiled]
    """Programs by everything that they depend on; stages may share one."""

    def __post_init__(self):
        self.mesh = self.shape.make(self.topology.devices)
        self.sizes = dict(self.mesh.shape)
        self.pieces = row_pieces(self.sizes)
        self.activations = Activations(self.config, self.stage, self.mesh)
        rows = microbatch_rows(self.stage, self.pieces)
        self.search = Search(rows, self.topology.memory, self.guess, self.compile)
        self.own = Variant(self.config.runtime.remat, own_rows(self.stage))

    def facts(self, which: Which, mfu: float) -> dict[str, Any]:
        configured = None if which == "suggested" else self._configured()
        best = None if which == "configured" else self.search.best()
        return {
            "name": self.stage.name,
            "steps": self.stage.steps,
            "length": self.stage.length,
            "rows": self.stage.rows,
            "mesh": self.sizes,
            "mesh_is_configured": self.shape == self.config.mesh,
            **self._speed(mfu),
            "configured": configured,
            "suggested": best and self._choice(best),
            "flags": best and self._flags(best),
            "attempts": [
                {
                    "remat": variant.remat,
                    "microbatch_rows": variant.rows,
                    "peak_bytes": compiled.peak,
                    "fits": self.search.fits(variant),
                }
                for variant, compiled in self.search.known.items()
            ],
        }

    def guess(self, variant: Variant) -> float:
        """Bytes on a device by counting: arrays of the state, gradients and activations."""
        parameters, state = self._state_bytes
        gradients = parameters * (2 if variant.rows < self.stage.rows else 1)
        row = self.activations.of_a_row(variant.remat) / self.sizes["context"]
        # Half of the parameters again: their copies in bfloat16.
        fixed = state + gradients + parameters / 2
        return fixed + row * variant.rows / self.pieces

    @functools.cached_property
    def _state_bytes(self) -> tuple[int, int]:
        return state_bytes(self.config, self.mesh)

    def compile(self, variant: Variant) -> Compiled:
        """Compile the stage's step for a variant, unless an earlier stage's was the same."""
        stage = self.stage
        key = (variant, stage.rows, stage.length, stage.mask_rate, stage.legacy_masking)
        key += tuple(self.sizes.values())
        what = f"{stage.name}: remat {variant.remat}, {self._per_device(variant)}"
        if key in self.compiled:
            self.say(f"{what}: the same program as before")
        else:
            self.say(f"{what}: compiling ...")
            compiled = compile_step(self.config, stage, variant, self.mesh)
            self.compiled[key] = compiled
            refused = "refused, " if compiled.refused else ""
            needs = f"{compiled.peak / 1e9:.1f} of {self.topology.memory / 1e9:.1f} GB"
            self.say(f"{what}: {refused}{needs}, {compiled.seconds:.0f} s")
        return self.compiled[key]

    def _configured(self) -> dict[str, Any]:
        try:
            check_mesh(self.config.model, self.stage, self.sizes)
        except UserError as error:
            own = {"remat": self.own.remat, "microbatch_rows": self.own.rows}
            return {"fits": False, "reason": str(error), **own}
        self.search.look(self.own)
        return self._choice(self.own)

    def _choice(self, variant: Variant) -> dict[str, Any]:
        """The facts of a compiled variant."""
        compiled = self.search.known[variant]
        return {
            "remat": variant.remat,
            "microbatch_rows": variant.rows,
            "microbatches": self.stage.rows // variant.rows,
            "rows_per_device": variant.rows / self.pieces,
            "fits": self.search.fits(variant),
            "reason": compiled.refused,
            "peak_bytes": compiled.peak,
            "guessed_bytes": round(self.guess(variant)),
            "memory": compiled.memory and dataclasses.asdict(compiled.memory),
            "attention": attention_of(self.config, self.stage, variant.rows, self.mesh),
            "collectives": [
                dataclasses.asdict(c) | {"axes": list(c.axes)} for c in compiled.collectives
            ],
            "collective_bytes": sum(c.bytes for c in compiled.collectives),
            "warnings": list(compiled.warnings),
            "compile_seconds": round(compiled.seconds, 1),
        }

    def _speed(self, mfu: float) -> dict[str, Any]:
        """FLOPs and times for full rows of one document each, where attention costs most."""
        stage, model = self.stage, self.config.stage_model(self.stage)
        per_token = 3.0 * model.flops_per_token(stage.length, stage.mask_rate)
        step = stage.rows * stage.length
        peak = peak_of(self.topology.devices[0].device_kind)
        speed = peak and peak * mfu * len(self.topology.devices) / per_token
        return {
            "flops_per_step": per_token * step,
            "step_seconds": speed and step / speed,
            "tokens_per_second": speed,
            "hours": speed and stage.batches.rows * stage.length / speed / 3600,
        }

    def _flags(self, best: Variant) -> str:
        """Options of `pretrain` that select the suggestion."""
        flags = []
        if self.shape != self.config.mesh:
            sizes = {axis: getattr(self.shape, axis) for axis in AXES}
            flags += [f"--mesh.{axis} {n}" for axis, n in sizes.items() if n != 1]
        if best.remat != self.own.remat:
            flags.append(f"--runtime.remat {best.remat}")
        if best.rows != self.own.rows:
            i = self.config.stages.index(self.stage)
            flags.append(f"--stages.{i}.microbatch-rows {best.rows}")
        return " ".join(flags)

    def _per_device(self, variant: Variant) -> str:
        rows = variant.rows // self.pieces
        each = f"{rows:,} row{'s' * (rows != 1)}"
        others = self.mesh.size // self.pieces
        return f"{each} a device" if others == 1 else f"{each} for {others} devices"
