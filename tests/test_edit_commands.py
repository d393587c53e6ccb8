"""Editing pictures from the command line, on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, names
from PIL import Image, ImageCms

from imagediff import ImagePipeline
from imagediff.picture_file import ORIENTATION, open_picture
from imagediff.sheets import from_pil

STEPS = ("--steps", 3)


@pytest.fixture
def run(duotone: Duotone, tiny_model: Path) -> Duotone:
    """Run ``duotone ARGS`` with the tiny model in three steps, where that makes something."""

    def with_model(*args: object):
        return duotone(*args, *(() if args[0] == "info" else ("--model", tiny_model, *STEPS)))

    return with_model


@pytest.fixture
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, "cpu", "float32")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def draw(name: str = "in.png", size: tuple[int, int] = (32, 32), mode: str = "RGB") -> np.ndarray:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else size[::-1]
    values = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    image = Image.fromarray(values) if bands != 2 else Image.fromarray(values, "LA")
    image.save(name)
    return values


def reconstructed(pipeline: ImagePipeline, name: str = "in.png") -> np.ndarray:
    with Image.open(name) as picture:
        latents = pipeline.codec.encode(from_pil(picture.convert("RGB")))
    return np.asarray(pipeline.decode(latents)[0])


# What the strength does


@pytest.mark.parametrize("verb", [("restyle", "in.png", "a cat"), ("vary", "in.png")])
def test_strength_0_is_the_codec_s_reconstruction(
    run: Duotone, pipeline: ImagePipeline, verb: tuple[str, ...]
) -> None:
    draw()
    (path,) = run(*verb, "--strength", 0, "--seed", 1).out
    assert path == f"in-{verb[0]}-1.png"
    assert np.array_equal(pixels(path), reconstructed(pipeline))


def test_strength_1_is_the_text_s_picture_of_that_seed(run: Duotone) -> None:
    draw()
    (edited,) = run("restyle", "in.png", "a cat", "--strength", 1, "--seed", 5).out
    (made,) = run("image", "a cat", "--seed", 5).out
    assert np.array_equal(pixels(edited), pixels(made))
    (whole,) = run("inpaint", "in.png", "a cat", "--box", "0,0,32,32", "--seed", 5).out
    assert np.array_equal(pixels(whole), pixels(made))


def test_vary_takes_the_recorded_prompt(run: Duotone) -> None:
    (made,) = run("image", "a red apple", "--seed", 5).out
    record = json.loads(run("vary", made, "--json").out[0])
    assert record["prompt"] == "a red apple" and record["task"] == "vary"
    draw()
    assert json.loads(run("vary", "in.png", "--json").out[0])["prompt"] == ""
    assert json.loads(run("vary", "in.png", "--prompt", "dog", "--json").out[0])["prompt"] == "dog"


# What stays


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("method", ["consistency", "repaint"])
def test_outside_the_box_and_its_border_nothing_changes(
    run: Duotone, mode: str, method: str
) -> None:
    before = draw(mode=mode, size=(50, 70))
    box = ("--box", "20,30,12,10", "--feather", 3)
    (path,) = run("inpaint", "in.png", "a cat", *box, "--method", method, "--jump-length", 1).out
    after = pixels(path)
    kept = np.ones((70, 50), dtype=bool)
    kept[27:43, 17:35] = False
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[30:40, 20:32], before[30:40, 20:32])
    if mode in ("RGBA", "LA"):
        assert np.array_equal(after[..., -1], before[..., -1])


def test_a_mask_does_what_its_box_does(run: Duotone) -> None:
    draw()
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 8:16] = 255
    Image.fromarray(mask).save("mask.png")
    where = ("--mask", "mask.png"), ("--box", "8,4,8,16")
    made = [run("inpaint", "in.png", "a cat", *one, "--seed", 2, "--overwrite") for one in where]
    first = pixels(made[0].out[0])
    assert np.array_equal(first, pixels(made[1].out[0]))
    clear = np.dstack([*[mask * 0] * 3, 255 - mask])
    Image.fromarray(clear).save("clear.png")
    result = run("inpaint", "in.png", "a cat", "--mask", "clear.png", "--seed", 2, "-o", "x.png")
    (path,) = result.out
    assert np.array_equal(first, pixels(path))


def test_a_large_picture_is_worked_on_around_the_box(run: Duotone, pipeline: ImagePipeline) -> None:
    """What is farther away from the box than the model's window has no part in it."""
    before = draw(size=(200, 120))
    box = ("--box", "90,50,12,10", "--seed", 1)
    (path,) = run("inpaint", "in.png", "a cat", *box).out
    record = json.loads(run("inpaint", "in.png", "a cat", *box, "--json", "-o", "y.png").out[0])
    assert record["size"] == [32, 32]
    inside = pixels(path)[50:60, 90:102]
    before[:, :60] = 0
    Image.fromarray(before).save("in.png")
    (path,) = run("inpaint", "in.png", "a cat", *box, "-o", "x.png").out
    assert np.array_equal(pixels(path)[50:60, 90:102], inside)


def test_extend_adds_and_keeps(run: Duotone) -> None:
    before = draw(mode="RGBA")
    sides = ("--left", 16, "--top", 8, "--feather", 0)
    (path,) = run("extend", "in.png", *sides, "--seed", 3).out
    after = pixels(path)
    assert after.shape == (40, 48, 4)
    assert np.array_equal(after[8:, 16:], before)
    assert (after[:8, :, 3] == 255).all() and (after[:, :16, 3] == 255).all()
    assert json.loads(run("info", path, "--json").out[0])["margins"] == [16, 8, 0, 0]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = {
    "in.webp": ("RGBA", {"lossless": True, "exact": True}),
    "in.png": ("RGBA", {}),
    "deep.png": ("I;16", {}),
    "palette.png": ("P", {"transparency": 0}),
    "grey.tif": ("L", {}),
    "ink.tif": ("CMYK", {}),
    "ink.jpg": ("CMYK", {}),
    "grey.jpg": ("L", {}),
}
VERBS = {
    "inpaint": ("a cat", "--box", "0,0,8,8"),
    "extend": ("--right", 8),
    "restyle": ("a cat",),
    "vary": (),
}


def draw_kind(name: str) -> None:
    """A picture of 40 by 24, with EXIF that says it is to be turned, and a profile."""
    mode, arguments = KINDS[name]
    rng = np.random.default_rng(3)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (24, 40)).astype(np.uint16))
    elif mode == "P":
        image = Image.fromarray(rng.integers(0, 5, (24, 40)).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 10, 10, 200, 250, 250, 250])
    else:
        bands = len(Image.new(mode, (1, 1)).getbands())
        shape = (24, 40, bands) if bands > 1 else (24, 40)
        image = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    profile = {"icc_profile": SRGB} if mode in ("RGBA", "P") else {}
    image.save(name, exif=exif, **profile, **arguments)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_the_file_s_kind_stays(run: Duotone, verb: str, name: str) -> None:
    """Format, mode, alpha, profile and orientation; upright it is 24 by 40."""
    draw_kind(name)
    (path,) = run(verb, name, *VERBS[verb], "--seed", 1).out
    assert path == name.replace(".", f"-{verb}-1.")
    with Image.open(name) as before, Image.open(path) as after:
        assert (after.format, after.mode) == (before.format, before.mode)
        assert after.getexif()[ORIENTATION] == before.getexif()[ORIENTATION] == 6
        assert after.info.get("icc_profile") == before.info.get("icc_profile")
        assert after.info.get("transparency") == before.info.get("transparency")
    before, after = (open_picture(Path(one)) for one in (name, path))
    assert before.size == (24, 40)
    assert after.size == ((32, 40) if verb == "extend" else (24, 40))
    old, new = np.asarray(before.image), np.asarray(after.image)
    if verb in ("inpaint", "extend") and not name.endswith(".jpg"):
        assert np.array_equal(new[13:, :20], old[13:, :20])
    if verb != "extend" and before.image.mode == "RGBA":
        assert np.array_equal(new[..., 3], old[..., 3])
    if before.image.mode != "P":  # few colours may be drawn as they were
        assert not np.array_equal(new[:8, :8], old[:8, :8]) or verb == "extend"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_pictures_are_refused(run: Duotone, verb: str, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(f"in.{suffix}", save_all=True, append_images=frames[1:])
    result = run(verb, f"in.{suffix}", *VERBS[verb])
    assert (result.code, result.out, names()) == (2, [], [f"in.{suffix}"])
    assert "animated or has pages (2 pictures)" in result.err and result.err.count("\n") == 1


# The record


@pytest.mark.parametrize(
    "verb",
    [
        ("restyle", "in.png", "a cat", "-o", "x.webp"),
        ("inpaint", "in.png", "a cat", "--mask", "mask.png", "-o", "x.tif"),
        ("extend", "in.png", "--prompt", "a dog", "--right", 8, "-o", "x.png"),
    ],
)
def test_replay_makes_the_same_where_the_source_is(
    run: Duotone, duotone: Duotone, tiny_model: Path, verb: tuple[object, ...]
) -> None:
    draw()
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 8:16] = 255
    Image.fromarray(mask).save("mask.png")
    (path,) = run(*verb, "--seed", 4).out
    record = json.loads(duotone("info", path, "--json").out[0])
    assert record["task"] == verb[0] and record["source"] == "in.png"
    replayed = duotone("replay", path, "--model", tiny_model)
    assert replayed.out == [path.replace("x.", "x-replay."), "identical"]
    Path("in.png").write_bytes(b"x" + Path("in.png").read_bytes())
    gone = duotone("replay", path, "--overwrite")
    assert gone.code == 2 and "no longer the file" in gone.err


# What is refused


@pytest.mark.parametrize(
    "args, fragments",
    [
        (["restyle", "in.png", " "], ["prompt is empty"]),
        (["restyle", "none.png", "a cat"], ["there is no file 'none.png'"]),
        (["restyle", "in.png", "a cat", "--strength", "1.5"], ["strength must be from 0 to 1"]),
        (["restyle", "in.png", "a cat", "-o", "x.bmp"], ["x.bmp", ".png"]),
        (["inpaint", "in.png", "a cat"], ["either --mask FILE or --box"]),
        (["inpaint", "in.png", "a cat", "--box", "1,2,3"], ["X,Y,W,H"]),
        (["inpaint", "in.png", "a cat", "--box", "30,0,8,8"], ["does not lie", "32x32"]),
        (["inpaint", "in.png", "a cat", "--mask", "none.png"], ["no file 'none.png'"]),
        (["inpaint", "in.png", "a cat", "--box", "0,0,8,8", "--method", "best"], ["'best'"]),
        (["inpaint", "in.png", "a cat", "--box", "0,0,8,8", "--feather", "-1"], ["feather"]),
        (["extend", "in.png"], ["--left"]),
        (["extend", "in.png", "--left", "-4"], ["0 or more"]),
    ],
)
def test_says_in_a_line_what_is_wrong(run: Duotone, args: list[str], fragments: list[str]) -> None:
    draw()
    result = run(*args)
    assert (result.code, result.out, names()) == (2, [], ["in.png"])
    assert result.err.count("\n") == 1
    assert all(fragment in result.err for fragment in fragments)


def test_masks_that_do_not_suit_are_refused(run: Duotone) -> None:
    draw()
    Image.new("L", (16, 32), 255).save("small.png")
    Image.new("L", (32, 32), 0).save("black.png")
    faults = {"small.png": "16x32 pixels, the picture 32x32", "black.png": "black all over"}
    for name, fragment in faults.items():
        result = run("inpaint", "in.png", "a cat", "--mask", name)
        assert result.code == 2 and fragment in result.err and result.err.count("\n") == 1
