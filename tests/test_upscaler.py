"""Making pictures larger: the model's way of a picture, and what of the picture stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image, ImageCms
from test_picture_file import make
from tiny_upscaler import UNET, tiny_upscaler, write_tiny_upscaler
from torch import Tensor, nn

from imagediff.enlarged_settings import LARGEST
from imagediff.enlarging import by_rule, upscale
from imagediff.metrics import psnr
from imagediff.picture_file import (
    MODES,
    ORIENTATION,
    SUFFIXES,
    Picture,
    open_picture,
    save_picture,
)
from imagediff.sheets import from_pil
from imagediff.shrink import SHRINKING, Wear, enlarge, shrink, worn
from imagediff.upscaler import Upscaler, build_upscaler
from shared.conditioning import Conditioning
from shared.errors import UserError
from shared.models import BUILTIN, CARRIED, find_model
from shared.unet import UNet

CARD = CARRIED["upscaler"] / "README.md"


class Oracle(nn.Module):
    """A denoiser that knows the answer at each pixel: ``share`` of what it is told."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.seen: list[tuple[int, ...]] = []
        self.factors: list[float] = []

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        assert cond.concat is not None and cond.vector is not None
        self.seen.append(tuple(x.shape))
        self.factors += cond.vector.flatten().tolist()
        return self.share * cond.concat


def with_oracle(share: float) -> tuple[Upscaler, Oracle]:
    oracle = Oracle(share)
    return replace(tiny_upscaler(), denoiser=oracle), oracle  # type: ignore[arg-type]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(1).integers(0, 256, (height, width, bands)).astype(np.uint8)
    return Image.fromarray(levels if bands > 1 else levels[..., 0], mode)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (31, 50)])
def test_the_result_is_the_enlargement_and_what_the_model_adds(
    factor: int, size: tuple[int, int]
) -> None:
    """An oracle's residual is pointwise, so windows must not be seen: whatever their number."""
    upscaler, oracle = with_oracle(0.5)
    picture = noise(*size)
    made = upscaler(picture, factor, steps=2)
    enlarged = enlarge(picture, factor)
    assert made.size == (size[0] * factor, size[1] * factor)
    std = upscaler.residual_std[factor // 4]
    expected = (from_pil(enlarged) * (1 + 0.5 * std)).clamp(-1, 1)
    assert (from_pil(made) - expected).abs().max() <= 1.01 / 255
    assert set(oracle.factors) == {factor // 4}
    side = upscaler.window // upscaler.fold
    # A window is never larger than an eighth more than the model's own.
    assert max(max(shape[2:]) for shape in oracle.seen) <= side + side // 8
    assert max(shape[0] for shape in oracle.seen) <= 4


def test_a_seed_makes_the_same_again_and_another_another() -> None:
    upscaler = tiny_upscaler()
    picture = noise(9, 7)
    first, again, other = (
        np.asarray(upscaler(picture, 2, steps=3, seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_one_step_is_the_network_s_estimate() -> None:
    """The denoiser at the highest noise level, by hand."""
    upscaler = tiny_upscaler()
    picture = noise(4, 4)  # one window
    enlarged = from_pil(enlarge(picture, 4))
    folded = nn.functional.pixel_unshuffle(enlarged, 2)
    start = torch.randn(12, 8, 8, generator=torch.Generator().manual_seed(7))[None]
    sigma = upscaler.noise_schedule.sigmas[-1:].float()
    cond = Conditioning(vector=torch.tensor([[1]]), concat=folded)
    with torch.no_grad():
        residual = upscaler.denoiser(start * sigma, sigma, cond)
    expected = enlarged + 0.14 * nn.functional.pixel_shuffle(residual, 2)
    made = from_pil(upscaler(picture, 4, steps=1, seed=7))
    assert (made - expected.clamp(-1, 1)).abs().max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("format", "mode"),
    # Pillow opens a GIF of greys as one or the other, by how many there are.
    [(format, mode) for format, modes in MODES.items() for mode in modes if format != "GIF"]
    + [("GIF", "P")],
)
def test_mode_format_profile_and_orientation_stay(format: str, mode: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    suffix = SUFFIXES[format][0]
    arguments: dict[str, Any] = {}
    if mode in ("RGB", "RGBA"):
        arguments["icc_profile"] = profile
    if format not in ("TIFF", "GIF"):
        arguments["exif"] = Image.Exif()
        arguments["exif"][ORIENTATION] = 6
    make(mode).save(tmp_path / f"in{suffix}", **arguments)
    picture = open_picture(tmp_path / f"in{suffix}")
    assert picture.orientation == (6 if "exif" in arguments else 1)
    upscaler = tiny_upscaler()
    settings = upscaler.plan(picture.size, 2)
    made = upscale(upscaler, picture, settings)
    save_picture(made, tmp_path / f"out{suffix}", settings)
    read = open_picture(tmp_path / f"out{suffix}")
    assert (read.image.mode, read.format) == (picture.image.mode, format)
    assert read.size == made.size == (picture.size[0] * 2, picture.size[1] * 2)
    assert (read.orientation, read.icc_profile) == (picture.orientation, picture.icc_profile)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "LA", "RGBA", "I;16"])
def test_a_model_that_adds_nothing_gives_the_rule_s_enlargement(mode: str) -> None:
    upscaler, _ = with_oracle(0.0)
    picture = Picture(make(mode), "TIFF")
    if mode in ("LA", "RGBA"):
        picture.image.putalpha(255)
    made = upscale(upscaler, picture, upscaler.plan(picture.size, 2))
    expected = np.asarray(by_rule(picture, 2).image).astype(int)
    close = 2 if mode == "CMYK" else 0  # its blacks are made anew
    apart = np.abs(np.asarray(made.image).astype(int) - expected)
    if mode == "CMYK":
        apart = np.abs(
            np.asarray(made.image.convert("RGB")).astype(int)
            - np.asarray(enlarge(picture.image.convert("RGB"), 2)).astype(int)
        )
    assert apart.max() <= close


def test_16_bits_keep_their_depth() -> None:
    """A ramp of levels that 8 bits cannot tell apart."""
    ramp = np.linspace(20_000, 20_500, 32).astype(np.uint16)
    picture = Picture(Image.fromarray(np.tile(ramp, (16, 1))), "PNG")
    upscaler, _ = with_oracle(0.0)
    made = np.asarray(upscale(upscaler, picture, upscaler.plan(picture.size, 2)).image)
    assert len(np.unique(made)) > 32
    assert np.all(np.diff(made[8].astype(int)) >= 0)


def test_alpha_is_made_larger_and_ends_stay() -> None:
    image = noise(16, 16, "RGBA")
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    image.putalpha(Image.fromarray(alpha))
    upscaler, oracle = with_oracle(0.3)
    made = upscale(upscaler, Picture(image, "PNG"), upscaler.plan((16, 16), 2))
    found = np.asarray(made.image.getchannel("A"))
    assert (found[:, :12] == 0).all() and (found[:, 20:] == 255).all()
    soft = np.asarray(enlarge(Image.fromarray(alpha), 2))
    edge = (soft > 0) & (soft < 255)
    assert edge.any() and not np.array_equal(found[edge], soft[edge])
    before = len(oracle.seen)
    opaque = noise(16, 16)
    opaque.putalpha(200)
    made = upscale(upscaler, Picture(opaque, "PNG"), upscaler.plan((16, 16), 2))
    assert (np.asarray(made.image.getchannel("A")) == 200).all()
    assert len(oracle.seen) - before == before // 2  # not a second time for the alpha


def test_what_stands_for_transparent_stays_so() -> None:
    image = Image.new("RGB", (12, 12), (10, 20, 30))
    image.paste((200, 100, 0), (4, 4, 12, 12))
    upscaler, _ = with_oracle(0.2)
    picture = Picture(image, "PNG", transparency=(10, 20, 30))
    made = upscale(upscaler, picture, upscaler.plan(picture.size, 4))
    clear = (np.asarray(made.image) == (10, 20, 30)).all(-1)
    assert clear[:16].all() and clear[:, :16].all() and not clear[16:, 16:].any()


def test_factors_and_sizes_that_there_are_not_are_refused() -> None:
    upscaler = tiny_upscaler()
    with pytest.raises(UserError, match="2 or 4, not 3"):
        upscaler(noise(4, 4), 3)
    side = int(LARGEST**0.5) // 4
    upscaler.plan((side, side), 4)
    with pytest.raises(UserError, match="too many"):
        upscaler.plan((side + 1, side), 4)
    with pytest.raises(UserError, match="sampler"):
        upscaler(noise(4, 4), 2, sampler="nothing")


@pytest.mark.parametrize(
    "change",
    [
        {"in_channels": 12},
        {"out_channels": 10, "in_channels": 20},
        {"num_class_embeds": 3},
        {"mid_block_type": "UNetMidBlock2DCrossAttn", "cross_attention_dim": 8},
    ],
)
def test_a_network_of_something_else_is_refused(change: dict) -> None:
    scheduler = {"prediction_type": "v_prediction"}
    with pytest.raises(UserError, match="U-Net of an upscaler"):
        build_upscaler(UNET | {"attention_head_dim": 2} | change, scheduler, (0.1, 0.1))


@torch.no_grad()
def test_the_network_opens_in_diffusers(tmp_path: Path) -> None:
    write_tiny_upscaler(tmp_path / "tiny")
    network = Upscaler.load(tmp_path / "tiny", "cpu", "float32").denoiser.network
    reference = UNet2DConditionModel.from_pretrained(tmp_path / "tiny" / "unet").eval()
    x = torch.randn(2, 24, 9, 12, generator=torch.Generator().manual_seed(0))
    t, labels = torch.tensor([3.0, 812.5]), torch.tensor([0, 1])
    expected = reference(x, t, None, class_labels=labels).sample
    assert isinstance(network, UNet)
    made = network(x, t, Conditioning(vector=labels[:, None]))
    assert (made - expected).abs().max() <= 1e-5
    with pytest.raises(ValueError, match=r"takes no cond\.context"):
        network(x, t, Conditioning(vector=labels[:, None], context=torch.zeros(2, 3, 8)))


# What the model learns from


@pytest.mark.parametrize("how", SHRINKING)
@pytest.mark.parametrize("factor", [2, 4])
def test_small_and_large_pictures_lie_on_each_other(how: str, factor: int) -> None:
    """Ramps, which every way to shrink and the way to enlarge keep, but for their ends.

    Half a pixel beside it would be 2 levels or more; bytes round by half a level twice.
    """
    across, down = np.meshgrid(np.arange(64), np.arange(48))
    levels = np.stack([across * 4, down * 5, 255 - across * 4], -1).astype(np.uint8)
    again = np.asarray(enlarge(shrink(Image.fromarray(levels), factor, how), factor))
    inner = np.s_[12:-12, 12:-12]
    apart = np.abs(again[inner].astype(int) - levels[inner].astype(int))
    assert apart.mean(axis=(0, 1)).max() <= 1


def test_wear_is_drawn_by_its_seed() -> None:
    import random

    picture = noise(32, 24)
    always = Wear(blur=1, jpeg=1, noise=1)
    first, again, other = (
        np.asarray(worn(picture, 2, always, random.Random(seed))) for seed in (1, 1, 2)
    )
    assert first.shape == (12, 16, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    clean = worn(picture, 2, Wear(blur=0, jpeg=0, noise=0), random.Random(1))
    shrunk = [np.asarray(shrink(picture, 2, how)) for how in SHRINKING]
    assert any(np.array_equal(np.asarray(clean), one) for one in shrunk)


# What is carried


@pytest.mark.skipif(not CARD.exists(), reason="no upscaler is carried")
def test_the_carried_upscaler_is_small_and_better_than_the_rule() -> None:
    info = find_model(BUILTIN, "upscaler")
    weights = info.folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size <= 2**19 and info.licence == "apache-2.0"
    assert sum(path.stat().st_size for path in info.folder.rglob("*") if path.is_file()) < 2**19
    upscaler = Upscaler.load(BUILTIN, "cpu", "float32")
    # Drawn here, for scenes need a font: discs and bars with the edges that smooth drawing has.
    gains = []
    for number in range(4):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[0:512, 0:512] / 512
        levels = np.ones((512, 512, 3)) * rng.integers(0, 256, 3)
        for _ in range(6):
            cx, cy, radius = rng.uniform(0.1, 0.9, 3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (radius * 0.3) ** 2
            levels[inside] = rng.integers(0, 256, 3)
        picture = Image.fromarray(levels.astype(np.uint8)).resize((128, 128), Image.Resampling.BOX)
        for factor in (2, 4):
            small = shrink(picture, factor, "bicubic")
            both = [enlarge(small, factor), upscaler(small, factor)]
            scores = [psnr(np.asarray(picture)[None], np.asarray(one)[None]) for one in both]
            gains.append(float(scores[1][0] - scores[0][0]))
    assert min(gains) > 0 and np.mean(gains) > 0.5, gains
