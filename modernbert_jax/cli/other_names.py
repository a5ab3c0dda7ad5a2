"""Option names of other programs, such as transformers' Trainer, and ours for the same."""

from collections.abc import Mapping

_TRAINING: Mapping[str, tuple[str, ...]] = {
    "b1": ("adam-beta1", "beta1"),
    "b2": ("adam-beta2", "beta2"),
    "clip-norm": ("max-grad-norm", "gradient-clipping", "grad-clip"),
    "eps": ("adam-epsilon", "epsilon"),
    "eval-every": ("eval-steps", "eval-strategy", "evaluation-strategy"),
    "keep": ("save-total-limit",),
    "keep-best": ("load-best-model-at-end",),
    "log-every": ("logging-steps",),
    "lora.alpha": ("lora-alpha",),
    "lora.dropout": ("lora-dropout",),
    "lora.rank": ("lora-r", "lora-rank", "use-lora", "peft"),
    "lora.targets": ("target-modules", "lora-target-modules"),
    "lora.whole": ("modules-to-save",),
    "optimizer": ("optim",),
    "output": ("output-dir", "out-dir", "save-dir"),
    "patience": ("early-stopping-patience",),
    "runtime.dtype": ("bf16", "fp16", "dtype", "torch-dtype", "mixed-precision"),
    "runtime.remat": ("gradient-checkpointing",),
    "save-every": ("save-steps", "save-strategy"),
    "seed": ("data-seed",),
    "wandb-project": ("report-to",),
}
_EPOCHS = ("num-train-epochs", "num-epochs", "n-epochs", "max-steps")
_RATE = ("lr", "lr-rate", "peak-lr")
_BATCH = ("batch-size", "train-batch-size", "per-device-train-batch-size", "total-batch-size")
_LENGTH = ("max-length", "max-seq-length", "max-seq-len", "seq-length", "sequence-length")
_WARMUP = ("warmup-ratio", "warmup-steps")
_SCHEDULE = ("lr-scheduler-type", "lr-scheduler", "scheduler")
_MODEL = ("model-name-or-path", "model-name", "pretrained-model", "model-id")
_TRAIN = ("train-file", "train-data", "train-dataset", "dataset-name", "dataset")

_FINETUNE = {
    **_TRAINING,
    "batch-examples": _BATCH,
    "epochs": _EPOCHS,
    "label-smoothing": ("label-smoothing-factor",),
    "learning-rate": _RATE,
    "microbatch-tokens": ("gradient-accumulation-steps", "per-device-eval-batch-size"),
    "model": _MODEL,
    "schedule": _SCHEDULE,
    "task.best-metric": ("metric-for-best-model", "metric"),
    "task.columns": ("text-column", "text-column-name", "text-columns"),
    "task.label-column": ("label-column", "label-column-name"),
    "task.max-length": _LENGTH,
    "test": ("test-file", "test-data"),
    "train": _TRAIN,
    "validation": ("validation-file", "eval-file", "dev-file", "dev", "eval-data", "valid"),
    "warmup": _WARMUP,
}
_PRETRAIN = {
    **_TRAINING,
    "data": ("train", *_TRAIN),
    "init-from": ("model", *_MODEL),
    "stages.0.decay-shape": ("schedule", *_SCHEDULE),
    "stages.0.length": _LENGTH,
    "stages.0.mask-rate": ("mask-rate", "mlm-probability", "mlm-prob"),
    "stages.0.microbatch-rows": ("gradient-accumulation-steps",),
    "stages.0.peak-learning-rate": ("learning-rate", *_RATE),
    "stages.0.rows": _BATCH,
    "stages.0.tokens": (*_EPOCHS, "epochs", "tokens"),
    "stages.0.warmup-tokens": ("warmup", *_WARMUP),
    "stages.0.weight-decay": ("weight-decay",),
}
_USE = {
    "batch-tokens": (*_BATCH, "per-device-eval-batch-size"),
    "data": ("test-file", "validation-file", "input", "input-file"),
    "model": _MODEL,
    "output": ("output-dir", "output-file", "out"),
}
_PREPARE = {
    "input": ("train", "data", "input-file", *_TRAIN),
    "length": _LENGTH,
    "output": ("output-dir", "out"),
    "tokenizer": ("tokenizer-name", *_MODEL),
    "validation": ("validation-split", "validation-split-percentage"),
    "workers": ("num-workers", "num-proc", "preprocessing-num-workers"),
}

TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "finetune": _FINETUNE,
    "sweep": _FINETUNE,
    "pretrain": _PRETRAIN,
    "evaluate": _USE,
    "predict": _USE,
    "prepare": _PREPARE,
}
"""By command: names of other programs by ours, without dashes before them."""


def ours(command: str, option: str) -> str | None:
    """Our option for one that a command does not have, such as "--lr", or None."""
    name = option.partition("=")[0].lstrip("-").replace("_", "-").lower()
    table = TABLES.get(command, {})
    return next((f"--{own}" for own, others in table.items() if name in others), None)
