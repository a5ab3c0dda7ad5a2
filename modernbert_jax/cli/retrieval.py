"""The commands of retrieval: mine, search."""

import dataclasses
from typing import Any

from modernbert_jax.train.retrieval.mining.config import Mining
from modernbert_jax.train.retrieval.search.config import BM25, Searching

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices
from .options import Flat, as_option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(Mining):
    """Mine hard negatives: documents that resemble a query and are not among its positives.

    Interrupt it at any time, even with `kill -9`; running it again resumes. The options and their
    defaults are those of sentence-transformers' mine_hard_negatives.
    """

    json: bool = False
    """Print the counts and scores as JSON."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Mine, and print what was found."""
        model = self.cross_encoder if self.model == BM25 else self.model
        if model:
            self.devices.expose(device_limits.for_inference(model, self.batch_tokens))
        from modernbert_jax.train.retrieval.mining.mine import mine

        with printing.attention_choices():
            summary = mine(self)
        if self.json:
            printing.print_json(summary)
            return
        for line in _table(summary):
            print(line)
        print(f"{self.output}: {summary['rows']:,} rows; {summary['cache']} can be deleted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Searching):
    """Find the best documents of every query, and write them as a run of TREC.

    Every query is compared with every document, unless --index names an approximate index. Equal
    scores are in the order of the corpus. Interrupt it at any time, even with `kill -9`; running it
    again resumes.
    """

    json: bool = False
    """Print the counts as JSON."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Search, and print what was written."""
        model = self.rerank if self.model in ("", BM25) else self.model
        if model:
            self.devices.expose(device_limits.for_inference(model, self.batch_tokens))
        from modernbert_jax.train.retrieval.search.run import run_search

        with printing.attention_choices():
            summary = run_search(self)
        if self.json:
            printing.print_json(summary)
            return
        kept = f"; {summary['cache']} can be deleted" if summary["cache"] else ""
        print(
            f"{self.output}: {summary['results']:,} results, {summary['queries']:,} queries{kept}"
        )


def _table(summary: dict[str, Any]) -> list[str]:
    """The summary in lines."""
    names = ("count", "mean", "min", "25%", "median", "75%", "max")
    scores = summary["scores"]
    lines = [f"{'score':8}" + "".join(f"{name:>12}" for name in scores)]
    for name in names:
        values = [scores[kind].get(name) for kind in scores]
        lines.append(f"{name:8}" + "".join(f"{_number(value):>12}" for value in values))
    total = summary["candidates"]
    for rule, count in summary["dropped"].items():
        own = rule == "positive"
        what = "as positives of the query or its text" if own else f"by --{as_option(rule)}"
        lines.append(f"dropped {count:,} of {total:,} candidates {what}")
    if few := summary["queries_with_too_few"]:
        lines.append(
            f"{few:,} of {summary['queries']:,} queries have too few negatives; relax the rules, or"
            " raise --range-max"
        )
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
