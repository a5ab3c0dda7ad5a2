"""Initial weights from a checkpoint, a smaller model, or a model with another vocabulary."""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.io.typed_json import differences, to_json
from modernbert_jax.tokenizer import Tokenizer

from ..engine.objective import draw_params, init_params
from ..tiling import tile
from . import vocabulary
from .config import PretrainConfig

INIT = 2**32 - 1
"""Number that is folded into the run's key for initial values; no step has it."""


def init_key(seed: int) -> jax.Array:
    """Return the random key of initial weights for the seed of a run."""
    return jax.random.fold_in(jax.random.key(seed), INIT)


def adopted(config: PretrainConfig, tokenizer: Tokenizer) -> PretrainConfig:
    """Adopt the architecture of `init_from` if `init_model` is "adopted".

    A new vocabulary has as many ids as the data's tokenizer, rounded up to a multiple of 64.

    Raises:
        UserError: `init_from` is empty.
    """
    if config.init_model != "adopted":
        return config
    if not config.init_from:
        raise UserError("init_model is 'adopted' and init_from is empty; name a checkpoint")
    model = _checkpoint(config).config
    if config.init_vocabulary == "matched":
        model = with_token_ids(
            dataclasses.replace(
                model, vocab_size=-(-tokenizer.vocab_size // 64) * 64, pad_token_id=None
            ),
            tokenizer,
        )
    return dataclasses.replace(config, model=model)


def initial_params(config: PretrainConfig, tokenizer: Tokenizer) -> Any | None:
    """Load the parameters of `init_from` for the run's model; None if it is empty.

    Raises:
        UserError: a checkpoint whose architecture or vocabulary does not fit.
    """
    if not config.init_from:
        return None
    checkpoint = _checkpoint(config)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), checkpoint.params)
    model = checkpoint.config
    if config.init_vocabulary == "matched":
        params = _matched(config, checkpoint, params, tokenizer)
        model = dataclasses.replace(
            model, vocab_size=config.model.vocab_size, pad_token_id=config.model.pad_token_id
        )
    else:
        _check_vocabulary(config, checkpoint, tokenizer)
    if config.init_model == "tiled":
        params = tile(params, model, config.model, config.init_tiling, seed=config.seed)
    module = MaskedLM(config.model, config.runtime)
    wanted = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    if _shapes(wanted) != _shapes(params):
        changes = differences(to_json(config.model), to_json(checkpoint.config))
        raise UserError(
            f"{config.init_from}: its parameters do not fit the model: {'; '.join(changes)}; pass"
            " --init-model adopted to train that model instead, or tiled to fill a larger one"
        )
    return jax.tree.map(jnp.asarray, params)


def with_token_ids(model: ModernBertConfig, tokenizer: Tokenizer) -> ModernBertConfig:
    """Return the architecture with the ids of the tokenizer's special tokens."""
    return dataclasses.replace(
        model,
        bos_token_id=tokenizer.cls_id,
        cls_token_id=tokenizer.cls_id,
        eos_token_id=tokenizer.sep_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
    )


def _checkpoint(config: PretrainConfig) -> convert.Checkpoint:
    checkpoint = convert.load(convert.locate(config.init_from))
    if checkpoint.head != "masked_lm":
        raise UserError(f"{config.init_from}: its head is {checkpoint.head}, not masked_lm")
    return checkpoint


def _matched(
    config: PretrainConfig, checkpoint: convert.Checkpoint, params: Any, tokenizer: Tokenizer
) -> Any:
    """Transfer parameters to the vocabulary of the data."""
    if checkpoint.tokenizer is None:
        raise UserError(f"{config.init_from}: has no tokenizer to match the data's tokens with")
    size = config.model.vocab_size
    matched = vocabulary.match(checkpoint.tokenizer, tokenizer, size)
    if jax.process_index() == 0:
        print(f"new vocabulary: {matched}", file=sys.stderr, flush=True)
    model = dataclasses.replace(
        checkpoint.config, vocab_size=size, pad_token_id=config.model.pad_token_id
    )
    fresh = draw_params(MaskedLM(model, config.runtime), init_key(config.seed))
    return vocabulary.transfer(params, fresh, matched)


def _check_vocabulary(
    config: PretrainConfig, checkpoint: convert.Checkpoint, tokenizer: Tokenizer
) -> None:
    """Raise `UserError` if the checkpoint's tokenizer is not that of the data."""
    theirs = checkpoint.tokenizer
    if theirs is None:
        return
    ours, old = (t.backend.get_vocab(with_added_tokens=True) for t in (tokenizer, theirs))
    if ours != old:
        raise UserError(
            f"{config.init_from}: its tokenizer is not that of {config.data}; prepare the data with"
            f" --tokenizer {config.init_from}, or pass --init-vocabulary matched"
        )


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, params)
