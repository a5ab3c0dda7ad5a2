"""Report on a prepared folder: counts, lengths, packing and mixture, as JSON and as tables."""

from typing import Any

from rich.table import Table

from modernbert_jax.io.progress import wide_console
from modernbert_jax.io.text import for_terminal

from ..rows import manifest as manifests
from ..rows.mixture import Order
from ..rows.prepared import Prepared

_EMPTY = {"rows": 0, "samples": 0, "tokens": 0, "efficiency": 0.0, "files": 0}


def facts(data: Prepared) -> dict[str, Any]:
    """Collect the facts of a prepared folder as a JSON object. Rates are shares of the tokens."""
    manifest = data.manifest
    orders = {length: data.order(length) for length in data.lengths()}
    components = {}
    for name, component in sorted(manifest.components.items()):
        documents, tokens = sum(component.documents.values()), sum(component.tokens.values())
        components[name] = {
            **_fields(component, ("weight", "epochs")),
            "sources": len(component.sources),
            "bytes": sum(source.bytes for source in component.sources),
            "documents": documents,
            **_fields(component, ("duplicates", "tokenless", "skipped")),
            "tokens": tokens,
            "unknown": component.unknown,
            "unknown_rate": component.unknown / max(tokens, 1),
            "special": component.special,
            "special_rate": component.special / max(tokens, 1),
            "document_lengths": component.document_lengths,
            "lengths": {
                str(length): {
                    "share_in_training": _share(order, name),
                    **{split: _rows(r) for split, r in component.lengths[str(length)].items()},
                }
                for length, order in orders.items()
            },
        }
    total = sum(c["tokens"] for c in components.values())
    for entry in components.values():
        entry["share"] = entry["tokens"] / max(total, 1)
    return {
        "folder": str(data.folder),
        **_fields(manifest, ("tokenizer_sha256", "vocab_size", "dtype", "chunking")),
        **_fields(manifest, ("deduplicate", "validation", "seed", "packer")),
        "documents": sum(c["documents"] for c in components.values()),
        "tokens": total,
        "lengths": {str(length): _total(components, str(length)) for length in orders},
        "components": components,
    }


def show(facts: dict[str, Any]) -> None:
    """Print facts as tables."""
    console = wide_console()
    console.print(
        for_terminal(
            f"{facts['folder']}: {facts['documents']:,} documents, {facts['tokens']:,} tokens;"
            f" {facts['vocab_size']:,} ids, {facts['dtype']}"
        )
    )
    headings = ("documents", "duplicates", "skipped", "tokens", "share", "unknown", "special")
    table = _table(("component",), headings)
    for name, c in facts["components"].items():
        skipped = sum(c["skipped"].values()) + c["tokenless"]
        table.add_row(
            for_terminal(name),
            *(f"{n:,}" for n in (c["documents"], c["duplicates"], skipped, c["tokens"])),
            *(f"{c['share']:.1%}", _rate(c["unknown_rate"]), _rate(c["special_rate"])),
        )
    console.print(table)
    headings = ("train", "validation", "samples", "full", "files", "in mixture", "epochs")
    table = _table(("rows of", "component"), headings)
    for length, total in facts["lengths"].items():
        for name, c in facts["components"].items():
            rows = c["lengths"][length]
            train, held_out = (rows.get(split, _EMPTY) for split in manifests.SPLITS)
            table.add_row(
                f"{int(length):,}",
                for_terminal(name),
                *(f"{n:,}" for n in (train["rows"], held_out["rows"], train["samples"])),
                f"{train['efficiency']:.2%}",
                f"{train['files']:,}",
                f"{rows['share_in_training']:.1%}",
                f"{c['epochs']:g}" if c["epochs"] else "any",
            )
        if len(facts["components"]) > 1:
            table.add_row(
                f"{int(length):,}",
                "[bold]all[/]",
                *(f"{total[k]:,}" for k in ("rows", "validation_rows", "samples")),
                f"{total['efficiency']:.2%}",
            )
    console.print(table)


def _fields(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _table(texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table with columns of texts and then of numbers."""
    table = Table(*texts, box=None, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _rows(packed: manifests.PackedRows) -> dict[str, Any]:
    return {
        **_fields(packed, ("rows", "samples", "tokens", "efficiency", "sample_lengths")),
        "files": len(packed.shards),
        "bytes": sum(shard.bytes for shard in packed.shards),
    }


def _total(components: dict[str, Any], length: str) -> dict[str, Any]:
    """Sums over all components, for one row length."""
    train, held_out = (
        [c["lengths"][length].get(split, _EMPTY) for c in components.values()]
        for split in manifests.SPLITS
    )
    rows, tokens = sum(r["rows"] for r in train), sum(r["tokens"] for r in train)
    return {
        "rows": rows,
        "validation_rows": sum(r["rows"] for r in held_out),
        "samples": sum(r["samples"] for r in train),
        "tokens": tokens,
        "efficiency": tokens / max(rows * int(length), 1),
    }


def _share(order: Order, name: str) -> float:
    """Share of the tokens that the manifest's mixture reads from a component, at its start."""
    return order.weights.get(name, 0.0) / sum(order.weights.values())


def _rate(rate: float) -> str:
    return f"{rate:.3%}" if rate else "0"
