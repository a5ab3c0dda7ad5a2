"""A hub that is a folder on this machine."""

import fnmatch
import shutil


class Hub:
    """`snapshot_download` from a folder; records the requests."""

    def __init__(self, source, cache):
        self.source, self.cache, self.asked = source, cache, []

    def __call__(self, name, *, revision, allow_patterns, ignore_patterns):
        self.asked.append((name, revision))
        for path in (p for p in self.source.rglob("*") if p.is_file()):
            relative = path.relative_to(self.source).as_posix()
            wanted = any(fnmatch.fnmatch(relative, p) for p in allow_patterns)
            if wanted and not any(fnmatch.fnmatch(relative, p) for p in ignore_patterns):
                (self.cache / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.cache / relative)
        return str(self.cache)
