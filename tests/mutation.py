"""Files of any format, damaged at random but repeatably."""

import io
import os
import random
import resource
import signal
import sys
import zipfile
from collections.abc import Generator
from contextlib import contextmanager


def number_of_cases(default: int) -> int:
    """How many damaged files a test tries; ESCSR_FUZZ_CASES sets another number."""
    return int(os.environ.get("ESCSR_FUZZ_CASES", default))


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes changed, taken out, doubled or put in, or cut."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(changed) + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 64)), len(changed) - place)
        match chance.randrange(7):
            case 0:
                changed[place : place + length] = chance.randbytes(length)
            case 1 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case 2:
                extreme = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80"))
                changed[place : place + length] = extreme * length
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length]
            case 5:
                changed[place:place] = chance.randbytes(length)
            case _ if chance.random() < 0.2:
                del changed[place:]
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[place : place + length] = changed[other : other + length]
    return bytes(changed)


def with_damaged_pickle(content: bytes, chance: random.Random) -> bytes:
    """An archive that is whole but for its pickle, of which no checksum tells."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, mutated(data, chance) if is_pickle else data)
    return result.getvalue()


def peak_memory_bytes() -> int:
    """The most that this process has had in memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def no_more_than_10_seconds(what: str) -> Generator[None]:
    """Fail where work takes more than 10 seconds of the processor's time."""

    def fail(*_: object) -> None:
        raise AssertionError(f"{what} took more than 10 seconds")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
