"""Cycles that a TPU will take for an attention layer, counted in the compiled program.

A TPU core runs its bundles of instructions in order, one per cycle. So the bundles of a kernel's
final code, each as often as its loop runs, are a lower bound of its cycles; for everything else the
compiler writes its own estimate into the program. What is left out: waiting for memory and for
other chips, and dispatch. Ratios near one mean nothing.

    python static_cost.py NAME TOPOLOGY

prints the code of a layer's forward and backward pass as JSON. It is a program of its own because
the folder of the bundles is set before the compiler is loaded.
"""

import dataclasses
import json
import os
import re
import sys
import tempfile
from pathlib import Path

LENGTH, HEADS, HEAD_DIM, WINDOW = 8192, 12, 64, 128
SPLASH = {"local": (512, 256), "global": (1024, 512)}
"""Splash's best blocks for v5e: of queries, and of keys computed at a time."""

TOKAMAX = {"local": (512, 256, 256), "global": (1024, 1024, 512)}
"""The same for tokamax's splash: queries, keys, and keys computed at a time."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of bundles without a jump.

    `depth` counts the loops around it: 1 for the grid, 2 for a loop in the kernel. `conditional`
    parts can be jumped over.
    """

    bundles: int
    depth: int
    conditional: bool


BUNDLE = re.compile(r"^ *(?:0x[0-9a-f]+|\d+) +([A-Z]{2})? *: *((?:> ?)*)\{(.*)")
"""Address, label, a ">" for every loop around, instructions."""

DELAY = 5
"""Bundles from the one that jumps to the last that is executed before it has jumped."""


def parts(text: str) -> list[Part]:
    """The parts of a kernel's final code."""
    pieces, jumped = [], 0
    for line in text.splitlines():
        if not (match := BUNDLE.match(line)):
            continue
        label, loops, body = match.groups()
        if not pieces or label or jumped == 1:
            pieces.append({"label": label, "n": 0, "depth": 0, "jumps": False})
        jumped = 0 if label else max(jumped - 1, 0)
        pieces[-1]["n"] += 1
        pieces[-1]["depth"] = max(pieces[-1]["depth"], loops.count(">"))
        if "sbr.rel" in body and "target = $region" in body:
            pieces[-1]["jumps"] = True
            jumped = DELAY
    before = [{"jumps": False}, *pieces]
    after = [*pieces[1:], {"label": None}]
    return [
        Part(p["n"], p["depth"], bool(b["jumps"] and not p["label"] and a["label"] == "PF"))
        for b, p, a in zip(before, pieces, after, strict=False)
    ]


def cycles(kernel: list[Part], steps: int, inner: int = 0, conditional=()) -> int:
    """Cycles of a kernel.

    Args:
        kernel: its parts.
        steps: how often the grid runs.
        inner: how often a loop inside runs, in all.
        conditional: how often each conditional part runs, in all; one number for all of them.
    """
    branches = [p.bundles for p in kernel if p.conditional and p.depth]
    if isinstance(conditional, int):
        conditional = [conditional] * len(branches)
    if len(conditional) != len(branches):
        raise ValueError(f"{len(branches)} conditional parts, not {len(conditional)}")
    plain = {
        d: sum(p.bundles for p in kernel if p.depth == d and not p.conditional) for d in (1, 2)
    }
    return (
        plain[1] * steps
        + plain[2] * inner
        + sum(n * times for n, times in zip(branches, conditional, strict=True))
    )


def ours(window, implementation):
    """A layer of this library: rotation left out, as the others have none."""
    import jax
    import jax.numpy as jnp

    from modernbert_jax.attention import attention, key_ranges

    x = jax.ShapeDtypeStruct((1, LENGTH, HEADS * HEAD_DIM), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    ranges = jax.eval_shape(lambda s: key_ranges(s, window), segments)

    def layer(q, k, v, cotangent, ranges):
        def out(*qkv):
            q, k, v = (x.reshape(1, LENGTH, HEADS, HEAD_DIM) for x in qkv)
            output = attention(q, k, v, ranges, window=window, implementation=implementation)
            return output.reshape(x.shape)

        value, pull = jax.vjp(out, q, k, v)
        return value, pull(cotangent)

    return layer, (x, x, x, x, ranges)


def both_passes(kernel, segment_ids):
    """A layer of a kernel that takes segment ids, and the shapes of its arguments."""
    import jax
    import jax.numpy as jnp

    x = jax.ShapeDtypeStruct((1, HEADS, LENGTH, HEAD_DIM), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)

    def layer(q, k, v, cotangent, segments):
        def out(q, k, v):
            return jax.vmap(kernel)(q, k, v, segment_ids(segments, segments))

        value, pull = jax.vjp(out, q, k, v)
        return value, pull(cotangent)

    return layer, (x, x, x, x, segments)


def splash(window, kind):
    """jax's kernel as it comes: a mask known in advance, and segment ids."""
    from jax.experimental.pallas.ops.tpu import splash_attention as sa

    shape = LENGTH, LENGTH
    half = None if window is None else window // 2
    mask = sa.FullMask(shape) if window is None else sa.LocalMask(shape, (half, half), 0)
    block, compute = SPLASH[kind]
    keys = max(block, compute) if window is None else compute
    sizes = sa.BlockSizes(
        **dict.fromkeys(("block_q", "block_q_dkv", "block_q_dq"), block),
        **dict.fromkeys(("block_kv", "block_kv_dkv", "block_kv_dq"), keys),
        **dict.fromkeys(("block_kv_compute", "block_kv_dkv_compute"), compute),
    )
    kernel = sa.make_splash_mha(
        sa.MultiHeadMask([mask] * HEADS), block_sizes=sizes, head_shards=1, q_seq_shards=1
    )
    return both_passes(kernel, sa.SegmentIds)


def tokamax(window, kind):
    """Its kernel, with the mask and blocks of jax's, and the least memory for the sum of dq."""
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as sa
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_mask as masks

    shape = LENGTH, LENGTH
    half = None if window is None else window // 2
    mask = masks.FullMask(shape) if window is None else masks.LocalMask(shape, (half, half), 0)
    queries, keys, compute = TOKAMAX[kind]
    config = sa.SplashConfig(
        **dict.fromkeys(("block_q", "block_q_dkv"), queries),
        **dict.fromkeys(("block_kv", "block_kv_dkv"), keys),
        **dict.fromkeys(("block_kv_compute", "block_kv_dkv_compute"), compute),
        dq_reduction_steps=3,
    )
    kernel = sa.make_splash_mha(mask, config=config, q_seq_shards=1)
    return both_passes(kernel, sa.SegmentIds)


MAXSIM = {"queries": 256, "query": 32, "documents": 256, "document": 180, "row": 2048, "width": 128}
"""Texts on both sides, tokens of each, of a row of documents, and dimensions of their vectors."""


def maxsim(implementation):
    """MaxSim of all queries with all documents; by "einsum" of documents that are not packed."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from modernbert_jax.scoring import Texts
    from modernbert_jax.scoring import maxsim as packed

    n = MAXSIM
    row = n["document"] if implementation == "einsum" else n["row"]
    texts = row // n["document"]
    rows = -(-n["documents"] // texts)
    q = jax.ShapeDtypeStruct((n["queries"], n["query"], n["width"]), jnp.bfloat16)
    d = jax.ShapeDtypeStruct((rows, row, n["width"]), jnp.bfloat16)
    ids = [jax.ShapeDtypeStruct(x.shape[:2], jnp.int32) for x in (q, d)]
    numbers = np.arange(rows * texts).reshape(rows, texts)
    sides = {
        "queries": Texts(np.arange(n["queries"])[:, None], n["queries"]),
        "documents": Texts(numbers, n["documents"]),
    }

    def scores(q, d, ids):
        if implementation != "einsum":
            return packed(q, ids[0], d, ids[1], implementation, **sides)
        products = jnp.einsum("qie,dje->qdij", q, d, preferred_element_type=jnp.float32)
        return jnp.where(ids[1][:, None] > 0, products, -jnp.inf).max(-1).sum(-1)

    def both(q, d, cotangent, ids):
        value, pull = jax.vjp(lambda q, d: scores(q, d, ids), q, d)
        return value, pull(cotangent)

    cotangent = jax.ShapeDtypeStruct((n["queries"], n["documents"]), jnp.float32)
    return both, (q, d, cotangent, ids)


KERNEL = r"(local|global)_attention_[a-z]+|splash_mha_[a-z]+|maxsim_[a-z]+"
"""Names of kernels in those of their files."""

LAYERS = {
    "maxsim pallas_tpu": lambda: maxsim("pallas_tpu"),
    "maxsim einsum": lambda: maxsim("einsum"),
    "local pallas_tpu": lambda: ours(WINDOW, "pallas_tpu"),
    "local splash": lambda: splash(WINDOW, "local"),
    "local two_block": lambda: ours(WINDOW, "two_block"),
    "global pallas_tpu": lambda: ours(None, "pallas_tpu"),
    "local tokamax": lambda: tokamax(WINDOW, "local"),
    "global splash": lambda: splash(None, "global"),
    "global tokamax": lambda: tokamax(None, "global"),
}


def compile_layer(name: str, topology: str, dump: Path) -> dict:
    """The layer's kernels as parts, the compiler's estimate for the rest, and temporary bytes."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))
    layer, arguments = LAYERS[name]()
    with jax.set_mesh(mesh):
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P())),
            arguments,
        )
        compiled = jax.jit(layer).lower(*placed).compile()
    kernels = {}
    for path in dump.glob("*final_bundles.txt"):
        kernel = re.search(
            r"(local|global)_attention_[a-z]+|splash_mha_[a-z]+|maxsim_[a-z]+", path.name
        )
        if kernel and "schedule-analysis" not in path.name:
            pieces = parts(path.read_text(errors="replace"))
            kernels[kernel.group()] = [dataclasses.astuple(part) for part in pieces]
    estimates = re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())
    return {
        "kernels": kernels,
        "xla": sum(map(int, estimates)),
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
        if not sys.argv[1].endswith(
            ("two_block", "einsum")
        ):  # It has no kernel, and much else to write out.
            os.environ["LIBTPU_INIT_ARGS"] = (
                f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
            )
        print(json.dumps(compile_layer(*sys.argv[1:3], Path(folder))))
