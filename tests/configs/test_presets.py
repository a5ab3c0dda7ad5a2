"""The recipes against the published figures, one table for each."""

import dataclasses

import pytest

from modernbert_jax import configs
from modernbert_jax.config import PRESETS
from modernbert_jax.io.typed_json import from_json, to_json
from modernbert_jax.train.config import PretrainConfig

B = 10**9

COLUMNS = (
    "name",
    "tokens",
    "length",
    "rows",
    "microbatch_rows",
    "batch_warmup_rows",
    "batch_warmup_tokens",
    "peak_learning_rate",
    "warmup_tokens",
    "decay_tokens",
    "final_fraction",
    "weight_decay",
    "mask_rate",
    "global_rope_theta",
    "local_rope_theta",
    "save_every",
    "shuffle_seed",
)

BASE = """
pretrain           1719e9 1024 4608 768 768 50e9 8e-4 3e9 0    0     1e-5 0.3 1e4   1e4 4000 9176
context-extension   250e9 8192  576  96   0    0 3e-4   0 0    0     1e-5 0.3 1.6e5 1e4 4000 2998
anneal               50e9 8192  576  96   0    0 3e-4   0 50e9 0.001 1e-5 0.3 1.6e5 1e4 1000 2998
"""

LARGE = """
pretrain            900e9 1024 4928 448 448 10e9 5e-4 2e9 0    0     1e-5 0.3 1e4   1e4 4000 9176
pretrain-slower     819e9 1024 4928 448   0    0 5e-5   0 0    0     1e-6 0.3 1e4   1e4 4000 None
context-extension   250e9 8192  616  56   0    0 5e-5   0 0    0     1e-6 0.3 1.6e5 1e4 4000 2998
anneal               50e9 8192  624  48   0    0 5e-5   0 50e9 0.001 1e-6 0.3 1.6e5 1e4 1000 2998
"""

ETTIN = {  # learning rate, decay, warm-up, batch warm-up, microbatches on 4 GPUs, stages 2 and 3
    "17m": (3e-3, 3e-4, 4, 125, (576, 96, 48), (250, 50)),
    "32m": (3e-3, 3e-4, 4, 100, (512, 96, 48), (250, 50)),
    "68m": (3e-3, 3e-4, 3, 75, (384, 72, 32), (250, 50)),
    "150m": (8e-4, 1e-5, 3, 50, (288, 64, 48), (250, 50)),
    "400m": (5e-4, 1e-5, 2, 10, (192, 24, 8), (250, 50)),
    "1b": (5e-4, 5e-5, 2, 3, (96, 8, 8), (83.333, 16.666_666_667)),
}


def figures(config: PretrainConfig) -> list[tuple]:
    """Every stage of a configuration in `COLUMNS`."""
    rows = []
    for stage in config.in_tokens.stages:
        row = {name: getattr(stage, name) for name in COLUMNS}
        rows.append(tuple((row | {"save_every": stage.save_every or config.save_every}).values()))
    return rows


def table(text: str) -> list[tuple]:
    """Rows of a table; a number is a number, and None is None."""
    rows = [line.split() for line in text.strip().splitlines()]
    return [(name, *(None if x == "None" else float(x) for x in rest)) for name, *rest in rows]


def test_base():
    config = configs.load("pretrain", "base")
    assert figures(config) == table(BASE)
    assert config.model == PRESETS["base"] and config.seed == 17 and not config.init_from
    assert (config.b1, config.b2, config.eps) == (0.9, 0.98, 1e-6)
    assert config.attention_dropout == 0.1 and config.eval_mask_rate == 0.15
    assert config.eval_every == 4000 and config.stages[2].eval_every == 1000
    assert config.runtime.dtype == "bfloat16"


def test_large():
    config = configs.load("pretrain", "large")
    assert figures(config) == table(LARGE)
    assert config.model == PRESETS["large"] and config.seed == 314
    assert sum(stage.tokens for stage in config.stages[:2]) == 1719 * B
    assert config.init_model == "tiled" and config.init_tiling == "middle"
    base = configs.load("pretrain", "base")
    assert config.init_from == f"{base.output}/checkpoints/{base.stages[0].steps}"
    assert [s.batches.phases[-1].rows for s in config.stages] == [4928, 4928, 616, 624]
    assert len(config.stages[0].batches.phases) == 11


@pytest.mark.parametrize("size", ETTIN)
def test_ettin(size):
    rate, decay, warmup, batch_warmup, microbatches, later = ETTIN[size]
    second, third = (round(t * B) for t in later)
    wide = 1e4 if size == "17m" else 1.6e5
    first = (768, batch_warmup * B, rate, warmup * B, 0, 0, decay, 0.3, 1e4, 1e4, 1801, 21)
    config = configs.load("pretrain", f"ettin-{size}")
    assert figures(config) == [
        ("pretrain", 1700 * B, 1024, 4608, microbatches[0], *first),
        *(
            (name, tokens, 7999, 4608, microbatch, 0, 0, peak, 0, tokens, final, decay, *rest)
            for name, tokens, microbatch, peak, final, *rest in (
                ("extension", second, microbatches[1], rate, 0.5, 0.3, 1.6e5, wide, 230, 21),
                ("decay", third, microbatches[2], rate / 2, 0.04, 0.15, 1.6e5, 1.6e5, 230, 21),
            )
        ),
    ]
    assert config.model == PRESETS[f"ettin-{size}"] and config.seed == 21


def test_continue_and_new_language_take_any_checkpoint():
    domain, language = (
        configs.load("pretrain", "continue"),
        configs.load("pretrain", "new-language"),
    )
    for config in (domain, language):
        assert config.init_from and config.init_model == "adopted"
        for stage in config.stages:
            assert stage.global_rope_theta is stage.local_rope_theta is None
        assert config.stages[-1].decay_tokens and config.stages[-1].final_fraction == 0.001
    assert (domain.init_vocabulary, language.init_vocabulary) == ("same", "matched")


@pytest.mark.parametrize("name", ["continue", "new-language", "nano"])
def test_changing_the_tokens_alone_keeps_the_shape_of_the_schedule(name):
    config = configs.load("pretrain", name)
    for stage in config.stages:
        longer = dataclasses.replace(stage, tokens=10 * stage.tokens)
        assert longer.rise_tokens == pytest.approx(10 * stage.rise_tokens, abs=10)
        assert longer.fall_tokens == pytest.approx(10 * stage.fall_tokens, abs=10)
    assert config.stages[-1].fall_tokens


def test_every_preset_has_a_name_and_survives_json():
    presets = configs.presets("pretrain")
    assert {"nano", "base", "large", "continue", "new-language", "ettin-1b"} <= {*presets}
    for name, preset in presets.items():
        config = configs.load("pretrain", name)
        assert from_json(PretrainConfig, to_json(config)) == config == preset.config()
        assert preset.summary.endswith(".")
