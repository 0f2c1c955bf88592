"""What of this machine the process may use, memory and cores, and what running out looks like.

The amounts are read from files of Linux below a root, which tests lay out anew. Elsewhere only the
physical memory is known.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60
"""Version 1 control groups write "no limit" as the largest number of whole pages."""

_OUT_OF_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "failed to map segment",
    "cannot map zero-fill pages",
    "can't start new thread",
    "error creating thread",
)
"""What the allocators of CUDA and MPS, of the CPU on Linux, the C library, the CPU on Windows, and
oneDNN say; the loader of shared libraries; Python and GLib, where a thread's stack has no room."""


def free_memory_bytes(root: Path = _ROOT) -> int | None:
    """Main memory that this process can still take, in bytes.

    The least of what the system has, what each control group around the process leaves (version 1
    and 2, all ancestors), what ``ulimit`` leaves (address space and data), and, where the kernel
    promises no more than it has, what it still promises. What the kernel can take back from its
    page cache counts as free.

    Args:
        root: where ``proc`` and ``sys`` lie.
    Returns:
        0 or more; None where the system gives no figure.
    """
    found = [
        _free_of_system(root),
        _free_to_promise(root),
        *(group.free_bytes for group in _memory_groups(root)),
        *(limit.limit_bytes - limit.used_bytes for limit in _resource_limits(root)),
    ]
    known = [amount for amount in found if amount is not None]
    if not known:
        return _half_of_physical_memory() if root == _ROOT else None
    return max(0, min(known))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, in Python, in a library, or while loading one."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, (RuntimeError, ImportError)) and is_about_memory(str(error))


def is_about_memory(message: str) -> bool:
    """Whether a library's message says that memory ran out."""
    return any(phrase in message.lower() for phrase in _OUT_OF_MEMORY_PHRASES)


def out_of_memory_text(error: BaseException) -> str:
    """What ran out, and what to do, in one line."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    remedy = "Free memory, or use a machine that has more."
    if limit := min(_resource_limits(_ROOT), key=lambda limit: limit.limit_bytes, default=None):
        remedy = (
            f"This process may take {limit.limit_bytes / 1e6:.0f} MB ({limit.command}). Raise that "
            "limit, or remove it."
        )
    return f"Memory ran out ({reason}). {remedy}"


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_of_system(root: Path) -> int | None:
    meminfo = _table(root / "proc/meminfo")
    if "MemAvailable" in meminfo:
        return meminfo["MemAvailable"]
    if "MemFree" in meminfo:  # kernels before 3.14
        return meminfo["MemFree"] + meminfo.get("Buffers", 0) + meminfo.get("Cached", 0) // 2
    return None


def _free_to_promise(root: Path) -> int | None:
    """What allocations may still come to, where the kernel does not overcommit."""
    if _number(root / "proc/sys/vm/overcommit_memory") != 2:
        return None
    meminfo = _table(root / "proc/meminfo")
    if "CommitLimit" not in meminfo or "Committed_AS" not in meminfo:
        return None
    return meminfo["CommitLimit"] - meminfo["Committed_AS"]


def _half_of_physical_memory() -> int | None:
    """Where the system does not say what is free."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@dataclass(frozen=True, slots=True)
class _ResourceLimit:
    """A limit of the process, as a shell sets it."""

    command: str
    limit_bytes: int
    used_bytes: int


def _resource_limits(root: Path) -> Iterator[_ResourceLimit]:
    """RLIMIT_AS and RLIMIT_DATA, where they are set."""
    used = _table(root / "proc/self/status")
    for line in _text(root / "proc/self/limits").splitlines():
        for name, command, counted in (
            ("Max address space", "ulimit -v", "VmSize"),
            ("Max data size", "ulimit -d", "VmData"),
        ):
            words = line.removeprefix(name).split()
            if line.startswith(name) and words and words[0].isdigit():
                yield _ResourceLimit(command, int(words[0]), used.get(counted, 0))


@dataclass(frozen=True, slots=True)
class _MemoryGroup:
    """One control group: where it lies, and how its version names things."""

    folder: Path
    limits: tuple[str, ...]
    usage: str
    reclaimable: tuple[str, str]
    """Inactive and active pages of files, of this group and those below it."""
    inherited_limit: str | None = None
    """In memory.stat: the least limit of all ancestors, seen or not."""

    @property
    def free_bytes(self) -> int | None:
        """What it still allows; None where it does not limit."""
        used = _number(self.folder / self.usage)
        if used is None:
            return None
        limits = [_number(self.folder / name) for name in self.limits]
        stat = _table(self.folder / "memory.stat")
        limits.append(stat.get(self.inherited_limit) if self.inherited_limit else None)
        known = [limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES]
        if not known:
            return None
        # Half of the active pages, as the kernel's own MemAvailable takes at least that much.
        inactive, active = (stat.get(name, 0) for name in self.reclaimable)
        return max(0, min(known) - max(0, used - inactive - active // 2))


def _memory_groups(root: Path) -> Iterator[_MemoryGroup]:
    """The control groups around this process, the innermost first; hybrid systems have both kinds.

    Where the hierarchy is mounted is read from ``mountinfo``: a container sees its own group as
    the mount's root, by whatever name the host knows it.
    """
    paths = dict(_paths_of_groups(root))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if len(place) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup" and "memory" not in kind[2].split(","):
            continue
        mounted, mount = place[3], root / _unescaped(place[4]).lstrip("/")
        for folder in _ancestors(paths.get(kind[0]), _unescaped(mounted), mount):
            yield _group_of(kind[0], folder)


def _group_of(kind: str, folder: Path) -> _MemoryGroup:
    if kind == "cgroup2":
        return _MemoryGroup(
            folder,
            limits=("memory.max", "memory.high"),
            usage="memory.current",
            reclaimable=("inactive_file", "active_file"),
        )
    return _MemoryGroup(
        folder,
        limits=("memory.limit_in_bytes",),
        usage="memory.usage_in_bytes",
        reclaimable=("total_inactive_file", "total_active_file"),
        inherited_limit="hierarchical_memory_limit",
    )


def _paths_of_groups(root: Path) -> Iterator[tuple[str, str]]:
    """The kind of hierarchy, and the process's place in it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup2", path
        elif "memory" in controllers.split(","):
            yield "cgroup", path


def _ancestors(path: str | None, mounted: str, mount: Path) -> Iterator[Path]:
    """Folders from a process's group up to the root of the mount.

    Args:
        path: of the group in its hierarchy, as far as the namespace shows it; None where unknown.
        mounted: what part of the hierarchy is mounted.
        mount: where.
    """
    inside, whole = PurePosixPath(), PurePosixPath(path or "/")
    if ".." not in whole.parts and whole.is_relative_to(mounted):  # else outside the namespace
        inside = whole.relative_to(mounted)
    for part in (inside, *inside.parents):
        yield mount / part


def _unescaped(field: str) -> str:
    """A path of mountinfo, which writes blanks as octal."""
    for code, sign in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(code, sign)
    return field


def _table(file: Path) -> dict[str, int]:
    """Lines of a name and a number, in bytes where the line says kB."""
    table: dict[str, int] = {}
    for line in _text(file).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            table[words[0]] = int(words[1]) * (1024 if words[-1] == "kB" else 1)
    return table


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, or it is the word "max"."""
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    """The text of a file; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
