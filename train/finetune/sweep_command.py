"""The command that runs a grid."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from . import presets
from .grid import Grid


def sweep(args: Sequence[str], parse: Callable[..., Any]) -> int:
    """Fine-tunes over a grid: sweep CONFIG --grid.learning-rate A B [--field.path value ...].

    CONFIG and fields are those of `finetune`; `output` is the folder of the sweep. The same command
    in the same folder goes on, and does nothing twice.
    """
    default, kind, args = presets.first("sweep", args)

    nothing = Grid()

    def arguments(
        config: kind = default,
        grid: Grid = nothing,
        keep_models: Literal["best", "all"] = "best",
        coordinator: str = "",
        processes: int = 0,
        process: int = -1,
        cpu_devices: int = 1,
    ) -> dict[str, Any]:
        """Fine-tunes over a grid in one process, compiled once, and tabulates what came out.

        Writes sweep.json, sweep.txt and sweep.png; the runs lie in runs/.

        Args:
            config: What all runs share.
            grid: What they differ in: every combination is run.
            keep_models: Models and checkpoints that stay: of the best run, or of all.
            coordinator: host:port of process 0, where no launcher tells: TPU pods, Slurm and Open
                MPI do.
            processes: How many processes there are, with coordinator.
            process: Which one this is, from 0, with coordinator.
            cpu_devices: Devices that a CPU poses as; training is faster with one for each core.
        """
        return locals()

    given = parse(arguments, "sweep CONFIG", args)

    from ..engine.distributed import Launch

    Launch.taken_from(given).join()

    import jax

    from . import sweep as sweeps
    from . import sweep_table

    table = sweeps.sweep(**given)
    folder = Path(given["config"].output)
    if jax.process_index() == 0:
        if table is None:
            print(f"{folder}: stopped, checkpoint saved; run the same sweep command to resume")
        else:
            print(sweep_table.text(table))
            print(f"\n{folder}: {table['runs']} runs; tables in {folder}/sweep.*", end="")
            export = Path(table["best_run"]) / "export"
            print(f", the best model in {export}" if export.is_dir() else "")
    return 0
