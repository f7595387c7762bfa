"""ICC profile, EXIF block and XMP packet of Pillow images, as a Picture holds them."""

from __future__ import annotations

from PIL import ExifTags, Image

from vaecodec.modes import profile_space

__all__ = ["EXIF_PREFIX", "exif_of", "fitting_profile", "tiff_tags", "xmp_of"]

EXIF_PREFIX = b"Exif\0\0"
TIFF_HEADERS = (b"II*\0", b"MM\0*")
XMP_TAG = 700

DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Orientation,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright,
)
"""Tags of a first directory that say something of the photograph, not of how a TIFF is laid out."""

DESCRIPTIVE_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def fitting_profile(image: Image.Image, *, grey: bool) -> bytes | None:
    """The ICC profile where it describes the samples read: RGB, which grey has too, or grey."""
    fits = (b"RGB ", b"GRAY") if grey else (b"RGB ",)
    return image.info["icc_profile"] if profile_space(image) in fits else None


def exif_of(image: Image.Image) -> bytes | None:
    """The EXIF block as stored, or rebuilt where the image has only tags; None if unreadable."""
    block = image.info.get("exif")
    if block is None:
        try:
            tags = _descriptive(image.getexif())
            block = tags.tobytes() if len(tags) else b""
        except Exception:  # noqa: BLE001 - damaged metadata must not cost the image
            return None
    if not isinstance(block, bytes):  # a text of a PNG that somebody called so
        return None
    block = block.removeprefix(EXIF_PREFIX)
    return block if block.startswith(TIFF_HEADERS) else None


def _descriptive(exif: Image.Exif) -> Image.Exif:
    kept = Image.Exif()
    for tag in DESCRIPTIVE_TAGS:
        if tag in exif:
            kept[tag] = exif[tag]
    for directory in DESCRIPTIVE_DIRECTORIES:
        if entries := dict(exif.get_ifd(directory)):
            entries.pop(ExifTags.IFD.Interop, None)  # an offset into the old block
            kept[directory] = entries
    return kept


def xmp_of(image: Image.Image) -> bytes | None:
    """The XMP packet, or None."""
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    return packet if isinstance(packet, bytes) and packet else None


def tiff_tags(exif: bytes, xmp: bytes) -> Image.Exif:
    """Tags of a TIFF file that hold an EXIF block and an XMP packet, either of them maybe empty."""
    stored, tags = Image.Exif(), Image.Exif()
    stored.load(exif)
    tags.load(_descriptive(stored).tobytes())
    if xmp:
        tags[XMP_TAG] = xmp
    return tags
