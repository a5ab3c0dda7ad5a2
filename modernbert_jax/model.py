"""The encoder, as Flax modules over packed rows (Warner et al. 2024, section 2.1).

Shapes: B rows, T tokens, D model, N heads, H head width, F feed-forward, V vocabulary, G groups.
Documents share a row. `segment_ids` separates them and `positions` restarts in each, so that the
result for a document does not depend on its neighbours.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.architecture import LayerKind, block_name
from modernbert_jax.attention import KeyRanges, attention, has_forward_mode, key_ranges
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.initializers import Initializer, truncated_normal
from modernbert_jax.norms import LayerNorm
from modernbert_jax.products import products
from modernbert_jax.residual import stream
from modernbert_jax.rope import RopeTable, rope_table
from modernbert_jax.sharding import constrain

ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_fast": jax.nn.gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Activation functions by their names in a Hugging Face configuration."""


class Context(NamedTuple):
    """Facts of the batch that all layers of a kind share, computed before the first layer."""

    ranges: KeyRanges
    table: RopeTable
    dropout_ids: jax.Array | None


class Dropout(nn.Module):
    """Dropout of features of x [..., D] (Srivastava et al. 2014)."""

    rate: float
    """Probability that a feature becomes zero."""

    @nn.compact
    def __call__(self, x: jax.Array, ids: jax.Array | None, deterministic: bool) -> jax.Array:
        """Drop out features; with `ids` [...] by the id of a vector, else by its place in x."""
        if deterministic or not self.rate:
            return x
        key, share = self.make_rng("dropout"), 1 - self.rate
        if ids is None:
            kept = jax.random.bernoulli(key, share, x.shape)
        else:
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(ids.ravel())
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, share, x.shape[-1:]))
            kept = draw(keys).reshape(x.shape)
        return jnp.where(kept, x / share, 0)


class Linear(nn.Module):
    """One or several products of x [..., D] with kernels [D, E], stored in one tensor.

    With `parts` the kernel is [parts, D, E] and the result a tuple. The thirds of Wqkv and the
    halves of the gated unit are one tensor each, as in every checkpoint: the optimizer takes its
    statistics over all of it.
    """

    features: int
    """Width of the output, E."""
    kernel_init: Initializer
    dtype: jax.typing.DTypeLike
    """Dtype of the product; parameters are float32."""
    use_bias: bool
    parts: int | None = None
    """Number of kernels; None is one, without an axis for it."""
    kinds: tuple[str | None, str | None] = (None, None)
    """Kinds of dimensions D and E in `sharding.ShardingRules`, where tensor parallelism divides
    one."""
    forward_mode: bool = True
    """Whether forward-mode and higher derivatives stay available; see `products`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        """Product [..., E], or one for each part."""
        stack = () if self.parts is None else (self.parts,)
        kernel = self.param("kernel", self.kernel_init, (*stack, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        kernel = constrain(kernel, *(None for _ in stack), *self.kinds)
        results = products(x, kernel if self.parts else kernel[None], self.forward_mode)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (*stack, self.features))
            bias = bias.astype(self.dtype).reshape(len(results), self.features)
            results = [y + b for y, b in zip(results, bias, strict=True)]
        return tuple(results) if self.parts else results[0]


def norm(config: ModernBertConfig, name: str) -> LayerNorm:
    """LayerNorm over D as the configuration describes it."""
    return LayerNorm(epsilon=config.norm_eps, use_bias=config.norm_bias, name=name)


class Embeddings(nn.Module):
    """Token embeddings and their norm."""

    config: ModernBertConfig

    def setup(self) -> None:
        c = self.config
        shape = (c.vocab_size, c.hidden_size)
        self.embedding = self.param("embedding", truncated_normal(c, "in"), shape)
        self.norm = norm(c, "norm")
        self.dropout = Dropout(c.embedding_dropout)

    def __call__(
        self, token_ids: jax.Array, dropout_ids: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        """Normalised embeddings [B, T, D] of token ids [B, T]."""
        table = constrain(self.embedding, "vocab", None)
        x = constrain(table[token_ids], "rows", "tokens", None)
        return self.dropout(self.norm(x), dropout_ids, deterministic)

    def decode(self, x: jax.Array) -> jax.Array:
        """Product of x [..., D] with the transposed table: scores [..., V] in the dtype of x."""
        table = constrain(self.embedding.astype(x.dtype), "vocab", None)
        return jnp.einsum("...D,VD->...V", x, table)


class Attention(nn.Module):
    """Self-attention over each query's key range."""

    config: ModernBertConfig
    runtime: Runtime
    kind: LayerKind
    forward_mode: bool
    """As in `Linear`."""

    @nn.compact
    def __call__(self, x: jax.Array, context: Context, deterministic: bool) -> jax.Array:
        """Attention of x [B, T, D] with its output projection: [B, T, D]."""
        c = self.config
        linear = functools.partial(
            Linear,
            c.hidden_size,
            dtype=jnp.dtype(self.runtime.dtype),
            use_bias=c.attention_bias,
            forward_mode=self.forward_mode,
        )
        qkv = linear(truncated_normal(c, "in"), parts=3, kinds=(None, "heads"), name="Wqkv")(x)
        heads = (*x.shape[:-1], c.num_attention_heads, c.head_dim)
        q, k, v = (y.reshape(heads) for y in qkv)
        out = attention(
            q,
            k,
            v,
            context.ranges,
            rope=context.table,
            window=c.window(self.kind),
            implementation=self.runtime.attention_of(self.kind),
        )
        out = linear(truncated_normal(c, "out"), kinds=("heads", None), name="Wo")(
            out.reshape(x.shape)
        )
        return Dropout(c.attention_dropout)(out, context.dropout_ids, deterministic)


class GatedLinearUnit(nn.Module):
    """Wo(act(Wi_0 x) * Wi_1 x) (Shazeer 2020), of which the second half of Wi is the gate."""

    config: ModernBertConfig
    runtime: Runtime
    forward_mode: bool
    """As in `Linear`."""

    @nn.compact
    def __call__(self, x: jax.Array, context: Context, deterministic: bool) -> jax.Array:
        """Feed-forward of x [B, T, D]: [B, T, D]."""
        c = self.config
        linear = functools.partial(
            Linear,
            dtype=jnp.dtype(self.runtime.dtype),
            use_bias=c.mlp_bias,
            forward_mode=self.forward_mode,
        )
        hidden, gate = linear(
            c.intermediate_size,
            truncated_normal(c, "in"),
            parts=2,
            kinds=(None, "mlp"),
            name="Wi",
        )(x)
        hidden = ACTIVATION[c.hidden_activation](hidden) * gate
        hidden = Dropout(c.mlp_dropout)(hidden, context.dropout_ids, deterministic)
        return linear(c.hidden_size, truncated_normal(c, "out"), kinds=("mlp", None), name="Wo")(
            hidden
        )


class Block(nn.Module):
    """One pre-norm layer. The first layer has no attention norm, as the embeddings end in one."""

    config: ModernBertConfig
    runtime: Runtime
    kind: LayerKind
    first: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, contexts: dict[LayerKind, Context], deterministic: bool
    ) -> jax.Array:
        """The layer on the residual stream [B, T, D]."""
        c, r, context = self.config, self.runtime, contexts[self.kind]
        forward_mode = has_forward_mode(r.attention_of(self.kind))
        x = stream(constrain(x, "rows", "tokens", None), forward_mode)
        normed = x if self.first else norm(c, "attn_norm")(x)
        attend = Attention(c, r, self.kind, forward_mode, name="attn")
        x = x + attend(normed, context, deterministic)
        x = stream(x, forward_mode)
        feed_forward = GatedLinearUnit(c, r, forward_mode, name="mlp")
        return x + feed_forward(norm(c, "mlp_norm")(x), context, deterministic)


class Group(nn.Module):
    """The repeated unit of layers, in the form of a body of `nn.scan`."""

    config: ModernBertConfig
    runtime: Runtime

    @nn.compact
    def __call__(
        self, x: jax.Array, contexts: dict[LayerKind, Context], deterministic: bool
    ) -> tuple[jax.Array, None]:
        """All layers of the group on the residual stream [B, T, D]."""
        for j, kind in enumerate(self.config.scan_plan.pattern):
            block = Block(self.config, self.runtime, kind, name=block_name(kind, j))
            x = block(x, contexts, deterministic)
        return x, None


class Encoder(nn.Module):
    """Token ids to hidden states: layer 0, scanned groups, unrolled other layers, final norm."""

    config: ModernBertConfig
    runtime: Runtime = Runtime()

    def setup(self) -> None:
        c, r = self.config, self.runtime
        self.embeddings = Embeddings(c)
        block, group = _rematerialised(Block, r), _rematerialised(Group, r)
        self.layer_0 = block(c, r, c.layer_kinds[0], first=True)
        if c.scan_plan.groups:
            self.groups = nn.scan(
                group,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(nn.broadcast, nn.broadcast),
                length=c.scan_plan.groups,
                unroll=1 if r.scan_layers else c.scan_plan.groups,
            )(c, r)
        self.tail = [block(c, r, c.layer_kinds[i], name=f"layer_{i}") for i in c.scan_plan.tail]
        self.final_norm = norm(c, "final_norm")

    def __call__(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        visible: jax.Array | None = None,
        dropout_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Hidden states after the final norm, float32 [B, T, D].

        Args:
            token_ids: int32 [B, T].
            segment_ids: int32 [B, T]; 0 is padding, each document one run of a positive id.
            positions: int32 [B, T], counting from 0 in every document.
            visible: boolean [B, T], the tokens that others attend to; the others must be the last
                ones of a document. None is all.
            dropout_ids: integers [B, T]; dropout of a token is a function of its id and the
                "dropout" rng, independent of packing. None: a function of its place.
            deterministic: False enables dropout, with the "dropout" rng.
        """
        c = self.config
        contexts = {
            kind: Context(
                key_ranges(segment_ids, c.window(kind), causal=c.causal, visible=visible),
                rope_table(positions, c.rope(kind)[0], c.head_dim, c.rope(kind)[1]),
                dropout_ids,
            )
            for kind in sorted(set(c.layer_kinds))
        }
        x = self.embeddings(token_ids, dropout_ids, deterministic)
        x = self.layer_0(x, contexts, deterministic)
        if c.scan_plan.groups:
            x, _ = self.groups(x, contexts, deterministic)
        for block in self.tail:
            x = block(x, contexts, deterministic)
        return self.final_norm(x)


def _rematerialised(module: type[nn.Module], runtime: Runtime) -> type[nn.Module]:
    if runtime.remat == "none":
        return module
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
    }[runtime.remat]
    # Outside of a loop the compiler would merge the recomputation with the forward pass.
    looped = module is Group and runtime.scan_layers
    return nn.remat(module, policy=policy, prevent_cse=not looped, static_argnums=(3,))
