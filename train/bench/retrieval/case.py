"""One data set and one kind of training: its examples and its start, as files."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

from modernbert_jax import convert

from ...retrieval.config import RetrievalConfig
from ...retrieval.losses.config import LossConfig
from ...retrieval.session import TRAINEES
from .examples import Examples
from .kinds import KINDS
from .settings import QUERY_TOKENS, Kind, Settings
from .source import Source

TRAINING, HELD_OUT = "train.jsonl", "held-out.jsonl"
"""Files of the examples that are trained on, and of those whose loss is the probe."""


class Case(Source):
    """A data set and a kind of training; what is slow to make is kept in a folder."""

    def __init__(self, settings: Settings, data: str, kind: Kind):
        """A case in a folder below that of its data set."""
        super().__init__(settings, data)
        self.kind = kind
        self.facts = KINDS[kind]
        self.folder = self.shared / kind

    def config(self, seed: int, **paths: Any) -> RetrievalConfig:
        """The configuration of our side, without dropout; `paths` are its other fields."""
        settings, trains = self.settings, self.facts.trains
        if trains == "late-interaction":
            paths["lengths"] = {"query": QUERY_TOKENS, "document": settings.max_length}
        elif trains == "embedding":
            paths["pooling"] = "mean"
        return RetrievalConfig(
            kind=trains,  # type: ignore[arg-type]
            loss=LossConfig(name=self.facts.loss),
            max_length=settings.max_length,
            microbatch_tokens=settings.microbatch_tokens,
            attention_dropout=0.0,
            optimizer="adamw",
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            clip_norm=1.0,
            schedule="linear",
            keep_best=False,
            eval_every=0,
            seed=seed,
            **dataclasses.asdict(settings.training(self.kind)),
            **paths,
        )

    @functools.cached_property
    def examples(self) -> Examples:
        """The examples that all sides train on."""
        return Examples.read(self.training_file())

    def training_file(self) -> Path:
        """The examples as JSON lines."""
        path = self.folder / TRAINING
        if not path.exists():
            self.facts.examples(self, self.pairs()).write(path)
        return path

    def held_out(self) -> Examples:
        """What the kept groups of dev give to train on, for a probe of such examples."""
        path = self.folder / HELD_OUT
        if not path.exists():
            pairs = [pair for group in self.groups() for pair in group]
            self.facts.examples(self, pairs).write(path)
        return Examples.read(path)

    def start(self, seed: int) -> Path:
        """The checkpoint that all sides start from; the seed draws its new layers."""
        path = self.folder / f"start-{seed}"
        if not path.exists():
            config = self.config(seed, model=self.settings.model)
            trainee = TRAINEES[config.kind].open(config)
            start = trainee.begin()
            convert.save(start.exported(start.params), path, trainee.FORMAT)
        return path

    def clear(self, *names_: str) -> None:
        """Remove folders of the case that are not needed any more."""
        for name in names_:
            shutil.rmtree(self.folder / name, ignore_errors=True)
