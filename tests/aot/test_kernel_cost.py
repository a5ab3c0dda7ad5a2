"""Cost of a layer on a TPU, counted in compiled programs, compared with splash and plain XLA."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax.attention import key_ranges, pallas_tpu
from modernbert_jax.scoring.interaction import pallas_tpu as tpu_maxsim
from modernbert_jax.scoring.interaction import tpu_kernels

PATH = Path(__file__).with_name("static_cost.py")
SPEC = importlib.util.spec_from_file_location("static_cost", PATH)
static_cost = importlib.util.module_from_spec(SPEC)
sys.modules["static_cost"] = static_cost
SPEC.loader.exec_module(static_cost)

LENGTH, HEADS = static_cost.LENGTH, static_cost.HEADS
TILES = HEADS // 2
TOPOLOGY = "v5e:2x2"
MEAN_DOCUMENT = 550


def compiled(name: str) -> dict:
    # tokamax lives in a folder of its own: it wants another typeguard than this library's parts.
    beside = {"PYTHONPATH": os.environ["TOKAMAX"]} if name.endswith("tokamax") else {}
    run = subprocess.run(
        [sys.executable, PATH, name, TOPOLOGY],
        env=os.environ | beside,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        pytest.fail(run.stderr[-2000:])
    facts = json.loads(run.stdout.splitlines()[-1])
    facts["kernels"] = {
        kernel: [static_cost.Part(*part) for part in parts]
        for kernel, parts in facts["kernels"].items()
    }
    return facts


def typical_rows(rows: int = 64) -> np.ndarray:
    """Rows full of documents of log-normal lengths, 550 tokens in the mean."""
    rng, ids = np.random.default_rng(0), np.zeros((rows, LENGTH), np.int32)
    for row in ids:
        ends = np.cumsum(rng.lognormal(np.log(MEAN_DOCUMENT) - 0.5, 1.0, LENGTH).astype(int) + 1)
        row[:] = 1 + np.searchsorted(ends, np.arange(LENGTH), side="right")
    return ids


def our_local() -> int:
    facts, blocks = compiled("local pallas_tpu"), LENGTH // pallas_tpu.BLOCK
    kernels = facts["kernels"]
    forward = static_cost.cycles(
        kernels["local_attention_forward"], TILES * blocks, conditional=TILES * blocks
    )
    backward = static_cost.cycles(
        kernels["local_attention_backward"], TILES * (blocks + 1), conditional=TILES * blocks
    )
    return forward + backward + facts["xla"]


def our_global(facts: dict, segments: np.ndarray) -> int:
    """The mean of rows of segment ids."""
    blocks = LENGTH // pallas_tpu.BLOCK
    ranges = key_ranges(jnp.asarray(segments))
    visited = ranges.blocks(pallas_tpu.BLOCK, pallas_tpu.STEP).number.sum()
    visits = TILES * round(int(visited) / len(segments))
    steps, kernels = TILES * blocks, facts["kernels"]
    forward = static_cost.cycles(kernels["global_attention_forward"], steps, visits, steps)
    # Only the sum of dq, a whole row, is made ready and written once per row of a tile.
    backward = static_cost.cycles(kernels["global_attention_backward"], steps, visits, TILES)
    deltas = LENGTH // pallas_tpu.STEP
    delta = static_cost.cycles(kernels["global_attention_delta"], deltas, conditional=deltas)
    return forward + backward + delta + facts["xla"]


def splash(kind: str) -> int:
    """Its kernels: first block, computation and last block of a row of blocks are conditional."""
    facts, (queries, keys) = compiled(f"{kind} splash"), static_cost.SPLASH[kind]
    if kind == "global":
        keys = queries
    total = facts["xla"]
    for name, rows, columns, by, width in (
        ("fwd", LENGTH // queries, LENGTH // keys, queries, keys),
        ("dq", LENGTH // queries, LENGTH // keys, queries, keys),
        ("dkv", LENGTH // keys, LENGTH // queries, keys, queries),
    ):
        active = blocks(kind, rows, by, columns, width)
        steps, ends = HEADS * rows * max(active), HEADS * rows
        kernel = facts["kernels"][f"splash_mha_{name}"]
        total += static_cost.cycles(kernel, steps, conditional=(ends, HEADS * sum(active), ends))
    return total


def blocks(kind: str, rows: int, by: int, columns: int, width: int) -> list[int]:
    """Number of `columns` blocks of `width` tokens that each of `rows` blocks of `by` visits."""
    half = static_cost.WINDOW // 2 if kind == "local" else LENGTH
    return [
        sum(
            j * width <= (i + 1) * by - 1 + half and (j + 1) * width - 1 >= i * by - half
            for j in range(columns)
        )
        for i in range(rows)
    ]


def tokamax(kind: str) -> int:
    """Its kernels run a step for each block in the mask.

    Where there is one, bodies without and with a mask are conditional, between the first and the
    last block of a row of blocks.
    """
    facts, (queries, keys, _) = compiled(f"{kind} tokamax"), static_cost.TOKAMAX[kind]
    total = facts["xla"]
    for name, by, width in ("fwd", queries, keys), ("dkv", keys, queries):
        rows = LENGTH // by
        steps = HEADS * sum(blocks(kind, rows, by, LENGTH // width, width))
        bodies = (0, steps) if kind == "local" else ()
        ends = HEADS * rows
        kernel = facts["kernels"][f"splash_mha_{name}"]
        total += static_cost.cycles(kernel, steps, conditional=(ends, *bodies, ends))
    return total


@pytest.fixture(scope="module")
def table():
    facts = compiled("global pallas_tpu")
    rows = {
        "sliding, pallas_tpu": our_local(),
        "sliding, splash": splash("local"),
        "sliding, tokamax splash": tokamax("local"),
        "one document, pallas_tpu": our_global(facts, np.ones((1, LENGTH), np.int32)),
        "typical documents, pallas_tpu": our_global(facts, typical_rows()),
        "any documents, splash": splash("global"),
        "any documents, tokamax splash": tokamax("global"),
    }
    # Plain XLA has no kernels: the compiler's own estimate is all of it.
    rows["sliding, two_block"] = compiled("local two_block")["xla"]
    return rows


def test_cost(table, record_property):
    title = f"millions of cycles, forward and backward: {LENGTH} tokens, {HEADS} heads, v5e"
    lines = (f"  {row:30s} {cycles / 1e6:7.2f}" for row, cycles in table.items())
    record_property("counted", [title, *lines])
    sliding, full = (
        min(cycles for row, cycles in table.items() if row.startswith(what) and "splash" in row)
        for what in ("sliding", "any documents")
    )
    assert table["sliding, pallas_tpu"] <= 0.35 * sliding
    assert table["one document, pallas_tpu"] <= 0.9 * full
    assert table["typical documents, pallas_tpu"] <= 0.4 * full


def our_maxsim() -> int:
    """Steps of the grid are pairs of a block of documents and a tile of query tokens."""
    facts, n = compiled("maxsim pallas_tpu"), static_cost.MAXSIM
    texts = n["row"] // n["document"]
    rows = -(-n["documents"] // texts)
    together = tpu_maxsim.BLOCK // n["row"]
    blocks = rows // together
    tiles = n["queries"] * n["query"] // tpu_maxsim.TILE
    granules = texts * together * -(-n["document"] // 8)
    chunks = -(-8 * granules // tpu_kernels.CHUNK)
    moves = 2 * chunks * (tpu_kernels.CHUNK // 128)  # 128 slots are from two pieces of tokens
    total = facts["xla"]
    for name, loops in ("forward", 2), ("backward", 3):
        parts = facts["kernels"][f"maxsim_{name}"]
        inner = [p for p in parts if p.depth == 2 and not p.conditional]
        steps = blocks * tiles
        total += sum(p.bundles for p in parts if p.depth == 1) * steps
        # The loops over chunks are the long ones; the others, over windows, run once or twice.
        longest = sorted((p.bundles for p in inner), reverse=True)[: loops - 1]
        total += sum(longest) * chunks * steps
        total += (sum(p.bundles for p in inner) - sum(longest)) * 2 * steps
        total += sum(p.bundles for p in parts if p.depth == 3) * blocks * moves
    return total


def test_maxsim(record_property):
    n = static_cost.MAXSIM
    ours, einsum = our_maxsim(), compiled("maxsim einsum")
    record_property(
        "counted",
        [
            f"millions of cycles of maxsim, forward and backward, v5e: {n}",
            f"  {'pallas_tpu':30s} {ours / 1e6:7.2f}",
            f"  {'einsum':30s} {einsum['xla'] / 1e6:7.2f}   {einsum['temporary']:,} bytes",
        ],
    )
    assert ours <= 0.4 * einsum["xla"]
