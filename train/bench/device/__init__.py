"""Everything that one accelerator can tell, in one command: `modernbert-jax bench device`.

A *part* is a function that yields `Result`s: checks against an oracle, times, memory. Parts
register themselves in the modules of `parts`; a new kernel or benchmark is one decorated function:

    @register("maxsim", group="scoring", order=45, seconds=20)
    def maxsim(scale: Scale) -> Iterator[Result]: ...

Every part runs in a process of its own within a time budget, the most telling part first. What a
part has yielded is kept if it raises, crashes, hangs or runs out of memory later. Nothing here
imports the data path: jax, flax and optax are enough.

    registry, schedule, processes    which parts there are, when they run, and where
    scale, machine                   sizes of this run, and facts of its device
    timing, cases                    how programs are compiled and timed; attention's programs
    results, table                   a run as JSON, and as Markdown
    history, page                    docs/results/hardware/<device>.json, and hardware.md there
    wheels                           what a machine without network lacks
"""
