"""Tiling: initial weights of a larger model from a smaller one, as for ModernBERT large from base.

Every tensor is filled with repeats of the smaller tensor along each axis. Every layer is made from
the one at the same relative depth (Warner et al. 2024, section 2.2.3, after Phi). Values are not
rescaled.
"""

from typing import Literal

import jax
import numpy as np

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM

Mode = Literal["middle", "edge", "center"]


def tile(
    params: names.Params,
    config: ModernBertConfig,
    larger_config: ModernBertConfig,
    mode: Mode = "middle",
    legacy: bool = False,
    seed: int = 0,
) -> names.Params:
    """Make parameters of `MaskedLM(larger_config)` from those of `MaskedLM(config)`.

    Args:
        params: parameters of the smaller model, a nested dict.
        config: the smaller architecture.
        larger_config: the larger architecture.
        mode: "middle" repeats a tensor outwards from the middle of the larger one, "edge" from its
            first row and column; "center" copies it once into the middle and keeps random initial
            values around it.
        legacy: true reproduces the research code: the final norm stays at ones, and depths whose
            layer map exceeds the smaller model are refused.
        seed: seed of the random values of "center".

    Returns:
        A nested dict of float32 numpy arrays. The first layer has no attention norm; a later layer
        made from it gets ones there.

    Raises:
        UserError: a model that is not larger, or another vocabulary.
    """
    _check(config, larger_config)
    if mode not in ("middle", "edge", "center"):
        raise UserError(f"mode is {mode!r}; it must be middle, edge or center")
    shapes = names.shapes(names.table(larger_config, "masked_lm"))
    if mode == "center":
        ids = np.zeros((1, 8), np.int32)
        init = jax.jit(MaskedLM(larger_config, Runtime()).init)
        start = jax.tree.map(np.array, init(jax.random.key(seed), ids, ids, ids)["params"])
    else:
        start = {}
        for path, shape in shapes.items():
            names.put(start, path, np.ones(shape, np.float32))
    small, large = names.flatten(params), names.flatten(start)
    layers = layer_map(config.num_hidden_layers, larger_config.num_hidden_layers, legacy)
    for path in (p for p in small if not _is_layer(p)):
        if legacy and path[:2] == ("encoder", "final_norm"):
            large[path][:] = np.ones_like(large[path])
        else:
            large[path][:] = _fill(small[path], large[path], mode)
    for new, old in enumerate(layers):
        source, target = _layer(small, config, old), _layer(large, larger_config, new)
        for path in source.keys() & target.keys():
            target[path][...] = _fill(source[path], target[path], mode)
    return start


def layer_map(old: int, new: int, legacy: bool = False) -> list[int]:
    """Map each of `new` layers to the one of `old` layers at the same relative depth.

    Halves are rounded to even. Without `legacy`, indices beyond the last layer become the last.

    Raises:
        UserError: with `legacy`, an index beyond the last layer, where the research code failed.
    """
    layers = [round(i * old / new) for i in range(new)]
    if legacy and max(layers) >= old:
        raise UserError(
            f"tiling {old} layers to {new} needs layer {max(layers)}, which does not exist; pass"
            " legacy=False"
        )
    return [min(layer, old - 1) for layer in layers]


def tiled(x: np.ndarray, shape: tuple[int, ...], mode: Literal["middle", "edge"]) -> np.ndarray:
    """Repeat `x` to a larger shape: [1, 2, 3] to 7 is [2, 3, 1, 2, 3, 1, 2] from the middle.

    Element i of an axis is element (i - offset) mod n of the smaller one. For sizes n and m, the
    offset is (m - n) // 2 from the middle and 0 from the edge. An axis of equal size is unchanged.
    """
    for axis, (n, m) in enumerate(zip(x.shape, shape, strict=True)):
        offset = (m - n) // 2 if mode == "middle" else 0
        x = x.take((np.arange(m) - offset) % n, axis)
    return x


def _fill(x: np.ndarray, start: np.ndarray, mode: Mode) -> np.ndarray:
    x = np.asarray(x, np.float32)
    if mode != "center":
        return tiled(x, start.shape, mode)
    filled = start.copy()
    offsets = [(m - n) // 2 for n, m in zip(x.shape, start.shape, strict=True)]
    filled[tuple(slice(o, o + n) for o, n in zip(offsets, x.shape, strict=True))] = x
    return filled


def _is_layer(path: tuple[str, ...]) -> bool:
    return path[0] == "encoder" and path[1].startswith(("layer_", "groups"))


def _layer(leaves: dict, config: ModernBertConfig, layer: int) -> dict[tuple[str, ...], np.ndarray]:
    """Return views of one layer's tensors, by their path within the layer."""
    where, index = config.locate(layer)
    prefix = ("encoder", *where)
    views = {p[len(prefix) :]: x for p, x in leaves.items() if p[: len(prefix)] == prefix}
    return views if index is None else {p: x[index] for p, x in views.items()}


def _check(config: ModernBertConfig, larger: ModernBertConfig) -> None:
    for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"):
        small, large = getattr(config, name), getattr(larger, name)
        if large < small:
            raise UserError(f"tiling makes models larger: {name} is {large}, less than {small}")
    for name in (
        "vocab_size",
        "norm_bias",
        "attention_bias",
        "mlp_bias",
        "decoder_bias",
        "classifier_bias",
        "tie_word_embeddings",
    ):
        if getattr(config, name) != getattr(larger, name):
            raise UserError(
                f"tiling keeps {name}: it is {getattr(config, name)} in the smaller model and"
                f" {getattr(larger, name)} in the larger one"
            )
