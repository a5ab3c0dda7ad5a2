"""What a prepared folder holds: counts, lengths, packing and mixture, as JSON and as tables."""

from typing import Any

from rich.table import Table

from modernbert_jax.io.progress import wide_console

from ..rows import manifest as manifests
from ..rows.mixture import Order
from ..rows.prepared import Prepared


def facts(data: Prepared) -> dict[str, Any]:
    """Everything about a prepared folder, as a JSON object. Rates are shares of the tokens."""
    manifest = data.manifest
    orders = {length: data.order(length) for length in data.lengths()}
    components = {}
    for name, component in sorted(manifest.components.items()):
        documents, tokens = sum(component.documents.values()), sum(component.tokens.values())
        components[name] = {
            "weight": component.weight,
            "epochs": component.epochs,
            "sources": len(component.sources),
            "bytes": sum(source.bytes for source in component.sources),
            "documents": documents,
            "duplicates": component.duplicates,
            "tokenless": component.tokenless,
            "skipped": component.skipped,
            "tokens": tokens,
            "unknown": component.unknown,
            "unknown_rate": component.unknown / max(tokens, 1),
            "special": component.special,
            "special_rate": component.special / max(tokens, 1),
            "document_lengths": component.document_lengths,
            "lengths": {
                str(length): {
                    "share_in_training": _share(order, name),
                    **{s: _rows(made) for s, made in component.lengths[str(length)].items()},
                }
                for length, order in orders.items()
            },
        }
    total = sum(c["tokens"] for c in components.values())
    for component in components.values():
        component["share"] = component["tokens"] / max(total, 1)
    return {
        "folder": str(data.folder),
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "vocab_size": manifest.vocab_size,
        "dtype": manifest.dtype,
        "chunking": manifest.chunking,
        "deduplicate": manifest.deduplicate,
        "validation": manifest.validation,
        "seed": manifest.seed,
        "packer": manifest.packer,
        "documents": sum(c["documents"] for c in components.values()),
        "tokens": total,
        "lengths": {str(length): _total(components, str(length)) for length in orders},
        "components": components,
    }


def show(found: dict[str, Any]) -> None:
    """Prints the facts as tables."""
    console = wide_console()
    console.print(
        f"[bold]{found['folder']}[/]: {found['documents']:,} documents, {found['tokens']:,} tokens;"
        f" {found['vocab_size']:,} ids, {found['dtype']}"
    )
    table = Table("component", box=None, pad_edge=False)
    for heading in ("documents", "duplicates", "skipped", "tokens", "share", "unknown", "special"):
        table.add_column(heading, justify="right")
    for name, c in found["components"].items():
        skipped = sum(c["skipped"].values()) + c["tokenless"]
        table.add_row(
            name,
            *(f"{n:,}" for n in (c["documents"], c["duplicates"], skipped, c["tokens"])),
            *(f"{c['share']:.1%}", _rate(c["unknown_rate"]), _rate(c["special_rate"])),
        )
    console.print(table)
    table = Table("rows of", "component", box=None, pad_edge=False)
    for heading in ("train", "validation", "samples", "full", "files", "in mixture", "epochs"):
        table.add_column(heading, justify="right")
    for length, total in found["lengths"].items():
        for name, c in found["components"].items():
            made = c["lengths"][length]
            train, kept = made.get("train", _NOTHING), made.get("validation", _NOTHING)
            table.add_row(
                f"{int(length):,}",
                name,
                *(f"{n:,}" for n in (train["rows"], kept["rows"], train["samples"])),
                f"{train['efficiency']:.2%}",
                f"{train['files']:,}",
                f"{made['share_in_training']:.1%}",
                f"{c['epochs']:g}" if c["epochs"] else "any",
            )
        if len(found["components"]) > 1:
            table.add_row(
                f"{int(length):,}",
                "[bold]all[/]",
                *(f"{total[k]:,}" for k in ("rows", "validation_rows", "samples")),
                f"{total['efficiency']:.2%}",
            )
    console.print(table)


_NOTHING = {"rows": 0, "samples": 0, "efficiency": 0.0, "files": 0}


def _rows(made: manifests.PackedRows) -> dict[str, Any]:
    return {
        "rows": made.rows,
        "samples": made.samples,
        "tokens": made.tokens,
        "efficiency": made.efficiency,
        "sample_lengths": made.sample_lengths,
        "files": len(made.shards),
        "bytes": sum(shard.bytes for shard in made.shards),
    }


def _total(components: dict[str, Any], length: str) -> dict[str, Any]:
    """The rows of a length over all components."""
    train, kept = (
        [c["lengths"][length].get(split, _NOTHING | {"tokens": 0}) for c in components.values()]
        for split in manifests.SPLITS
    )
    rows, tokens = sum(r["rows"] for r in train), sum(r["tokens"] for r in train)
    return {
        "rows": rows,
        "validation_rows": sum(r["rows"] for r in kept),
        "samples": sum(r["samples"] for r in train),
        "tokens": tokens,
        "efficiency": tokens / max(rows * int(length), 1),
    }


def _share(order: Order, name: str) -> float:
    """The part of the tokens that the manifest's mixture takes from a component, at its start."""
    return order.weights.get(name, 0.0) / sum(order.weights.values())


def _rate(rate: float) -> str:
    return f"{rate:.3%}" if rate else "0"
