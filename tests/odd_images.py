"""47 kinds of image bytes that the world sends, each with what the decoder must make of it.

The kinds are those of the project's fault model. Each is built by Pillow, or by hand where Pillow would
refuse, from a fixed seed: the same bytes in every run with one version of Pillow.
"""

import io
import struct
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE = (128, 96)  # (width, height) of the photograph-like picture in most kinds


class OddImage(NamedTuple):
    """One kind of bytes: its name, and the decoded (width, height) or the reason why there is none."""

    name: str
    data: bytes
    expected: tuple[int, int] | str


def photograph() -> Image.Image:
    """A smooth picture that no turn or mirroring maps to itself: red grows rightwards, green downwards."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    pixels = np.stack([x * 255 / (SIZE[0] - 1), y * 255 / (SIZE[1] - 1), np.full(x.shape, 128)], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of a file in that format."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF data with that orientation."""
    data = Image.Exif()
    data[274] = orientation
    return data


def png(width: int, height: int, rows: bytes, bits: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG file by hand: `rows` are compressed already, `extra` are chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def flip(data: bytes, *places: int) -> bytes:
    """The bytes with all bits turned over at these places."""
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0xFF
    return bytes(changed)


def black_bomb(side: int) -> bytes:
    """A complete and valid 1-bit PNG of side x side black pixels, far smaller than they are."""
    return png(side, side, zlib.compress(bytes(side * (1 + side // 8)), 1), bits=1, colour=0)


def ramp_16() -> np.ndarray:
    """All of a 16-bit range, evenly: mean 127.5 when it is scaled to 8 bits."""
    return np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)


@cache
def odd_images() -> tuple[OddImage, ...]:
    """The 47 kinds, in the order and under the numbers of the fault model."""
    random = np.random.default_rng(0)

    def noise(height: int, width: int, *channels: int) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, (height, width, *channels), dtype=np.uint8))

    rgb, square = photograph(), (64, 64)
    jpeg, noisy_jpeg, noisy_png = (
        encode(rgb, "JPEG"),
        *(encode(noise(96, 128, 3), f) for f in ("JPEG", "PNG")),
    )
    cmyk = Image.merge("CMYK", [noise(64, 64) for _ in range(4)])
    frames = [Image.new("RGB", square, colour) for colour in ("red", "lime", "blue")]
    animation = {"save_all": True, "append_images": frames[1:]}
    gif, webp = encode(frames[0], "GIF", **animation), encode(rgb, "WEBP")
    clear_white = Image.new("RGBA", square, (255, 255, 255, 0))
    rows_16 = b"".join(b"\0" + np.linspace(0, 65535, 192).astype(">u2").tobytes() for _ in range(64))
    text_bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 1))
    corrupt_exif = b"Exif\0\0MM\0*" + b"\xff" * 16
    bmp_header = struct.pack("<IiiHHIIiiII", 40, 70000, -70000, 1, 24, 0, 0, 0, 0, 0, 0)
    floats = np.linspace(-1, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
    integers = np.arange(64 * 64, dtype=np.int32).reshape(64, 64) * 1000
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>'

    kinds = [
        ("good_jpeg", jpeg, SIZE),
        ("empty", b"", "empty"),
        ("random_bytes", random.bytes(5000), "unidentified"),
        ("html_404", b"<html><body>404 Not Found</body></html>", "unidentified"),
        ("jpeg_half", noisy_jpeg[: len(noisy_jpeg) // 2], "truncated"),
        ("jpeg_without_its_last_2_bytes", noisy_jpeg[:-2], "truncated"),
        ("jpeg_header_only", jpeg[:600], "truncated"),
        ("jpeg_flipped_bits", flip(noisy_jpeg, *range(700, len(noisy_jpeg) - 2, 97)), "damaged"),
        ("png_half", noisy_png[: len(noisy_png) // 2], "truncated"),
        ("png_wrong_checksum", flip(noisy_png, 60), "damaged"),
        ("png_0x0", png(0, 0, zlib.compress(b""), bits=8, colour=2), "damaged"),
        ("png_bomb_100_megapixels", black_bomb(10_000), "too_many_pixels"),
        ("png_bomb_400_megapixels", black_bomb(20_000), "too_many_pixels"),
        ("png_claims_60000x60000", png(60_000, 60_000, zlib.compress(bytes(100)), 8, 2), "too_many_pixels"),
        ("png_text_bomb", png(1, 1, zlib.compress(bytes(4)), 8, 2, extra=text_bomb), "too_small"),
        ("jpeg_cmyk", encode(cmyk, "JPEG"), square),
        ("jpeg_gray", encode(noise(64, 64), "JPEG"), square),
        ("jpeg_exif_orientation_6", encode(rgb, "JPEG", exif=exif(6)), SIZE[::-1]),
        ("jpeg_corrupt_exif", jpeg[:2] + b"\xff\xe1\0\x1c" + corrupt_exif + jpeg[2:], SIZE),
        ("png_transparent", encode(clear_white, "PNG"), square),
        ("png_palette_with_transparency", encode(rgb.quantize(16), "PNG", transparency=0), SIZE),
        ("png_gray_alpha", encode(Image.merge("LA", [noise(64, 64), noise(64, 64)]), "PNG"), square),
        ("png_16_bit_gray", encode(Image.fromarray(ramp_16()), "PNG"), square),
        ("png_16_bit_rgb", png(64, 64, zlib.compress(rows_16), bits=16, colour=2), square),
        ("png_1_bit", encode(rgb.convert("1"), "PNG"), SIZE),
        ("tiff_float32", encode(Image.fromarray(floats), "TIFF"), "mode_F"),
        ("tiff_int32", encode(Image.fromarray(integers), "TIFF"), "mode_I"),
        ("gif_animated", gif, square),
        ("png_animated", encode(frames[0], "PNG", **animation), square),
        ("webp_animated", encode(frames[0], "WEBP", lossless=True, **animation), square),
        ("webp_truncated", webp[:-200], "truncated"),
        ("gif_truncated", gif[:60], "truncated"),
        ("png_1x1", encode(noise(1, 1, 3), "PNG"), "too_small"),
        ("png_20000x1", encode(noise(1, 20_000, 3), "PNG"), "too_small"),
        ("png_1x20000", encode(noise(20_000, 1, 3), "PNG"), "too_small"),
        ("jpeg_named_png", jpeg, SIZE),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "unidentified"),
        ("pdf", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", "unidentified"),
        ("svg", svg, "unidentified"),
        (
            "bmp_negative_height_huge",
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bmp_header,
            "too_many_pixels",
        ),
        ("ico", encode(rgb, "ICO"), "unidentified"),
        ("jpeg_two_concatenated", jpeg + jpeg, SIZE),
        ("jpeg_with_zip_tail", jpeg + b"PK\x03\x04" + b"evil" * 100, SIZE),
        ("jpeg_garbage_colour_profile", encode(rgb, "JPEG", icc_profile=bytes(500)), SIZE),
        ("tiff_lab", encode(rgb.convert("LAB"), "TIFF"), SIZE),
        (
            "jpeg_progressive_truncated",
            encode(noise(96, 128, 3), "JPEG", progressive=True)[:3000],
            "truncated",
        ),
        ("tiff_two_pages", encode(rgb, "TIFF", save_all=True, append_images=[rgb.rotate(180)]), SIZE),
    ]
    return tuple(
        OddImage(f"{n:02d}_{name}", data, expected) for n, (name, data, expected) in enumerate(kinds)
    )
