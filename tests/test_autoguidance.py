"""Autoguidance by another model's folder: exact, for each sample alone, recorded and replayed."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import Duotone
from PIL import Image
from test_generation import SETTINGS
from tiny import UNET, VAE
from torch import Tensor

from imagediff import ImagePipeline
from imagediff.png import open_png
from shared.checkpoints import load_denoiser, model_hash
from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance import autoguidance, classifier_free, perturbed, plain
from shared.pipelines import encode_prompts, for_sampling
from shared.schedules import make_sigmas
from shared.settings import GuidanceSettings
from shared.text import TextEncoder
from shared.unet import UNet
from shared.vae import AutoencoderKL
from shared.weights import save_component

STEPS, SCALE, PROMPT = 10, 3.0, "a red apple"
SOME = replace(SETTINGS, prompt=PROMPT, steps=STEPS, guidance_scale=SCALE, size=(32, 32))


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


def weaken(model: Path, folder: Path) -> Path:
    """A copy of a model that learned something else on the same latents, words included."""
    shutil.copytree(model, folder)
    torch.manual_seed(1)
    config = json.loads((folder / "unet" / "config.json").read_text())
    save_component(UNet.from_config(config), folder / "unet", torch.float32)
    text = TextEncoder.from_scratch(folder / "tokenizer", hidden_size=16, layers=1, heads=2)
    text.save(folder / "text_encoder", torch.float32)
    return folder


@pytest.fixture(scope="module")
def weak_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weaken(tiny_model, tmp_path_factory.mktemp("weak") / "weak")


@pytest.fixture(scope="module")
def weak(weak_model: Path) -> DenoiseFn:
    """What it says of a red apple."""
    with torch.no_grad():
        told = encode_prompts(TextEncoder.load(weak_model), [PROMPT])
    return plain(for_sampling(load_denoiser(weak_model)), told)


@torch.no_grad()
def walk(pipeline: ImagePipeline, how: DenoiseFn | GuidanceSettings, scale=SCALE) -> list[Tensor]:
    """What is said of some state at each level of the grid but 0, by settings or a function."""
    settings = replace(SOME, guidance_scale=scale)
    if isinstance(how, GuidanceSettings):
        how = pipeline.denoise_fn([replace(settings, guidance=how)])
    sigmas = make_sigmas(settings.schedule, STEPS, pipeline.noise_schedule)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return [how(x * sigma, sigma[None]) for sigma in sigmas[:-1]]


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(first, second, strict=True)]


def test_alone_it_is_the_paper_s_to_the_bit(
    pipeline: ImagePipeline, weak_model: Path, weak: DenoiseFn
) -> None:
    with torch.no_grad():
        good = plain(pipeline.denoiser, encode_prompts(pipeline.text_encoder, [PROMPT]))
    how = GuidanceSettings(autoguidance=str(weak_model), autoguidance_scale=2.5)
    found = walk(pipeline, how, scale=1)
    assert all(equal(found, walk(pipeline, autoguidance(good, weak, 2.5))))
    off = walk(pipeline, replace(how, autoguidance_scale=1))
    assert all(equal(off, walk(pipeline, GuidanceSettings())))


@pytest.mark.parametrize("pag_scale", [0.0, 2.0])
def test_it_is_added_to_the_prompt_s_within_the_interval(
    pipeline: ImagePipeline, weak_model: Path, weak: DenoiseFn, pag_scale: float
) -> None:
    how = GuidanceSettings(autoguidance=str(weak_model), pag_scale=pag_scale, interval=(0.2, 0.7))
    with torch.no_grad():
        cond, uncond = (encode_prompts(pipeline.text_encoder, [text]) for text in (PROMPT, ""))
    found = walk(pipeline, how)
    guided = walk(pipeline, classifier_free(pipeline.denoiser, cond, uncond, SCALE))
    alone = walk(pipeline, plain(pipeline.denoiser, cond))
    blind, worse = walk(pipeline, perturbed(pipeline.denoiser, cond)), walk(pipeline, weak)
    for step in range(2, 7):
        pushed = alone[step] - worse[step] + pag_scale * (alone[step] - blind[step])
        torch.testing.assert_close(found[step], guided[step] + pushed, rtol=1e-4, atol=1e-5)
    assert equal(found, alone) == [step not in range(2, 7) for step in range(STEPS)]


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_it_does_not_depend_on_the_batch(
    pipeline: ImagePipeline, weak_model: Path, size: tuple[int, int]
) -> None:
    """Each sample and each window of a large one has its own prompt, by the weak one's encoder."""
    how = GuidanceSettings(autoguidance=str(weak_model))
    plan = pipeline.plan(["a red apple", "a green cat"], steps=2, size=size, guidance=how)
    shape = pipeline.latent_shape(size)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([3.0, 3.0])
    with torch.no_grad():
        together = pipeline.denoise_fn(plan)(x, sigma)
        for i in range(2):
            alone = pipeline.denoise_fn(plan[i : i + 1])(x[i : i + 1], sigma[:1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
            other = pipeline.denoise_fn(plan[1 - i : 2 - i])(x[i : i + 1], sigma[:1])
            assert not torch.allclose(together[i : i + 1], other, rtol=1e-4, atol=1e-5)


def test_only_a_model_of_the_same_latents_can_guide(
    pipeline: ImagePipeline, weak_model: Path, tmp_path: Path
) -> None:
    def plan(folder: Path) -> str:
        how = GuidanceSettings(autoguidance=str(folder))
        (settings,) = pipeline.plan("a cat", guidance=how)
        return str(settings.guidance.autoguidance_hash)

    assert plan(weak_model) == model_hash(weak_model)
    half = shutil.copytree(weak_model, tmp_path / "half")
    vae = AutoencoderKL.from_config(VAE)
    vae.load_state_dict(pipeline.codec.vae.state_dict())
    save_component(vae, half / "vae", torch.float16)
    assert plan(half) == model_hash(half)
    save_component(AutoencoderKL.from_config(VAE), half / "vae", torch.float32)
    with pytest.raises(UserError, match="its autoencoder is another"):
        plan(shutil.copytree(half, tmp_path / "strange"))
    wide = shutil.copytree(weak_model, tmp_path / "wide")
    save_component(UNet.from_config(UNET | {"in_channels": 5}), wide / "unet", torch.float32)
    with pytest.raises(UserError, match="has 5 in_channels, not 4"):
        plan(wide)


@pytest.fixture
def image(duotone: Duotone, tiny_model: Path) -> Duotone:
    return lambda *args: duotone("image", "--model", tiny_model, "--steps", 4, "--seed", 1, *args)


def test_the_worse_model_is_recorded_and_found_again(
    image: Duotone, duotone: Duotone, tiny_model: Path, weak_model: Path
) -> None:
    worse = Path("worse")
    shutil.copytree(weak_model, worse)
    image("a cat", "-o", "plain.png")
    options = ("--autoguidance", worse, "--autoguidance-scale", 3)
    record = json.loads(image("a cat", "-o", "x.png", "--json", *options).out[0])
    assert record["guidance"]["autoguidance"] == "worse"
    assert record["guidance"]["autoguidance_hash"] == model_hash(worse)
    told = f"Autoguidance scale: 3.0, Autoguidance hash: {model_hash(worse)[:10]}"
    assert f"Autoguidance: worse, {told}" in open_png(Path("x.png"))[1]["parameters"]
    assert Image.open("x.png").tobytes() != Image.open("plain.png").tobytes()
    assert duotone("replay", "x.png", "--model", tiny_model).out[-1] == "identical"
    shutil.rmtree(worse)
    lost = duotone("replay", "x.png", "--model", tiny_model, "-o", "again.png")
    assert lost.code == 2 and "'worse'" in lost.err and not Path("again.png").exists()


def test_music_takes_it_too(duotone: Duotone, tiny_music_model: Path) -> None:
    def music(*args: object) -> dict:
        common = ("--model", tiny_music_model, "--seconds", 0.5, "--steps", 2, "--seed", 1)
        return json.loads(duotone("music", "a waltz", *common, "--json", *args).out[0])

    weak = weaken(tiny_music_model, Path("weak"))
    music("-o", "plain.wav")
    record = music("--autoguidance", "weak", "-o", "y.wav")
    assert record["guidance"]["autoguidance_hash"] == model_hash(weak)
    assert Path("y.wav").read_bytes()[-4000:] != Path("plain.wav").read_bytes()[-4000:]
    assert duotone("replay", "y.wav", "--model", tiny_music_model).out[-1] == "identical"
