"""Files at a URL whose file system remembers listings, as those of object stores do."""

from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from modernbert_jax.io.store import Store


class Remembering(MemoryFileSystem):
    """Answers from a listing as long as it is remembered, also about files that it lacks."""

    protocol = "remembering"
    listings: ClassVar[dict[str, list[str]]] = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("remembering://"))

    def ls(self, path, detail=True, **options):
        assert not detail
        path = self._strip_protocol(path)
        if path not in self.listings:
            self.listings[path] = super().ls(path, detail=False, **options)
        return self.listings[path]

    def info(self, path, **options):
        path = self._strip_protocol(path)
        siblings = self.listings.get(path.rpartition("/")[0])
        if siblings is not None and path not in siblings:
            raise FileNotFoundError(path)
        return super().info(path, **options)

    def exists(self, path, **options):
        try:
            return bool(self.info(path, **options))
        except FileNotFoundError:
            return False

    def invalidate_cache(self, path=None):
        self.listings.clear()


@pytest.fixture
def store():
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    fsspec.filesystem("memory").pipe("/stored/here/a", b"1")
    return Store("remembering://stored/here")


def test_what_others_write_is_seen(store):
    assert store.names("") == ["a"] and not store.exists("b")
    other = fsspec.filesystem("memory")
    other.pipe("/stored/here/b", b"2")
    assert store.exists("b") and store.read("b") == b"2"
    assert store.names("") == ["a", "b"]
    assert store.names("c") == []
    other.pipe("/stored/here/c/d", b"3")
    assert store.names("c") == ["d"]
