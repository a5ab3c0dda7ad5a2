"""What ptxas says about a kernel, and the sizes of its loops."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path


def assembled(ptx: str, arch: str) -> str:
    """The report of ptxas on a kernel."""
    package = importlib.util.find_spec("nvidia.cuda_nvcc")
    places = [Path(place) / "bin" / "ptxas" for place in package.submodule_search_locations]
    tool = next((str(p) for p in places if p.exists()), None) or shutil.which("ptxas")
    done = subprocess.run(
        [tool, "-v", f"-arch={arch}", "-o", "/dev/null", "-"],
        input=ptx,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def loops(ptx: str, holding: str = "") -> tuple[int, ...]:
    """Instructions, but for moves, between a label and the jump back to it, for each such jump.

    Args:
        ptx: a kernel.
        holding: what one of a loop's instructions must contain.
    """
    labels, seen, sizes = {}, [], []
    for line in ptx.splitlines():
        line = line.strip()
        if line.startswith("$L__BB"):
            labels[line.split(":")[0]] = len(seen)
        elif line.endswith((";", "; }")) and not line.startswith((".", "mov")):
            seen.append(line)
            jump = re.search(r"bra\S*\s+(\$L__BB\w+)", line)
            if jump and jump[1] in labels:
                body = seen[labels[jump[1]] :]
                if any(holding in instruction for instruction in body):
                    sizes.append(len(body))
    return tuple(sizes)
