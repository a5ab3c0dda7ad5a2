"""Every number of every configuration has a range, and what is outside is refused."""

import dataclasses
import math
import typing

import pytest

from modernbert_jax import ranges
from modernbert_jax.architecture import Architecture
from modernbert_jax.cli import registry
from modernbert_jax.cli.dry_run import DryRun
from modernbert_jax.cli.launch import CpuDevices, Launch
from modernbert_jax.errors import UserError
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.bench.retrieval.settings import Settings as BenchSettings
from modernbert_jax.train.bench.retrieval.settings import Training
from modernbert_jax.train.corpus.components import CorpusComponent
from modernbert_jax.train.corpus.shards import Settings
from modernbert_jax.train.corpus.sources import Corpus
from modernbert_jax.train.engine.config import EngineConfig
from modernbert_jax.train.engine.lora import Lora
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.grid import Grid
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.tasks import TASKS, Task

COMMANDS = tuple(command.load() for command in registry.COMMANDS.values())
CONFIGS = (
    *(PretrainConfig, Stage, FinetuneConfig, EngineConfig, Lora, Grid, MeshShape),
    *(RetrievalConfig, LossConfig, BenchSettings, Training),
    *(Settings, CorpusComponent, CpuDevices, DryRun, Launch, *TASKS.values(), *COMMANDS),
)


def number(hint):
    """The type and the range of a field's numbers; None for other fields."""
    args = typing.get_args(hint)
    if hint in (int, float):
        return hint, None
    if typing.get_origin(hint) is typing.Annotated:
        kind = number(args[0])
        range_ = next((x for x in hint.__metadata__ if isinstance(x, ranges.Range)), None)
        return (kind[0], kind[1] or range_) if kind else None
    if typing.get_origin(hint) is typing.Literal:
        return None
    return next(filter(None, map(number, args)), None)


def numeric_fields(kind):
    hints = ranges.hints_of(kind)
    for field in dataclasses.fields(kind):
        if (found := number(hints[field.name])) is not None:
            yield field.name, *found


def nested(hint):
    """The dataclasses in a type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for arg in typing.get_args(hint):
        yield from nested(arg)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__qualname__)
def test_every_numeric_field_has_a_range(kind):
    for name, _, range_ in numeric_fields(kind):
        assert range_ is not None, f"{kind.__name__}.{name} has no range; see modernbert_jax.ranges"
        assert math.nan not in range_ and math.inf not in range_ and -(10**40) not in range_


def test_every_configuration_is_listed():
    known = {*CONFIGS, Architecture, Task, Corpus}  # the last describes files
    for kind in CONFIGS:
        for hint in ranges.hints_of(kind).values():
            for inner in nested(hint):
                has_numbers = any(True for _ in numeric_fields(inner))
                assert not has_numbers or {*inner.__mro__} & known, inner


def test_the_architecture_checks_its_numbers():
    for name, kind, _ in numeric_fields(Architecture):
        for wrong in (math.nan, math.inf, -7, *((1.5,) if kind is int else ())):
            if not name.endswith("_token_id"):  # labels of special tokens; nothing is computed
                with pytest.raises(UserError, match=name):
                    Architecture(**{name: wrong})


STAGE = {"name": "a", "tokens": 1024, "length": 128, "rows": 4, "peak_learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda **x: Stage(**STAGE | x), {"peak_learning_rate": math.nan, "rows": -1}),
        (lambda **x: Stage(**STAGE | x), {"weight_decay": math.nan, "mask_rate": 1.0}),
        (lambda **x: Stage(**STAGE | x), {"length": 10**9, "tokens": 0, "shuffle_seed": -1}),
        (lambda **x: Stage(**STAGE | x), {"mixture": {"web": -1.0}, "epochs": {"web": 0.0}}),
        (EngineConfig, {"b1": 1.5, "b2": 1.0, "eps": math.nan, "seed": -1, "keep": 2.5}),
        (EngineConfig, {"clip_norm": math.inf, "spike_deviations": 1e39, "patience": True}),
        (EngineConfig, {"freeze_layers": -1, "min_delta": -0.1, "layer_decay": "1"}),
        (Lora, {"rank": -1, "alpha": math.inf, "dropout": 1.0}),
        (MeshShape, {"data": 0, "tensor": -2}),
        (Grid, {"learning_rate": (1e-4, -1.0), "seed": (2**32,), "epochs": (0.0,)}),
        (TASKS["questions"], {"n_best": 0, "max_length": 7, "no_answer_threshold": math.nan}),
        (TASKS["multilabel"], {"thresholds": (math.nan,)}),
    ],
)
def test_every_number_out_of_range_is_named(make, changes):
    with pytest.raises(UserError) as error:
        make(**changes)
    for name in changes:
        assert f"{name}" in str(error.value) and "must be" in str(error.value)


def test_ranges_say_what_they_hold():
    for hint, words in {
        ranges.Count: "1 or more",
        ranges.Natural: "0 or more",
        ranges.Seed: "at least 0 and below 2^32",
        ranges.Positive: "more than 0",
        ranges.Finite: "finite",
        ranges.Share: "between 0 and 1",
        ranges.Rate: "at least 0 and below 1",
        ranges.Fraction: "more than 0 and at most 1",
        ranges.Part: "more than 0 and below 1",
        ranges.Length: "between 8 and 1,048,576",
    }.items():
        assert str(typing.get_args(hint)[1]) == words
