"""The encoder, as Flax modules over packed rows (Warner et al. 2024, section 2.1).

Shapes: B rows, T tokens, D model, N heads, H head width, F feed-forward, V vocabulary, G groups.
Documents share a row; `segment_ids` keeps them apart and `positions` restarts in each, so the
result for a document does not depend on its neighbours.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.architecture import LayerKind, block_name
from modernbert_jax.attention import KeyRanges, attention, key_ranges
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.initializers import Role, truncated_normal
from modernbert_jax.residual import stream
from modernbert_jax.rope import RopeTable, rope_table
from modernbert_jax.sharding import constrain

ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Context(NamedTuple):
    """What every layer of a kind needs of the batch, computed once before the first layer."""

    ranges: KeyRanges
    table: RopeTable
    dropout_ids: jax.Array | None


class Dropout(nn.Module):
    """Zeroes features of x [..., D] at a rate, and scales the others (Srivastava et al. 2014)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, ids: jax.Array | None, deterministic: bool) -> jax.Array:
        """With `ids` [...], what a vector loses follows from its id, wherever in x it stands."""
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
    """One or several products of x [..., D] with kernels [D, E], held in one tensor.

    With `parts` the kernel is [parts, D, E] and the result a tuple: the thirds of Wqkv and the
    halves of the gated unit stay one tensor, as in every checkpoint, because the optimizer takes
    its statistics over the whole of it.
    """

    features: int
    role: Role
    config: ModernBertConfig
    dtype: Any
    use_bias: bool
    parts: int | None = None
    divided: str | None = None
    """The kind of the dimension that tensor parallelism divides: E if `role` is "in", else D."""

    @nn.compact
    def __call__(self, x: jax.Array):
        stack = () if self.parts is None else (self.parts,)
        init = truncated_normal(self.config, self.role)
        kernel = self.param("kernel", init, (*stack, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        kinds = (None, self.divided) if self.role == "in" else (self.divided, None)
        kernel = constrain(kernel, *(None for _ in stack), *kinds)
        products = [x @ part for part in (kernel if self.parts else kernel[None])]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (*stack, self.features))
            bias = bias.astype(self.dtype).reshape(len(products), self.features)
            products = [y + b for y, b in zip(products, bias, strict=True)]
        return tuple(products) if self.parts else products[0]


def norm(config: ModernBertConfig, name: str) -> nn.LayerNorm:
    """LayerNorm in float32 over D, with the two-pass variance that PyTorch computes."""
    return nn.LayerNorm(
        epsilon=config.norm_eps,
        use_bias=config.norm_bias,
        use_fast_variance=False,
        dtype=jnp.float32,
        name=name,
    )


class Embeddings(nn.Module):
    """Token table and its norm. `decode` is the product with the transposed table."""

    config: ModernBertConfig

    def setup(self):
        c = self.config
        shape = (c.vocab_size, c.hidden_size)
        self.embedding = self.param("embedding", truncated_normal(c, "in"), shape)
        self.norm = norm(c, "norm")
        self.dropout = Dropout(c.embedding_dropout)

    def __call__(
        self, token_ids: jax.Array, dropout_ids: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        table = constrain(self.embedding, "vocab", None)
        x = constrain(table[token_ids], "rows", "tokens", None)
        return self.dropout(self.norm(x), dropout_ids, deterministic)

    def decode(self, x: jax.Array) -> jax.Array:
        """Scores of every token for x [..., D]: [..., V], in the dtype of x."""
        table = constrain(self.embedding.astype(x.dtype), "vocab", None)
        return jnp.einsum("...D,VD->...V", x, table)


class Attention(nn.Module):
    """Self-attention over each query's key range."""

    config: ModernBertConfig
    runtime: Runtime
    kind: LayerKind

    @nn.compact
    def __call__(self, x, context: Context, deterministic: bool):
        c, dtype = self.config, jnp.dtype(self.runtime.dtype)
        linear = {"config": c, "dtype": dtype, "use_bias": c.attention_bias, "divided": "heads"}
        qkv = Linear(c.hidden_size, "in", parts=3, name="Wqkv", **linear)(x)
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
        out = Linear(c.hidden_size, "out", name="Wo", **linear)(out.reshape(x.shape))
        return Dropout(c.attention_dropout)(out, context.dropout_ids, deterministic)


class GatedLinearUnit(nn.Module):
    """Wo(act(Wi_0 x) * Wi_1 x) (Shazeer 2020): the first half is activated, the second gates."""

    config: ModernBertConfig
    runtime: Runtime

    @nn.compact
    def __call__(self, x, context: Context, deterministic: bool):
        c = self.config
        dtype = jnp.dtype(self.runtime.dtype)
        linear = {"config": c, "dtype": dtype, "use_bias": c.mlp_bias, "divided": "mlp"}
        hidden, gate = Linear(c.intermediate_size, "in", parts=2, name="Wi", **linear)(x)
        hidden = ACTIVATION[c.hidden_activation](hidden) * gate
        hidden = Dropout(c.mlp_dropout)(hidden, context.dropout_ids, deterministic)
        return Linear(c.hidden_size, "out", name="Wo", **linear)(hidden)


class Block(nn.Module):
    """One pre-norm layer. The first layer has no attention norm: the embeddings end in one."""

    config: ModernBertConfig
    runtime: Runtime
    kind: LayerKind
    first: bool = False

    @nn.compact
    def __call__(self, x, contexts: dict[LayerKind, Context], deterministic: bool):
        c, r = self.config, self.runtime
        x = constrain(x, "rows", "tokens", None)
        # Other implementations have derivatives that `stream` has not.
        keep = stream if r.attention_of(self.kind) in ("auto", "xla_range") else lambda x: x
        x = keep(x)
        normed = x if self.first else norm(c, "attn_norm")(x)
        context = contexts[self.kind]
        x = x + Attention(c, r, self.kind, name="attn")(normed, context, deterministic)
        x = keep(x)
        return x + GatedLinearUnit(c, r, name="mlp")(norm(c, "mlp_norm")(x), context, deterministic)


class Group(nn.Module):
    """The repeating unit of layers, in the form that `nn.scan` wants."""

    config: ModernBertConfig
    runtime: Runtime

    @nn.compact
    def __call__(self, x, contexts: dict[LayerKind, Context], deterministic: bool):
        for j, kind in enumerate(self.config.scan_plan.pattern):
            block = Block(self.config, self.runtime, kind, name=block_name(kind, j))
            x = block(x, contexts, deterministic)
        return x, None


class Encoder(nn.Module):
    """Token ids to hidden states: layer 0, scanned groups, the unrolled rest, final norm."""

    config: ModernBertConfig
    runtime: Runtime = Runtime()

    def setup(self):
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
            visible: boolean [B, T]; tokens that are not see the others and are seen by none. They
                must be the last ones of a document. None is all.
            dropout_ids: integers [B, T]; what a token loses follows from its id and the "dropout"
                rng, so that it does not depend on how documents are packed. None: from its place.
            deterministic: False drops out, with the "dropout" rng.
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
    # In a loop the forward and the backward pass cannot share a layer; elsewhere the compiler would
    # see that both compute the same, and keep it.
    looped = module is Group and runtime.scan_layers
    return nn.remat(module, policy=policy, prevent_cse=not looped, static_argnums=(3,))
