"""Files that appear whole or not at all, with whose permissions, and what killed processes left."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from escsr.temporary_files import (
    PendingFile,
    TemporaryFolder,
    remove_abandoned,
    replace_file,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions and locks")


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def write_new(path: Path, content: bytes, **options: bool | Path | None) -> None:
    """Write a file that must not exist, or with the given options."""
    with PendingFile(path, **{"overwrite": False, **options}) as file:  # pyright: ignore
        file.stream.write(content)
        file.commit()


def test_of_many_writers_of_one_new_file_exactly_one_succeeds(tmp_path: Path) -> None:
    """All look before anyone has written; the file is the winner's, and whole."""
    files = [PendingFile(tmp_path / "a", overwrite=False) for _ in range(8)]
    won: list[int] = []
    together = threading.Barrier(len(files))

    def write(index: int) -> None:
        with files[index] as file:
            file.stream.write(bytes([index]) * 1000)
            together.wait()
            try:
                file.commit()
            except FileExistsError:
                return
            won.append(index)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "a").read_bytes() == bytes(won) * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@posix_only
def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no hard links: FAT, and what is shared from phones."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@posix_only
@pytest.mark.parametrize(
    ("source", "umask", "result"),
    [
        (0o600, 0o022, 0o600),
        (0o640, 0o022, 0o640),
        (0o644, 0o022, 0o644),
        (0o666, 0o022, 0o644),
        (0o664, 0o002, 0o664),
        (0o755, 0o022, 0o644),
        (0o644, 0o077, 0o600),
        (0o444, 0o022, 0o644),
        (0o400, 0o022, 0o600),
    ],
)
def test_a_new_file_is_no_more_open_than_its_source_and_the_umask(
    tmp_path: Path, source: int, umask: int, result: int
) -> None:
    """Its owner may write it in any case; nothing becomes executable."""
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(source)
    before = os.umask(umask)
    try:
        write_new(tmp_path / "a", b"", permissions_of=tmp_path / "source")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == result


@posix_only
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs other groups")
def test_another_group_gets_no_more_than_everybody(tmp_path: Path) -> None:
    """The readers of the source are those of its group; the result's group is another."""
    source = tmp_path / "source"
    source.touch()
    os.chown(source, -1, os.getegid() + 1)
    for mode, result in ((0o640, 0o600), (0o664, 0o644)):
        source.chmod(mode)
        write_new(tmp_path / f"{mode:o}", b"", permissions_of=source)
        assert mode_of(tmp_path / f"{mode:o}") == result


@posix_only
def test_a_replaced_file_keeps_its_permissions_and_a_link_its_place(tmp_path: Path) -> None:
    """Whatever the umask: the mode is the old file's; the link still leads to the same name."""
    (tmp_path / "disk").mkdir()
    for name, mode in (("private", 0o600), ("shared", 0o664)):
        old, link = tmp_path / "disk" / name, tmp_path / name
        old.write_bytes(b"old")
        old.chmod(mode)
        link.symlink_to(old)
        replace_file(link, b"new")
        assert link.is_symlink()
        assert (old.read_bytes(), mode_of(old)) == (b"new", mode)
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@posix_only
def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    """A link to /dev/null would otherwise cost root the device."""
    (tmp_path / "a").symlink_to("/dev/null")
    with pytest.raises(OSError, match="not a regular file"):
        replace_file(tmp_path / "a", b"new")
    assert not Path("/dev/null").is_file()


KILLED = """
import os, signal, sys
from escsr.temporary_files import PendingFile, TemporaryFolder
file = PendingFile(sys.argv[1] + "/a.png").__enter__()
file.stream.write(b"half")
folder = TemporaryFolder()
print(folder.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@posix_only
def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks have gone with it; a file of another machine, or of another name, is not judged."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    left_folder = Path(killed.stdout.strip())
    (left_file,) = tmp_path.glob(".escsr-*.partial")
    assert left_folder.parent == tmp_path
    machine = left_file.name.split("-")[1]
    strangers = [
        left_file.with_name(left_file.name.replace(machine, "0" * 12)),
        tmp_path / ".escsr-0123456789ab.partial",
        tmp_path / "escsr-notes",
        tmp_path / f".escsr-{machine}-0123456789ab.partial.png",
    ]
    for path in strangers:
        path.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.utime(left_folder, (1, 1))  # within its first minute it could be just being made
    with PendingFile(tmp_path / "b") as living, TemporaryFolder() as living_folder:
        (own,) = set(tmp_path.glob(".escsr-*.partial")) - {left_file, *strangers}
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {*strangers, own, Path(living_folder)}
        living.commit()
    assert set(tmp_path.iterdir()) == {*strangers, tmp_path / "b"}
