"""The command of the paper's efficiency benchmark: bench efficiency."""

import dataclasses
from pathlib import Path

from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_json
from modernbert_jax.train.bench.efficiency.settings import Settings

from . import output as printing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency(Settings):
    """Measure encoding as in the paper: thousand real tokens per second, and memory.

    The sets are 8,192 random documents: of 512 tokens, of 256 on average, of 8,192, and of 4,096 on
    average. Beside us transformers encodes padded batches in the same run, with sdpa and with flash
    attention where that is installed. All sides have to agree on the documents' vectors. On a CPU
    choose few documents: --documents 32 --long-documents 2 --passes 3.
    """

    json: Path | None = None
    """JSON file for the numbers; an existing one is replaced."""

    def run(self) -> None:
        """Measure, and print the table."""
        from modernbert_jax.train.bench.efficiency import comparison, tables

        if self.json is not None:
            outputs.check_file(self.json, replaces=".json")
        results = []
        for result in comparison.compare(self, printing.print_to_stderr):
            printing.print_to_stderr(tables.line(result))
            results.append(result)
            if self.json is not None:
                rows = [{**dataclasses.asdict(r), "speed": r.speed} for r in results]
                write_json(self.json, rows)
        tables.show(self.model, results)
