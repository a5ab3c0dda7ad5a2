"""What `ModernBert` does with a language model: scores of the vocabulary, and filled masks."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BatchRunner
from modernbert_jax.tokenizer import Tokenizer


class LanguageModelling(abc.ABC):
    """The part of `ModernBert` for models with a masked-LM head, and for decoders."""

    params: dict[str, Any]
    runner: BatchRunner
    inputs: Inputs

    @abc.abstractmethod
    def _need(self, head: str, what: str) -> None:
        """Raise `UserError` for a model with another head."""

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
