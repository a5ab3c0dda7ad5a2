"""The side of sentence-transformers in `bench retrieval`: `python -P peer.py FOLDER`.

Reads FOLDER/job.json, trains its model with exactly its batches, and writes FOLDER/steps/STEP,
FOLDER/export and FOLDER/trained.json. It imports nothing of this package.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Train as the job specifies."""
    import torch
    import transformers

    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    transformers.set_seed(job["seed"])
    build = {
        "embedding": embedding,
        "sparse": sparse,
        "late-interaction": late_interaction,
        "reranker": reranker,
    }
    model, loss, trainer_class, arguments_class = build[job["kind"]](Path(job["model"]), job)
    arguments = arguments_class(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=max(map(len, job["batches"])),
        num_train_epochs=1,
        learning_rate=job["learning_rate"],
        lr_scheduler_type=job["schedule"],
        warmup_steps=job["warmup_steps"],
        weight_decay=job["weight_decay"],
        adam_beta1=job["b1"],
        adam_beta2=job["b2"],
        adam_epsilon=job["eps"],
        max_grad_norm=job["clip_norm"],
        seed=job["seed"],
        optim="adamw_torch",
        batch_sampler=sampler_of(job["batches"]),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        prompts=prompts(model, job),
    )
    keeper = keeper_of(folder / "steps", job["keep_steps"])
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=dataset(job),
        loss=loss,
        callbacks=[keeper],
    )
    began = time.perf_counter()
    output = trainer.train()
    seconds = time.perf_counter() - began - keeper.seconds
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.save_pretrained(str(folder / "export"))
    facts = {
        "seconds": seconds,
        "step_seconds": output.metrics["train_runtime"] - keeper.seconds,
        "peak_memory": memory,
        "steps": len(job["batches"]),
    }
    (folder / "trained.json").write_text(json.dumps(facts))


def embedding(path: Path, job: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Model, loss, trainer and arguments of a single-vector model with mean pooling."""
    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import losses

    model = st.SentenceTransformer(str(path), device="cpu", **model_arguments(job))
    model.max_seq_length = job["max_length"]
    loss = (
        losses.CachedMultipleNegativesRankingLoss(
            model, scale=job["scale"], mini_batch_num_tokens=job["microbatch_tokens"]
        )
        if job["cached"]
        else losses.MultipleNegativesRankingLoss(model, scale=job["scale"])
    )
    return model, loss, st.SentenceTransformerTrainer, st.SentenceTransformerTrainingArguments


def sparse(path: Path, job: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Model, loss, trainer and arguments of a sparse encoder.

    The trainer raises the weights of the regularization over a third of the steps by itself.
    """
    import sentence_transformers as st
    from sentence_transformers.sparse_encoder import losses

    model = st.SparseEncoder(str(path), device="cpu", **model_arguments(job))
    model.max_seq_length = job["max_length"]
    weights = {
        "query_regularizer_weight": job["query_flops"],
        "document_regularizer_weight": job["document_flops"],
    }
    ranking = losses.SparseMultipleNegativesRankingLoss(model)
    loss = (
        losses.CachedSpladeLoss(
            model, ranking, mini_batch_num_tokens=job["microbatch_tokens"], **weights
        )
        if job["cached"]
        else losses.SpladeLoss(model, ranking, **weights)
    )
    return model, loss, st.SparseEncoderTrainer, st.SparseEncoderTrainingArguments


def late_interaction(path: Path, job: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Model, loss, trainer and arguments of a late-interaction model, contrastive or distilled."""
    import sentence_transformers as st
    from sentence_transformers.multi_vector_encoder import losses

    model = st.MultiVectorEncoder(str(path), device="cpu", **model_arguments(job))
    if job["loss"] == "distill-kl":
        loss: Any = losses.MultiVectorDistillKLDivLoss(model)
    elif job["cached"]:
        loss = losses.CachedMultiVectorMultipleNegativesRankingLoss(
            model, mini_batch_num_tokens=job["microbatch_tokens"]
        )
    else:
        loss = losses.MultiVectorMultipleNegativesRankingLoss(model)
    return model, loss, st.MultiVectorEncoderTrainer, st.MultiVectorEncoderTrainingArguments


def reranker(path: Path, job: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Model, loss, trainer and arguments of a cross-encoder."""
    from sentence_transformers import cross_encoder as ce

    model = ce.CrossEncoder(
        str(path),
        num_labels=1,
        max_length=job["max_length"],
        device="cpu",
        model_kwargs=model_arguments(job)["model_kwargs"],
    )
    loss = ce.losses.BinaryCrossEntropyLoss(model)
    return model, loss, ce.CrossEncoderTrainer, ce.CrossEncoderTrainingArguments


def prompts(model: Any, job: dict[str, Any]) -> dict[str, str] | None:
    """Prefixes by column, which a trainer does not take from a late-interaction model by itself."""
    if job["kind"] != "late-interaction":
        return None
    query, *documents = job["columns"]
    return {query: model.prompts["query"], **dict.fromkeys(documents, model.prompts["document"])}


def model_arguments(job: dict[str, Any]) -> dict[str, Any]:
    """Attention and precision of both kinds of models."""
    import torch

    return {"model_kwargs": {"attn_implementation": "sdpa", "dtype": torch.float32}}


def dataset(job: dict[str, Any]) -> Any:
    """The examples as a `datasets.Dataset`: texts by column, and a label or scores if they have."""
    import datasets

    columns = {name: [texts[i] for texts in job["texts"]] for i, name in enumerate(job["columns"])}
    if job["targets"]:
        columns["label"] = job["targets"]
    return datasets.Dataset.from_dict(columns)


def sampler_of(batches: list[list[int]]) -> Any:
    """A batch sampler that gives the batches of the job, in their order."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class Given(DefaultBatchSampler):
        def __iter__(self) -> Any:
            return iter(batches)

        def __len__(self) -> int:
            return len(batches)

    return Given


def keeper_of(folder: Path, steps: list[int]) -> Any:
    """A callback that saves the model after some steps, and knows the seconds that took."""
    import transformers

    class Keeper(transformers.TrainerCallback):
        seconds = 0.0

        def save(self, model: Any, step: int) -> None:
            if step in steps:
                began = time.perf_counter()
                model.save_pretrained(str(folder / str(step)), create_model_card=False)
                self.seconds += time.perf_counter() - began

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.save(more["model"], state.global_step)

    return Keeper()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
