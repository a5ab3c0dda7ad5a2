"""`ModernBert`: a checkpoint ready for use, from texts or token ids to vectors and scores."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args, overload

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from modernbert_jax import convert, devices, encode_names, late_interaction
from modernbert_jax.attention import check_name
from modernbert_jax.classifying import Classifying
from modernbert_jax.config import Dtype, ModernBertConfig, Runtime
from modernbert_jax.convert import lazy
from modernbert_jax.encode_names import EncodeNames
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner, Document
from modernbert_jax.inference.text_model import Encoding, TextModel
from modernbert_jax.io import hub
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.quantization import Weights
from modernbert_jax.scoring import sparse
from modernbert_jax.scoring.similarity import SIMILARITIES
from modernbert_jax.sharding import placed
from modernbert_jax.sparse_encoding import SparseEncoding
from modernbert_jax.tokenizer import Tokenizer


class ModernBert(Classifying, SparseEncoding):
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

    def mlm_logits(self, token_id_lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Masked-LM scores of the vocabulary, one float32 [len_i, V] for each list of ids.

        Raises:
            UserError: unknown ids, or a model without a masked-LM head.
        """
        self._need("masked_lm", "masked-LM head")
        return list(self.runner.run("logits", self.params, self.inputs.ids(token_id_lists)))

    def causal_logits(self, token_id_lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Scores of the vocabulary for the next token, one float32 [len_i, V] for each list.

        Raises:
            UserError: unknown ids, or a model that is not a decoder with a language-model head.
        """
        self._need("causal_lm", "decoder's language-model head")
        return list(self.runner.run("logits", self.params, self.inputs.ids(token_id_lists)))

    @overload
    def encode(
        self,
        texts: Sequence[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: Literal[False] = False,
        **names: Unpack[EncodeNames],
    ) -> np.ndarray: ...

    @overload
    def encode(
        self,
        texts: Iterable[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        *,
        stream: Literal[True],
        **names: Unpack[EncodeNames],
    ) -> Iterator[np.ndarray]: ...

    def encode(
        self,
        texts: Iterable[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: bool = False,
        **names: Unpack[EncodeNames],
    ) -> np.ndarray | Iterator[np.ndarray]:
        """One vector for each text, in order: float32 [n, D], or of the model's own width.

        By default an embedding model uses its own pooling, dense layers, normalisation and prompt.
        Other models use mean pooling.

        Args:
            texts: any number of texts, also none; spaces around them are kept.
            pooling: one of `heads.POOLINGS` over the text's tokens, with the special ones. It
                replaces all modules after the encoder.
            normalize: True scales every vector to length 1; False leaves out the model's own
                normalisation.
            prompt: prefix of every text; "" for none.
            max_length: in tokens; longer texts lose their end. None is the model's longest input.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            prompt_name: name of one of `pipeline.prompts`.
            stream: True reads `texts` lazily, packs some batches of them at a time, and returns an
                iterator over vectors [D] in bounded memory.
            names: options by the names of sentence-transformers; see `EncodeNames`.

        Raises:
            UserError: an invalid argument, or a late-interaction model.
        """
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        normalize, width = encode_names.read(names, normalize)
        encoding = Encoding(
            pooling=pooling,
            normalize=normalize,
            prompt=prompt,
            prompt_name=prompt_name,
            max_length=max_length,
            width=width,
        )
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        windows = self.text_model.vectors(self.params, texts, encoding, size, stream)
        if stream:
            return (vector.copy() for vectors in windows for vector in vectors)
        (vectors,) = windows
        return vectors

    @overload
    def encode_tokens(
        self,
        texts: Sequence[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        stream: Literal[False] = False,
        pool_factor: float | None = None,
    ) -> list[np.ndarray]: ...

    @overload
    def encode_tokens(
        self,
        texts: Iterable[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        *,
        stream: Literal[True],
        pool_factor: float | None = None,
    ) -> Iterator[np.ndarray]: ...

    def encode_tokens(
        self,
        texts: Iterable[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        stream: bool = False,
        pool_factor: float | None = None,
    ) -> list[np.ndarray] | Iterator[np.ndarray]:
        """A late-interaction model's vectors of each text, float32 [tokens_i, E].

        Vectors of queries include the tokens that fill them up; those of documents leave out
        the model's skiplist. `similarity` compares them.

        Args:
            texts: any number of texts; spaces around them are removed.
            is_query: whether the texts are queries or documents.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            stream: as for `encode`; the iterator gives [tokens_i, E].
            pool_factor: average number of a document's token vectors that one mean replaces, 1 or
                more; None is the model's own `Pipeline.token_pooling`. Queries stay as they are.

        Raises:
            UserError: another kind of model, or a factor below 1.
        """
        if self.pipeline is None or self.pipeline.late is None:
            raise UserError("the model is not for late interaction; use encode")
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        late = self.pipeline.late
        windows = self.text_model.tokens(
            self.params, texts, late, is_query, size, stream, pool_factor
        )
        vectors = (vectors for window in windows for vectors in window)
        return vectors if stream else list(vectors)

    def similarity(
        self,
        a: np.ndarray | Sequence[Any],
        b: np.ndarray | Sequence[Any],
    ) -> np.ndarray:
        """The model's own similarity of encoded texts: float32 [len(a), len(b)].

        Args:
            a: vectors [n, E] of `encode`; for late interaction a list of [tokens_i, E] of
                `encode_tokens`, which are the queries; of a sparse model the list of `sparse`.
            b: the same of the documents.

        Raises:
            UserError: an unknown similarity in the model's files.
        """
        pipeline = self.pipeline or Pipeline(kind="embedding")
        known = [*(late_interaction.SIMILARITIES if pipeline.late else SIMILARITIES)]
        name = pipeline.similarity or ("dot" if pipeline.splade else known[0])
        if name not in known:
            raise UserError(f"similarity is {name!r}; {did_you_mean(name, known)}")
        if pipeline.late:
            return late_interaction.SIMILARITIES[name](list(a), list(b))
        if pipeline.splade:
            return sparse.similarities(list(a), list(b), name)
        return SIMILARITIES[name](np.asarray(a, np.float32), np.asarray(b, np.float32))

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[tuple[str, float]]]:
        """The likeliest tokens for each mask in a text, with their probabilities.

        Raises:
            UserError: no mask in the text (or only beyond the longest input), a bad `top_k`, a
                model without tokenizer or masked-LM head, or scores that are not finite.
        """
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it must be 1 or more")
        self._need("masked_lm", "masked-LM head")
        tokenizer = self.inputs.tokenizer
        (document,) = self.inputs.documents([text])
        masks = np.flatnonzero(np.asarray(document.ids) == tokenizer.mask_id)
        if not masks.size:
            raise UserError(f"text has no {tokenizer.token(tokenizer.mask_id)} to fill")
        best = likeliest(self.mlm_logits([document.ids])[0][masks], top_k)
        return [
            [(spelling(tokenizer, i), probability) for i, probability in of_mask]
            for of_mask in best
        ]

    def save_pretrained(self, directory: str | os.PathLike, format: str = "hf") -> None:
        """Write a new directory, whole or not at all, in the dtypes of the loaded checkpoint.

        Raises:
            UserError: the directory holds something, or the weights were loaded in fewer bits.
        """
        if self._weights != "float32":
            raise UserError(f"weights are {self._weights}; load the model in float32 to save it")
        params = jax.tree.map(lambda x, d: np.asarray(x).astype(d), self.params, self._dtypes)
        convert.save(dataclasses.replace(self._stored, params=params), directory, format)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        commit_message: str = "Upload a model of modernbert-jax",
        token: str | None = None,
    ) -> str:
        """Upload the model in format `hf` with its card; returns the address of the commit.

        Args:
            repo_id: `owner/name`, created if it is not there.
            private: whether a new repository is private; None is the owner's default.
            commit_message: of the upload.
            token: of an account that may write; None is the one that is logged in.

        Raises:
            UserError: the hub refuses, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            source = self._folder or Path(folder)
            for name in ("task.json", "README.md"):
                if (source / name).is_file():
                    shutil.copy(source / name, Path(folder) / "model")
            return hub.upload(Path(folder) / "model", repo_id, private, commit_message, token)

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


def likeliest(logits: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """The ids with the highest scores [masks, V] of each mask, with their probabilities.

    Raises:
        UserError: scores that are not finite.
    """
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise UserError("the model's scores are NaN or infinite; are its weights damaged?")
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    return [
        [(i, float(of_mask[i])) for i in top.tolist()]
        for of_mask, top in zip(probabilities, best, strict=True)
    ]


def spelling(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as it reads in text, or its id in brackets where the vocabulary has no such token."""
    if tokenizer.token(token_id) is None:
        return f"[{token_id}]"
    return tokenizer.decode([token_id])
