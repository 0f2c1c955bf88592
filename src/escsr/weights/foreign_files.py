"""What a file is that was given for weights and is none."""

import re


class ForeignFileError(Exception):
    """A file is of another kind; the message says of which, and what to do."""


class UnusableFileError(Exception):
    """A whole file of weights holds what cannot be used; the message says what."""


_AGAIN = "Download it again."
_UNPACK = "Unpack it, and give the file within."
_NO_WEIGHTS = "Give a file of weights: .safetensors, .pth, .pt or .ckpt."
_EXPORTED = (
    "It is made for running, not for loading. Give the checkpoint that it was exported from: "
    ".safetensors, .pth, .pt or .ckpt."
)

_KINDS: tuple[tuple[str, bytes, str], ...] = (
    (
        "a Git LFS pointer, which stands for a file that was not downloaded",
        rb"version https://git-lfs",
        "Run git lfs pull there, or download the file itself.",
    ),
    (
        "an HTML page, such as a warning, a login or an error, in place of the file",
        rb"(?is)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|script)\b",
        "Open its address in a browser, and save what that page leads to.",
    ),
    ("an XML file", rb"(\xef\xbb\xbf)?\s*<\?xml", _NO_WEIGHTS),
    ("compressed by gzip (gz)", rb"\x1f\x8b", _UNPACK),
    ("compressed by bzip2", rb"BZh[1-9]", _UNPACK),
    ("compressed by xz", rb"\xfd7zXZ\0", _UNPACK),
    ("compressed by Zstandard", rb"\x28\xb5\x2f\xfd", _UNPACK),
    ("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    ("a RAR archive", rb"Rar!\x1a\x07", _UNPACK),
    ("a tar archive", rb"(?s).{257}ustar", _UNPACK),
    ("a model in GGUF's format", rb"GGUF", _EXPORTED),
    ("an HDF5 file, as Keras writes them", rb"\x89HDF\r\n\x1a\n", _NO_WEIGHTS),
    ("a model of TensorFlow Lite", rb"(?s).{4}TFL3", _EXPORTED),
    ("an ONNX model", rb"(?s)\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", _EXPORTED),
    ("a numpy array (.npy)", rb"\x93NUMPY", _NO_WEIGHTS),
    ("a network's description for ncnn (.param)", rb"7767517\s", _EXPORTED),
    ("a JPEG image", rb"\xff\xd8\xff", _NO_WEIGHTS),
    ("a PNG image", rb"\x89PNG", _NO_WEIGHTS),
    ("a GIF image", rb"GIF8[79]a", _NO_WEIGHTS),
    ("a WebP image", rb"(?s)RIFF.{4}WEBP", _NO_WEIGHTS),
    ("a TIFF image", rb"II[*+]\0|MM\0[*+]", _NO_WEIGHTS),
    ("an AVIF or HEIF image", rb"(?s).{4}ftyp(avi|hei|hev|mif)", _NO_WEIGHTS),
    ("a BMP image", rb"(?s)BM.{4}\0\0\0\0", _NO_WEIGHTS),
    ("a PDF document", rb"%PDF-", _NO_WEIGHTS),
    ("a program (ELF)", rb"\x7fELF", _NO_WEIGHTS),
    ("a program (Windows)", rb"(?s)MZ.{58}", _NO_WEIGHTS),
    ("an SQLite database", rb"SQLite format 3\0", _NO_WEIGHTS),
    ("nothing but zeros at its beginning: an interrupted download", rb"\0{64}", _AGAIN),
    ("a JSON file", rb"\s*(\{\s*[\"}]|\[\s*[\[{\"\d])", _NO_WEIGHTS),
    (
        "a TOML, INI or YAML file",
        rb"\s*(#[^\n]*\n\s*)*(\[[\w. -]+\]|---|[\w-]+ ?[:=]\s)",
        _NO_WEIGHTS,
    ),
)
"""(What it is, how it begins, what to do)."""

BEGINNING_BYTES = 1024
"""Of a file, as ``foreign_kind`` needs them."""


def foreign_kind(beginning: bytes) -> str:
    """What a file is by its first bytes, and what to do; a sentence's end and a sentence."""
    for kind, pattern, advice in _KINDS:
        if re.match(pattern, beginning):
            return f"it is {kind}. {advice}"
    text = _as_text(beginning)
    if text is not None:
        return f"it is a text that begins with {text[:60]!r}. {_NO_WEIGHTS}"
    return f"it begins with {beginning[:8]!r}. {_NO_WEIGHTS}"


def foreign_archive(names: list[str]) -> str | None:
    """What a ZIP archive of such names is, and what to do, as ``foreign_kind``; None if unknown."""
    files = [name.split("/", 1)[-1] for name in names]
    if any(name.startswith("code/") for name in files) and "constants.pkl" in files:
        return f"it is TorchScript, a program with its weights (torch.jit.save). {_EXPORTED}"
    if "archive_format" in files or any(name.startswith("models/") for name in files):
        return f"it is an exported program with its weights (torch.export.save). {_EXPORTED}"
    if names and all(name.endswith(".npy") for name in names):
        return f"it is a numpy archive (.npz). {_NO_WEIGHTS}"
    if "[Content_Types].xml" in names:
        return f"it is an office document. {_NO_WEIGHTS}"
    if "model.weights.h5" in names:
        return f"it is a Keras model. {_NO_WEIGHTS}"
    return None


def _as_text(beginning: bytes) -> str | None:
    try:
        # A character may be cut at the end.
        text = beginning[: BEGINNING_BYTES - 4].decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    is_text = all(character.isprintable() or character.isspace() for character in text)
    return text if text and is_text else None
