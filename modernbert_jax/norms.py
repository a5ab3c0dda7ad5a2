"""LayerNorm (Ba et al. 2016), in the form that XLA computes fast on CPU."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.platform import device
from modernbert_jax.sharding import divides_only_rows


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis in float32, with the two-pass variance of PyTorch.

    On CPU XLA's reductions take five times as long where a device has a single row [1, T, D] as
    where it has [T, D]: the gradients of 1,024 vectors of 768 take 15 instead of 3 ms. So rows and
    tokens become one axis there.
    """

    use_fast_variance: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # no mask
        """Normalised x [..., D]: float32 [..., D]."""
        if device()[0] == "cpu" and divides_only_rows():
            return super().__call__(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        return super().__call__(x)
