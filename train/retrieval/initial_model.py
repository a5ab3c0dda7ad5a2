"""Initial model of a run: an encoder with the modules after it, from any checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.convert.name_rows import Row
from modernbert_jax.embedder import Embedder
from modernbert_jax.errors import UserError
from modernbert_jax.heads import HEADS
from modernbert_jax.pipeline import IDENTITY, Dense, Normalize, Pipeline, Pooling, Step
from modernbert_jax.tokenizer import Tokenizer

from ..engine.objective import draw_params
from .columns import DOCUMENT, QUERY
from .config import RetrievalConfig
from .data import ExampleSet
from .on_devices import PROMPT_NAMES

_LABELS = ("id2label", "label2id", "num_labels", "problem_type")
"""Keys of `config.json` that describe a classifier."""

_ONE_LABEL: dict[str, Any] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
"""Those of a reranker, as transformers names its only output."""


_STARTS = {
    "embedding": "an embedding model starts from another one or from an encoder",
    "sparse": "a sparse model starts from another one or from a masked language model",
}
"""What runs of a kind start from, where not from models of all kinds."""


class InitialModel(NamedTuple):
    """A model before training."""

    config: ModernBertConfig
    pipeline: Pipeline
    params: Any
    """Parameters of `Embedder`, or of the module of its head, float32 numpy arrays."""
    tokenizer: Tokenizer
    files: Mapping[str, bytes]
    """Files of the tokenizer by name, unchanged."""
    extra: Mapping[str, Any]
    """Keys of `config.json` that do not concern the architecture."""
    new: tuple[str, ...]
    """Names of the tensors that start from random values."""
    head: str = "none"
    """A key of `names.heads(config)`."""

    def exported(self, params: Any) -> convert.Checkpoint:
        """The checkpoint of a model with these parameters."""
        bare = self.head == "none" and not self.pipeline.layers
        checkpoint = convert.Checkpoint(
            config=self.config,
            params=params["encoder"] if bare else params,
            head=self.head,
            files=self.files,
            extra=self.extra,
        )
        return convert.with_pipeline(checkpoint, self.pipeline)


def load(config: RetrievalConfig) -> convert.Checkpoint:
    """Load the checkpoint that a run starts from.

    Raises:
        UserError: a checkpoint that cannot be read, has no tokenizer, or is of another kind.
    """
    checkpoint = convert.load(convert.locate(config.model))
    checkpoint.need_tokenizer(config.model)
    pipeline = checkpoint.pipeline
    own = _STARTS.get(config.kind)
    if own and pipeline is not None and pipeline.kind != config.kind:
        raise UserError(f"{config.model}: is a {pipeline.kind} model; {own}")
    return checkpoint


def pipeline_of(config: RetrievalConfig, checkpoint: convert.Checkpoint) -> Pipeline:
    """The modules of the trained model: those of the checkpoint, with the changes of the run.

    Raises:
        UserError: modules that do not fit each other, or more Matryoshka dimensions than there are.
    """
    model = checkpoint.config
    pooling = "lasttoken" if model.causal else "mean"
    plain = Pipeline(kind="embedding", steps=(Pooling(modes=(pooling,)),))
    before = checkpoint.pipeline or plain
    steps: list[Step] = list(before.steps)
    own = before.pooling or plain.pooling
    assert own is not None and isinstance(steps[0], Pooling)  # an embedding model begins with it
    steps[0] = Pooling(
        modes=own.modes if config.pooling == "checkpoint" else (config.pooling,),
        include_prompt=own.include_prompt and config.include_prompt,
    )
    normalized = any(isinstance(step, Normalize) for step in steps)
    if config.normalize != "checkpoint":
        normalized = config.normalize == "yes"
    if config.projection_dims or config.normalize != "checkpoint":
        steps = [step for step in steps if not isinstance(step, Normalize)]
        if config.projection_dims:
            width = dataclasses.replace(before, steps=tuple(steps)).width(model.hidden_size)
            number = sum(isinstance(step, Dense) for step in steps)
            steps.append(
                Dense(
                    name=f"dense_{number}",
                    path=f"{len(steps) + 1}_Dense",
                    in_features=width,
                    out_features=config.projection_dims,
                    activation=IDENTITY,
                )
            )
        steps += [Normalize()] if normalized else []
    lengths = (config.max_length or before.max_length or 0, *config.lengths.values())
    similarity = before.similarity or "cosine"
    pipeline = dataclasses.replace(
        before,
        steps=tuple(steps),
        prompts={**before.prompts, **config.prompts},
        similarity=similarity if config.similarity == "checkpoint" else config.similarity,
        max_length=max(lengths) if lengths[0] else None,
    )
    pipeline.check_widths(model.hidden_size)
    width = pipeline.width(model.hidden_size)
    if too_wide := [dims for dims in config.matryoshka_dims if dims > width]:
        raise UserError(f"matryoshka_dims has {too_wide[0]}; vectors have {width} dimensions")
    return pipeline


def resolved(config: RetrievalConfig, checkpoint: convert.Checkpoint) -> RetrievalConfig:
    """The configuration with the prompts and the length of the checkpoint where it names none.

    A role without a prompt of its own has that of the checkpoint, as in the exported model.
    """
    before = checkpoint.pipeline or Pipeline(kind="embedding")
    limit = checkpoint.config.max_position_embeddings
    prompts = {**_by_role(before.prompts), **config.prompts}
    length = config.max_length or min(before.max_length or limit, limit)
    return dataclasses.replace(config, prompts=prompts, max_length=length)


def role_prompts(
    config: RetrievalConfig, named: Mapping[str, str], train: Sequence[ExampleSet]
) -> dict[str, str]:
    """Prompts of queries and documents, as evaluations and the exported model have them.

    A role without a prompt of its own has that of its first column, in the first data set with one.

    Args:
        config: the run; see `resolved`.
        named: prompts that the user named, by role or column.
        train: data sets of training.
    """
    prompts = {role: named[role] for role in (QUERY, DOCUMENT) if role in named}
    for number, role in enumerate((QUERY, DOCUMENT)):
        own = (config.prompt(data.name, data.column(number), number) for data in train)
        if prompt := next(filter(None, own), ""):
            prompts.setdefault(role, prompt)
    return prompts


def with_prompts(pipeline: Pipeline, roles: Mapping[str, str]) -> Pipeline:
    """The modules with prompts by role, unless they have the same under other names of a role."""
    before = _by_role(pipeline.prompts)
    new = {role: prompt for role, prompt in roles.items() if before.get(role) != prompt}
    return dataclasses.replace(pipeline, prompts={**pipeline.prompts, **new})


def _by_role(prompts: Mapping[str, str]) -> dict[str, str]:
    """Prompts by role, from those by name."""
    names_ = {
        role: next((x for x in own if x in prompts), "") for role, own in PROMPT_NAMES.items()
    }
    return {role: prompts[name] for role, name in names_.items() if name}


def begin(
    config: RetrievalConfig,
    checkpoint: convert.Checkpoint,
    pipeline: Pipeline,
    head: str = "none",
) -> InitialModel:
    """Build the model from a checkpoint; new layers are drawn with the seed."""
    model = checkpoint.config
    rows = rows_of(model, pipeline, head)
    shapes = names.shapes(rows)
    usable = {}
    if config.init == "checkpoint":
        params = checkpoint.params
        usable = names.flatten(params if "encoder" in params else {"encoder": params})
        usable = {
            path: x for path, x in usable.items() if path in shapes and x.shape == shapes[path]
        }
    fresh: dict[tuple[str, ...], Any] = {}
    if len(usable) < len(shapes):
        module: Any = HEADS[head].build(model, config.runtime, 1)
        module = module if head != "none" else Embedder(model, config.runtime, pipeline.steps)
        fresh = names.flatten(draw_params(module, jax.random.key(config.seed)))
    params = {}
    for path in shapes:
        old = usable.get(path)
        names.put(params, path, fresh[path] if old is None else np.asarray(old, np.float32))
    new = tuple(name for name, row in rows.items() if row.path not in usable)
    extra = {k: v for k, v in checkpoint.extra.items() if k not in _LABELS}
    extra |= _ONE_LABEL if head == "sequence_classification" else {}
    files = {k: v for k, v in checkpoint.files.items() if k in convert.huggingface.CARRIED}
    tokenizer = checkpoint.need_tokenizer(config.model)
    return InitialModel(model, pipeline, params, tokenizer, files, extra, new, head)


def rows_of(model: ModernBertConfig, pipeline: Pipeline, head: str = "none") -> dict[str, Row]:
    """Tensors of the model by name, with the paths of its parameters; see `InitialModel.params`."""
    rows = names.table(model, head, 1, layers=pipeline.layers)
    if pipeline.layers or head != "none":
        return rows
    return {
        name: dataclasses.replace(row, path=("encoder", *row.path)) for name, row in rows.items()
    }
