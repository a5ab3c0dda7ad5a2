"""Where commands may write: what is refused before the work, and what is never replaced."""

import os
import stat
import threading

import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.io import files, outputs


def write(path, inputs=(), replaces=None, content=b"new\n"):
    with files.output(path, inputs, replaces=replaces) as writer:
        writer(content)


def refused(path, key, inputs=(), replaces=None):
    """The work is not begun, and the message names the path."""
    with pytest.raises(UserError, match=key) as error:  # noqa: SIM117
        with files.output(path, inputs, replaces=replaces):
            pytest.fail("the work was begun")
    assert str(path) in str(error.value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text("mine\n")
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/part.jsonl").write_text("mine\n")
    return tmp_path


def spellings(place):
    os.link(place / "data.jsonl", place / "hard")
    (place / "soft").symlink_to("data.jsonl")
    (place / "folder/up").symlink_to("..")
    return ["data.jsonl", "./data.jsonl", place / "data.jsonl", "soft", "hard", "folder/up/hard"]


@pytest.mark.parametrize("source", ["data.jsonl", "soft", "*.jsonl", "d[a]ta.jsonl"])
def test_an_input_is_never_replaced_in_any_spelling(place, source):
    for spelling in spellings(place):
        refused(spelling, "is an input", [source], replaces="")
        refused(spelling, "is an input", [source])
    refused("folder/part.jsonl", "is an input", ["folder"], replaces="")
    assert (place / "data.jsonl").read_text() == "mine\n"


def test_an_input_with_brackets_in_its_path_is_never_replaced(place):
    (place / "v [2]").mkdir()
    (place / "v [2]" / "a[1].jsonl").write_text("mine\n")
    for source in ("v [2]/a[1].jsonl", "v [2]/*.jsonl"):
        refused("v [2]/a[1].jsonl", "is an input", [source], replaces="")


def test_an_existing_file_is_refused_unless_it_may_be_replaced(place):
    refused("data.jsonl", "exists; choose another place")
    refused("data.jsonl", "exists", replaces=".png")
    write("data.jsonl", ["folder", "nowhere", "s3://bucket/*"], replaces=".jsonl")
    assert (place / "data.jsonl").read_text() == "new\n"


def test_links_remain_links(place):
    (place / "soft").symlink_to("data.jsonl")
    (place / "dangling").symlink_to("new/file")
    refused("soft", "exists")
    write("soft", replaces="")
    write("dangling")
    assert (place / "data.jsonl").read_text() == (place / "new/file").read_text() == "new\n"
    assert (place / "soft").is_symlink() and (place / "dangling").is_symlink()


def test_refused_places(place):
    (place / "loop").symlink_to("loop")
    for path, key in {
        "folder": "is a folder",
        "": "is a folder",
        "data.jsonl/x": "Not a directory",
        "loop": "cannot be written",
        "n" * 300: "too long",
        "nul\0": "cannot be written",
        "/proc/nope/x": "cannot be written",
    }.items():
        refused(path, key)
    with pytest.raises(UserError, match="is a stream"):
        outputs.check_file("/dev/stdout")
    with pytest.raises(UserError, match="is a device"):
        files.write_json("/dev/null", {})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert sorted(p.name for p in place.iterdir()) == ["data.jsonl", "folder", "loop"]


def test_a_failure_leaves_nothing(place):
    with pytest.raises(RuntimeError), files.output("new/file") as writer:
        writer(b"x")
        raise RuntimeError
    assert not (place / "new").exists()


def test_a_target_that_came_meanwhile_is_not_replaced(place):
    with pytest.raises(UserError, match="exists"), files.output("file") as writer:
        writer(b"x")
        (place / "file").write_text("theirs")
    assert (place / "file").read_text() == "theirs"


def test_standard_output_is_written_in_place(place, capfd):
    write("-")
    (place / "soft").symlink_to("/dev/stdout")
    write("soft")
    write("/dev/null")
    assert capfd.readouterr().out == "new\nnew\n"
    assert not (place / "-").exists()


def test_descriptors(place):
    inner, outer = os.pipe()
    write(f"/dev/fd/{outer}")
    assert os.read(inner, 9) == b"new\n"
    refused(f"/dev/fd/{inner}", "open for reading only")
    os.close(inner)
    refused(f"/proc/self/fd/{outer}", "nobody reads it")
    os.close(outer)
    refused(f"/dev/fd/{outer}", "is closed")


def test_fifos_are_streams(place):
    os.mkfifo("fifo")
    refused("fifo", "nobody reads it")
    read = []
    reader = threading.Thread(target=lambda: read.append((place / "fifo").read_bytes()))
    reader.start()
    while True:
        try:
            write("fifo", content=b"x" * 100_000)  # more than a fifo holds
            break
        except UserError:  # the reader has not opened it yet
            continue
    reader.join()
    assert read == [b"x" * 100_000] and (place / "fifo").is_fifo()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_target_is_noticed_before_the_work(place):
    refused("/dev/full", "No space left")


def test_folders(place):
    (place / "link").symlink_to("folder/inner")
    with files.whole_directory("link") as temporary:
        (temporary / "a").touch()
    assert (place / "link").is_symlink() and (place / "folder/inner/a").exists()
    assert outputs.check_folder("new/run") == place / "new/run" and not (place / "new").exists()
    for path, key in (("link", "exists"), ("data.jsonl", "exists"), ("/proc", "exists")):
        with pytest.raises(UserError, match=key), files.whole_directory(path):
            pass
    (place / "cwd").mkdir()
    os.chdir("cwd")
    with pytest.raises(UserError, match="current folder"), files.whole_directory("."):
        pass
    for path, key in ((place / "data.jsonl", "is a file"), ("/proc/nope", "cannot be written")):
        with pytest.raises(UserError, match=key):
            outputs.check_folder(path)


def test_names_that_are_no_text_are_written(place):
    write(os.fsdecode(b"caf\xe9"))
    assert os.path.exists(b"caf\xe9")
