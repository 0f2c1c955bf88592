"""What an image file says beside its pixels, and how it travels to the result."""

import re
from dataclasses import dataclass
from typing import TypeAlias

import pyvips

from escsr.images.exif import resolution_of, settled_exif
from escsr.images.tiff_tags import ExtraSample

VipsImage: TypeAlias = pyvips.Image

_APP13 = b"Photoshop 3.0\0"
_UNKNOWN_DENSITY = (1.0, 1.0)
"""What libvips reports, in pixels per millimetre, where a file states none."""
_USUAL_DENSITY = 72 / 25.4
"""Written where the source states none: the pixels per millimetre that JPEG readers assume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """Colour profile, EXIF, XMP, IPTC and resolution, ready to be written with a result."""

    icc_profile: bytes | None = None
    """The profile in which the pixels are encoded; None where the file had none (read: sRGB)."""
    exif: bytes | None = None
    """An EXIF block with its prefix; orientation already 1, thumbnail gone."""
    xmp: bytes | None = None
    """An XMP packet; orientation already 1."""
    photoshop: bytes | None = None
    """Photoshop resource blocks, which hold IPTC."""
    pixels_per_mm: tuple[float, float] | None = None
    """Horizontal and vertical print resolution; None where unknown."""
    resolution_unit: str = "in"
    """The unit the file used: ``in`` or ``cm``."""
    extra_sample: ExtraSample = "straight"
    """How a fourth or second channel is labelled: opacity (how stored), or data."""


def read_metadata(image: VipsImage, *, tiff_exif: bytes | None = None) -> ImageMetadata:
    """Collect the metadata of an opened image, settled for pixels that stand upright.

    Args:
        image: as libvips opened it.
        tiff_exif: the EXIF block that libvips does not see, if the file is a TIFF.
    """
    exif = blob_field(image, "exif-data") or tiff_exif
    xmp = blob_field(image, "xmp-data")
    density = (float(image.xres), float(image.yres))
    if density == _UNKNOWN_DENSITY or min(density) <= 0:
        stated = resolution_of(exif) if exif else None
        density = stated[0] if stated else None
    unit = image.get("resolution-unit") if image.get_typeof("resolution-unit") else "in"
    return ImageMetadata(
        icc_profile=blob_field(image, "icc-profile-data"),
        exif=settled_exif(exif) if exif else None,
        xmp=_settled_xmp(xmp) if xmp else None,
        photoshop=_read_photoshop(image),
        pixels_per_mm=density,
        resolution_unit="cm" if unit == "cm" else "in",
    )


def attach_metadata(image: VipsImage, metadata: ImageMetadata, *, jpeg: bool) -> VipsImage:
    """Return the image with its metadata, as libvips' savers expect it.

    A profile that does not describe this kind of pixels (grey, RGB) is left out. libvips corrects
    the size tags of EXIF when it writes.

    Args:
        image: the result, in its final size.
        metadata: of the source.
        jpeg: whether it goes to a JPEG, which wraps IPTC otherwise than TIFF.
    """
    x, y = metadata.pixels_per_mm or (_USUAL_DENSITY, _USUAL_DENSITY)
    image = image.copy(xres=x, yres=y)
    image.set_type(pyvips.GValue.gstr_type, "resolution-unit", metadata.resolution_unit)
    photoshop = metadata.photoshop
    if photoshop and jpeg:
        photoshop = _APP13 + photoshop
    blobs = {
        "icc-profile-data": _fitting_profile(metadata.icc_profile, grey=image.bands < 3),
        "exif-data": metadata.exif,
        "xmp-data": _resized_xmp(metadata.xmp, image.width, image.height),
        "iptc-data" if jpeg else "photoshop-data": photoshop,
    }
    for name, blob in blobs.items():
        if blob:
            image.set_type(pyvips.GValue.blob_type, name, blob)  # pyright: ignore[reportArgumentType]
    return image


def describes_grey(profile: bytes | None) -> bool:
    """Tell whether an ICC profile describes grey pixels."""
    return profile is not None and profile[16:20] == b"GRAY"


def _fitting_profile(profile: bytes | None, *, grey: bool) -> bytes | None:
    wanted = b"GRAY" if grey else b"RGB "
    return profile if profile is not None and profile[16:20] == wanted else None


def integer_field(image: VipsImage, name: str, *, default: int) -> int:
    """Return a whole number that libvips found in the file, or the default where it found none."""
    value = image.get(name) if image.get_typeof(name) else default
    return value if isinstance(value, int) else default


def blob_field(image: VipsImage, name: str) -> bytes | None:
    """Return a block of bytes that libvips found in the file, or None."""
    value = image.get(name) if image.get_typeof(name) else None
    return bytes(value) or None if isinstance(value, bytes | memoryview) else None


def _read_photoshop(image: VipsImage) -> bytes | None:
    """Bring JPEG's APP13 segment and TIFF's two tags to one form: Photoshop resource blocks."""
    photoshop, iptc = blob_field(image, "photoshop-data"), blob_field(image, "iptc-data")
    if photoshop or not iptc:
        return photoshop
    if iptc.startswith(_APP13):
        return iptc.removeprefix(_APP13)
    if iptc.startswith(b"8BIM"):
        return iptc
    # Bare IPTC records: resource 0x0404 with an empty name, padded to an even length.
    padding = b"\0" * (len(iptc) % 2)
    return b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + padding


def _xmp_value(name: bytes) -> re.Pattern[bytes]:
    """Match a simple XMP property, as an attribute or as an element; group 1 is what precedes."""
    return re.compile(rb"(\b" + name + rb"""(?:\s*=\s*["']|\s*>)\s*)\d+""")


_XMP_ORIENTATION = _xmp_value(b"tiff:Orientation")
_XMP_WIDTHS = (_xmp_value(b"tiff:ImageWidth"), _xmp_value(b"exif:PixelXDimension"))
_XMP_HEIGHTS = (_xmp_value(b"tiff:ImageLength"), _xmp_value(b"exif:PixelYDimension"))


def _settled_xmp(xmp: bytes) -> bytes:
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _resized_xmp(xmp: bytes | None, width: int, height: int) -> bytes | None:
    if xmp is None:
        return None
    for patterns, side in ((_XMP_WIDTHS, width), (_XMP_HEIGHTS, height)):
        for pattern in patterns:
            xmp = pattern.sub(rb"\g<1>%d" % side, xmp)
    return xmp
