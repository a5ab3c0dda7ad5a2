"""The command that turns texts into vectors: embed."""

import dataclasses
from typing import Any

from modernbert_jax.train.embed.config import Embedding

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices, launcher
from .options import Flat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed(Embedding):
    """Turn texts into vectors, in shards, on any number of devices, processes and hosts.

    Interrupt it at any time, even with `kill -9`; running it again resumes. Start the same command
    several times, on any hosts that share the output folder, and the processes divide the shards.
    The output is the same bytes for any number of processes on the same kind of device.
    """

    json: bool = False
    """Print the counts as JSON."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Embed, and print what was written."""
        if launcher() == "TPU pod":  # its processes only start together
            import jax

            jax.distributed.initialize()
        self.devices.expose(device_limits.for_inference(self.model, self.batch_tokens))
        from modernbert_jax.train.embed.run import embed

        with printing.attention_choices():
            summary = embed(self)
        printing.print_skipped(summary["skipped"])
        if self.json:
            printing.print_json(summary)
            return
        for line in _lines(self.output, summary):
            print(line)


def _lines(output: str, summary: dict[str, Any]) -> list[str]:
    """The summary in lines."""
    texts, tokens, shards = (f"{summary[key]:,}" for key in ("texts", "tokens", "shards"))
    lines = [f"{output}: {texts} texts of {tokens} tokens in {shards} shards"]
    if summary["full"] is not None:
        speed, full = summary["tokens_per_second"], 100 * summary["full"]
        lines.insert(
            0, f"{summary['seconds']:.1f} s, {speed:,.0f} tokens/s, rows {full:.1f} % full"
        )
    if summary["missing"]:
        lines.append(f"{summary['missing']:,} shards are those of other processes")
    return lines
