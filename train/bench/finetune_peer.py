"""The Trainer's side of the `finetune` comparison: `python -P finetune_peer.py FOLDER`.

Reads FOLDER/job.json and FOLDER/model, trains, and writes logits.npz and result.json. It imports
nothing of this package.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

EVALUATION_BATCH = 64
IGNORED = -100

MODELS = {
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification",
}


def main(folder: Path) -> None:
    """Train as the job specifies."""
    import torch
    import transformers

    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    transformers.set_seed(job["seed"])
    model = getattr(transformers, MODELS[job["head"]]).from_pretrained(
        folder / "model",
        num_labels=job["labels"],
        problem_type=job["problem_type"],
        classifier_pooling=job["pooling"],
        attn_implementation="sdpa",
        dtype=torch.float32,
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=job["batch_examples"],
        num_train_epochs=job["epochs"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=job["warmup_steps"],
        weight_decay=job["weight_decay"],
        adam_beta1=job["b1"],
        adam_beta2=job["b2"],
        adam_epsilon=job["eps"],
        max_grad_norm=job["clip_norm"],
        seed=job["seed"],
        optim="adamw_torch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    pad = model.config.pad_token_id or 0
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": ids, "labels": y} for ids, y in job["train"]],
        data_collator=lambda items: collated(items, pad, job["head"]),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    outputs = logits(model, [ids for ids, _ in job["validation"]], pad)
    arrays: dict[str, Any] = {str(i): x for i, x in enumerate(outputs)}
    np.savez(folder / "logits.npz", **arrays)
    (folder / "result.json").write_text(json.dumps({"seconds": seconds}))


def collated(items: list[dict[str, Any]], pad: int, head: str) -> dict[str, Any]:
    """Collate a batch, padded to its longest sequence."""
    import torch

    ids, mask = padded([item["input_ids"] for item in items], pad)
    if head == "token_classification":
        labels, _ = padded([item["labels"] for item in items], IGNORED)
    else:
        labels = np.array([item["labels"] for item in items])
        labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
    arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(x) for name, x in arrays.items()}


def padded(lists: list[list[int]], value: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded with `value`, and their mask: int64 [rows, length] each."""
    lengths = np.array([len(items) for items in lists])
    mask = np.arange(lengths.max()) < lengths[:, None]
    rows = np.full(mask.shape, value, np.int64)
    rows[mask] = np.concatenate(lists)
    return rows, mask.astype(np.int64)


def logits(model: Any, sequences: list[list[int]], pad: int) -> list[np.ndarray]:
    """Logits of every sequence in order, [labels] or [tokens, labels]."""
    import torch

    model.eval()
    outputs: list[Any] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), EVALUATION_BATCH):
        chosen = order[start : start + EVALUATION_BATCH]
        ids, mask = (torch.from_numpy(x) for x in padded([sequences[i] for i in chosen], pad))
        with torch.no_grad():
            batch = model(input_ids=ids, attention_mask=mask).logits.numpy()
        for i, x in zip(chosen, batch, strict=True):
            outputs[i] = x[: len(sequences[i])] if x.ndim == 2 else x
    return outputs


if __name__ == "__main__":
    main(Path(sys.argv[1]))
