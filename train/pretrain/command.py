"""The commands of pretraining: plan a run, and make it."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from modernbert_jax.errors import UserError

from .. import presets


def pretrain(args: Sequence[str], parse: Callable[..., Any]) -> int:
    """Pretrains a model, or goes on with it: pretrain CONFIG [--field.path value ...].

    CONFIG is the name of a preset, a Python file with config(), or a run's config.json. Any field
    can be changed behind it. The same command in the same folder resumes.
    """
    default, kind, args = presets.first("pretrain", args)

    def arguments(
        config: kind = default,
        dry_run: bool = False,
        plot: Path | None = None,
        json: bool = False,
        hardware: str = "h100",
        devices: int = 8,
        mfu: float = 0.4,
        profile_steps: str = "",
        coordinator: str = "",
        processes: int = 0,
        process: int = -1,
        cpu_devices: int = 1,
    ) -> dict[str, Any]:
        """Pretrains a model, or goes on with it; the same command in the same folder resumes.

        Args:
            config: The run.
            dry_run: Print what the run would do, and draw its schedule; needs no data.
            plot: PNG that a dry run draws. By default plan.png in the run's folder.
            json: Print the dry run as JSON.
            hardware: What a dry run counts hours for: h100, a100, v5e, v5p, v6e, ...
            devices: How many of them.
            mfu: Share of their peak FLOPs that goes into the model's products.
            profile_steps: A:B traces steps A to B into the folder profile/ of the run.
            coordinator: host:port of process 0, where no launcher tells: TPU pods, Slurm and Open
                MPI do.
            processes: How many processes there are, with coordinator.
            process: Which one this is, from 0, with coordinator.
            cpu_devices: Devices that a CPU poses as; training is faster with one for each core.
        """
        return locals()

    given = parse(arguments, "pretrain CONFIG", args)
    config = given["config"]
    if given["dry_run"]:
        return _dry_run(given)

    import jax

    from ..engine.distributed import Launch

    Launch.taken_from(given).join()

    from ..engine.profile import Profiler
    from . import run

    profiled = Profiler.parse(given["profile_steps"]) if given["profile_steps"] else None
    with choices_shown():
        finished = run.pretrain(config, profiled)
    if jax.process_index():
        return 0
    if finished:
        print(f"{config.output}: finished; the model lies in {Path(config.output) / 'export'}")
    else:
        print(
            f"{config.output}: stopped, checkpoint saved; run the same pretrain command to resume"
        )
    return 0


def plan(args: Sequence[str], parse: Callable[..., Any]) -> int:
    """Compiles the training step for a machine that is not there: plan CONFIG --topology NAME.

    CONFIG is the name of a preset, a Python file with config(), or a run's config.json. Any field
    can be changed behind it.
    """
    default, kind, args = presets.first("plan", args)

    def arguments(
        config: kind = default,
        topology: str = "",
        stage: tuple[str, ...] = (),
        mfu: float = 0.4,
        only: Literal["configured", "suggested"] | None = None,
        json: bool = False,
    ) -> dict[str, Any]:
        """Compiles the real training step for a machine that is not there.

        Shows bytes per device, what devices send each other, FLOPs and time, whether it fits, and
        what would be better. Compiling takes minutes for each stage. The exit code is 1 where a
        stage does not fit.

        Args:
            config: The run.
            topology: v5e:16x16, v5p:4x4x8, v5e-256, v5p-128, ... (needs the tpu extra), or h100:8,
                h100:4x8 for 4 hosts, a100:8, b200:8, l4:4 (need the cuda12 extra).
            stage: Names of stages; all by default.
            mfu: Share of the devices' peak FLOPs that times are given for.
            only: Compile the configuration as it stands, or look for the best one, instead of both.
            json: Print JSON.
        """
        return locals()

    given = parse(arguments, "plan CONFIG", args)
    if not given["topology"]:
        raise UserError("plan needs a --topology, such as v5e:16x16, v5p-128 or h100:8")

    from ..plan import facts as planner
    from ..plan import show, topology

    with topology.absent_devices():
        facts = planner.plan(
            given["config"],
            topology.topology(given["topology"]),
            stages=given["stage"],
            mfu=given["mfu"],
            which=given["only"] or "both",
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(json.dumps(facts, indent=2)) if given["json"] else show.show(facts)
    return 0 if facts["fits"] else 1


def _dry_run(given: dict[str, Any]) -> int:
    from ..engine import run_folder
    from . import dry_run

    config = given["config"]
    facts = dry_run.plan(config, given["hardware"], given["devices"], given["mfu"])
    picture = dry_run.draw(config, given["plot"] or Path(config.output) / run_folder.PLAN)
    if given["json"]:
        print(json.dumps(facts | {"plot": str(picture)}, indent=2))
    else:
        print(f"{dry_run.text(config, facts)}\nschedule drawn in {picture}")
    return 0


@contextlib.contextmanager
def choices_shown() -> Iterator[None]:
    """Says on stderr, from process 0 alone, how attention is computed as that is decided."""
    import jax

    log, handler = logging.getLogger("modernbert_jax.attention"), logging.StreamHandler()
    before = log.level, log.propagate
    if jax.process_index() == 0:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # libraries give the root a handler that would say it again
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
