"""The trainable subset of a model: all parameters, those that are not frozen, or adapters.

A run trains one tree and keeps another fixed; gradients and optimizer state exist for the first
only. `split` divides a model's parameters into both, `join` restores them inside the step:

    partition = Partition.of(model, head, labels, freeze=config.freeze, lora=config.lora, ...)
    trained, fixed = partition.split(params, key)       # fixed: {} if all is trained
    tx = partition.layerwise(tx, config.layer_decay)    # an optimizer of `trained`
    loss(partition.join(trained, fixed, dropout_key))   # differentiate in `trained`
    partition.join(trained, fixed)                      # to evaluate and to export: a plain model
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError

from . import parameter_selection as tensors
from .layerwise_lr import multipliers, scaled
from .lora import Adapters, Lora


@dataclasses.dataclass(frozen=True)
class Partition:
    """The division of a model's parameters into trained and fixed ones.

    `Partition()` trains all parameters of any model; layer-wise learning rates need `Partition.of`.
    """

    trained: Mapping[tensors.Path, np.ndarray] = dataclasses.field(default_factory=dict)
    """Booleans by parameter path, [] or, for a stack, [G]; empty trains everything."""
    depths: Mapping[tensors.Path, np.ndarray] = dataclasses.field(default_factory=dict)
    """Distances from the input by parameter path, [] or, for a stack, [G]."""
    adapters: Adapters | None = None
    """LoRA adapters; None without."""

    @classmethod
    def of(
        cls,
        model: ModernBertConfig,
        head: str,
        labels: int,
        *,
        freeze: Sequence[str] = (),
        freeze_layers: int = 0,
        lora: Lora | None = None,
    ) -> "Partition":
        """Build the partition of a model with a head; see `of_rows`.

        Args:
            model: the architecture.
            head: a key of `convert.names.heads`.
            labels: the number of outputs of the classifier.
            freeze: see `of_rows`.
            freeze_layers: see `of_rows`.
            lora: see `of_rows`.
        """
        rows = names.table(model, head, labels)
        return cls.of_rows(model, rows, freeze=freeze, freeze_layers=freeze_layers, lora=lora)

    @classmethod
    def of_rows(
        cls,
        model: ModernBertConfig,
        rows: tensors.Rows,
        *,
        own: Sequence[tensors.Path] = (),
        freeze: Sequence[str] = (),
        freeze_layers: int = 0,
        lora: Lora | None = None,
    ) -> "Partition":
        """Build the partition of a model from its tensors.

        Args:
            model: the architecture.
            rows: the tensors, by name.
            own: paths of parameters that are no tensors of a checkpoint, such as a temperature of
                the loss; they are trained.
            freeze: regular expressions; tensors whose name (`model.layers.3.attn.Wqkv.weight`)
                contains a match are not trained.
            freeze_layers: how many first layers, with the embeddings, are fixed; 0 fixes none.
            lora: options of adapters; everything except them and `lora.whole` is then fixed. None
                or a rank of 0 trains the parameters themselves.

        Raises:
            UserError: an expression that matches nothing, more layers than there are, nothing
                left to train, or both frozen tensors and adapters.
        """
        if not 0 <= freeze_layers <= model.num_hidden_layers:
            raise UserError(
                f"freeze_layers is {freeze_layers}; it must be 0 to {model.num_hidden_layers}"
            )
        frozen = tensors.matching(rows, freeze, "freeze")
        if freeze_layers:
            frozen |= {name for name in rows if tensors.depth(model, name) <= freeze_layers}
        adapters = Adapters.of(lora, rows) if lora and lora.rank else None
        if adapters and frozen:
            raise UserError(
                "freeze and lora exclude each other: all but adapters is frozen; say what is"
                " trained with lora.targets and lora.whole"
            )
        if adapters:
            frozen |= {name for name in rows if not adapters.lora.is_whole(name)}
        elif len(frozen) == len(rows):
            raise UserError("freeze leaves nothing to train; name fewer tensors")
        trained = tensors.by_parameter(rows, lambda name: name not in frozen)
        depths = tensors.by_parameter(rows, lambda name: tensors.depth(model, name))
        last = np.array(model.num_hidden_layers + 1)
        return cls(
            trained | {path: np.array(True) for path in own},
            depths | dict.fromkeys(own, last),
            adapters,
        )

    @property
    def is_whole(self) -> bool:
        """Whether all parameters are trained, without adapters."""
        return self.adapters is None and all(mask.all() for mask in self.trained.values())

    def split(self, params: Any, key: jax.Array | None = None) -> tuple[Any, Any]:
        """Return the trained and the fixed tree; `key` draws new adapters. Traceable."""
        if self.trained:
            self._check(params)
        if self.is_whole:
            return params, {}
        trained: dict[str, Any] = {}
        fixed: dict[str, Any] = {}
        for path, x in names.flatten(params).items():
            mask = self.trained[path]
            for tree, kept in ((trained, mask), (fixed, ~mask)):
                if kept.any():
                    names.put(tree, path, x if kept.all() else x[np.flatnonzero(kept)])
        if self.adapters and key is not None:
            for path, x in names.flatten(self.adapters.init(key, params)).items():
                names.put(trained, path, x)
        return trained, fixed

    def join(self, trained: Any, fixed: Any, key: jax.Array | None = None) -> Any:
        """Return the parameters with adapters merged; `key` enables their dropout. Traceable."""
        if self.is_whole:
            return trained
        params: dict[str, Any] = {}
        parts = names.flatten(trained), names.flatten(fixed)
        for path, mask in self.trained.items():
            if mask.all() or not mask.any():
                joined = parts[0 if mask.all() else 1][path]
            else:
                order = np.argsort(np.argsort(mask, kind="stable"))
                joined = jnp.concatenate([parts[1][path], parts[0][path]])
                joined = joined if (np.diff(order) > 0).all() else joined[order]
            names.put(params, path, joined)
        return self.adapters.merged(params, trained, key) if self.adapters else params

    def joiner(self, fixed: Any, key: jax.Array | None = None) -> Callable[[Any], Any]:
        """Return `join` as a function of the trained tree alone."""
        return lambda trained: self.join(trained, fixed, key)

    def layerwise(
        self, tx: optax.GradientTransformation, decay: float
    ) -> optax.GradientTransformation:
        """Scale an optimizer's updates by `decay` for every layer further from the head."""
        if decay == 1.0:
            return tx
        layers = multipliers(self.depths, decay)
        tree: dict[str, Any] = {}
        for path, mask in self.trained.items():
            if mask.any():
                names.put(tree, path, layers[path][mask] if mask.ndim else layers[path])
        if self.adapters:
            for path, of in self.adapters.places.items():
                for name in ("lora_A", "lora_B"):
                    kept = layers[path][of] if of is not None else layers[path]
                    names.put(tree, (*path[:-1], name), kept)
        return scaled(tx, tree)

    def _check(self, params: Any) -> None:
        """Raise `ValueError` for the parameters of another model."""
        if other := names.flatten(params).keys() ^ self.trained.keys():
            raise ValueError(f"parameters differ from the model's: {sorted(other)[:5]}")
