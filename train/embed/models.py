"""The model of an embedding, on each device by itself."""

import dataclasses
from typing import Any

import jax

from modernbert_jax import convert
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.io import fingerprint
from modernbert_jax.sharding import MeshShape

from ..retrieval import on_devices
from ..retrieval.encoding import TextEncoder
from ..retrieval.retriever import Side as OfTwo
from ..retrieval.search.models import RETRIEVERS, kind_of
from .config import Embedding
from .numbers import Numbers
from .shard_files import Columns

Encoder = Any
"""One of `retrieval.on_devices.RetrieverOnDevices`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that represents texts, on the devices of this process."""

    kind: str
    """"embedding", "late-interaction" or "sparse"."""
    encoders: tuple[Encoder, ...]
    """The model on each device. Devices do not share a batch, so that what they compute does not
    depend on their number."""
    side: OfTwo
    facts: dict[str, Any]
    """Everything that vectors depend on beside the input, as JSON."""
    dims: int
    """Numbers of a vector; ids of the vocabulary for sparse models."""

    def columns(self, numbers: Numbers) -> Columns:
        """What is stored of each text."""
        return Columns(self.kind, self.dims, numbers)


def load(options: Embedding) -> Model:
    """Load the model on every device of this process.

    Raises:
        UserError: no such model, one that represents no texts, or an option that it does not have.
    """
    kind = _checked_kind(options)
    encoding = Encoding(
        pooling=options.pooling,
        normalize=options.normalize or None,
        prompt=options.prompt,
        prompt_name=options.prompt_name,
        max_length=options.max_length,
        width=options.dims or None,
    )
    path = convert.locate(options.model)
    with on_devices.opened(options.model) as checkpoint:
        encoders = [
            RETRIEVERS.get(kind, TextEncoder).of(
                checkpoint,
                MeshShape().make([device]),
                encoding,
                encoding,
                runtime=Runtime(dtype=options.compute_dtype),
                batch_tokens=options.batch_tokens,
                weights=options.weights,
                name=options.model,
            )
            for device in jax.local_devices()
        ]
        tokenizer = checkpoint.need_tokenizer(options.model).files
    if options.side == "none":
        encoders = [encoder.symmetric() for encoder in encoders]
    side: OfTwo = "query" if options.side == "query" else "document"
    dims = _dims(encoders[0], kind, options)
    facts = {
        "model": fingerprint.of_paths([path])[:16],
        "tokenizer": fingerprint.of_contents(tokenizer)[:16],
        "kind": kind,
        "width": dims,
        **encoders[0].facts(side),
        **options.facts(),
    }
    return Model(kind=kind, encoders=tuple(encoders), side=side, facts=facts, dims=dims)


def _checked_kind(options: Embedding) -> str:
    """The kind of a model whose options suit it. Raises `UserError`."""
    kind = kind_of(options.model)
    if kind not in RETRIEVERS:
        return "embedding"
    if options.normalize:
        raise UserError(f"{options.model}: is a {kind} model; leave out --normalize")
    if kind == "late-interaction" and options.prompt_name is not None:
        raise UserError(f"{options.model}: is a {kind} model; leave out --prompt-name")
    if kind == "late-interaction" and options.side == "none":
        raise UserError(f"{options.model}: is a {kind} model; --side is document or query")
    if kind == "sparse" and options.dtype in ("int8", "binary"):
        raise UserError(f"{options.model}: is a sparse model; --dtype is a kind of float")
    return kind


def _dims(encoder: Encoder, kind: str, options: Embedding) -> int:
    """Numbers of a vector. Raises `UserError` if it has fewer than the options ask for."""
    if kind == "embedding":
        own = encoder.model.vector_width
        if options.pooling is not None:
            own = encoder.model.runner.programs["pooled"].width
        if options.dims > own:
            raise UserError(f"--dims is {options.dims}; vectors of {options.model} have {own}")
        return options.dims or own
    return encoder.model.runner.programs["sparse" if kind == "sparse" else "vectors"].width
