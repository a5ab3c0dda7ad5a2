"""LoRA adapters (Hu et al. 2021): W + alpha / rank * A B, with W fixed and A and B trained.

Adapters are merged into their matrices inside the step. So a step has the matrix products of the
plain model and computes exactly what the exported model computes. Names, initial values and files
are those of PEFT.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import ranges
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.ranges import Natural, Positive, Rate

from . import parameter_selection as tensors

ALL_LINEAR = "all-linear"
"""Target that selects every matrix of every layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """Options of LoRA adapters."""

    rank: Natural = 0
    """Rank of A and B; 0 trains the whole model without adapters."""
    alpha: Positive = 16.0
    """Scale of the adapters: the product A B is multiplied by alpha / rank."""
    dropout: Rate = 0.0
    """Share of the input features that adapters drop in a training step; 0 drops none. Features are
    the same for all tokens of a microbatch, because adapters are merged first."""
    targets: tuple[str, ...] = ("attn.Wqkv", "attn.Wo")
    """Modules that get an adapter, by the end of their name: `mlp.Wi`, `layers.3.attn.Wo`; or
    `all-linear`."""
    init: Literal["kaiming", "normal"] = "kaiming"
    """Initial values of A: uniform within 1/sqrt(inputs), as PEFT's, or normal with standard
    deviation 1/rank. B starts at 0."""
    whole: tuple[str, ...] = ("head", "classifier")
    """Modules that are trained in full, without an adapter, by the start of their name, such as
    `model.layers.21`; PEFT's `modules_to_save`."""

    def __post_init__(self):
        ranges.check(self, "lora.")
        if not self.targets:
            raise UserError(f"lora.targets is empty; name modules, or {ALL_LINEAR}")
        if self.init not in ("kaiming", "normal"):
            raise UserError(f"lora.init is {self.init!r}; it must be kaiming or normal")

    def is_whole(self, name: str) -> bool:
        """Return whether a tensor belongs to a module that is trained in full."""
        return any(_starts(name, module) for module in self.whole)


@dataclasses.dataclass(frozen=True)
class Adapters:
    """The adapters of a model.

    In the trained tree, `lora_A` [D, rank] and `lora_B` [rank, E] take the place of a `kernel`
    [D, E]. B also has the kernel's axis of parts, if any; both have its axis of stacked layers.
    """

    lora: Lora
    """The options."""
    places: Mapping[tensors.Path, np.ndarray | None]
    """Kernels with adapters: by path, the indices of the adapted layers of a stack; None for a
    kernel that is not stacked."""
    wholes: Mapping[tensors.Path, np.ndarray | None]
    """Parameters that are trained in full, in the same form."""

    @classmethod
    def of(cls, lora: Lora, rows: tensors.Rows) -> "Adapters":
        """Build the adapters for the tensors of a model.

        Raises:
            UserError: a target that is no matrix of the model, or a whole module that it lacks.
        """
        modules = _modules(rows)
        chosen = {name for name, module in modules.items() if _is_target(lora, module)}
        chosen = {name for name in chosen if not lora.is_whole(name)}
        known = {module.rpartition("layers.")[2].partition(".")[2] for module in modules.values()}
        for target in lora.targets:
            hit = any(_ends(module, target) for module in modules.values())
            if target != ALL_LINEAR and not hit:
                raise UserError(
                    f"lora.targets: no matrix is named {target!r}; {did_you_mean(target, known)}"
                )
        for module in lora.whole:
            if not any(_starts(name, module) for name in rows):
                start = {name.split(".")[0] for name in rows}
                raise UserError(
                    f"lora.whole: no tensor's name starts with {module!r};"
                    f" {did_you_mean(module, start)}"
                )
        return cls(lora, _places(rows, chosen.__contains__), _places(rows, lora.is_whole))

    def init(self, key: jax.Array, params: Any) -> Any:
        """Return new adapters, float32; merging them changes nothing, since B is 0. Traceable."""
        adapters: dict[str, Any] = {}
        for (path, entries), k in zip(
            self.places.items(), jax.random.split(key, len(self.places)), strict=True
        ):
            *stack, inputs, outputs = names.leaf(params, path).shape
            groups = () if entries is None else (len(entries),)
            parts = stack if entries is None else stack[1:]
            shape = (*groups, inputs, self.lora.rank)
            if self.lora.init == "kaiming":
                edge = inputs**-0.5
                a = jax.random.uniform(k, shape, jnp.float32, -edge, edge)
            else:
                a = jax.random.normal(k, shape, jnp.float32) / self.lora.rank
            names.put(adapters, (*path[:-1], "lora_A"), a)
            b = jnp.zeros((*groups, *parts, self.lora.rank, outputs), jnp.float32)
            names.put(adapters, (*path[:-1], "lora_B"), b)
        return adapters

    def merged(self, params: Any, adapters: Any, key: jax.Array | None = None) -> Any:
        """Return the merged parameters W + alpha / rank * A B.

        Traceable, and differentiable in both trees.

        Args:
            params: parameters of the plain model.
            adapters: a tree with `lora_A` and `lora_B`; its other leaves are ignored.
            key: random key of dropout; None disables it.
        """
        out: dict[str, Any] = {}
        for path, x in names.flatten(params).items():
            names.put(out, path, x)
        for number, (path, entries) in enumerate(self.places.items()):
            a, b = (names.leaf(adapters, (*path[:-1], name)) for name in ("lora_A", "lora_B"))
            if key is not None and self.lora.dropout:
                keep = 1 - self.lora.dropout
                kept = jax.random.bernoulli(jax.random.fold_in(key, number), keep, a[..., :1].shape)
                a = a * kept / keep
            kernel = names.leaf(params, path)
            missing = kernel.ndim - a.ndim  # the axis of parts, between stack and inputs
            a = a.reshape(*a.shape[:-2], *(1 for _ in range(missing)), *a.shape[-2:])
            delta = (self.lora.alpha / self.lora.rank * (a @ b)).astype(kernel.dtype)
            whole = entries is None or len(entries) == kernel.shape[0]
            merged = kernel + delta if whole else jnp.asarray(kernel).at[entries].add(delta)
            names.put(out, path, merged)
        return out


def _places(
    rows: tensors.Rows, chosen: Callable[[str], bool]
) -> dict[tensors.Path, np.ndarray | None]:
    marks = tensors.by_parameter(rows, chosen)
    return {p: np.flatnonzero(m) if m.ndim else None for p, m in marks.items() if m.any()}


def _modules(rows: tensors.Rows) -> dict[str, str]:
    """Return the matrices of the encoder's layers: tensor name -> module name."""
    return {
        name: name.removesuffix(".weight")
        for name, row in rows.items()
        if ".layers." in f".{name}" and row.transform.transpose
    }


def _is_target(lora: Lora, module: str) -> bool:
    return ALL_LINEAR in lora.targets or any(_ends(module, target) for target in lora.targets)


def _starts(name: str, module: str) -> bool:
    """Whether a name begins with all of a module's; layers after the encoder have a slash."""
    return name == module or name.startswith((f"{module}.", f"{module}/"))


def _ends(module: str, target: str) -> bool:
    return f".{module}".endswith(f".{target}")
