"""`ModernBert`: a checkpoint ready for use, from texts or token ids to vectors and tokens.

Everything goes through the packed batches of `batching`, whose few shapes bound the number of
programs that XLA compiles. They are compiled once for each instance.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import convert
from modernbert_jax.attention import choose
from modernbert_jax.batching import ROW_DOCUMENTS, Documents, batches
from modernbert_jax.config import POOLINGS, ModernBertConfig, Runtime
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import MaskedLM, pool
from modernbert_jax.model import Encoder
from modernbert_jax.packing import Rows
from modernbert_jax.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Tokens that are computed at once, unless a single row has more."""

LOGITS_AT_ONCE = 2**27
"""Bounds the batch where every token gets a score for every word: half a GB of float32."""


class ModernBert:
    """A model with its weights and tokenizer.

    Attributes:
        config: the architecture.
        params: float32 on the device, in the layout of `Checkpoint.params`.
        tokenizer: None where the checkpoint has none.
        module: `MaskedLM`, or `Encoder` under any other head.
    """

    config: ModernBertConfig
    params: dict[str, Any]
    module: MaskedLM | Encoder

    def __init__(
        self, checkpoint: convert.Checkpoint, dtype: str = "float32", attention: str = "auto"
    ):
        """Puts a checkpoint to use; `dtype` and `attention` are those of `Runtime`."""
        choose(attention, None)
        runtime = Runtime(dtype=dtype, attention=attention)
        self.config = checkpoint.config
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), checkpoint.params)
        module = MaskedLM if checkpoint.head == "masked_lm" else Encoder
        self.module = module(self.config, runtime)
        self._encoder = Encoder(self.config, runtime)
        dtypes = jax.tree.map(lambda x: x.dtype, checkpoint.params)
        # Held without its weights: those are on the device already.
        self._stored, self._dtypes = _without_params(checkpoint), dtypes
        self._jit_hidden = jax.jit(self._hidden)
        self._jit_logits = jax.jit(self._logits)
        self._jit_pooled = jax.jit(self._pooled, static_argnames="how")

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike,
        dtype: str = "float32",
        revision: str | None = None,
        attention: str = "auto",
    ) -> "ModernBert":
        """From a directory of any readable format, or by its name on the Hugging Face hub.

        Args:
            path_or_hub_id: a directory; failing that, `owner/name`.
            dtype: "float32" or "bfloat16", of the computation.
            revision: branch, tag or commit on the hub.
            attention: a key of `modernbert_jax.attention.IMPLEMENTATIONS`, or "auto".

        Raises:
            UserError: nothing is there, the hub cannot be reached, or the checkpoint is damaged.
        """
        path = Path(path_or_hub_id).expanduser()
        if not path.exists():
            path = _download(str(path_or_hub_id), revision)
        return cls(convert.load(path), dtype, attention)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The checkpoint's tokenizer, or None."""
        return self._stored.tokenizer

    def hidden(self, token_id_lists: Documents) -> list[np.ndarray]:
        """Hidden states after the final norm, one float32 [len_i, D] for each list of ids.

        Ids are taken as given: nothing is added or cut. Raises `UserError` for unknown ids.
        """
        return self._per_token(self._jit_hidden, token_id_lists, self.config.hidden_size)

    def mlm_logits(self, token_id_lists: Documents) -> list[np.ndarray]:
        """Scores of every word at every token, one float32 [len_i, V] for each list of ids.

        Raises:
            UserError: unknown ids, or a model without a masked-LM head.
        """
        if not isinstance(self.module, MaskedLM):
            raise UserError(f"the model has no masked-LM head (its head is {self._stored.head!r})")
        vocabulary = self.config.vocab_size
        most = min(BATCH_TOKENS, LOGITS_AT_ONCE // vocabulary)
        return self._per_token(self._jit_logits, token_id_lists, vocabulary, most)

    def encode(
        self,
        texts: Sequence[str],
        pooling: str = "mean",
        normalize: bool = False,
        prompt: str = "",
        max_length: int | None = None,
        batch_tokens: int | None = None,
    ) -> np.ndarray:
        """One vector for each text, in order: float32 [n, D].

        Args:
            texts: any number, also none.
            pooling: "mean", "cls" or "max" over the text's tokens, the special ones included.
            normalize: scales every vector to length 1.
            prompt: put in front of every text.
            max_length: in tokens; longer texts lose their end. Default: what the model was made
                for.
            batch_tokens: computed at once, at least one row; default `BATCH_TOKENS`.
        """
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        if pooling not in POOLINGS:
            raise UserError(f"pooling is {pooling!r}; {did_you_mean(str(pooling), POOLINGS)}")
        documents = self._tokenize([prompt + text for text in texts], max_length)
        self._check(documents)
        vectors = np.zeros((len(documents), self.config.hidden_size), np.float32)
        for batch, rows in batches(documents, batch_tokens or BATCH_TOKENS):
            pooled = np.asarray(self._jit_pooled(self.params, batch, how=pooling))
            for row, indices in zip(pooled, rows, strict=False):
                vectors[indices] = row[: len(indices)]
        if normalize:
            lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
            vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask in the text, the likeliest tokens as text, with their probabilities.

        Raises:
            UserError: no mask in the text (or only beyond the longest input), a bad `top_k`, or a
                model without tokenizer or masked-LM head.
        """
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it must be 1 or more")
        (ids,) = self._tokenize([text], None)
        tokenizer = self.tokenizer
        masks = np.flatnonzero(np.asarray(ids) == tokenizer.mask_id)
        if not masks.size:
            raise UserError(f"text has no {tokenizer.token(tokenizer.mask_id)} to fill")
        logits = self.mlm_logits([ids])[0][masks].astype(np.float64)
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities = exponentials / exponentials.sum(-1, keepdims=True)
        best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
        return [
            [(self._spelling(i), float(of_mask[i])) for i in top.tolist()]
            for of_mask, top in zip(probabilities, best, strict=True)
        ]

    def save_pretrained(self, directory: str | os.PathLike, format: str = "hf") -> None:
        """Writes a new directory, whole or not at all, in the dtypes that the model came in."""
        params = jax.tree.map(lambda x, d: np.asarray(x).astype(d), self.params, self._dtypes)
        convert.save(dataclasses.replace(self._stored, params=params), directory, format)

    def _hidden(self, params, rows: Rows) -> jax.Array:
        if self._stored.head != "none":
            params = params["encoder"]
        return self._encoder.apply({"params": params}, *rows)

    def _logits(self, params, rows: Rows) -> jax.Array:
        return self.module.apply({"params": params}, *rows)

    def _pooled(self, params, rows: Rows, how: str) -> jax.Array:
        return pool(self._hidden(params, rows), rows.segment_ids, ROW_DOCUMENTS, how)

    def _per_token(
        self, compute: Callable, documents: Documents, width: int, batch_tokens: int = BATCH_TOKENS
    ) -> list[np.ndarray]:
        self._check(documents)
        results = [np.zeros((len(ids), width), np.float32) for ids in documents]
        for batch, rows in batches(documents, batch_tokens):
            values = np.asarray(compute(self.params, batch))
            for row, indices in zip(values, rows, strict=False):
                start = 0
                for i in indices:
                    results[i][:] = row[start : start + len(documents[i])]
                    start += len(documents[i])
        return results

    def _tokenize(self, texts: Sequence[str], max_length: int | None) -> list[list[int]]:
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer.json; give token ids instead of text")
        if max_length is not None and max_length < 2:
            raise UserError(f"max_length is {max_length}; it must be 2 or more")
        if not texts:
            return []
        most = max_length or self.config.max_position_embeddings
        return self.tokenizer.encode(texts, max_length=most)

    def _spelling(self, token_id: int) -> str:
        """A token as it reads in text; ids that no token has are shown as such."""
        if self.tokenizer.token(token_id) is None:
            return f"[{token_id}]"
        return self.tokenizer.decode([token_id])

    def _check(self, documents: Documents) -> None:
        size = self.config.vocab_size
        for i, ids in enumerate(documents):
            ids = np.asarray(ids)
            wrong = ids[(ids < 0) | (ids >= size)]
            if wrong.size:
                raise UserError(f"document {i} has token id {wrong[0]}; ids are 0 to {size - 1}")


def _without_params(checkpoint: convert.Checkpoint) -> convert.Checkpoint:
    return dataclasses.replace(checkpoint, params={})


def _download(name: str, revision: str | None) -> Path:
    """A snapshot of the weights, configuration and tokenizer; files that are there are kept."""
    import huggingface_hub

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(f"{name}: no such directory")
    try:
        path = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", "merges.txt", "vocab.txt"],
            ignore_patterns=["*onnx*", "*openvino*", "checkpoint-*"],
        )
    except Exception as error:  # the hub, its HTTP client and the disk each have their own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: no such directory, and not to be had from the Hugging Face hub ({reason})"
        ) from error
    return Path(path)
