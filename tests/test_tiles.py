"""Pictures larger than the model's own, and tiles that repeat without a seam."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import Duotone
from PIL import Image
from torch import Tensor

from imagediff import ImagePipeline
from imagediff.data import render, scene_at
from imagediff.evaluate import HELD_OUT_SERIES
from imagediff.objects import FONT
from imagediff.sheets import from_pil
from shared.windows import windowed_plane

SIGMA = torch.tensor([2.0])


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, "cpu", "float32")


def pointwise(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh(x) / (1 + sigma.square())[:, None, None, None]


def test_what_fits_is_one_pass_to_the_bit() -> None:
    assert windowed_plane(pointwise, (16, 18), (16, 16)) is pointwise


@pytest.mark.parametrize("size", [(16, 16), (40, 16), (20, 31)])
@pytest.mark.parametrize("wrap", [False, True])
def test_windows_of_a_pointwise_denoiser_give_the_same(size: tuple[int, int], wrap: bool) -> None:
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    shapes = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        shapes.append(x.shape)
        return pointwise(x, sigma)

    made = windowed_plane(denoise, size, (16, 16), wrap=wrap)(x, SIGMA)
    torch.testing.assert_close(made, pointwise(x, SIGMA))
    assert all(shape[2] <= 18 and shape[3] <= 18 for shape in shapes)


def test_a_picture_that_fits_is_made_in_one_pass(pipeline: ImagePipeline) -> None:
    """Up to an eighth more than its own size the network sees the picture whole."""
    from shared.guidance import classifier_free
    from shared.noise import seeded_noise
    from shared.pipelines import encode_prompts

    (settings,) = pipeline.plan("a cat", size=(32, 32))
    noise = seeded_noise([0], pipeline.latent_shape((32, 32)))
    cond, uncond = (encode_prompts(pipeline.text_encoder, [text]) for text in ("a cat", ""))
    with torch.no_grad():
        single = classifier_free(pipeline.denoiser, cond, uncond, 4.0)(noise, SIGMA)
        assert torch.equal(pipeline.denoise_fn([settings])(noise, SIGMA), single)


def test_windows_see_no_more_than_the_model_was_trained_at(pipeline: ImagePipeline) -> None:
    seen = []
    hook = pipeline.denoiser.register_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape[2:]))
    )
    try:
        (picture,) = pipeline("a cat", size=(72, 40), steps=1, guidance_scale=1)
    finally:
        hook.remove()
    assert picture.size == (72, 40)
    assert seen and set(seen) == {(8, 8)}


@pytest.mark.skipif(not FONT.exists(), reason="the emoji font is not installed")
def test_windows_agree_with_the_single_pass_on_a_picture_that_fits() -> None:
    """The carried model's estimates, by overlapping windows of three quarters of their width.

    They lie nearer to each other than either to the truth, which both miss by as much. Two halves
    without anything in common, which see as little each, are far worse.
    """
    carried = ImagePipeline.load("builtin", "cpu", "float32")
    errors = []
    for number in range(3):
        scene = scene_at(HELD_OUT_SERIES, number)
        (settings,) = carried.plan(scene.caption, guidance_scale=1.0)
        with torch.no_grad():
            known = carried.codec.encode(from_pil(render(scene, 128)))
            single = carried.denoise_fn([settings])
            windows = windowed_plane(single, (16, 16), (16, 12))
            noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(0))
            for level in (0.1, 1.0, 3.0):
                sigma, x = torch.tensor([level]), known + level * noise
                whole, made = single(x, sigma), windows(x, sigma)
                halves = torch.cat([single(half, sigma) for half in x.chunk(2, dim=3)], dim=3)
                pairs = ((whole, known), (made, known), (made, whole), (halves, whole))
                errors.append([rms(one - other) for one, other in pairs])
    # (scenes levels pairs) -> (levels pairs): of a single scene an error is much by chance
    for missed, missed_too, apart, halves_apart in np.reshape(errors, (3, 3, 4)).mean(axis=0):
        assert 0 < apart < 0.35 * missed
        assert missed_too < 1.03 * missed
        assert halves_apart > 1.5 * apart


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def seam(picture: np.ndarray) -> tuple[float, float]:
    """Of the columns: the mean step over the ends, and the largest of those inside."""
    steps = np.abs(picture.astype(float) - np.roll(picture, 1, axis=1)).mean((0, 2))
    return steps[0], steps[1:].max()


def test_a_tile_decoded_on_its_own_has_a_seam_and_one_with_its_other_side_has_none(
    pipeline: ImagePipeline,
) -> None:
    """Latents that are one smooth wave around: the only edge can be the decoder's."""
    wave = torch.sin(torch.arange(8) * (2 * torch.pi / 8))
    latents = (wave + torch.zeros(1, 4, 8, 8)) * torch.tensor([1, -1, 2, 0.5]).view(1, 4, 1, 1)
    around = [np.asarray(pipeline.decode(latents, wrap=wrap)[0]) for wrap in (False, True)]
    edge, inside = seam(around[1])
    assert edge <= inside
    rolled = latents.roll(4, dims=3)
    again = np.asarray(pipeline.decode(rolled, wrap=True)[0]).astype(int)
    apart = [
        np.abs(again - np.roll(np.asarray(one).astype(int), 16, axis=1)).mean() for one in around
    ]
    assert (
        apart[1]
        < 0.5
        * np.abs(
            np.asarray(pipeline.decode(rolled)[0]).astype(int)
            - np.roll(around[0].astype(int), 16, axis=1)
        ).mean()
    )


def test_a_carried_model_s_tile_has_no_edge_stronger_than_its_interior(
    duotone: Duotone,
) -> None:
    """Rolled by half, the ends meet in the middle: the step there is one among the others."""
    how = ("--seed", 3, "--count", 3, "--tile")
    paths = duotone("image", "a red apple on a blue background", *how).out
    shares = []
    for path in paths:
        with Image.open(path) as picture:
            tile = np.asarray(picture)
        for turned in (tile, tile.transpose(1, 0, 2)):
            edge, inside = seam(turned)
            shares.append(edge / inside)
    # An outline may run along one of six ends, and be the strongest step there is.
    assert np.mean(shares) < 0.7 and sorted(shares)[-2] < 1
    assert duotone("replay", paths[0]).out[-1] == "identical"
