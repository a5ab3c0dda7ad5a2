"""The menu of the site: which pages there are, in which order."""

SECTIONS = {
    "Get started": "start/install start/quickstart",
    "Guides: use a model": "guides/encode guides/embed guides/serving guides/convert"
    " guides/precision guides/export",
    "Guides: fine-tune": "guides/finetuning guides/retrieval guides/late-interaction"
    " guides/rerankers guides/sparse guides/retrieval-evaluation",
    "Guides: pretrain": "guides/pretrain guides/recipe guides/tpu-pod guides/gpus-slurm"
    " guides/continue guides/new-language guides/unused-tokens guides/own-loss",
    "Coming from": "guides/coming-from",
    "How it works": "how/packing how/attention how/maxsim how/engine how/checkpoints"
    " how/data-order how/masking how/sharding",
    "Reference": "reference/commands reference/configuration reference/files reference/tasks"
    " reference/retrieval-data reference/retrieval-losses",
    "Reference: Python": "reference/api/model reference/api/rows reference/api/convert"
    " reference/api/training reference/api/serving",
    "Results": "results/verified results/exactness results/speed results/finetuning"
    " results/retrieval results/efficiency results/plans results/hardware",
    "Decisions": "decisions/why decisions/differences decisions/limits decisions/architecture"
    " contributing changelog",
}
"""Pages of each section of the menu, without their ending."""

GENERATED = (
    *("contributing", "changelog", "reference/commands", "reference/configuration"),
    *(f"reference/api/{name}" for name in ("model", "rows", "convert", "training", "serving")),
)
"""Pages that are made when the site is built."""
