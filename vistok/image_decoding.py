"""The one decoder of image bytes: an RGB picture, or one sentence that says why not.

Every picture of a dataset, an upload or a shard is decoded here, and nothing in a file can surprise its
caller: sizes are read before pixels are made, only the parts that pixels need reach Pillow, and whatever
    mode comes out
becomes RGB.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

MAX_BYTES = 64 * 2**20  # the raw RGB bytes of a 22-megapixel photograph
MAX_PIXELS = 50_000_000  # a 48-megapixel phone camera; 150 MB once decoded
MIN_SIDE = 8  # pixels; no tokenizer sees anything in less
MAX_ASPECT = 100  # longest side / shortest side; beyond it pictures are rulers, separators and attacks

# EXIF tag 274: what turns the stored rows into the picture as it was seen. 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The TIFF tags that pixels need: size, bits, compression, colours, strips, tiles and their tables.
_TIFF_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325),
    *(338, 339, 347, 529, 530, 532),
}
# None, LZW, JPEG, Deflate (twice) and PackBits. No fax: libtiff reads damaged fax pages without an error.
_TIFF_COMPRESSIONS = {1, 5, 7, 8, 32773, 32946}
_TIFF_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 317, 322, 323}  # tags that hold exactly one value
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


class UnreadableImageError(ValueError):
    """Bytes or a picture that cannot become an RGB picture.

    Attributes:
        reason: one short word for counting: "empty", "too_many_bytes", "unidentified", "truncated",
            "damaged", "too_many_pixels", "too_small", "aspect", "mode_F", "mode_I" or "unsupported".

    Example:
        >>> try:
        ...     decode_image(b"")
        ... except UnreadableImageError as error:
        ...     error.reason
        'empty'
    """

    def __init__(self, message: str, reason: str = "unreadable"):
        super().__init__(message)
        self.reason = reason


def decode_image(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
    max_aspect: float = MAX_ASPECT,
) -> Image.Image:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF file of any origin into an upright RGB picture.

    The format is told by the first bytes, never by a name. The size is read from the header and checked
    before any pixel is decoded. Of an animation or a file of several pages comes the first; colours follow
    `to_rgb`.

    Pillow gets only the bytes that pixels need: metadata is where text bombs and broken EXIF live, and what
    Pillow warns about. So no global is read or set (Pillow's limits, the warning filters): threads are safe.

    Args:
        data: the whole file.
        max_bytes: the longest file that is looked at.
        max_pixels: the largest width x height. Above `PIL.Image.MAX_IMAGE_PIXELS` (89 million) Pillow's
            own limit also holds for GIF and TIFF.
        min_side: the smallest width and height, in pixels.
        max_aspect: the largest ratio of the longer to the shorter side.

    Returns:
        A picture in mode RGB, without metadata.

    Raises:
        UnreadableImageError: the bytes are no such picture, or beyond a limit; `reason` says which.
        TypeError: `data` is not bytes.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (32, 16), 255).save(file, "PNG")
        >>> decode_image(file.getvalue()).size
        (32, 16)
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"decode_image expects the bytes of a file, got {type(data).__name__}: read the file first."
        )
    if len(data) == 0:
        raise UnreadableImageError("The picture has 0 bytes: fetch the file again, or leave it out.", "empty")
    if len(data) > max_bytes:
        raise UnreadableImageError(
            f"The picture has {len(data):,} bytes and the limit is {max_bytes:,}: shrink it or raise "
            "max_bytes.",
            "too_many_bytes",
        )
    try:
        image = _open(
            bytes(data), lambda width, height: _check_size(width, height, max_pixels, min_side, max_aspect)
        )
        rgb = to_rgb(image).convert(
            "RGB"
        )  # a copy where it was RGB: the file object must not live on in the result
    except (UnreadableImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # Pillow raises anything on hostile bytes: struct.error, IndexError, zlib.error ...
        ended = isinstance(error, IndexError | EOFError | struct.error) or "truncated" in str(error).lower()
        reason = "truncated" if ended else "damaged"
        raise UnreadableImageError(
            f"The picture's bytes are {reason} ({type(error).__name__}: {error}): fetch the file again, or "
            "leave it out.",
            reason,
        ) from error
    rgb.info = {}
    return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Makes any opened picture upright and RGB.

    EXIF orientation is applied, transparency is laid over white, 16-bit gray is scaled (not clipped) to 8
    bits, palette, gray, CMYK, LAB and the rest are converted by Pillow. The caller's picture is left alone;
    one that is RGB and upright comes back itself.

    Args:
        image: a Pillow picture of any mode.

    Raises:
        UnreadableImageError: modes "F" and "I" (32-bit floats and integers): no value is known as white.

    Example:
        >>> to_rgb(Image.new("RGBA", (8, 8), (255, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    image.load()  # GIF, TIFF and PNG only know their transparency and mode once loaded
    if image.mode in ("F", "I"):
        raise UnreadableImageError(
            f"The picture has 32-bit pixels (mode {image.mode}) of unknown range: scale them to 0...255 "
            "as uint8.",
            f"mode_{image.mode}",
        )
    exif = image.info.get("exif")
    orientation = _orientation(exif) if isinstance(exif, bytes) else 1
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        gray = ((np.minimum(values, 65535 - 128) + 128) // 257).astype(
            np.uint8
        )  # round(values / 257) in 16 bits
        if isinstance(image.info.get("transparency"), int):
            gray[values == image.info["transparency"]] = 255
        image = Image.fromarray(gray)
    elif image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    if image.mode != "RGB":
        image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        image.info.pop("exif", None)  # a second to_rgb must not turn it again
    return image


def _check_size(width: int, height: int, max_pixels: int, min_side: int, max_aspect: float) -> None:
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"The picture has {width} x {height} = {width * height:,} pixels and the limit is "
            f"{max_pixels:,}: shrink it or raise max_pixels.",
            "too_many_pixels",
        )
    if min(width, height) < min_side:
        raise UnreadableImageError(
            f"The picture is {width} x {height} pixels and its shorter side needs {min_side}: leave it out "
            "or lower min_side.",
            "too_small",
        )
    if max(width, height) > max_aspect * min(width, height):
        raise UnreadableImageError(
            f"The picture is {width} x {height} pixels, an aspect of "
            f"{max(width, height) / min(width, height):.0f}, and the limit is {max_aspect}: crop it or raise "
            "max_aspect.",
            "aspect",
        )


def _open(data: bytes, check_size: Callable[[int, int], None]) -> ImageFile:
    """Opens by Pillow's format classes: `Image.open` would consult the process-wide pixel limit and warn."""
    exif = b""
    reader: type[ImageFile]
    if data.startswith(b"\xff\xd8\xff"):
        reader, (data, exif) = JpegImageFile, _strip_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        reader, (data, exif) = PngImageFile, _strip_png(data)
    elif data.startswith((b"II*\0", b"MM\0*")):
        reader, (data, exif) = TiffImageFile, (_strip_tiff(data), data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        reader = WebPImageFile
        if 8 + int.from_bytes(data[4:8], "little") > len(data):
            raise _truncated(len(data))
    elif data.startswith((b"GIF87a", b"GIF89a")):
        reader = GifImageFile
        check_size(*_gif_size(data))
    elif data.startswith(b"BM"):
        reader = BmpImageFile
    else:
        raise UnreadableImageError(
            f"The bytes are no JPEG, PNG, WebP, GIF, BMP or TIFF picture (they begin with {data[:12]!r}): "
            "convert the file to one of these, or leave it out.",
            "unidentified",
        )
    image = reader(io.BytesIO(data))
    check_size(*image.size)
    image.load()
    if exif:
        image.info["exif"] = exif
    return image


def _truncated(length: int) -> UnreadableImageError:
    return UnreadableImageError(
        f"The picture ends after {length:,} bytes and declares more: fetch the file again, or leave it out.",
        "truncated",
    )


def _strip_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """The file without EXIF, previews, profiles and comments, and its EXIF block."""
    kept, exif, at = [data[:2]], b"", 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            raise _truncated(len(data))
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan: from here on there are only pixels
            return b"".join([*kept, data[at:]]), exif
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:  # filling and markers without content
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and not exif and data.startswith(b"Exif\0\0", at + 4):
            exif = data[at + 4 : end]
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):  # APP0 and APP14 tell the colour space
            kept.append(data[at:end])
        at = end


def _strip_png(data: bytes) -> tuple[bytes, bytes]:
    """The file without text, profiles and animation, and its EXIF block."""
    view, kept, exif, at = memoryview(data), [data[:8]], b"", 8
    while at < len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[at:end])
        at = end
    return b"".join(kept), exif


def _strip_tiff(data: bytes) -> bytes:
    """The file with a new directory: the first page's, with the tags that pixels need."""
    order, entries = _tiff_directory(data)
    kept = [entry for tag, entry in sorted(entries.items()) if tag in _TIFF_TAGS]
    for entry in kept:
        tag, kind, count, offset = struct.unpack(order + "HHII", entry)
        size = count * _TIFF_TYPE_BYTES.get(kind, 1)
        if (size > 4 and offset + size > len(data)) or (tag in _TIFF_SINGLE and count != 1):
            raise _truncated(len(data))
    value = {tag: struct.unpack_from(order + "H", entry, 8)[0] for tag, entry in entries.items()}
    bits, compression, white_is_zero = value.get(258, 1), value.get(259, 1), value.get(262) == 0
    # Pillow reads 12 bits without scaling them, and 16 inverted bits without inverting them.
    if compression not in _TIFF_COMPRESSIONS or bits == 12 or (bits == 16 and white_is_zero):
        inverted = " inverted" if white_is_zero else ""
        raise UnreadableImageError(
            f"The TIFF has {bits}-bit{inverted} pixels in compression {compression}, which are not read: "
            "save it as PNG.",
            "unsupported",
        )
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)  # 0: there is no next page
    return b"".join([data[:4], struct.pack(order + "I", len(data)), memoryview(data)[8:], directory])


def _tiff_directory(data: bytes) -> tuple[str, dict[int, bytes]]:
    """Byte order and raw 12-byte entries by tag of a TIFF file's, or an EXIF block's, first directory."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    return order, {struct.unpack_from(order + "H", entry)[0]: entry for entry in entries if len(entry) == 12}


def _orientation(exif: bytes) -> int:
    """Tag 274 of an EXIF block; 1, upright, where it is broken or missing: a viewer would show it so too."""
    try:
        order, entries = _tiff_directory(exif.removeprefix(b"Exif\0\0"))
        return struct.unpack_from(order + "H", entries[274], 8)[0]
    except (struct.error, KeyError):
        return 1


def _gif_size(data: bytes) -> tuple[int, int]:
    """A GIF's size as Pillow sees it: the screen, grown to the first frame. Pillow warns while it grows."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] != 0x2C:  # the first frame's descriptor, behind extensions made of sub-blocks
        if data[at] == 0x21:
            at += 2
            while data[at]:
                at += 1 + data[at]
        at += 1
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height)
