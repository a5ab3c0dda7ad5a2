"""The command that writes a model as programs for jax alone: export."""

import dataclasses
from pathlib import Path
from typing import Literal

from modernbert_jax.io.host_memory import keep_freed

from . import output as printing
from .options import Dtype, Weights

Program = Literal["hidden", "pooled", "vectors", "logits", "document_logits", "sparse"]
"""Programs of a model: the keys of `inference.runner.BatchRunner.programs`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Export a model as serialised programs that run with jax alone.

    The folder holds a StableHLO program for each platform, the weights, the tokenizer, a manifest,
    and run.py, an example that needs jax, flatbuffers, numpy, safetensors and tokenizers. None of
    the platforms has to be attached. The attention is the one in plain XLA: GPU kernels cannot be
    exported for other versions of jax.
    """

    model: str
    """Checkpoint of any format, or the name of one on the hub."""
    output: Path
    """Folder to write, empty or not there yet."""
    platforms: tuple[Literal["cpu", "cuda", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """Platforms, with a program for each."""
    shapes: tuple[str, ...] = ()
    """Fixed shapes of the packed rows as ROWSxLENGTH, such as 8x512, with a program for each. None
    is one program for any number of rows of any multiple of 128 tokens from 256 on. A sparse model
    needs fixed shapes."""
    program: Program | None = None
    """What the program computes: hidden states of tokens, their mean (pooled), vectors of the
    model's own modules, logits of tokens or documents, or sparse vectors. None is what the model is
    for."""
    dtype: Dtype = "float32"
    """Type of the computation."""
    weights: Weights = "float32"
    """Type of the stored matrices; int8 has a scale for each channel."""
    check: bool = True
    """Compare the programs for this machine's platform with the model."""

    def run(self) -> None:
        """Export, and print what was written."""
        from modernbert_jax.exporting import folder
        from modernbert_jax.exporting.programs import Shape

        keep_freed()
        with printing.warnings_in_lines():
            written = folder.write(
                self.model,
                self.output,
                self.platforms,
                [Shape.parse(shape) for shape in self.shapes],
                program=self.program,
                dtype=self.dtype,
                weights=self.weights,
                check=self.check,
                report=printing.print_to_stderr,
            )
        what = f"{written.program} in {len(written.files)} programs"
        size = f"{what}, {written.nbytes:,} bytes of weights"
        compared = "" if written.difference is None else f", equal within {written.difference:.1e}"
        print(f"{self.output}: {size}{compared}")
