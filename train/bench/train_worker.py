"""One side of the `train` suite, in a process of its own: `python -P train_worker.py SIDE ...`."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

THREADS = 2
MASK_RATE = 0.3
MASK_ID, SPECIAL = 4, 5
"""Id of [MASK], and number of special tokens, which have the first ids."""

Work = dict[str, Any]
"""Arrays of `work.npz`."""

Steps = Callable[[], int]
"""Makes the steps of a turn and returns their number of real tokens."""


def documents(work: Work) -> list[np.ndarray]:
    """Token ids of each document."""
    return np.split(work["ids"], np.cumsum(work["lengths"])[:-1])


def ours(directory: str, work: Work) -> tuple[dict[str, float], Steps]:
    """The training step of a run, on packed rows. Returns facts to agree on, and the turn."""
    import jax
    import optax

    from modernbert_jax import convert, packing
    from modernbert_jax.heads import MaskedLM
    from modernbert_jax.io.host_memory import keep_freed_on_cpu
    from modernbert_jax.sharding import MeshShape, rows_sharding
    from modernbert_jax.train import engine, loss
    from modernbert_jax.train.pretrain import objective
    from modernbert_jax.train.pretrain.config import PretrainConfig, Stage

    keep_freed_on_cpu()
    jax.config.update("jax_num_cpu_devices", THREADS)
    checkpoint = convert.load(directory)
    rows, capacity, count = (int(work[name]) for name in ("rows", "capacity", "steps"))
    tokens = rows * capacity * 1000
    stage = Stage(name="bench", tokens=tokens, length=capacity, rows=rows, peak_learning_rate=1e-4)
    shape = MeshShape(**{"data": 1, str(work["axis"]): THREADS})
    config = PretrainConfig(model=checkpoint.config, stages=(stage,), mesh=shape)
    jax.set_mesh(config.mesh.make())
    vocabulary = checkpoint.config.vocab_size
    mesh = jax.sharding.get_mesh()
    place = rows_sharding(mesh)
    mask = objective.MaskRule(MASK_ID, vocabulary, special_ids=tuple(range(SPECIAL)))
    learner = objective.learner(objective.MaskedLMObjective(config, stage, mask))
    program = engine.Program(learner, mesh)
    state, fixed = program.initial(checkpoint.params, config.seed)
    module = MaskedLM(config.model, config.runtime)
    inputs, labels = work["inputs"], work["labels"]
    segments = np.ones_like(inputs)
    positions = np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), inputs.shape)

    def mean(params):
        total, number = loss.masked_lm_loss(module, params, inputs, segments, positions, labels)
        return total / number

    value, grads = jax.jit(jax.value_and_grad(mean))(state.params)
    agreed = {"loss": float(value), "grad_norm": float(optax.tree.norm(grads))}
    del grads
    texts = documents(work)
    packed = packing.pack([len(text) for text in texts], capacity)[: rows * count]
    ids = [np.concatenate([texts[i] for i in row]) for row in packed]
    lengths = [[len(texts[i]) for i in row] for row in packed]
    whole = packing.layout(ids, lengths, capacity, 0)
    parts = [
        packing.Rows(*(jax.device_put(x[i * rows : (i + 1) * rows], place) for x in whole))
        for i in range(count)
    ]
    hyper = objective.hyperparameters(config, stage)
    batches = [engine.Batch(part) for part in parts]
    program.compile("the step", state, fixed, hyper, batches[0])

    def turn() -> int:
        nonlocal state
        for batch in batches:
            state, metrics = program.step(state, fixed, hyper, batch)
        jax.block_until_ready((state, metrics))
        return sum(map(len, ids))

    return agreed, turn


def peer(directory: str, work: Work, sparse: bool = False) -> tuple[dict[str, float], Steps]:
    """Padded batches in the given order, by transformers with sdpa and a fused AdamW."""
    import torch
    from transformers import ModernBertForMaskedLM

    torch.set_num_threads(THREADS)
    model = ModernBertForMaskedLM.from_pretrained(
        directory, attn_implementation="sdpa", dtype=torch.float32, sparse_prediction=sparse
    ).train()
    inputs, labels = (torch.from_numpy(work[name]).long() for name in ("inputs", "labels"))
    loss = model(input_ids=inputs, labels=labels).loss
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    # torch's own total norm sums the embeddings in float32, which is off by 3e-4.
    norm = math.sqrt(sum(g.double().square().sum() for g in grads))
    agreed = {"loss": float(loss.detach()), "grad_norm": norm}
    model.zero_grad()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5, fused=True)
    size, count = int(work["documents"]), int(work["steps"])
    texts = documents(work)[: size * count]
    batches = []
    for start in range(0, len(texts), size):
        group = texts[start : start + size]
        lengths = torch.tensor([len(text) for text in group])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros(real.shape, dtype=torch.long)
        ids[real] = torch.from_numpy(np.concatenate(group)).long()
        batches.append((ids, real))

    def masked(ids: Any, real: Any) -> tuple[Any, Any]:
        share = torch.rand(ids.shape)
        drawn = torch.randint(SPECIAL, model.config.vocab_size, ids.shape)
        inputs = torch.where(share < 0.8 * MASK_RATE, MASK_ID, ids)
        inputs = torch.where((share >= 0.8 * MASK_RATE) & (share < 0.9 * MASK_RATE), drawn, inputs)
        return torch.where(real, inputs, ids), torch.where(real & (share < MASK_RATE), ids, -100)

    def turn() -> int:
        for ids, real in batches:
            inputs, labels = masked(ids, real)
            mask = None if real.all() else real.long()  # a mask of ones would only cost time
            model(input_ids=inputs, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return sum(map(len, texts))

    return agreed, turn


def peer_sparse(directory: str, work: Work) -> tuple[dict[str, float], Steps]:
    """Like `peer`, with `sparse_prediction`, which is off by default."""
    return peer(directory, work, sparse=True)


SIDES = {"ours": ours, "peer": peer, "peer_sparse": peer_sparse}


def main(side: str, model: str, work: str) -> None:
    """Answer until the input ends."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    agreed, turn = SIDES[side](model, dict(np.load(work)))
    turn()
    print(json.dumps(agreed), flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        tokens = turn()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        answer = {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu_seconds}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
