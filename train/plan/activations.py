"""Bytes of activations that the backward pass keeps, counted without compiling."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

from modernbert_jax.config import Remat
from modernbert_jax.heads import MaskedLM

from ..loss import masked_lm_sums
from ..pretrain.config import PretrainConfig, Stage


class Activations:
    """Bytes of activations in a stage of a run.

    Tracing counts what a rematerialisation policy keeps per row. The compiler may need somewhat
    less or more, so this guides the search and does not decide what fits.
    """

    def __init__(self, config: PretrainConfig, stage: Stage, mesh: Mesh):
        self._config, self._stage = config, stage
        # Attention is chosen by the kind of device, so one device suffices.
        self._alone = Mesh(mesh.devices.reshape(-1)[:1], ("data",), axis_types=(AxisType.Auto,))
        self._groups = max(config.model.scan_plan.groups, 1)
        self._known: dict[str, float] = {}

    def of_a_row(self, remat: Remat) -> float:
        """Bytes per further row on a device, with those of the group being recomputed."""
        kept = self._kept(remat)
        return kept if remat == "none" else kept + self._kept("none") / self._groups

    def _kept(self, remat: Remat) -> float:
        if remat not in self._known:
            one, two = (self._residuals(remat, rows) for rows in (1, 2))
            self._known[remat] = two - one
        return self._known[remat]

    def _residuals(self, remat: Remat, rows: int) -> int:
        config, stage = self._config, self._stage
        runtime = dataclasses.replace(config.runtime, remat=remat)
        model = dataclasses.replace(
            config.stage_model(stage), attention_dropout=config.attention_dropout
        )
        module = MaskedLM(model, runtime)
        ids = jax.ShapeDtypeStruct((rows, stage.length), jnp.int32)
        key = jax.eval_shape(lambda: jax.random.key(0))

        def residuals(params, key, ids):
            def loss(params):
                return masked_lm_sums(module, params, ids, ids, ids, ids, key).loss

            return jax.vjp(loss, params)[1]

        with jax.set_mesh(self._alone):
            params = jax.eval_shape(module.init, key, ids, ids, ids)["params"]
            kept = jax.eval_shape(residuals, params, key, ids)
        return sum(
            math.prod(x.shape) * getattr(x.dtype, "itemsize", 4) for x in jax.tree.leaves(kept)
        )
