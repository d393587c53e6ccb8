"""People's picture files: what comes in goes out, bit for bit where nothing is edited."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from test_generation import SETTINGS

from imagediff.picture_file import RECORD, Picture, open_picture, save_picture
from imagediff.pixels import to_rgb, with_pixels
from shared import provenance
from shared.errors import UserError

SIZE = (20, 12)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, top: int = 256, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, (SIZE[1], SIZE[0], *shape)).astype(dtype)


def make(mode: str) -> Image.Image:
    if mode == "1":
        return Image.fromarray(noise(top=2).astype(bool))
    if mode == "I;16":
        return Image.fromarray(noise(top=65536, dtype="u2"))
    if mode == "P":
        image = Image.fromarray(noise(top=7), "P")
        image.putpalette(noise(3).reshape(-1)[:21].tobytes())
        return image
    bands = {"L": 0, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    return Image.fromarray(noise(*([bands] if bands else [])), mode)


KINDS = [
    *((mode, ".png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *((mode, ".tif") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")),
    *((mode, ".webp") for mode in ("RGB", "RGBA")),
    ("P", ".gif"),
]
by_kind = pytest.mark.parametrize("mode, suffix", KINDS)


def save(image: Image.Image, path: Path, **arguments) -> Path:
    if path.suffix == ".webp":
        arguments |= {"lossless": True, "exact": True}
    image.save(path, **arguments)
    return path


def left_half() -> np.ndarray:
    """Nothing at the left, a border of two pixels, all at the right."""
    weight = np.zeros((SIZE[1], SIZE[0]))
    weight[:, 10:] = 1
    weight[:, 8:10] = [0.3, 0.7]
    return weight


@by_kind
def test_what_comes_in_goes_out(mode: str, suffix: str, tmp_path: Path) -> None:
    path = save(make(mode), tmp_path / f"in{suffix}")
    picture = open_picture(path)
    assert picture.image.mode == mode
    save_picture(picture, tmp_path / f"out{suffix}", SETTINGS)
    with Image.open(path) as before, Image.open(tmp_path / f"out{suffix}") as after:
        assert (after.format, after.mode, after.size) == (before.format, mode, SIZE)
        assert np.array_equal(np.asarray(after), np.asarray(before))
        if mode == "P":
            assert after.convert("RGB").tobytes() == before.convert("RGB").tobytes()
    again = open_picture(tmp_path / f"out{suffix}")
    assert provenance.from_json(again.text[RECORD], type(SETTINGS)) == SETTINGS


@by_kind
def test_an_edit_changes_what_it_is_to_change_and_no_more(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    path = save(make(mode), tmp_path / f"in{suffix}")
    picture, weight = open_picture(path), left_half()
    edited = with_pixels(picture, Image.new("RGB", SIZE, (255, 255, 255)), weight)
    save_picture(edited, tmp_path / f"out{suffix}", SETTINGS)
    before, after = (to_rgb(open_picture(tmp_path / f"{name}{suffix}")) for name in ("in", "out"))
    assert open_picture(tmp_path / f"out{suffix}").image.mode == mode
    same = np.asarray(before) == np.asarray(after)
    assert same[:, :8].all()
    assert (np.asarray(after)[:, 10:] >= 254).all()
    if mode not in ("P", "1"):
        old, new = np.asarray(picture.image), np.asarray(edited.image)
        assert np.array_equal(old[:, :8], new[:, :8])
    if mode in ("LA", "RGBA"):
        assert edited.image.getchannel("A").tobytes() == picture.image.getchannel("A").tobytes()


def test_a_border_is_blended_in_the_picture_s_own_depth() -> None:
    picture = Picture(Image.fromarray(np.full((12, 20), 10_000, "u2")), "PNG")
    edited = with_pixels(picture, Image.new("RGB", SIZE, (200, 200, 200)), left_half())
    row = np.asarray(edited.image)[0, 7:12].tolist()
    new = 200 * 257
    expected = [10_000, 10_000 + 0.3 * (new - 10_000), 10_000 + 0.7 * (new - 10_000), new, new]
    assert row == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "LA", "RGBA", "I;16"])
def test_its_own_pixels_as_the_model_sees_them_give_it_back(mode: str) -> None:
    """Replacing a picture by what it shows changes no pixel that shows by more than rounding."""
    image = make(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.full((12, 20), 200, "u1")))
    picture = Picture(image, "PNG")
    edited = with_pixels(picture, to_rgb(picture), np.ones((12, 20)))
    apart = np.asarray(edited.image).astype(int) - np.asarray(image).astype(int)
    if mode == "CMYK":  # has several ways to say a colour
        apart = np.asarray(to_rgb(edited)).astype(int) - np.asarray(to_rgb(picture))
    assert np.abs(apart).max() <= {"I;16": 129, "RGBA": 2, "LA": 2}.get(mode, 1)


def test_opaque_makes_what_is_filled_show() -> None:
    picture = Picture(Image.new("RGBA", SIZE, (9, 9, 9, 0)), "PNG")
    red = Image.new("RGB", SIZE, "red")
    kept = with_pixels(picture, red, left_half())
    assert kept.image.tobytes() == picture.image.tobytes()
    shown = np.asarray(with_pixels(picture, red, left_half(), opaque=True).image)
    assert shown[0, 12].tolist() == [255, 0, 0, 255]
    assert shown[0, 8].tolist() == [83, 6, 6, 76]
    assert shown[0, 3].tolist() == [9, 9, 9, 0]


@pytest.mark.parametrize("mode, key", [("L", 0), ("RGB", (0, 0, 0)), ("P", 3)])
def test_a_transparent_colour_stays_transparent_and_is_not_painted(mode: str, key) -> None:
    image = make(mode)
    picture = Picture(image, "PNG", transparency=key)
    edited = with_pixels(picture, Image.new("RGB", SIZE, "black"), np.ones((12, 20)))
    keyed = [np.asarray(one.image).reshape(12, 20, -1) == key for one in (picture, edited)]
    assert np.array_equal(*(hits.all(-1) for hits in keyed))


def test_a_full_palette_is_used_as_it_is() -> None:
    image = Image.fromarray(np.arange(240, dtype="u1").reshape(12, 20), "P")
    image.putpalette(bytes(range(240)) * 3)
    picture = Picture(image, "PNG")
    weight = np.zeros((12, 20))
    weight[5, 5] = 1
    edited = with_pixels(picture, Image.new("RGB", SIZE, (255, 0, 0)), weight)
    assert edited.image.getpixel((5, 5)) in range(256)
    assert edited.image.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    assert edited.image.getpixel((4, 5)) == 104


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7, 8])
def test_orientation_profile_and_resolution_stay(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    image = Image.new("RGB", SIZE, "green")
    image.paste("white", (0, 0, 10, 6))
    exif = image.getexif()
    exif[0x0112] = orientation
    exif[0x010E] = "mine"
    save(image, tmp_path / f"in{suffix}", exif=exif, icc_profile=SRGB, dpi=(200, 200))
    picture = open_picture(tmp_path / f"in{suffix}")
    assert picture.size == (SIZE if orientation < 5 else SIZE[::-1])
    corner = {1: (0, 0), 3: (19, 11), 6: (11, 0), 7: (11, 19), 8: (0, 19)}[orientation]
    assert np.asarray(to_rgb(picture))[corner[::-1]].min() > 200
    save_picture(picture, tmp_path / f"out{suffix}", SETTINGS)
    with Image.open(tmp_path / f"out{suffix}") as after:
        if suffix != ".tif":  # Pillow tells its size upright
            assert after.size == SIZE
        assert after.getexif()[0x0112] == orientation
        assert after.getexif()[0x010E] == "mine"
        assert after.info["icc_profile"] == SRGB
        if suffix != ".webp":  # which has none
            assert after.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    assert RECORD in open_picture(tmp_path / f"out{suffix}").text


@pytest.mark.parametrize("mode", [mode for mode, suffix in KINDS if suffix == ".tif"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_is_upright(mode: str, compression: str | None, tmp_path: Path) -> None:
    image = make(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "in.tif", exif=exif, compression=compression)
    upright = np.asarray(open_picture(tmp_path / "in.tif").image)
    assert np.array_equal(upright, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_a_jpeg_keeps_its_tables_and_sampling(tmp_path: Path) -> None:
    soft = Image.fromarray(noise(3)).resize((64, 64), Image.Resampling.BICUBIC)
    soft.save(tmp_path / "in.jpg", quality=37, subsampling=0)
    picture = open_picture(tmp_path / "in.jpg")
    save_picture(picture, tmp_path / "out.jpg", SETTINGS)
    with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.quantization == before.quantization  # pyright: ignore
        apart = np.asarray(before).astype(int) - np.asarray(after)
        assert np.abs(apart).mean() < 0.5
    save_picture(picture, tmp_path / "out.png", SETTINGS)
    assert open_picture(tmp_path / "out.png").image.tobytes() == picture.image.tobytes()


def test_a_profile_is_obeyed_there_and_back() -> None:
    """Of a profile whose numbers are linear light, 90 is as bright as sRGB's 159."""
    linear = bytearray(SRGB)
    # sRGB's own, the curve of its colours (parametricCurveType: g, a, b, c, d) made y = x.
    curve = linear.index(b"para") + 12
    linear[curve : curve + 20] = struct.pack(">5i", 65536, 65536, 0, 65536, 0)
    linear = bytes(linear)
    picture = Picture(Image.new("RGB", SIZE, (90, 90, 90)), "PNG", icc_profile=linear)
    shown = np.asarray(to_rgb(picture)).astype(int)
    assert np.abs(shown - 159).max() <= 2
    grey = Image.new("RGB", SIZE, (159, 159, 159))
    back = np.asarray(with_pixels(picture, grey, np.ones((12, 20))).image).astype(int)
    assert np.abs(back - 90).max() <= 2


def test_a_broken_profile_is_kept_and_not_obeyed() -> None:
    picture = Picture(Image.new("RGB", SIZE, (90, 90, 90)), "PNG", icc_profile=b"broken")
    assert to_rgb(picture).getpixel((0, 0)) == (90, 90, 90)


def test_refuses_what_it_cannot_give_back(tmp_path: Path) -> None:
    def refused(name: str, fragment: str) -> None:
        with pytest.raises(UserError, match=fragment):
            open_picture(tmp_path / name)

    refused("none.png", "there is no file")
    (tmp_path / "text.png").write_text("no picture")
    refused("text.png", "no picture that can be read")
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    for name in ("two.gif", "two.webp", "two.tif"):
        refused(name, r"animated or has pages \(2 pictures\)")
    Image.fromarray(np.ones((4, 4), "f4")).save(tmp_path / "float.tif")
    refused("float.tif", "mode F")
    good = io.BytesIO()
    frames[0].save(good, "PNG")
    (tmp_path / "cut.png").write_bytes(good.getvalue()[:45])
    refused("cut.png", "cannot read")
    with pytest.raises(UserError, match=r"cannot hold a picture of mode CMYK; one of .*jpg"):
        save_picture(Picture(make("CMYK"), "TIFF"), tmp_path / "x.png", None)


def test_16_bits_in_colour_are_refused(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + bytes(6))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match="16 bits a channel in colour"):
        open_picture(tmp_path / "deep.png")
