"""The Trainer's side of the `finetune` comparison: `python -P finetune_peer.py FOLDER`.

Reads FOLDER/job.json and FOLDER/model, trains, and writes logits.npz and told.json. It imports
nothing of this package.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

EVALUATION_BATCH = 64
IGNORED = -100

MODELS = {
    "sequence_classification": transformers.ModernBertForSequenceClassification,
    "token_classification": transformers.ModernBertForTokenClassification,
}


def main(folder: Path) -> None:
    """Trains as the job says."""
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    transformers.set_seed(job["seed"])
    model = MODELS[job["head"]].from_pretrained(
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
    said = logits(model, [ids for ids, _ in job["validation"]], pad)
    np.savez(folder / "logits.npz", **{str(i): x for i, x in enumerate(said)})
    (folder / "told.json").write_text(json.dumps({"seconds": seconds}))


def collated(items: list[dict[str, Any]], pad: int, head: str) -> dict[str, torch.Tensor]:
    """A batch padded to its longest sequence."""
    ids, mask = padded([item["input_ids"] for item in items], pad)
    if head == "token_classification":
        labels, _ = padded([item["labels"] for item in items], IGNORED)
    else:
        labels = torch.tensor([item["labels"] for item in items])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def padded(lists: list[list[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equally long rows, and where they are real."""
    length = max(map(len, lists))
    rows = torch.full((len(lists), length), value)
    mask = torch.zeros((len(lists), length), dtype=torch.long)
    for row, real, items in zip(rows, mask, lists, strict=True):
        row[: len(items)], real[: len(items)] = torch.tensor(items), 1
    return rows, mask


@torch.no_grad()
def logits(model: Any, sequences: list[list[int]], pad: int) -> list[np.ndarray]:
    """Of every sequence in order, [labels] or [tokens, labels]."""
    model.eval()
    found: list[Any] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), EVALUATION_BATCH):
        chosen = order[start : start + EVALUATION_BATCH]
        ids, mask = padded([sequences[i] for i in chosen], pad)
        said = model(input_ids=ids, attention_mask=mask).logits.numpy()
        for i, x in zip(chosen, said, strict=True):
            found[i] = x[: len(sequences[i])] if x.ndim == 2 else x
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
