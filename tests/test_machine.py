"""How much memory this process can still take, from the files in which Linux says it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from escsr.machine import free_memory_bytes

MIB = 2**20
GIB = 2**30
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable:    8388608 kB\n"
"""A machine of 16 GiB, 8 of them free."""
VERSION_2 = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = (
    "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 31 0:29 {mounted} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
)
NO_LIMIT = "9223372036854771712"
GROUP_1 = "sys/fs/cgroup/memory"


def root_of(folder: Path, **files: str) -> Path:
    """Lay out files below a folder."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def group_2(path: str, limit: str, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    """A control group of version 2."""
    folder = f"sys/fs/cgroup/{path}".rstrip("/")
    stat = f"anon 5\nfile 7\ninactive_file {inactive}\nactive_file {active}\nshmem 3\n"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": stat,
    }


def group_1(path: str, limit: str, used: int, inactive: int = 0, more: str = "") -> dict[str, str]:
    """A control group of version 1; its own pages are those of the groups below it too."""
    folder = f"{GROUP_1}/{path}".rstrip("/")
    stat = f"cache 1\ninactive_file 1\nactive_file 1\n{more}total_inactive_file {inactive}\n"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": stat + "total_active_file 0\n",
    }


def in_group(version: int, path: str, mounted: str = "/") -> dict[str, str]:
    """What a process in a group reads of itself."""
    line = f"0::{path}" if version == 2 else f"5:cpu:/elsewhere\n4:hugetlb,memory:{path}\n0::/"
    mounts = VERSION_2 if version == 2 else VERSION_1.format(mounted=mounted)
    return {"proc/self/cgroup": f"{line}\n", "proc/self/mountinfo": mounts}


def test_without_limits_the_system_decides(tmp_path: Path) -> None:
    """MemAvailable, in kB."""
    groups = in_group(2, "/") | group_2("", "max", 3 * GIB)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == 8 * GIB


def test_an_unknown_amount_is_not_zero(tmp_path: Path) -> None:
    """Where nothing can be read; 0 means that nothing is left."""
    assert free_memory_bytes(tmp_path) is None
    full = in_group(2, "/") | group_2("", str(GIB), GIB + 4096)
    assert free_memory_bytes(root_of(tmp_path, **full)) == 0


def test_the_page_cache_of_a_container_can_be_taken_back(tmp_path: Path) -> None:
    """2 GiB of which 1.9 are files read earlier: 1.8 GiB are free, not 0.1."""
    used, files = 19 * GIB // 10, 17 * GIB // 10
    groups = in_group(2, "/") | group_2("", str(2 * GIB), used, inactive=files)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == 2 * GIB - used + files


def test_half_of_the_files_in_use_can_be_taken_back(tmp_path: Path) -> None:
    """Files that were read twice are active."""
    groups = in_group(2, "/") | group_2("", str(2 * GIB), 2 * GIB, active=GIB)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB // 2


def test_the_tightest_of_all_ancestors_counts(tmp_path: Path) -> None:
    """The slice around the service may leave less than the service's own limit."""
    groups = (
        in_group(2, "/jobs.slice/one.service/worker")
        | group_2("jobs.slice/one.service/worker", "max", 10 * MIB)
        | group_2("jobs.slice/one.service", str(4 * GIB), GIB)
        | group_2("jobs.slice", str(5 * GIB), 4 * GIB, inactive=GIB // 2)
    )
    root = root_of(tmp_path, **groups)
    assert free_memory_bytes(root) == 3 * GIB // 2
    (root / "sys/fs/cgroup/jobs.slice/one.service/memory.high").write_text(f"{2 * GIB}\n")
    assert free_memory_bytes(root) == GIB


def test_a_limit_of_version_1_counts(tmp_path: Path) -> None:
    """With the page cache of the groups below, and the word for no limit left out."""
    groups = in_group(1, "/docker/4e2b") | group_1("", NO_LIMIT, 9 * GIB)
    root = root_of(tmp_path, **groups | group_1("docker/4e2b", str(2 * GIB), GIB, GIB // 4))
    assert free_memory_bytes(root) == 2 * GIB - GIB + GIB // 4


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """Mounted is /docker/4e2b, so that the limit lies in the mount's root."""
    groups = in_group(1, "/docker/4e2b", mounted="/docker/4e2b") | group_1("", str(GIB), 0)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB


def test_a_group_inside_a_container_counts_too(tmp_path: Path) -> None:
    """Mounted is /docker/4e2b, and the process lies below it."""
    groups = in_group(1, "/docker/4e2b/job", mounted="/docker/4e2b")
    groups |= group_1("", str(2 * GIB), 0) | group_1("job", str(GIB), MIB)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB - MIB


def test_a_limit_of_an_ancestor_that_is_not_mounted_counts(tmp_path: Path) -> None:
    """Version 1 says it in memory.stat."""
    more = f"hierarchical_memory_limit {3 * GIB}\n"
    groups = in_group(1, "/a/b", mounted="/a/b") | group_1("", NO_LIMIT, GIB, more=more)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == 2 * GIB


@pytest.mark.parametrize("path", ["/../other", "/gone"])
def test_a_group_outside_the_namespace_leaves_the_root(tmp_path: Path, path: str) -> None:
    """Its folder cannot be reached, but what is mounted limits all the same."""
    groups = in_group(2, path) | group_2("", str(GIB), 0)
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB


def test_hybrid_systems_have_both_kinds(tmp_path: Path) -> None:
    """Services are named in version 2, as by systemd, and memory is limited by version 1."""
    groups = in_group(1, "/box") | group_1("box", str(GIB), 0)
    groups["proc/self/mountinfo"] += VERSION_2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB


def test_a_mount_may_hold_blanks(tmp_path: Path) -> None:
    """They are written as octal in mountinfo."""
    groups = in_group(2, "/") | {
        "sys/fs/my groups/memory.max": f"{GIB}",
        "sys/fs/my groups/memory.current": "0",
    }
    groups["proc/self/mountinfo"] = VERSION_2.replace("cgroup rw -", r"my\040groups rw -")
    assert free_memory_bytes(root_of(tmp_path, **groups)) == GIB


@pytest.mark.parametrize(
    ("limit", "counted"), [("Max address space", "VmSize"), ("Max data size", "VmData")]
)
def test_ulimit_counts(tmp_path: Path, limit: str, counted: str) -> None:
    """Less what the process takes already; what lies below "Hard Limit" does not."""
    limits = "Limit                     Soft Limit           Hard Limit           Units\n"
    limits += f"{limit:26}3000000000           8000000000           bytes\n"
    limits += "Max resident set          1000                 unlimited            bytes\n"
    status = f"Name:\tpython\n{counted}:\t 1000000 kB\nVmRSS:\t 5 kB\n"
    files = {"proc/self/limits": limits, "proc/self/status": status}
    assert free_memory_bytes(root_of(tmp_path, **files)) == 3_000_000_000 - 1_024_000_000


def test_a_kernel_that_does_not_overcommit_promises_less(tmp_path: Path) -> None:
    """Mode 2: what is committed counts, used or not."""
    meminfo = MEMINFO + "CommitLimit: 4194304 kB\nCommitted_AS: 3145728 kB\n"
    files = {"proc/meminfo": meminfo, "proc/sys/vm/overcommit_memory": "0\n"}
    root = root_of(tmp_path, **files)
    assert free_memory_bytes(root) == 8 * GIB
    (root / "proc/sys/vm/overcommit_memory").write_text("2\n")
    assert free_memory_bytes(root) == GIB


def test_old_kernels_say_only_what_nobody_uses(tmp_path: Path) -> None:
    """Without MemAvailable: what is free, buffers, and half of what is cached."""
    meminfo = "MemFree: 1024 kB\nBuffers: 512 kB\nCached: 2048 kB\n"
    assert free_memory_bytes(root_of(tmp_path, **{"proc/meminfo": meminfo})) == 2560 * 1024


ASK = "from escsr.machine import free_memory_bytes; print(free_memory_bytes())"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is left of a limit")
def test_a_real_ulimit_counts() -> None:
    """A process that may have 1 GB of addresses is not told of more."""
    command = ["sh", "-c", 'ulimit -v 1000000; exec "$0" -c "$1"', sys.executable, ASK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert 500_000_000 < int(done.stdout) < 1_024_000_000


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A control group of version 1 that allows 300 MiB; made where root may make one."""
    folder = Path("/sys/fs/cgroup/memory") / f"escsr-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 * MIB))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_real_control_group_counts_and_its_page_cache_does_not(
    real_group: Path, tmp_path: Path
) -> None:
    """A process in it that has just written 200 MiB is told of most of the 300, and no more."""
    enter_and_write = (
        'echo $$ > "$2/cgroup.procs"; head -c 200M /dev/zero > "$3"; sync "$3"; exec "$0" -c "$1"'
    )
    command = ["sh", "-c", enter_and_write, sys.executable, ASK, real_group, tmp_path / "zeros"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert 200 * MIB < int(done.stdout) <= 300 * MIB
