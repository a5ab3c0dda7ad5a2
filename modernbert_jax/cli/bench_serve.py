"""The command that loads servers: bench serve."""

import dataclasses
from pathlib import Path

from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_json
from modernbert_jax.ranges import Count, Seed

from . import output as printing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Load servers on this machine with the same requests, one after another.

    They are modernbert-jax serve, sentence-transformers behind an application of the same kind if
    it is installed, and infinity-emb if its program is found. Vectors must equal those of encode.
    """

    model: str
    """Directory of an embedding model that all of them read."""
    requests: Count = 1000
    """Requests to each server."""
    connections: Count = 64
    """Requests at the same time."""
    texts: Count = 1
    """Texts of a request."""
    seed: Seed = 0
    """Seed of the texts and their lengths."""
    input: tuple[str, ...] = ()
    """Files or globs of text. Without it: the sources of Python's standard library."""
    sides: tuple[str, ...] = ()
    """Servers to load: ours, sentence-transformers, infinity. Without it: all that are
    installed."""
    json: Path | None = None
    """JSON file for the numbers; an existing one is replaced."""

    def run(self) -> None:
        """Load every server, and print their table."""
        if self.json is not None:
            outputs.check_file(self.json, self.input, replaces=".json")
        from modernbert_jax.train.bench.serve import comparison

        load = comparison.Load(
            requests=self.requests,
            connections=self.connections,
            texts=self.texts,
            seed=self.seed,
        )
        rows = []
        for row in comparison.compare(
            self.model, load, self.input, self.sides, printing.print_to_stderr
        ):
            rows.append(row)
            if self.json is not None:
                write_json(self.json, rows)
        comparison.show(rows)
