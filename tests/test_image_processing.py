"""Bytes to pictures, pictures to pixel values, and back."""

import io
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vistok import FSQConfig, UnreadableImageError, VistokImageProcessor, decode_image
from vistok.image_processing import to_rgb

from .odd_images import SIZE, OddImage, chunk, encode, exif, odd_images, photograph, png, ramp_16

KINDS = {odd.name.split("_", 1)[1]: odd for odd in odd_images()}


def outcome(data: bytes) -> tuple[int, int] | str:
    try:
        return decode_image(data).size
    except UnreadableImageError as error:
        return error.reason


def decoded(name: str) -> np.ndarray:
    return np.asarray(decode_image(KINDS[name].data)).astype(float)


# The decoder: every kind of bytes.


def test_there_are_47_kinds():
    assert len(odd_images()) == len(KINDS) == 47


@pytest.mark.parametrize("odd", odd_images(), ids=lambda odd: odd.name)
def test_each_odd_image_gives_its_size_or_its_reason(odd: OddImage):
    assert outcome(odd.data) == odd.expected


@pytest.mark.parametrize(
    "odd", [o for o in odd_images() if isinstance(o.expected, tuple)], ids=lambda o: o.name
)
def test_a_decoded_picture_is_plain_rgb(odd: OddImage):
    picture = decode_image(odd.data)
    assert type(picture) is Image.Image and picture.mode == "RGB" and picture.info == {}


def test_16_bit_pixels_are_scaled_not_clipped():
    expected = np.round(ramp_16() / 257)
    for channel in range(3):
        np.testing.assert_array_equal(decoded("png_16_bit_gray")[..., channel], expected)
    assert decoded("png_16_bit_gray").mean() == pytest.approx(127.5, abs=0.1)
    assert decoded("png_16_bit_rgb").mean() == pytest.approx(127.5, abs=0.5)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_content(file_format: str, orientation: int):
    stored = photograph()
    picture = decode_image(encode(stored, file_format, exif=exif(orientation)))
    stored.info["exif"] = exif(orientation).tobytes()
    upright = ImageOps.exif_transpose(stored)
    assert picture.size == upright.size == (SIZE if orientation < 5 else SIZE[::-1])
    assert np.abs(np.asarray(picture).astype(float) - np.asarray(upright)).mean() < 4


def test_a_corrupt_exif_block_changes_nothing():
    np.testing.assert_array_equal(decoded("jpeg_corrupt_exif"), decoded("good_jpeg"))


def test_cmyk_and_lab_have_the_colours_they_stand_for():
    inks = Image.merge("CMYK", [Image.new("L", (64, 64), value) for value in (0, 255, 255, 0)])
    red = np.asarray(decode_image(encode(inks, "JPEG", quality=95))).reshape(-1, 3).mean(axis=0)
    assert red == pytest.approx([255, 0, 0], abs=6)
    assert np.abs(decoded("tiff_lab") - np.asarray(photograph())).mean() < 4


def test_transparency_lies_over_white():
    assert decoded("png_transparent").min() == 255
    half = decode_image(encode(Image.new("RGBA", (8, 8), (200, 0, 0, 128)), "PNG"))
    assert half.getpixel((0, 0)) == pytest.approx((227, 127, 127), abs=1)

    palette = photograph().quantize(16)
    clear = np.asarray(palette) == 0
    assert clear.any() and not clear.all()
    picture = decoded("png_palette_with_transparency")
    np.testing.assert_array_equal(picture[clear], 255)
    np.testing.assert_array_equal(picture[~clear], np.asarray(palette.convert("RGB"))[~clear])

    gray, alpha = (
        np.asarray(band).astype(float)
        for band in Image.open(io.BytesIO(KINDS["png_gray_alpha"].data)).split()
    )
    np.testing.assert_allclose(decoded("png_gray_alpha")[..., 0], 255 + (gray - 255) * alpha / 255, atol=1.01)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La", "RGBa", "PA"])
def test_every_mode_with_alpha_lies_over_white(mode: str):
    assert to_rgb(Image.new(mode, (8, 8))).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("bits", "colour", "key", "row"), [(16, 0, b"\x12\x34", b"\x12\x34"), (8, 0, b"\0\x07", b"\x07")]
)
def test_a_transparent_gray_value_becomes_white(bits: int, colour: int, key: bytes, row: bytes):
    rows = zlib.compress((b"\0" + row * 8) * 8)
    picture = decode_image(png(8, 8, rows, bits, colour, extra=chunk(b"tRNS", key)))
    assert picture.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("name", ["gif_animated", "png_animated", "webp_animated"])
def test_an_animation_gives_its_first_frame(name: str):
    assert decode_image(KINDS[name].data).getcolors() == [(64 * 64, (255, 0, 0))]


def test_of_several_pages_and_files_comes_the_first():
    np.testing.assert_array_equal(decoded("tiff_two_pages"), np.asarray(photograph()))
    np.testing.assert_array_equal(decoded("jpeg_two_concatenated"), decoded("good_jpeg"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"])
def test_tiff_compressions_are_lossless(compression: str):
    data = encode(photograph(), "TIFF", compression=compression)
    np.testing.assert_array_equal(np.asarray(decode_image(data)), np.asarray(photograph()))


def test_fax_pages_are_refused():
    assert outcome(encode(photograph().convert("1"), "TIFF", compression="group4")) == "unsupported"


# The decoder: limits, errors, the process around it.


def test_each_limit_is_an_argument_and_its_message_has_both_numbers():
    data = encode(photograph(), "PNG")
    cases = [
        ({"max_bytes": len(data) - 1}, "too_many_bytes", [f"{len(data):,}", f"{len(data) - 1:,}"]),
        ({"max_pixels": 128 * 96 - 1}, "too_many_pixels", ["12,288", "12,287"]),
        ({"min_side": 97}, "too_small", ["128 x 96", "97"]),
        ({"max_aspect": 1.3}, "aspect", ["128 x 96", "1.3"]),
    ]
    for limit, reason, numbers in cases:
        with pytest.raises(UnreadableImageError) as caught:
            decode_image(data, **limit)
        assert caught.value.reason == reason
        assert all(number in str(caught.value) for number in numbers), str(caught.value)
    exact = {"max_bytes": len(data), "max_pixels": 128 * 96, "min_side": 96, "max_aspect": 128 / 96}
    assert decode_image(data, **exact).size == SIZE


def test_the_aspect_limit_holds_both_ways():
    assert outcome(encode(Image.new("L", (1700, 16)), "PNG")) == "aspect"
    assert outcome(encode(Image.new("L", (16, 1700)), "PNG")) == "aspect"


@pytest.mark.parametrize("data", ["picture.png", Path("picture.png"), None, 3])
def test_what_is_not_bytes_is_a_type_error(data: object):
    with pytest.raises(TypeError, match="bytes of a file"):
        decode_image(data)


def test_an_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(UnreadableImageError("The picture is gone.", "truncated")))
    assert (str(error), error.reason) == ("The picture is gone.", "truncated")


def test_pillows_globals_are_neither_read_nor_set(monkeypatch: pytest.MonkeyPatch):
    for pixels in (None, 1):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        assert outcome(KINDS["png_bomb_100_megapixels"].data) == "too_many_pixels"
        assert outcome(KINDS["good_jpeg"].data) == SIZE
        assert pixels == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_no_kind_warns_and_the_filters_stay(recwarn: pytest.WarningsRecorder):
    warnings.simplefilter("always")
    before = list(warnings.filters)
    # A GIF frame far larger than its screen: Pillow grows the screen, and warns.
    gif = (
        b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"," + struct.pack("<4HB", 0, 0, 10_000, 10_000, 0)
    )
    assert outcome(gif) == "too_many_pixels"
    for odd in odd_images():
        outcome(odd.data)
    assert [str(warning.message) for warning in recwarn] == []
    assert warnings.filters == before


def test_threads_give_what_one_thread_gives():
    kinds = list(odd_images()) * 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda odd: outcome(odd.data), kinds)) == [odd.expected for odd in kinds]


def test_bombs_cost_no_memory():
    # In a process of its own: the peak of this one is long past.
    script = """
from tests.odd_images import odd_images
from vistok import UnreadableImageError, decode_image
bombs = [odd.data for odd in odd_images() if odd.expected in ("too_many_pixels", "too_small")]
decode_image(odd_images()[0].data)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak that building the bombs has left
def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) // 1024
before = memory("VmRSS")
for data in bombs:
    try:
        decode_image(data)
        raise SystemExit("decoded")
    except UnreadableImageError:
        pass
print(len(bombs), memory("VmHWM") - before)
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc to measure the peak of memory")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    bombs, megabytes = map(int, done.stdout.split())
    assert bombs == 8
    assert megabytes < 64


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_give_a_picture_or_an_unreadable_image_error(data: st.DataObject):
    formats = [
        {"format": "JPEG", "exif": exif(6)},
        {"format": "PNG", "exif": exif(3)},
        {"format": "WEBP", "exif": exif(8)},
        {"format": "GIF"},
        {"format": "BMP"},
        {"format": "TIFF", "exif": exif(5)},
    ]
    file = bytearray(encode(photograph().resize((32, 24)), **data.draw(st.sampled_from(formats))))
    # Headers and directories are where damage does most: half of it falls into the first or last 300 bytes.
    ends = st.one_of(st.integers(0, 300), st.integers(len(file) - 300, len(file) - 1))
    for place in data.draw(st.lists(st.one_of(ends, st.integers(0, len(file) - 1)), max_size=8)):
        file[place % len(file)] = data.draw(st.integers(0, 255))
    result = outcome(bytes(file[: data.draw(st.one_of(st.just(len(file)), st.integers(0, len(file))))]))
    assert isinstance(result, str) or min(result) >= 8


# To RGB.


def test_to_rgb_turns_once_and_leaves_the_callers_picture_alone():
    opened = Image.open(io.BytesIO(KINDS["jpeg_exif_orientation_6"].data))
    once = to_rgb(opened)
    assert opened.size == SIZE and "exif" in opened.info
    assert once.size == to_rgb(once).size == SIZE[::-1]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_pixels_are_refused(mode: str):
    with pytest.raises(UnreadableImageError, match="32-bit"):
        to_rgb(Image.new(mode, (8, 8)))


# The processor.


def picture(height: int = 96, width: int = 128, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor(**options: object) -> VistokImageProcessor:
    return VistokImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, **options)


def test_pixel_values_are_float32_between_minus_one_and_one():
    inputs = processor()([picture(), picture(60, 40)], return_tensors="pt")
    pixel_values = inputs["pixel_values"]
    assert pixel_values.shape == (2, 3, 32, 32) and pixel_values.dtype == torch.float32
    assert pixel_values.min() >= -1 and pixel_values.max() <= 1
    assert inputs["original_sizes"].tolist() == [[96, 128], [60, 40]]
    assert inputs["original_sizes"].dtype == torch.int64
    for value, expected in ((0, -1), (255, 1)):
        solid = processor()(Image.new("RGB", (50, 50), (value,) * 3), return_tensors="pt")["pixel_values"]
        assert (solid == expected).all()


def test_resize_and_crop_are_pillows():
    expected = picture().resize((42, 32), Image.Resampling.BICUBIC).crop((5, 0, 37, 32))
    result = processor().postprocess(processor()(picture(), return_tensors="pt")["pixel_values"])[0]
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_all_256_values_come_back():
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    plain = VistokImageProcessor(do_resize=False, do_center_crop=False)
    for output in (
        plain.postprocess(plain(every, return_tensors="pt")["pixel_values"]),
        plain.postprocess(plain(every)["pixel_values"]),
        plain.postprocess(plain(every, return_tensors="np")["pixel_values"]),
    ):
        np.testing.assert_array_equal(np.asarray(output[0]), np.asarray(every.convert("RGB")))


def test_every_accepted_input_gives_the_same():
    pil = picture()
    array = np.array(pil)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = processor()(pil, return_tensors="pt")["pixel_values"]
    for images in (
        [pil],
        [[pil]],
        array,
        [array],
        array[None],
        tensor,
        [tensor],
        tensor[None],
        tensor.permute(1, 2, 0),
    ):
        assert torch.equal(processor()(images, return_tensors="pt")["pixel_values"], expected)
    assert torch.equal(processor()(images=pil, return_tensors="pt")["pixel_values"], expected)


def test_pictures_of_any_mode_follow_the_decoders_rules():
    plain = VistokImageProcessor(do_resize=False, do_center_crop=False)
    for name in ("png_16_bit_gray", "png_transparent", "jpeg_exif_orientation_6", "tiff_lab", "jpeg_cmyk"):
        opened = Image.open(io.BytesIO(KINDS[name].data))
        result = plain.postprocess(plain(opened, return_tensors="pt")["pixel_values"])[0]
        np.testing.assert_array_equal(np.asarray(result), decoded(name), err_msg=name)
    clear = plain(np.zeros((8, 8, 4), np.uint8), return_tensors="pt")["pixel_values"]
    assert (clear == 1).all()
    gray = plain(np.full((8, 8), 255, np.uint8), return_tensors="pt")["pixel_values"]
    assert gray.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "images",
    ["http://localhost/x.png", b"\xff\xd8\xff", None, 3, [], [[]], [None], {"image": 1}],
    ids=repr,
)
def test_what_is_no_picture_raises(images: object):
    with pytest.raises(ValueError, match="Expected a PIL picture|is empty"):
        processor()(images)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int64, bool])
def test_arrays_that_are_not_uint8_raise(dtype: type):
    with pytest.raises(ValueError, match="uint8"):
        processor()(np.ones((40, 40, 3), dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"do_centre_crop": False},
        {"size": {"longest_edge": 4}},
        {"size": {"shortest_edge": 0}},
        {"size": {"shortest_edge": 2.5}},
        {"size": -1},
        {"crop_size": {"height": 4}},
        {"crop_size": {"height": 4, "width": -4}},
        {"size_divisor": 0},
        {"size_divisor": "8"},
        {"do_resize": "yes"},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0.5, 0.5, 0.0]},
        {"rescale_factor": 0.0},
        {"resample": 99},
        {"pad_size": {"height": 8, "width": 8}},
        {"data_format": "channels_last"},
    ],
    ids=repr,
)
def test_an_impossible_option_raises_at_construction_and_in_the_call(options: dict[str, object]):
    (name,) = options
    with pytest.raises(ValueError, match="Resampling" if name == "resample" else name):
        VistokImageProcessor(**options)
    with pytest.raises(ValueError, match="esampling" if name == "resample" else name):
        VistokImageProcessor()(picture(), **options)


def test_a_crop_larger_than_the_picture_raises():
    with pytest.raises(ValueError, match="96 x 128 .* 32 x 200"):
        processor()(picture(), do_resize=False, crop_size={"height": 32, "width": 200})


def test_a_resize_beyond_reason_raises():
    with pytest.raises(ValueError, match="50,000,000"):
        VistokImageProcessor()(Image.new("RGB", (2000, 1)))


# Whole pictures: padding, and the way back.


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    divisor=st.sampled_from([None, 1, 4, 7, 16, 32]),
    shortest=st.sampled_from([None, 16, 33, 64]),
)
def test_a_whole_picture_comes_back_in_its_size(
    height: int, width: int, divisor: int | None, shortest: int | None
):
    geometry = {"do_resize": False} if shortest is None else {"size": {"shortest_edge": shortest}}
    whole = VistokImageProcessor(do_center_crop=False, size_divisor=divisor, **geometry)
    inputs = whole(picture(height, width), return_tensors="pt")
    rows, columns = inputs["pixel_values"].shape[2:]
    assert rows % (divisor or 1) == columns % (divisor or 1) == 0
    result = whole.postprocess(inputs["pixel_values"], original_sizes=inputs["original_sizes"])[0]
    assert result.size == (width, height)
    if shortest is None:
        np.testing.assert_array_equal(np.asarray(result), np.asarray(picture(height, width)))


def test_padding_repeats_the_last_row_and_column():
    whole = VistokImageProcessor(do_resize=False, do_center_crop=False, size_divisor=16)
    pixel_values = whole(picture(20, 30), return_tensors="pt")["pixel_values"][0]
    assert pixel_values.shape == (3, 32, 32)
    assert torch.equal(pixel_values[:, 20:, :30], pixel_values[:, 19:20, :30].expand(-1, 12, -1))
    assert torch.equal(pixel_values[:, :, 30:], pixel_values[:, :, 29:30].expand(-1, -1, 2))
    assert whole(picture(20, 30), do_pad=False, return_tensors="pt")["pixel_values"].shape == (1, 3, 20, 30)


def test_different_sizes_raise_where_one_tensor_is_asked_and_come_as_a_list_otherwise():
    whole = processor(do_center_crop=False, size_divisor=8)
    pictures = [picture(64, 64), picture(64, 96)]
    with pytest.raises(ValueError, match=r"\(32, 32\) and \(32, 48\)"):
        whole(pictures, return_tensors="pt")
    inputs = whole(pictures)
    assert [values.shape for values in inputs["pixel_values"]] == [(3, 32, 32), (3, 32, 48)]
    results = whole.postprocess(inputs["pixel_values"], original_sizes=inputs["original_sizes"])
    assert [result.size for result in results] == [(64, 64), (96, 64)]


def test_a_crop_comes_back_at_the_originals_scale():
    default = VistokImageProcessor()
    inputs = default([picture(300, 400), picture(256, 256)], return_tensors="pt")
    results = default.postprocess(inputs["pixel_values"], original_sizes=inputs["original_sizes"])
    assert [result.size for result in results] == [(300, 300), (256, 256)]


def test_sizes_that_do_not_belong_to_the_pixel_values_raise():
    whole = processor(do_center_crop=False, size_divisor=8)
    inputs = whole(picture(64, 96), return_tensors="pt")
    with pytest.raises(ValueError, match=r"\(32, 32\).*\(32, 48\)"):
        whole.postprocess(inputs["pixel_values"], original_sizes=[(64, 64)])
    with pytest.raises(ValueError, match="1 pictures and 2 original_sizes"):
        whole.postprocess(inputs["pixel_values"], original_sizes=[(64, 96)] * 2)


# Postprocess.


def test_pixel_values_are_clamped_and_rounded():
    steps = torch.tensor([-7.0, -1.0, 126.6 / 127.5 - 1, 126.4 / 127.5 - 1, 1.0, 7.0])
    (result,) = VistokImageProcessor().postprocess(steps.expand(1, 3, 1, 6), output_type="np")
    assert result[0, :, 0].tolist() == [0, 0, 127, 126, 255, 255]


def test_each_output_type_holds_the_same_picture_and_goes_in_again():
    plain = VistokImageProcessor(do_resize=False, do_center_crop=False)
    pixel_values = plain([picture(), picture(seed=1)], return_tensors="pt")["pixel_values"]
    for output_type, kind in (("pil", Image.Image), ("np", np.ndarray), ("pt", torch.Tensor)):
        results = plain.postprocess(pixel_values, output_type=output_type)
        assert len(results) == 2 and all(isinstance(result, kind) for result in results)
        assert torch.equal(plain(results, return_tensors="pt")["pixel_values"], pixel_values)


def test_bfloat16_with_gradients_is_accepted_and_left_alone():
    pixel_values = torch.rand(1, 3, 4, 4, dtype=torch.bfloat16).requires_grad_()
    before = pixel_values.detach().clone()
    VistokImageProcessor().postprocess(pixel_values)
    assert torch.equal(pixel_values, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixel_values_that_are_no_numbers_raise(value: float):
    pixel_values = torch.zeros(2, 3, 4, 4)
    pixel_values[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="picture 1 hold NaN"):
        VistokImageProcessor().postprocess(pixel_values)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 1, 4, 4), (2, 4, 4, 3), (2, 3, 4), (1, 1, 3, 4, 4)])
def test_other_shapes_raise(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        VistokImageProcessor().postprocess(torch.zeros(shape))


def test_an_unknown_output_type_raises():
    with pytest.raises(ValueError, match="latent"):
        VistokImageProcessor().postprocess(torch.zeros(1, 3, 4, 4), output_type="latent")


# Files.


def test_save_and_load_are_exact(tmp_path: Path):
    first = processor(
        size_divisor=8, do_center_crop=False, resample=Image.Resampling.LANCZOS, image_mean=[0.4, 0.5, 0.6]
    )
    first.save_pretrained(tmp_path / "a")
    expected = first(picture(), return_tensors="pt")["pixel_values"]
    for loader in (VistokImageProcessor, AutoImageProcessor):
        loaded = loader.from_pretrained(tmp_path / "a")
        assert type(loaded) is VistokImageProcessor
        assert loaded.to_dict() == first.to_dict()
        loaded.save_pretrained(tmp_path / "b")
        name = "preprocessor_config.json"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert torch.equal(loaded(picture(), return_tensors="pt")["pixel_values"], expected)


def test_auto_finds_the_processor_by_the_models_configuration(tmp_path: Path):
    # A file without the class's name, as a foreign hand writes it: the configuration beside it decides.
    FSQConfig(levels=[8, 5, 5, 5], image_size=64).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 64}}')
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is VistokImageProcessor and loaded.size.shortest_edge == 64


def test_options_override_the_file_and_unknown_ones_raise(tmp_path: Path):
    processor().save_pretrained(tmp_path)
    assert VistokImageProcessor.from_pretrained(tmp_path, do_center_crop=False).do_center_crop is False
    for loader in (VistokImageProcessor, AutoImageProcessor):
        with pytest.raises(ValueError, match="do_centre_crop"):
            loader.from_pretrained(tmp_path, do_centre_crop=False)
        with pytest.raises(ValueError, match="size_divisor"):
            loader.from_pretrained(tmp_path, size_divisor=-8)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"sise": 64, "image_processor_type": "VistokImageProcessor"}'
    )
    with pytest.raises(ValueError, match="sise"):
        VistokImageProcessor.from_pretrained(tmp_path)
