"""Files that appear whole or not at all, and temporary folders; what a killed process left goes.

A temporary file or folder is locked (``flock``) for as long as its process works on it, and its
name says which machine that is. So a later run can tell what was left behind by a killed process
from what another process is writing, also after its process number was given to another one, and
leaves alone what belongs to another machine of a shared file system. Where a file system has no
locks, nothing is taken for left behind.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
import weakref
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

_NAME = re.compile(r"\.?escsr-([0-9a-f]{6})([0-9a-f]{6})-\w+(\.partial)?")
_UNLOCKED = "unlocked"
"""In place of the machine in the names of files that cannot be locked."""
_ATTEMPTS = 10
_YOUNG_S = 60
"""A folder is locked at once after it was made, but not in the same moment."""


class PendingFile:
    """A file under a temporary name beside its path (``.escsr-….partial``) until it is complete.

    The ``with`` block writes to ``stream`` and calls ``commit``; without it, no file appears.

    Args:
        path: where the file will be. A link there is followed if it may be replaced.
        overwrite: whether a file that is there may be replaced; it then keeps its permissions.
        permissions_of: a new file is open to nobody to whom this one is not; its owner may always
            read and write it. None: what the process's umask leaves.
        buffering: of the stream, as for ``open``.
    Raises:
        OSError: from every method, as the system has it; also for a device, or a link to one.
    """

    stream: BinaryIO
    """Open for reading and writing within the block."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        permissions_of: Path | None = None,
        buffering: int = -1,
    ) -> None:
        self.path = link_target(path) if overwrite else Path(path)
        self._overwrite = overwrite
        self._permissions_of = permissions_of
        self._buffering = buffering
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        replaced = self._stat_of_replaced()
        model = None if replaced else _stat(self._permissions_of)
        is_private = replaced is not None or (self._permissions_of is not None and model is None)
        allowed = model.st_mode if model else 0o777
        mode = 0o600 if is_private else 0o600 | allowed & 0o666
        try:
            descriptor = self._open_locked(mode)
            self.stream = cast(BinaryIO, open(descriptor, "w+b", self._buffering))  # noqa: PTH123
            if replaced is not None:
                _take_permissions(self.stream.fileno(), replaced)
            elif model is not None:
                _close_to_another_group(self.stream.fileno(), model.st_gid)
        except BaseException:
            self.discard()
            raise
        return self

    def commit(self, *, modified_ns: int | None = None) -> None:
        """Store what was written, and give it its name.

        Args:
            modified_ns: time of modification, as in ``os.stat``; None is now.
        Raises:
            FileExistsError: there is a file of that name, and it may not be replaced.
        """
        assert self._temporary is not None
        self.stream.flush()
        # Some file systems report a full disk only now.
        os.fsync(self.stream.fileno())
        if os.name == "nt":  # an open file cannot be renamed; elsewhere it stays locked
            self.stream.close()
        if modified_ns is not None:
            os.utime(self._temporary, ns=(modified_ns, modified_ns))
        if self._overwrite:
            self._temporary.replace(self.path)
        else:
            _rename_to_new(self._temporary, self.path)
        self.stream.close()

    def discard(self) -> None:
        """Close and remove what was not committed; does nothing twice."""
        with contextlib.suppress(OSError, AttributeError):
            self.stream.close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def _stat_of_replaced(self) -> os.stat_result | None:
        found = _stat(self.path) if self._overwrite else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        return found

    def _open_locked(self, mode: int) -> int:
        machine = _machine()
        for _ in range(_ATTEMPTS):
            name = f".escsr-{machine}-{secrets.token_hex(6)}.partial"
            self._temporary = self.path.parent / name
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._temporary, flags, mode)
            if machine == _UNLOCKED or _lock_own(descriptor, self._temporary):
                return descriptor
            if not _is_busy(descriptor):
                machine = _UNLOCKED
            os.close(descriptor)
            self._temporary.unlink(missing_ok=True)
        raise OSError(errno.EAGAIN, "another process removes every temporary file")


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole, by way of a temporary one beside it; an old one is replaced.

    What killed processes left in the folder is removed.

    Raises:
        OSError: the disk is full, or the folder is closed to us; an old file stays then.
    """
    remove_abandoned(path.parent)
    with PendingFile(path) as file:
        file.stream.write(content)
        file.commit()


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that also goes when its process was killed: with the next one made."""

    def __init__(self) -> None:
        remove_abandoned(tempfile.gettempdir())
        super().__init__(prefix=f"escsr-{_machine()}-", ignore_cleanup_errors=True)
        self._close = lambda: None
        if fcntl is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(self.name, os.O_RDONLY)
                self._close = weakref.finalize(self, os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cleanup(self) -> None:
        """Remove the folder and what is in it."""
        super().cleanup()
        self._close()


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes of this machine left of their temporary files in a folder.

    Does nothing about what is being written, what was left by another machine, and what this
    process may not remove.
    """
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            names = [entry.path for entry in entries if _is_of_this_machine(entry.name)]
        for name in names:
            with contextlib.suppress(OSError):
                _remove_if_abandoned(name)


def link_target(path: str | os.PathLike[str]) -> Path:
    """Where a link leads to, existing or not; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)  # noqa: PTH114


def _stat(path: Path | None) -> os.stat_result | None:
    if path is not None:
        with contextlib.suppress(OSError):
            return path.stat()
    return None


def _remove_if_abandoned(name: str) -> None:
    found = os.lstat(name)
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        return
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not stat.S_ISREG(found.st_mode):
        return
    if is_folder and time.time() - found.st_mtime < _YOUNG_S:
        return
    if fcntl is None:
        _remove(name, is_folder=is_folder)
        return
    descriptor = os.open(name, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), found):
            _remove(name, is_folder=is_folder)
    finally:
        os.close(descriptor)


def _remove(name: str, *, is_folder: bool) -> None:
    if is_folder:
        shutil.rmtree(name)
    else:
        Path(name).unlink()


def _lock_own(descriptor: int, path: Path) -> bool:
    """Lock a file just made; not where another process took it for abandoned before that."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _is_busy(descriptor: int) -> bool:
    """Whether another process holds the lock or has removed the file: locks work here."""
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename a file without replacing another, however many processes try at once."""
    if os.name == "nt":
        source.rename(target)  # it refuses there what it replaces elsewhere
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here, as on FAT: whoever makes the empty file has the name.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            source.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    else:
        source.unlink()


def _take_permissions(descriptor: int, replaced: os.stat_result) -> None:
    """Give a new file the owner, group and mode of the one that it will replace."""
    if os.name == "nt":
        return
    for owner in (replaced.st_uid, -1):
        with contextlib.suppress(OSError):  # only root gives files away
            os.fchown(descriptor, owner, replaced.st_gid)
            break
    with contextlib.suppress(OSError):  # some file systems have no permissions
        os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode) & 0o777)
    _close_to_another_group(descriptor, replaced.st_gid)


def _close_to_another_group(descriptor: int, group: int) -> None:
    """Give the file's group, if it is another, no more than what everybody has."""
    if os.name == "nt":
        return
    made = os.fstat(descriptor)
    if made.st_gid != group:
        mode = stat.S_IMODE(made.st_mode)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode & (0o707 | (mode & 0o007) << 3))


def _is_of_this_machine(name: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    own = _machine()
    # Containers of one start of a machine have different names, but share its locks.
    return match[1] == own[:6] or match[2] == own[6:]


@cache
def _machine() -> str:
    """Six digits for the machine's name and six for its start, where the system tells them."""
    host = socket.gethostname() + _content("/etc/machine-id")
    start = _content("/proc/sys/kernel/random/boot_id") or host
    return _digest(host) + _digest(start)


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
