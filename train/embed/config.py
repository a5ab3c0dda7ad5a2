"""`Embedding`: which texts become vectors, how, and where they are written."""

import dataclasses
from typing import Any, Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.io.store import is_remote
from modernbert_jax.ranges import Count, Length, Natural, Positive

Format = Literal["parquet", "arrow", "npy"]
Stored = Literal["float32", "float16", "bfloat16", "int8", "binary"]
OnError = Literal["stop", "skip"]
Side = Literal["document", "query", "none"]

WINDOW_TOKENS = 2**19
"""Tokens of texts that are packed together: as many fill rows by 99 % where lengths are mixed."""

SHARD_TEXTS, LATE_SHARD_TEXTS = 16_384, 2_048
"""Rows of a shard by default: of vectors of texts, and of late interaction."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding:
    """Which texts become vectors, how, and where they are written."""

    model: str
    """Embedding, late-interaction or sparse model, or a bare encoder, of any format; or the name of
    one on the hub."""
    input: tuple[str, ...]
    """Files, patterns, folders or URLs of texts: .jsonl, .ndjson, .json, .csv, .tsv (also .gz,
    .zst, .bz2, .xz), .parquet, .arrow, plain text; or - for JSON lines from standard input."""
    output: str
    """Folder to write, or a URL (gs://, s3://)."""
    format: Format = "parquet"
    """Format of the shards."""
    dtype: Stored = "float32"
    """How numbers are stored: int8 divides the range of each dimension into 255 steps, and binary
    keeps a bit for each number, which says whether it is above 0."""
    dims: Natural = 0
    """How many of the first numbers of a vector to keep; 0 is the model's own."""
    side: Side = "document"
    """Whether the texts are documents or queries, which have prompts, lengths and fillings of their
    own in many models; none takes the default prompt."""
    prompt: str | None = None
    """Prefix of every text. None is that of --side; "" is none."""
    prompt_name: str | None = None
    """Name of one of the model's prompts, in place of that of --side."""
    pooling: Literal["mean", "cls", "max", "lasttoken", "weightedmean"] | None = None
    """Pooling in place of all modules after the encoder. None is the model's own."""
    normalize: bool = False
    """Scale every vector to length 1, after --dims, whether or not the model does."""
    max_length: Length | None = None
    """Longest text in tokens, with its prompt; longer ones lose their end. None is the model's
    own."""
    field: str = ""
    """Key or column of the text, or a template such as "{title}: {body}"; dots lead into objects.
    Empty is text, contents or the like, with a title before it."""
    id_field: str = ""
    """Key or column of the id. Empty is _id, id, docid or the like, or else the number of the row
    in the whole input, from 0; of plain text the name of the file."""
    lines: bool = False
    """Every line of a plain text file is a text, instead of the whole file."""
    on_error: OnError = "stop"
    """Stop at a row that has no usable text or id, or leave it out."""
    shard_texts: Count | None = None
    """Rows of a shard. None is 16,384, and 2,048 for late interaction."""
    window_tokens: Count = WINDOW_TOKENS
    """Tokens of texts that are packed together."""
    calibration_texts: Count = 4096
    """Texts, from all parts of the input, whose vectors give the ranges of int8."""
    batch_tokens: Count = 8192
    """Tokens of a batch."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation."""
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    """Type in which the model's matrices are kept in memory; int8 has a scale for each channel."""
    lease_seconds: Positive = 60.0
    """Seconds after which the shard of a process on another host that gives no sign of life is
    taken over."""
    processes: Count = 1
    """Number of processes that divide the shards by their numbers, instead of by leases in the
    folder. A URL as the output, where there are no leases, needs it for several processes."""
    process: Natural = 0
    """Number of this process, from 0; for --processes."""

    def __post_init__(self):
        ranges.check(self, "--", lambda field: field.replace("_", "-"))
        if self.process >= self.processes:
            raise UserError(
                f"--process is {self.process} of --processes {self.processes}; they count from 0"
            )
        if not self.input:
            raise UserError("--input names no file")
        if self.prompt is not None and self.prompt_name is not None:
            raise UserError("--prompt and --prompt-name exclude each other")

    @property
    def remote(self) -> bool:
        """Whether the output is at a URL."""
        return is_remote(self.output)

    def facts(self) -> dict[str, Any]:
        """Options that shards depend on and that no other fact holds, as JSON."""
        names = ["format", "dtype", "side", "field", "id_field", "lines", "window_tokens"]
        names += ["batch_tokens", "compute_dtype", "weights"]
        names += ["calibration_texts"] if self.dtype == "int8" else []
        return {name: getattr(self, name) for name in names}
