"""Chunks of PNG files, put in and taken out by hand."""

import struct
import zlib
from pathlib import Path

Chunk = tuple[bytes, bytes]


def chunks_of(path: Path) -> list[Chunk]:
    """Kind and payload of every chunk."""
    data, at = path.read_bytes(), 8
    chunks: list[Chunk] = []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def insert_chunks(path: Path, *new: Chunk, before: bytes = b"IDAT") -> None:
    """Put chunks before the first of a kind."""
    chunks = chunks_of(path)
    at = [kind for kind, _ in chunks].index(before)
    chunks[at:at] = new
    written = [
        struct.pack(">I", len(payload)) + kind + payload + zlib.crc32(kind + payload).to_bytes(4)
        for kind, payload in chunks
    ]
    path.write_bytes(path.read_bytes()[:8] + b"".join(written))
