"""`ModernBert`: a checkpoint ready for use, from texts or token ids to vectors and scores."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from modernbert_jax import convert, devices
from modernbert_jax.attention import check_name
from modernbert_jax.classifying import Classifying
from modernbert_jax.config import Dtype, ModernBertConfig, Runtime
from modernbert_jax.convert import lazy
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner, Document
from modernbert_jax.inference.text_model import TextModel
from modernbert_jax.language_modelling import LanguageModelling
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.quantization import Weights
from modernbert_jax.saving import Saving
from modernbert_jax.sharding import placed
from modernbert_jax.sparse_encoding import SparseEncoding
from modernbert_jax.text_encoding import TextEncoding
from modernbert_jax.tokenizer import Tokenizer


class ModernBert(TextEncoding, LanguageModelling, Classifying, SparseEncoding, Saving):
    """A model with its weights and tokenizer.

    Attributes:
        config: the architecture.
        params: parameters on the devices of the mesh, in the layout of `Checkpoint.params`:
            float32, or matrices in the type that was asked for; see `quantization`.
        tokenizer: None where the checkpoint has none.
        module: the Flax module: `MaskedLM`, `CausalLM`, `Classifier`, `Embedder` where layers
            follow the encoder, or `Encoder`.
        pipeline: the modules after the encoder in embedding models and the like, or None.
        runner: runs the programs of the model over any documents of token ids.
        inputs: turns texts into documents of token ids.
        text_model: runs the programs over texts.
    """

    config: ModernBertConfig
    params: dict[str, Any]
    module: nn.Module
    pipeline: Pipeline | None
    runner: BatchRunner
    inputs: Inputs
    text_model: TextModel

    def __init__(
        self,
        checkpoint: convert.Checkpoint,
        dtype: Dtype = "float32",
        attention: str = "auto",
        mesh: Mesh | None = None,
        cores: devices.Cores | None = None,
        folder: Path | None = None,
        weights: Weights = "float32",
    ):
        """Use a checkpoint, from a folder or not; the others are those of `from_pretrained`."""
        check_name(attention)
        if weights not in (known := get_args(Weights)):
            raise UserError(f"weights is {weights!r}; {did_you_mean(weights, known)}")
        if mesh is not None and mesh.is_multi_process:
            raise UserError("mesh: it has devices of other processes; give jax.local_devices()")
        if cores is not None:
            devices.expose_cores(cores)
        runtime, mesh = Runtime(dtype=dtype, attention=attention), mesh or devices.local_mesh()
        self.config, self.pipeline = checkpoint.config, checkpoint.pipeline
        self.params = placed(checkpoint.params, mesh, weights)
        self.runner = BatchRunner(
            self.config, runtime, checkpoint.head, checkpoint.labels, self.pipeline, mesh
        )
        self.module = self.runner.module
        self._stored_count, self._folder = checkpoint.count, folder
        self._weights = weights
        self._dtypes = jax.tree.map(lambda x: x.dtype, checkpoint.params)
        # Stored without its weights: those are on the device already.
        self._stored = dataclasses.replace(checkpoint, params={})
        self.inputs = Inputs(self.config, self.pipeline, lambda: self.tokenizer)
        self.text_model = TextModel(self.runner, self.inputs, self.pipeline)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike,
        dtype: Dtype = "float32",
        revision: str | None = None,
        attention: str = "auto",
        mesh: Mesh | None = None,
        cores: devices.Cores | None = None,
        weights: Weights = "float32",
    ) -> "ModernBert":
        """Load a model from a directory of any readable format, or from the Hugging Face hub.

        Args:
            path_or_hub_id: a directory, a run's folder or one of its checkpoints; failing that,
                `owner/name` on the hub.
            dtype: "float32" or "bfloat16", the dtype of the computation.
            revision: branch, tag or commit on the hub.
            attention: a key of `modernbert_jax.attention.IMPLEMENTATIONS`, or "auto".
            mesh: devices that share the work, from `sharding.MeshShape(...).make()`: rows are
                divided over `data` and `fsdp`, tokens of a row over `context`, heads and
                feed-forward units over `tensor`. By default all devices of this process divide
                rows among them.
            cores: "all" or a number exposes the CPU as that many virtual devices; see
                `devices.expose_cores`. It has to come before the first jax computation. None
                leaves jax as it is, with one CPU device.
            weights: type in which matrices are kept in memory: "float32", "bfloat16" for half of
                it, or "int8" for a quarter, with a scale for each channel; the loss of quality is
                in docs/guides/precision.md. A model in fewer bits cannot be saved.

        Raises:
            UserError: there is no such model, the hub cannot be reached, or the checkpoint is
                damaged.
        """
        path = convert.locate(path_or_hub_id, revision)
        with lazy.finite(path):
            checkpoint = convert.load(path, later=True)
            return cls(checkpoint, dtype, attention, mesh, cores, path, weights)

    def __repr__(self) -> str:
        """What the model is, in one line."""
        c, kind = self.config, self.pipeline.kind if self.pipeline else self._stored.head
        size = f"{self._stored_count:,} parameters"
        return f"ModernBert({kind}, {c.num_hidden_layers} layers, width {c.hidden_size}, {size})"

    @property
    def head(self) -> str:
        """The head of the checkpoint, a key of `heads.HEADS`."""
        return self._stored.head

    @property
    def problem_type(self) -> str | None:
        """Kind of classification in the checkpoint's files, as transformers names it, or None."""
        return self._stored.extra.get("problem_type")

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The checkpoint's tokenizer, or None."""
        return self._stored.tokenizer

    def hidden(self, token_id_lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Hidden states after the final norm, one float32 [len_i, D] for each list of ids.

        Nothing is added to the ids, and nothing is cut.

        Raises:
            UserError: unknown ids.
        """
        return list(self.runner.run("hidden", self.params, self.inputs.ids(token_id_lists)))

    def _windows(
        self,
        name: str,
        documents: Iterable[Document],
        batch_tokens: int | None,
        stream: bool,
        **options: Any,
    ) -> Iterator[Any]:
        """Results of a program, by window of a stream or all at once."""
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        tokens = self.runner.window_tokens(size) if stream else None
        return self.runner.windows(name, self.params, documents, size, tokens=tokens, **options)

    def _need(self, head: str, what: str) -> None:
        """Raise `UserError` for a model with another head."""
        if self._stored.head != head:
            raise UserError(f"the model has no {what} (its head is {self._stored.head!r})")
