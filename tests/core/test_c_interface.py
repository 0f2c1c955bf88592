"""What callers of the core's C interface can do wrong is answered, not done."""

import ctypes
import random
from collections.abc import Generator
from ctypes import byref, c_int64, c_void_p, sizeof
from typing import Any

import numpy as np
import pytest

from escsr.core.library import (
    CALLBACK,
    INTERFACE_VERSION,
    INVALID_ARGUMENT,
    NOT_FINITE,
    OK,
    STOPPED,
    Array,
    Axis,
    Description,
    Needs,
    Options,
    ProgressCallback,
    ReadRowsCallback,
    Rows,
    Storage,
    StorageCallback,
    core_library,
)
from tests.core.c_interface import Answer, OpenedNetwork, call, open_arrays, shape_of
from tests.core.weights_files import RELATIVES, SMALL, random_arrays

IMAGE = np.random.default_rng(5).random((3, 11, 9), dtype=np.float32)
SIZES = (11, 9, 22, 18)
"""Of the image and its result at x2."""


@pytest.fixture(scope="module")
def network() -> Generator[OpenedNetwork]:
    """A small one that enlarges by 2."""
    with open_arrays(SMALL, random_arrays(SMALL)) as opened:
        assert opened.answer.status == OK, opened.answer
        yield opened


@pytest.fixture(scope="module")
def any_size_network() -> Generator[OpenedNetwork]:
    """A small ESC+LTE."""
    with open_arrays(RELATIVES["lte"], random_arrays(RELATIVES["lte"])) as opened:
        assert opened.answer.status == OK, opened.answer
        yield opened


def run(
    network: OpenedNetwork,
    sizes: tuple[int, int, int, int] = SIZES,
    options: Options | None = None,
    image: Any = IMAGE,
) -> Answer:
    """Run on an image, into a result that has room for any size that can be."""
    result = np.empty((3, 64, 64), np.float32)
    data = image.ctypes.data if isinstance(image, np.ndarray) else image
    given = None if options is None else byref(options)
    return call(
        "escsr_run", network.handle, data, *sizes[:2], result.ctypes.data, *sizes[2:], given
    )


def rows_of(image: np.ndarray, calls: list[tuple[int, int]] | None = None, answer: int = 0) -> Rows:
    """Callbacks that read an image."""

    def read(_: object, top: int, bottom: int, rows: int) -> int:
        if calls is not None:
            calls.append((top, bottom))
        part = np.ascontiguousarray(image[:, top:bottom])
        ctypes.memmove(rows, part.ctypes.data, part.nbytes)
        return answer

    return Rows(None, ReadRowsCallback(read))


def test_the_version_is_that_of_the_header() -> None:
    """As the Python side expects it."""
    assert core_library().escsr_interface_version() == INTERFACE_VERSION


def test_null_pointers_are_answered(network: OpenedNetwork) -> None:
    """By the argument's name."""
    null, handle, needs, job = c_void_p(), c_void_p(), Needs(), c_void_p()
    pixels, rows = IMAGE.ctypes.data, rows_of(IMAGE)
    for function, arguments, name in [
        ("escsr_open", (None, 3, byref(handle)), "bytes"),
        ("escsr_open", (b"abc", 3, None), "network"),
        ("escsr_open_arrays", (None, None, 0, byref(handle)), "configuration"),
        ("escsr_open_arrays", (b"{}", None, 1, byref(handle)), "arrays"),
        ("escsr_open_arrays", (b"{}", None, 0, None), "network"),
        ("escsr_run", (null, pixels, 11, 9, pixels, 22, 18, None), "network"),
        ("escsr_run", (network.handle, None, 11, 9, pixels, 22, 18, None), "image"),
        ("escsr_run", (network.handle, pixels, 11, 9, None, 22, 18, None), "result"),
        ("escsr_plan", (null, *SIZES, None, 0, 0, byref(needs)), "network"),
        ("escsr_plan", (network.handle, *SIZES, None, 0, 0, None), "needs"),
        ("escsr_begin", (null, *SIZES, byref(rows), None, 0, None, byref(job)), "network"),
        ("escsr_begin", (network.handle, *SIZES, None, None, 0, None, byref(job)), "rows"),
        ("escsr_begin", (network.handle, *SIZES, byref(rows), None, 0, None, None), "job"),
        ("escsr_make_rows", (null, 0, 1, pixels), "job"),
    ]:
        answer = call(function, *arguments)
        assert answer == Answer(INVALID_ARGUMENT, f"{name} is NULL."), function
    assert core_library().escsr_describe(network.handle, None) == INVALID_ARGUMENT
    assert core_library().escsr_describe(None, byref(Description())) == INVALID_ARGUMENT
    core_library().escsr_close(None)
    core_library().escsr_end(None)


def test_nobody_need_ask_for_a_message() -> None:
    """``error`` may be NULL."""
    handle = c_void_p(1)
    assert core_library().escsr_open(b"{}", 2, byref(handle), None) != OK
    assert not handle.value


@pytest.mark.parametrize("field", ["name", "data", "type", "shape"])
def test_arrays_without_all_their_parts_are_refused(field: str) -> None:
    """Each pointer is needed."""
    value = np.zeros(3, np.float32)
    array = Array(b"deep.bias", value.ctypes.data, b"F32", 1, shape_of(value))
    setattr(array, field, None)
    with OpenedNetwork("escsr_open_arrays", b"{}", byref(array), 1) as network:
        assert network.answer.status == INVALID_ARGUMENT
        assert network.answer.message.endswith("is NULL.")


def test_arrays_that_cannot_be_are_refused() -> None:
    """Types, dimensions, sizes, values, and a name that is there twice."""
    value = np.array([1, 2, np.nan], np.float32)
    shape = shape_of(value)
    for arrays, message in [
        ([Array(b"a", value.ctypes.data, b"I8", 1, shape)], "a holds I8; only F32, F16, BF16 and"),
        ([Array(b"a", value.ctypes.data, b"F32", -1, shape)], "a has -1 dimensions"),
        ([Array(b"a", value.ctypes.data, b"F32", 9, shape)], "a has 9 dimensions"),
        ([Array(b"a", value.ctypes.data, b"F32", 1, (c_int64 * 1)(-1))], "a is said to be -1,"),
        ([Array(b"a", value.ctypes.data, b"F32", 1, (c_int64 * 1)(2**62))], "a is said to be 46"),
        ([Array(b"a", value.ctypes.data, b"F32", 1, shape)], "a holds NaN or infinite values"),
        ([Array(b"a", value.ctypes.data, b"F32", 1, (c_int64 * 1)(1))] * 2, "a is there twice."),
    ]:
        given = (Array * len(arrays))(*arrays)
        with OpenedNetwork("escsr_open_arrays", b"{}", given, len(arrays)) as network:
            assert network.answer.status == INVALID_ARGUMENT
            assert network.answer.message.startswith(message), network.answer.message


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 9, 0, 18), "The image is 9x0 pixels; both sides need at least 1."),
        ((11, -9, 22, -18), "The image is -9x11 pixels; both sides need at least 1."),
        (
            (11, 9, 22, 17),
            "The result is to have 17x22 pixels, but this network enlarges by 2, to ",
        ),
        ((11, 9, 0, 0), "The result is 0x0 pixels; both sides need at least 1."),
        ((2**31, 1, 2**32, 2), "The image is 1x2147483648 pixels; a side may have 2^31 - 1 and"),
        ((2**63 - 1,) * 4, "The image is 9223372036854775808x9223372036854775808 pixels; a side"),
        ((2**21, 2**21, 2**22, 2**22), "The image is 2097152x2097152 pixels; a side may have"),
        ((2**20, 2**20, 2**21, 2**21), "The result is 2097152x2097152 pixels; a side may have"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    network: OpenedNetwork, sizes: tuple[int, int, int, int], message: str
) -> None:
    """By every function that takes them, before it allocates anything."""
    rows, job, needs = rows_of(IMAGE), c_void_p(), Needs()
    for answer in (
        run(network, sizes),
        call("escsr_plan", network.handle, *sizes, None, 0, 0, byref(needs)),
        call("escsr_begin", network.handle, *sizes, byref(rows), None, 0, None, byref(job)),
    ):
        assert answer.status == INVALID_ARGUMENT
        assert answer.message.startswith(message), answer.message


def test_numbers_on_odd_boundaries_are_refused(network: OpenedNetwork) -> None:
    """Float32 lies on a boundary of 4 bytes."""
    answer = run(network, image=IMAGE.ctypes.data + 1)
    assert answer == Answer(INVALID_ARGUMENT, "image does not lie on a boundary of 4 bytes.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "escsr_options.size is 0; set it to sizeof(escsr_options)."),
        ({"size": 5}, "escsr_options.size is 5;"),
        ({"size": 2**40}, "escsr_options.size is 1099511627776;"),
        ({"num_threads": -1}, "escsr_options.num_threads is -1; it must be 0,"),
        ({"num_threads": 100000}, "escsr_options.num_threads is 100000;"),
        (
            {"rows": ctypes.pointer(Axis(11, 22, 0, 0))},
            "Of escsr_options.rows and columns only one",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    network: OpenedNetwork, changes: dict[str, Any], message: str
) -> None:
    """Each by its own words."""
    options = Options()
    for name, value in changes.items():
        setattr(options, name, value)
    answer = run(network, options=options)
    assert answer.status == INVALID_ARGUMENT
    assert answer.message.startswith(message), answer.message


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (Axis(0, 22, 0, 0), "columns: a whole image of 0 pixels cannot become one of 22"),
        (
            Axis(20, 2**31, 0, 0),
            "columns: a whole image of 20 pixels cannot become one of 2147483648",
        ),
        (
            Axis(20, 40, -(2**33), 0),
            "columns: parts that begin at pixel -8589934592 and 0 are too far",
        ),
        (
            Axis(20, 40, 0, 2**62),
            "columns: parts that begin at pixel 0 and 4611686018427387904 are",
        ),
    ],
    ids=["no image", "a gigantic result", "far before", "far behind"],
)
def test_parts_far_from_the_whole_are_refused(
    any_size_network: OpenedNetwork, network: OpenedNetwork, axis: Axis, message: str
) -> None:
    """And any of a network that enlarges by its scale alone."""
    options = Options()
    options.rows = ctypes.pointer(Axis(30, 60, 19, 38))
    options.columns = ctypes.pointer(Axis(20, 40, 11, 22))
    assert run(any_size_network, options=options).status == OK
    assert "whose results may have any size" in run(network, options=options).message
    options.columns = ctypes.pointer(axis)
    answer = run(any_size_network, options=options)
    assert answer.status == INVALID_ARGUMENT
    assert answer.message.startswith(f"escsr_options.{message}"), answer.message


def test_parts_may_lie_anywhere_near_the_whole(any_size_network: OpenedNetwork) -> None:
    """Also where an image was extended at its borders; 300 random ones."""
    for case in range(300):
        chance = random.Random(case)
        axes = [
            Axis(
                chance.choice([1, 9, 30, 2**31 - 1]),
                chance.choice([1, 18, 60, 2**31 - 1]),
                chance.choice([-(2**32) + 2, -100, -3, 0, 5, 21, 2**32 - 2]),
                chance.choice([-(2**32) + 2, -100, -3, 0, 5, 42, 2**32 - 2]),
            )
            for _ in range(2)
        ]
        options = Options()
        options.rows, options.columns = map(ctypes.pointer, axes)
        assert run(any_size_network, options=options).status in (OK, NOT_FINITE)


def test_structures_of_older_and_newer_callers_are_read(network: OpenedNetwork) -> None:
    """Fields that an older one lacks are not touched, those that a newer one adds are zero."""

    class Newer(ctypes.Structure):
        _fields_ = (("known", Description), ("added", c_int64 * 3))

    full = network.describe()
    old = Description(num_parameters=7)
    old.size = Description.num_parameters.offset
    assert core_library().escsr_describe(network.handle, byref(old)) == OK
    assert (old.size, old.scale, old.num_parameters) == (24, 2, 7)
    new = Newer()
    new.added[:] = [1, 2, 3]
    new.known.size = sizeof(Newer)
    pointer = ctypes.cast(byref(new), ctypes.POINTER(Description))
    assert core_library().escsr_describe(network.handle, pointer) == OK
    assert new.known.size == sizeof(Newer)
    assert new.known.num_parameters == full.num_parameters
    assert list(new.added) == [0, 0, 0]
    options = Options(num_threads=2**20)
    options.size = Options.num_threads.offset
    assert run(network, options=options).status == OK


def test_progress_can_stop_a_run(network: OpenedNetwork) -> None:
    """And hears shares of the work."""
    heard: list[float] = []

    def tell(_: object, done: float) -> int:
        heard.append(done)
        return 1

    callback = ProgressCallback(tell)
    assert run(network, options=Options(1, callback)).status == STOPPED
    assert heard
    assert all(0 <= done <= 1 for done in heard)


def test_jobs_make_what_a_run_makes(network: OpenedNetwork) -> None:
    """In rows of any order, from callbacks, with and without storage."""
    stored = bytearray(1 << 22)

    def read(_: object, offset: int, num_bytes: int, to: int) -> int:
        ctypes.memmove(to, bytes(stored[offset : offset + num_bytes]), num_bytes)
        return 0

    def write(_: object, offset: int, num_bytes: int, from_: int) -> int:
        stored[offset : offset + num_bytes] = ctypes.string_at(from_, num_bytes)
        return 0

    expected = network.run(IMAGE)[1]
    storage = Storage(None, StorageCallback(read), StorageCallback(write))
    for given, limit in ((None, 0), (byref(storage), 1), (byref(Storage()), 1)):
        job, rows, needs = c_void_p(), rows_of(IMAGE), Needs()
        arguments = (network.handle, *SIZES)
        with_storage = given is not None
        answer = call("escsr_plan", *arguments, None, limit, with_storage, byref(needs))
        assert answer.status == OK
        assert needs.memory_bytes > 0
        assert needs.band_rows > 0
        assert (
            call("escsr_begin", *arguments, byref(rows), given, limit, None, byref(job)).status
            == OK
        )
        result = np.empty((3, 22, 18), np.float32)
        for top, bottom in ((7, 22), (0, 7)):
            part = np.empty((3, bottom - top, 18), np.float32)
            assert call("escsr_make_rows", job, top, bottom, part.ctypes.data).status == OK
            result[:, top:bottom] = part
        for top, bottom in ((-1, 3), (3, 3), (3, 2), (20, 23)):
            answer = call("escsr_make_rows", job, top, bottom, result.ctypes.data)
            assert answer.status == INVALID_ARGUMENT
        core_library().escsr_end(job)
        np.testing.assert_allclose(result, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def test_callbacks_that_give_up_end_a_job(network: OpenedNetwork) -> None:
    """With a status of their own; a job that did not begin is NULL."""
    rows, job = rows_of(IMAGE, answer=1), c_void_p(1)
    arguments = (network.handle, *SIZES)
    answer = call("escsr_begin", *arguments, byref(rows), None, 0, None, byref(job))
    assert answer.status == CALLBACK
    assert not job.value
    fails = StorageCallback(lambda *_: 1)
    rows, storage = rows_of(IMAGE), Storage(None, fails, fails)
    answer = call("escsr_begin", *arguments, byref(rows), byref(storage), 1, None, byref(job))
    assert answer.status == CALLBACK
    storage = Storage(None, fails)
    answer = call("escsr_begin", *arguments, byref(rows), byref(storage), 1, None, byref(job))
    assert answer.status == INVALID_ARGUMENT
    assert "escsr_storage needs both callbacks" in answer.message
    answer = call("escsr_begin", *arguments, byref(Rows()), None, 0, None, byref(job))
    assert answer == Answer(INVALID_ARGUMENT, "escsr_rows.read is NULL.")
    answer = call("escsr_begin", *arguments, byref(rows), None, -1, None, byref(job))
    assert answer.message == "limit_bytes is -1; it must be 0, for no limit, or more."
