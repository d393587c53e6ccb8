"""Guidance in the pipelines of both arts, on tiny models."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff import MusicPipeline
from audiodiff.clip import read_settings, what_made
from audiodiff.controls import Controls, from_labels, unknown
from audiodiff.labels import Labels
from imagediff import ImagePipeline
from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance import Guidance, Loss, gradient, normalised_step
from shared.guidance.pullback import gradient_of, pull_back

LONG = 5.0  # seconds, of two windows of the tiny music model


@pytest.fixture(scope="module")
def images(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def music(tiny_music_model: Path) -> MusicPipeline:
    loaded = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    loaded.codec.vocoder = play_levels  # what it sounds like is of no account here
    return loaded


def play_levels(mel: Tensor) -> Tensor:
    """A vocoder of no time: two tones as loud as the mel (b 2 f t) is."""
    levels = mel.clamp(-3, 3).exp().mean(2).repeat_interleave(512, -1)  # (b 2 s)
    return levels * torch.sin(torch.arange(levels.shape[-1]) * torch.tensor([[0.1], [0.13]])) / 30


def draw(images: ImagePipeline, **options: Any) -> np.ndarray:
    return np.asarray(images("a red apple", seed=3, steps=3, **options)[0])


def play(music: MusicPipeline, **options: Any) -> np.ndarray:
    return music("a waltz", seconds=LONG, seed=3, steps=2, **options)[0].samples


# Guidances of the caller's own


def test_a_guidance_that_does_nothing_changes_nothing(
    images: ImagePipeline, music: MusicPipeline
) -> None:
    def nothing(denoise: DenoiseFn) -> DenoiseFn:
        return denoise

    assert np.array_equal(draw(images), draw(images, guidances=[nothing]))
    assert np.array_equal(play(music), play(music, guidances=[nothing, nothing]))


@pytest.mark.parametrize("way", ["as it is", "guidances", "controls"])
def test_only_what_its_settings_alone_made_has_a_record_to_be_made_again_by(
    music: MusicPipeline, tmp_path: Path, way: str
) -> None:
    steered: dict[str, Any] = {
        "as it is": {},
        "guidances": {"guidances": [lambda denoise: denoise]},
        "controls": {"controls": unknown(music.latent_frames(LONG))},
    }[way]
    (clip,) = music("a waltz", seconds=LONG, steps=1, **steered)
    clip.save(tmp_path / "a.wav")
    assert bool(what_made(tmp_path / "a.wav").get("comment")) == bool(steered)
    if steered:
        with pytest.raises(UserError, match="no record"):
            read_settings(tmp_path / "a.wav")
    else:
        assert read_settings(tmp_path / "a.wav") == clip.settings


@torch.no_grad()
def test_dynamics_guide_against_the_other_controls_as_well(music: MusicPipeline) -> None:
    frames = 16
    settings = music.plan("a waltz", guidance_scale=3.0)[0]
    levels = tuple(-30.0 + t for t in range(frames))
    labels = Labels(tempo=90.0, key="A minor", dynamics=levels)
    whole = from_labels(labels, frames)
    unknown_levels = {"dynamics": torch.zeros(frames, dtype=torch.bool)}
    rest = replace(whole, known={**whole.known, **unknown_levels})
    x = torch.randn(1, *music.latent_shape(frames), generator=torch.manual_seed(0))

    def says(scale: float, controls: Controls) -> Tensor:
        made = music.denoise_fn([replace(settings, guidance_scale=scale)], frames, [controls])
        return made(x, torch.tensor([2.0]))

    told, less, free = says(1.0, whole), says(1.0, rest), says(0.0, whole)
    torch.testing.assert_close(says(3.0, rest), free + 3 * (less - free), rtol=1e-4, atol=1e-5)
    expected = free + 3 * (told - free) + 2 * (told - less)
    torch.testing.assert_close(says(3.0, whole), expected, rtol=1e-4, atol=1e-5)


def test_guidances_get_whole_latents_the_first_innermost(
    images: ImagePipeline, music: MusicPipeline
) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def spy(denoise: DenoiseFn, name: str) -> DenoiseFn:
        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            seen.append((name, tuple(x.shape)))
            return denoise(x, sigma)

        return guided

    spies = [partial(spy, name="inner"), partial(spy, name="outer")]
    images("a cat", steps=1, guidances=spies)
    music("a waltz", seconds=LONG, steps=1, guidances=spies)
    frames = music.latent_frames(LONG)
    assert frames > music.window
    assert seen == [
        *(("outer", (1, 4, 8, 8)), ("inner", (1, 4, 8, 8))),
        *(("outer", (1, 4, 2, frames)), ("inner", (1, 4, 2, frames))),
    ]


def slopes(denoise: DenoiseFn, loss: Callable[[Tensor], Tensor], found: list[float]) -> DenoiseFn:
    """Changes nothing; notes the loss's slope along its gradient over what it should be."""

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        denoised, g = pull_back(denoise, x, sigma, lambda d: gradient_of(loss, d, "the loss"))
        length = g.norm()
        move = g / length * (0.02 * sigma)
        risen = loss(denoise(x + move, sigma)) - loss(denoise(x - move, sigma))
        found.append((risen / (2 * move.norm() * length)).item())
        return denoised

    return guided


def test_gradients_reach_through_network_and_codec(
    images: ImagePipeline, music: MusicPipeline
) -> None:
    def brightness(latents: Tensor) -> Tensor:
        return images.codec.decode(latents).square().mean((1, 2, 3))

    def level(latents: Tensor) -> Tensor:
        return music.codec.latents_to_mel(latents).square().mean((1, 2, 3))

    found: list[float] = []
    draw(images, guidances=[partial(slopes, loss=brightness, found=found)])
    play(music, guidances=[partial(slopes, loss=level, found=found)])
    assert found == pytest.approx([1] * 5, abs=0.05)


def test_a_guidance_gradient_moves_the_picture_along_its_loss(images: ImagePipeline) -> None:
    def brightness(latents: Tensor) -> Tensor:
        return images.codec.decode(latents).mean((1, 2, 3))

    def guide(weight: float) -> Guidance:
        # In the last step alone: what a network that never learned makes of a move is anyone's
        # guess, as are its slopes.
        losses, step = [Loss(brightness, weight, (0, 0.1))], normalised_step(10)
        return partial(gradient, losses=losses, step=step, through_denoiser=False)

    darker, brighter = (draw(images, guidances=[guide(weight)]).mean() for weight in (1, -1))
    assert darker < draw(images).mean() < brighter


def test_the_python_of_the_page_runs(
    images: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "guidance.md"
    monkeypatch.setattr(ImagePipeline, "load", lambda *_: images)
    space: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block.replace("25", "3").replace("first=5, last=20", "first=1, last=2"), space)
    assert [picture.size for picture in space["pictures"]] == [images.native_size]
