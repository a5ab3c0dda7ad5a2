"""The plan of a run on a machine: for each stage what it needs, whether it fits, what is better."""

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
from .program import Choice, Compiled, attention_of, compile_step, local_bytes
from .search import Search
from .topology import Topology

Which = Literal["both", "configured", "suggested"]
"""What is compiled: the configuration as it stands, the best choice, or both."""

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
    """The facts of a run on a machine, as a JSON object. A program takes minutes.

    Args:
        config: the run. Where its mesh is the default one and does not divide a stage's rows, the
            stage gets the best mesh that does.
        topology: the machine.
        stages: names of the stages to plan; none means all.
        mfu: model FLOPs utilisation that times are given for.
        which: what to compile.
        say: gets a line for whatever begins or ends.
        compiled: what earlier plans of this run on this machine have compiled; added to.

    Raises:
        UserError: no such stage, or one that cannot be divided among the devices.
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
    found = [
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
        "stages": found,
        "fits": all((s["configured"] or s["suggested"] or {}).get("fits", False) for s in found),
    }


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
    """By what the program depends on: stages may share one."""

    def __post_init__(self):
        self.mesh = self.shape.make(self.topology.devices)
        self.sizes = dict(self.mesh.shape)
        self.pieces = row_pieces(self.sizes)
        self.activations = Activations(self.config, self.stage, self.mesh)
        self.search = Search(
            microbatch_rows(self.stage, self.pieces),
            self.topology.memory,
            self.guess,
            self.compile,
        )

    def facts(self, which: Which, mfu: float) -> dict[str, Any]:
        own = Choice(self.config.runtime.remat, own_rows(self.stage))
        configured = suggested = None
        if which != "suggested":
            configured = self._configured(own)
        if which != "configured":
            best = self.search.best()
            suggested = best and self._choice(best)
        return {
            "name": self.stage.name,
            "steps": self.stage.steps,
            "length": self.stage.length,
            "rows": self.stage.rows,
            "mesh": self.sizes,
            "mesh_is_configured": self.shape == self.config.mesh,
            **self._speed(mfu),
            "configured": configured,
            "suggested": suggested,
            "flags": suggested and self._flags(own, best),
            "attempts": [
                {"remat": c.remat, "microbatch_rows": c.rows, "peak_bytes": found.peak}
                | {"fits": self.search.fits(c)}
                for c, found in self.search.known.items()
            ],
        }

    def guess(self, choice: Choice) -> float:
        """Bytes on a device by counting: arrays of the state, gradients, what layers keep."""
        parameters, state = self._state_bytes
        gradients = parameters * (2 if choice.rows < self.stage.rows else 1)
        row = self.activations.of_a_row(choice.remat) / self.sizes["context"]
        # Half of the parameters again: their copies in bfloat16.
        fixed = state + gradients + parameters / 2
        return fixed + row * choice.rows / self.pieces

    @functools.cached_property
    def _state_bytes(self) -> tuple[int, int]:
        """Bytes on a device of the parameters, and of all of the state."""
        with jax.set_mesh(self.mesh):
            objective = MaskedLMObjective(self.config, self.stage, MaskRule(0, 1, ()))
            state, _ = learner(objective).shapes(self.mesh)
        return local_bytes(state.params), local_bytes(state)

    def compile(self, choice: Choice) -> Compiled:
        """Compiles the stage's step for a choice, unless an earlier stage's was the same."""
        stage = self.stage
        key = (choice, stage.rows, stage.length, stage.mask_rate, stage.legacy_masking)
        key += tuple(self.sizes.values())
        what = f"{stage.name}: remat {choice.remat}, {self._per_device(choice)}"
        if key not in self.compiled:
            self.say(f"{what}: compiling ...")
            self.compiled[key] = compile_step(self.config, stage, choice, self.mesh)
            found = self.compiled[key]
            said = "refused, " if found.refused else ""
            needs = f"{found.peak / 1e9:.1f} of {self.topology.memory / 1e9:.1f} GB"
            self.say(f"{what}: {said}{needs}, {found.seconds:.0f} s")
        else:
            self.say(f"{what}: the same program as before")
        return self.compiled[key]

    def _configured(self, own: Choice) -> dict[str, Any]:
        try:
            check_mesh(self.config.model, self.stage, self.sizes)
        except UserError as error:
            return {"fits": False, "reason": str(error), "remat": own.remat} | {
                "microbatch_rows": own.rows
            }
        self.search.look(own)
        return self._choice(own)

    def _choice(self, choice: Choice) -> dict[str, Any]:
        found, fits = self.search.known[choice], self.search.fits(choice)
        return {
            "remat": choice.remat,
            "microbatch_rows": choice.rows,
            "microbatches": self.stage.rows // choice.rows,
            "rows_per_device": choice.rows / self.pieces,
            "fits": fits,
            "reason": found.refused,
            "peak_bytes": found.peak,
            "guessed_bytes": round(self.guess(choice)),
            "memory": found.memory and dataclasses.asdict(found.memory),
            "attention": attention_of(self.config, self.stage, choice.rows, self.mesh),
            "collectives": [
                dataclasses.asdict(c) | {"axes": list(c.axes)} for c in found.collectives
            ],
            "collective_bytes": sum(c.bytes for c in found.collectives),
            "warnings": list(found.warnings),
            "compile_seconds": round(found.seconds, 1),
        }

    def _speed(self, mfu: float) -> dict[str, Any]:
        """Of full rows of one document each, the most that attention can cost."""
        stage, model = self.stage, self.config.stage_model(self.stage)
        per_token = 3.0 * model.flops_per_token(stage.length, stage.mask_rate)
        step = per_token * stage.rows * stage.length
        peak = peak_of(self.topology.devices[0].device_kind)
        speed = peak and peak * mfu * len(self.topology.devices) / per_token
        tokens = stage.batches.rows * stage.length
        return {
            "flops_per_step": step,
            "step_seconds": speed and stage.rows * stage.length / speed,
            "tokens_per_second": speed,
            "hours": speed and tokens / speed / 3600,
        }

    def _flags(self, own: Choice, best: Choice) -> str:
        """What to add to the command line of `pretrain` for the suggestion."""
        flags = []
        if self.shape != self.config.mesh:
            sizes = {axis: getattr(self.shape, axis) for axis in AXES}
            flags += [f"--mesh.{axis} {n}" for axis, n in sizes.items() if n != 1]
        if best.remat != own.remat:
            flags.append(f"--runtime.remat {best.remat}")
        if best.rows != own.rows:
            i = self.config.stages.index(self.stage)
            flags.append(f"--stages.{i}.microbatch-rows {best.rows}")
        return " ".join(flags)

    def _per_device(self, choice: Choice) -> str:
        rows = choice.rows // self.pieces
        each = f"{rows:,} row{'s' * (rows != 1)}"
        others = self.mesh.size // self.pieces
        return f"{each} a device" if others == 1 else f"{each} for {others} devices"
