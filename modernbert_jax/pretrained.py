"""`ModernBert`: a checkpoint ready for use, from texts or token ids to vectors and scores."""

import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert, late_interaction
from modernbert_jax.attention import check_name
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.convert import lazy
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import POOLINGS, CausalLM, Classifier, MaskedLM
from modernbert_jax.inference.batching import Documents
from modernbert_jax.inference.runner import BATCH_TOKENS, Programs
from modernbert_jax.io import hub
from modernbert_jax.model import Encoder
from modernbert_jax.pipeline import Pipeline, reranker_activation
from modernbert_jax.sharding import tree_shardings
from modernbert_jax.tokenizer import Tokenizer


class ModernBert:
    """A model with its weights and tokenizer.

    Attributes:
        config: the architecture.
        params: float32, on the device or on those of the mesh, as in `Checkpoint.params`.
        tokenizer: None where the checkpoint has none.
        module: `MaskedLM`, `CausalLM`, `Classifier`, or `Encoder` where there is no head.
        pipeline: what follows the model in an embedding model and the like, or None.
    """

    config: ModernBertConfig
    params: dict[str, Any]
    module: MaskedLM | CausalLM | Classifier | Encoder
    pipeline: Pipeline | None

    def __init__(
        self,
        checkpoint: convert.Checkpoint,
        dtype: str = "float32",
        attention: str = "auto",
        mesh: Mesh | None = None,
    ):
        """Puts a checkpoint to use; the other arguments are those of `from_pretrained`."""
        check_name(attention)
        if mesh is not None and mesh.is_multi_process:
            raise UserError("mesh: it has devices of other processes; give jax.local_devices()")
        runtime = Runtime(dtype=dtype, attention=attention)
        self.config, self.pipeline = checkpoint.config, checkpoint.pipeline
        # One after the other, because what is lazy is in memory only while it is copied.
        if mesh is None:
            self.params = jax.tree.map(
                lambda x: jnp.asarray(np.asarray(x), jnp.float32), checkpoint.params
            )
        else:
            self.params = jax.tree.map(
                lambda x, where: jax.device_put(np.asarray(x, np.float32), where),
                checkpoint.params,
                tree_shardings(checkpoint.params, mesh),
            )
        self._programs = Programs(
            self.config, runtime, checkpoint.head, checkpoint.labels, self.pipeline, mesh
        )
        self.module = self._programs.module
        self._dtypes = jax.tree.map(lambda x: x.dtype, checkpoint.params)
        # Held without its weights: those are on the device already.
        self._stored = dataclasses.replace(checkpoint, params={})

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike,
        dtype: str = "float32",
        revision: str | None = None,
        attention: str = "auto",
        mesh: Mesh | None = None,
    ) -> "ModernBert":
        """From a directory of any readable format, or by its name on the Hugging Face hub.

        Args:
            path_or_hub_id: a directory; failing that, `owner/name`.
            dtype: "float32" or "bfloat16", of the computation.
            revision: branch, tag or commit on the hub.
            attention: a key of `modernbert_jax.attention.IMPLEMENTATIONS`, or "auto".
            mesh: devices that share the work, from `sharding.MeshShape(...).make()`: rows are cut
                over `data` and `fsdp`, tokens of a row over `context`, heads and feed-forward units
                over `tensor`. By default one device does it all.

        Raises:
            UserError: nothing is there, the hub cannot be reached, or the checkpoint is damaged.
        """
        path = hub.locate(path_or_hub_id, revision)
        with lazy.finite(path):
            return cls(convert.load(path, later=True), dtype, attention, mesh)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The checkpoint's tokenizer, or None."""
        return self._stored.tokenizer

    def hidden(self, token_id_lists: Documents) -> list[np.ndarray]:
        """Hidden states after the final norm, one float32 [len_i, D] for each list of ids.

        Ids are taken as given: nothing is added or cut. Raises `UserError` for unknown ids.
        """
        self._check(token_id_lists)
        return self._programs.hidden(self.params, token_id_lists)

    def mlm_logits(self, token_id_lists: Documents) -> list[np.ndarray]:
        """Scores of every word at every token, one float32 [len_i, V] for each list of ids.

        Raises:
            UserError: unknown ids, or a model without a masked-LM head.
        """
        self._need("masked_lm", "masked-LM head")
        return self._logits(token_id_lists)

    def causal_logits(self, token_id_lists: Documents) -> list[np.ndarray]:
        """Scores of every word to follow every token, one float32 [len_i, V] for each list of ids.

        Raises:
            UserError: unknown ids, or a model that is no decoder with a language-model head.
        """
        self._need("causal_lm", "decoder's language-model head")
        return self._logits(token_id_lists)

    def encode(
        self,
        texts: Sequence[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """One vector for each text, in order: float32 [n, D], or as wide as the model makes them.

        An embedding model's own pooling, dense layers, normalisation and default prompt are used
        where nothing else is asked for. Other models pool by "mean", and nothing more.

        Args:
            texts: any number, also none; taken as they are, with the spaces around them.
            pooling: one of `heads.POOLINGS` over the text's tokens, the special ones included. It
                takes the place of all the modules behind the model.
            normalize: True scales every vector to length 1; False leaves the model's own
                normalisation out.
            prompt: put in front of every text; "" for none.
            max_length: in tokens; longer texts lose their end. Default: what the model was made
                for.
            batch_tokens: computed at once, at least one row; default 8,192.
            prompt_name: chooses one of `pipeline.prompts`.

        Raises:
            UserError: an argument that makes no sense, or a late-interaction model.
        """
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        if pooling is not None and pooling not in POOLINGS:
            raise UserError(f"pooling is {pooling!r}; {did_you_mean(str(pooling), POOLINGS)}")
        if prompt is not None and prompt_name is not None:
            raise UserError("prompt and prompt_name exclude each other")
        pipeline = self.pipeline or Pipeline(kind="embedding")
        if pooling is None and pipeline.late:
            raise UserError("a late-interaction model has a vector per token; use encode_tokens")
        prompt = pipeline.prompt(prompt_name) if prompt is None else prompt
        documents = self._tokenize([prompt + text for text in texts], max_length)
        batch_tokens = batch_tokens or BATCH_TOKENS
        if pooling is not None or pipeline.pooling is None:
            vectors = self._programs.pooled(self.params, documents, batch_tokens, pooling or "mean")
        else:
            # What ends a text does not end a prompt.
            skip = len(self._tokenize([prompt], max_length)[0]) - 1 if prompt else 0
            vectors = self._programs.vectors(
                self.params, documents, batch_tokens, skip, normalize is not False
            )
        if normalize:
            lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
            vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def encode_tokens(
        self, texts: Sequence[str], is_query: bool = False, batch_tokens: int | None = None
    ) -> list[np.ndarray]:
        """A late-interaction model's vectors of each text, float32 [tokens_i, E].

        Those of queries include the tokens that fill them up; those of documents leave out the
        model's skiplist. `late_interaction.maxsim` compares them.

        Args:
            texts: any number; spaces around them are cut off.
            is_query: whether they are queries; documents if not.
            batch_tokens: computed at once, at least one row; default 8,192.

        Raises:
            UserError: another kind of model.
        """
        if self.pipeline is None or self.pipeline.late is None:
            raise UserError("the model is not for late interaction; use encode")
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        found = late_interaction.tokenize(
            [self.pipeline.prompt(None) + text for text in texts],
            self._need_tokenizer(),
            self.pipeline.late,
            is_query=is_query,
            longest=self._longest,
        )
        ids = [tokens.ids for tokens in found]
        self._check(ids)
        vectors = self._programs.token_vectors(
            self.params, ids, [t.visible for t in found], batch_tokens or BATCH_TOKENS
        )
        return [v[tokens.counted] for v, tokens in zip(vectors, found, strict=True)]

    def predict(
        self,
        inputs: Sequence[Any],
        activation: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """What the classifier says of each text or pair of texts, in order.

        Args:
            inputs: texts or (first, second) pairs: (query, document) of a reranker, (question,
                context) of question answering. For multiple choice (text, [choice, ...]).
            activation: of the scores, a key of `pipeline.ACTIVATIONS`. By default a reranker's own;
                else a single label is squashed by the sigmoid, and several are left as logits.
            max_length: in tokens; of a pair the longer text is cut first.
            batch_tokens: computed at once, at least one row; default 8,192.

        Returns:
            Sequence classification: float32 [n, labels], or [n] with a single label. Multiple
            choice: [choices_i] each. Token classification and question answering: [len_i, labels]
            each, one row for every token of `tokenizer.encode` or `encode_pairs`.

        Raises:
            UserError: a model without a classifier, or inputs of another form.
        """
        head = self._stored.head
        if not isinstance(self.module, Classifier):
            raise UserError(f"the model has no classifier (its head is {head!r})")
        if isinstance(inputs, str):
            raise UserError("inputs is a string; give a list of texts or pairs of texts")
        if head == "multiple_choice":
            pairs = [(text, choice) for text, choices in inputs for choice in choices]
            scores = self._classify(pairs, max_length, batch_tokens)[:, 0]
            ends = np.cumsum([len(choices) for _, choices in inputs])
            return np.split(scores, ends[:-1]) if len(inputs) else []
        if head != "sequence_classification":
            return self._programs.logits(self.params, self._tokenize(inputs, max_length))
        named = self.pipeline.activation if self.pipeline and not activation else activation
        labels = self._stored.labels
        apply = reranker_activation(named, labels)
        scores = np.asarray(apply(self._classify(inputs, max_length, batch_tokens)))
        return scores[:, 0] if labels == 1 else scores

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask in the text, the likeliest tokens as text, with their probabilities.

        Raises:
            UserError: no mask in the text (or only beyond the longest input), a bad `top_k`, or a
                model without tokenizer or masked-LM head.
        """
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it must be 1 or more")
        self._need("masked_lm", "masked-LM head")
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

    @property
    def _longest(self) -> int:
        """The longest input in tokens."""
        own = self.pipeline.max_length if self.pipeline else None
        return min(own or self.config.max_position_embeddings, self.config.max_position_embeddings)

    def _logits(self, documents: Documents) -> list[np.ndarray]:
        self._check(documents)
        return self._programs.logits(self.params, documents)

    def _classify(
        self, inputs: Sequence[Any], max_length: int | None, batch_tokens: int | None
    ) -> np.ndarray:
        documents = self._tokenize(inputs, max_length)
        return self._programs.document_logits(self.params, documents, batch_tokens or BATCH_TOKENS)

    def _need(self, head: str, what: str) -> None:
        if self._stored.head != head:
            raise UserError(f"the model has no {what} (its head is {self._stored.head!r})")

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer.json; give token ids instead of text")
        return self.tokenizer

    def _tokenize(self, texts: Sequence[Any], max_length: int | None) -> list[list[int]]:
        """Ids of texts or of pairs of texts, checked."""
        tokenizer = self._need_tokenizer()
        if max_length is not None and max_length < 2:
            raise UserError(f"max_length is {max_length}; it must be 2 or more")
        if not len(texts):
            return []
        if self.pipeline and self.pipeline.lower_case:
            texts = [t.lower() if isinstance(t, str) else tuple(map(str.lower, t)) for t in texts]
        paired = not isinstance(texts[0], str)
        encode = tokenizer.encode_pairs if paired else tokenizer.encode
        documents = encode(texts, max_length=max_length or self._longest)
        self._check(documents)
        return documents

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
