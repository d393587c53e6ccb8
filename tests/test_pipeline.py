"""The picture pipeline on a tiny model: settings, seeds, codec, devices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imagediff
from imagediff import ImagePipeline
from imagediff.codec import ImageCodec
from imagediff.png import difference, open_png, read_settings, save_png
from imagediff.settings import parse_size
from shared.checkpoints import load_vae
from shared.devices import dtype_name, resolve_device, resolve_dtype
from shared.errors import UserError
from shared.noise import seeded_noise
from shared.samplers import SAMPLERS
from shared.schedules import SCHEDULES


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def test_a_call_gives_count_pictures_of_each_prompt(pipeline: ImagePipeline) -> None:
    pictures = pipeline(["a cat", "a dog"], count=2, seed=3, steps=2)
    assert [picture.size for picture in pictures] == [(32, 32)] * 4
    assert same(pictures[3], pipeline("a dog", seed=4, steps=2)[0])
    assert not same(pictures[0], pictures[1])


@pytest.mark.parametrize(
    "sampler, schedule",
    [*((name, "karras") for name in SAMPLERS), *(("ddpm", name) for name in SCHEDULES)],
)
def test_same_seed_same_bytes(pipeline: ImagePipeline, sampler: str, schedule: str) -> None:
    def draw() -> Image.Image:
        return pipeline("a cat", seed=1, steps=3, sampler=sampler, schedule=schedule)[0]

    first = draw()
    torch.randn(7)  # the state of torch's own generator is of no account
    assert same(first, draw())


def test_prompt_and_guidance_steer(pipeline: ImagePipeline) -> None:
    picture = pipeline("a red apple", seed=0, steps=3)[0]
    assert not same(picture, pipeline("a green cat", seed=0, steps=3)[0])
    assert not same(picture, pipeline("a red apple", seed=0, steps=3, guidance_scale=1)[0])
    assert not same(picture, pipeline("a red apple", seed=0, steps=3, negative_prompt="dog")[0])


def test_a_batch_is_close_to_pictures_made_alone(pipeline: ImagePipeline) -> None:
    """As on a GPU, where pictures are computed together."""
    plan = pipeline.plan(["a cat", "a red dog"], count=2, seed=3, steps=3, sampler="ddpm")
    alone = list(pipeline.generate(plan))
    together = pipeline._sample(plan, None)
    for first, second in zip(alone, together, strict=True):
        assert difference(first, second) in ("identical", "differs: by at most 1 grey level")


def test_diffusers_draws_the_same_picture_from_the_same_folder(
    pipeline: ImagePipeline, tiny_model: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.DDIMScheduler.from_config(
        theirs.scheduler.config,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    expected = theirs(
        "a red apple",
        negative_prompt="a dog",
        num_inference_steps=5,
        guidance_scale=3.0,
        latents=seeded_noise([7], (4, 8, 8)),
    ).images[0]
    (picture,) = pipeline(
        "a red apple",
        negative_prompt="a dog",
        seed=7,
        steps=5,
        guidance_scale=3.0,
        sampler="ddim",
        schedule="trained",
    )
    assert difference(picture, expected) in ("identical", "differs: by at most 1 grey level")


def test_overflow_is_told(pipeline: ImagePipeline) -> None:
    broken = replace(pipeline, codec=ImageCodec(pipeline.codec.vae))
    broken.codec.scaling_factor = 0.0
    with pytest.raises(UserError, match="overflowed"):
        broken("a cat", steps=1)


def test_batches_join_what_differs_in_prompt_and_seed_only(pipeline: ImagePipeline) -> None:
    plan = pipeline.plan(["a cat", "a dog"], count=6, steps=2)
    plan.append(replace(plan[0], steps=3))
    assert [len(batch) for batch in pipeline.batches(plan)] == [1] * 13
    on_gpu = replace(pipeline, device=torch.device("cuda"))
    assert [len(batch) for batch in on_gpu.batches(plan)] == [8, 4, 1]


def test_callback_sees_every_step(pipeline: ImagePipeline) -> None:
    seen = []
    pipeline("a cat", steps=3, count=2, callback=lambda step, x, sigma, denoised: seen.append(step))
    assert seen == [0, 1, 2] * 2


def test_bad_values_are_user_errors(pipeline: ImagePipeline) -> None:
    with pytest.raises(UserError, match="steps"):
        pipeline("a cat", steps=0)
    with pytest.raises(UserError, match="prompt is empty"):
        pipeline(["a cat", " "])
    with pytest.raises(UserError, match="1000"):  # more steps than trained levels
        pipeline("a cat", steps=1001, schedule="trained")


def test_remarks(pipeline: ImagePipeline) -> None:
    assert pipeline.remarks("a red apple") == pipeline.remarks("") == []
    (remark,) = pipeline.remarks("purple catt")
    assert "purple" in remark and "catt (nearest: cat" in remark
    assert "and 2 more" in pipeline.remarks(" ".join("q" * n for n in range(1, 11)))[0]


def test_png_carries_its_settings(pipeline: ImagePipeline, tmp_path: Path) -> None:
    plan = pipeline.plan('a "cat", réd 🍎\nNegative prompt: x', negative_prompt="dog", steps=1)
    (picture,) = pipeline.generate(plan)
    save_png(picture, tmp_path / "x.png", plan[0])
    again, text = open_png(tmp_path / "x.png")
    assert same(picture, again)
    assert read_settings(tmp_path / "x.png", text) == plan[0]
    assert text["parameters"] == plan[0].parameters()
    last = text["parameters"].splitlines()[-1]
    assert last.startswith("Steps: 1, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.0, ")
    assert "Seed: 0, Size: 32x32, Model hash: " in last and "Model: tiny, Version: duotone" in last
    with pytest.raises(UserError, match="exists"):
        save_png(picture, tmp_path / "x.png", plan[0])


def test_difference_in_words() -> None:
    grey = Image.new("RGB", (4, 4), (10, 10, 10))
    assert difference(grey, grey.copy()) == "identical"
    assert difference(grey, Image.new("RGB", (4, 4), (10, 11, 10))).endswith("1 grey level")
    assert difference(grey, Image.new("RGB", (4, 4), (10, 3, 11))).endswith("7 grey levels")
    assert difference(grey, grey.resize((8, 4))) == "differs: 4x4 and 8x4 pixels"


def test_size_is_parsed() -> None:
    assert parse_size("128x96") == (128, 96)
    assert parse_size("64") == (64, 64)
    for text in ("", "x", "1x2x3", "axb", "128x"):
        with pytest.raises(UserError, match="WIDTHxHEIGHT"):
            parse_size(text)


def test_codec_owns_scale_and_shift(tiny_model: Path) -> None:
    vae = load_vae(tiny_model / "vae")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        del vae.config["scaling_factor"]
        assert ImageCodec(vae).scaling_factor == 0.18215  # as diffusers takes it
        vae.config["scaling_factor"] = 0.5
        z = vae.encode(images).mode()
        assert torch.allclose(ImageCodec(vae).encode(images), z * 0.5)
        vae.config["shift_factor"] = 0.25
        shifted = ImageCodec(vae)
        latents = shifted.encode(images)
        assert torch.allclose(latents, (z - 0.25) * 0.5)
        assert torch.allclose(shifted.decode(latents), vae.decode(z).clamp(-1, 1), atol=1e-5)


def test_codec_never_computes_in_float16(tiny_model: Path) -> None:
    """The decoder of Stable Diffusion's autoencoder overflows it: black pictures."""
    codec = ImageCodec(load_vae(tiny_model / "vae", dtype=torch.float16))
    assert next(codec.vae.parameters()).dtype == torch.float32
    assert codec.decode(torch.zeros(1, 4, 8, 8)).dtype == torch.float32


def test_bfloat16_is_near_float32(pipeline: ImagePipeline, tiny_model: Path) -> None:
    coarse = ImagePipeline.load(tiny_model, "cpu", "bfloat16")
    (first,), (second,) = coarse("a cat", steps=2), pipeline("a cat", steps=2)
    assert coarse.plan("a cat")[0].dtype == "bfloat16"
    mean = np.abs(np.asarray(first, float) - np.asarray(second, float)).mean()
    assert 0 < mean < 10


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")
    assert resolve_dtype("float16", cpu) == torch.float16
    assert dtype_name(resolve_dtype("auto", cpu)) in ("float32", "bfloat16")
    for wrong in (lambda: resolve_device("tpu"), lambda: resolve_dtype("int8", cpu)):
        with pytest.raises(UserError, match="choose one of: auto"):
            wrong()


def test_the_package_has_one_lazy_name() -> None:
    assert imagediff.__all__ == ["ImagePipeline"]
    with pytest.raises(AttributeError):
        _ = imagediff.nothing  # pyright: ignore[reportAttributeAccessIssue]
