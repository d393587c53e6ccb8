"""Linear codes of any patch, and latents that are kept until something changes."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from imagediff.codec import ImageCodec
from imagediff.latents import precompute
from shared.checkpoints import load_vae
from shared.errors import UserError
from shared.latents import cached, fingerprint, read_ahead
from shared.linear_code import FILE, LinearCode, fit
from shared.train_autoencoder import AutoencoderConfig, latent_noise
from shared.train_denoiser import DenoiserConfig, build_objective
from shared.training import LoopConfig

ROOT = Path(__file__).parents[1]


def test_patches_of_any_shape_are_coded_exactly_at_full_rank():
    mels = torch.randn(6, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    code = fit([mels[:2], mels[2:]], channels=2 * 4 * 3, patch=(4, 3))
    assert code.patch == (2, 4, 3)
    latents = code.encode(mels)
    assert latents.shape == (6, 24, 2, 4)
    assert (code.basis.T @ code.basis - torch.eye(24)).abs().max() < 1e-5
    assert (code.decode(latents) - mels).abs().max() < 1e-4
    # A patch is one column of latents and nothing else.
    mels[:, :, 4:8, 3:6] += 1
    changed = (code.encode(mels) - latents).abs().amax((0, 1)) > 1e-6
    assert changed.tolist() == [[False] * 4, [False, True, False, False]]


def test_codes_of_pictures_written_before_still_load(tmp_path):
    tensors = {"mean": torch.zeros(48), "basis": torch.eye(48)[:, :5], "scale": torch.ones(5)}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / FILE, metadata={"factor": "4"})
    assert LinearCode.load(tmp_path).patch == (3, 4, 4)
    code = fit([torch.rand(2, 2, 64, 16)], 3, (32, 8))
    code.save(tmp_path)
    assert LinearCode.load(tmp_path).patch == (2, 32, 8)


def test_latents_are_kept_until_something_changes(tmp_path):
    data, weights = tmp_path / "a.flac", tmp_path / "weights"
    data.write_bytes(b"1")
    weights.write_bytes(b"w")
    calls = []

    def get(*settings: object) -> torch.Tensor:
        def compute():
            calls.append(1)
            return {"x": torch.full((3,), float(len(calls)))}

        made_from = fingerprint([data], [weights], *settings)
        return cached(tmp_path / "kept.safetensors", made_from, compute)["x"]

    assert get(1).tolist() == get(1).tolist() == [1.0] * 3
    assert get(2).tolist() == get(2).tolist() == [2.0] * 3
    data.write_bytes(b"22")
    assert get(2).tolist() == [3.0] * 3
    weights.write_bytes(b"v")
    assert get(2).tolist() == get(2).tolist() == [4.0] * 3
    data = data.rename(tmp_path / "b.flac")
    assert get(2).tolist() == [5.0] * 3
    (tmp_path / "kept.safetensors").write_bytes(b"damaged")
    assert get(2).tolist() == [6.0] * 3


def test_pictures_of_another_folder_get_latents_of_their_own(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    for name, grey in (("one", 0), ("two", 255)):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), grey).save(tmp_path / name / "0.png", compress_level=0)

    def get(name: str) -> float:
        latents = precompute([tmp_path / name / "0.png"], lambda x: x, [weights], tmp_path / "kept")
        return latents.mean().item()

    assert (get("one"), get("two"), get("one")) == (-1.0, 1.0, -1.0)
    # A file of the right length but of an earlier version, which did not tell what it was made of.
    save_file({"latents": torch.full((1, 3, 8, 8), 9.0)}, tmp_path / "kept.safetensors")
    assert get("one") == -1.0


def test_latents_of_several_batches_are_in_the_order_of_their_files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (50 * number,) * 3).save(path)
    (tmp_path / "encoder").write_text("an encoder")
    stem = tmp_path / "kept"
    latents = precompute(paths, lambda x: x[:, :1], [tmp_path / "encoder"], stem, batch_size=2)
    assert latents.dtype == torch.float16 and latents.shape == (5, 1, 8, 8)
    wanted = torch.arange(5) * 50 / 127.5 - 1
    assert torch.allclose(latents[:, 0, 3, 3].float(), wanted, atol=1e-3)


def test_reading_ahead_keeps_the_order_and_a_few_only():
    started = []

    def read(item: int) -> int:
        started.append(item)
        return item * item

    results = read_ahead(read, range(50), threads=2, ahead=3)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 4
    assert list(results) == [i * i for i in range(1, 50)]


def test_the_carried_pictures_code_is_what_their_encoder_learnt():
    picture = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 30, 90, 110), fill="tomato", outline="black", width=3)
    draw.rectangle((60, 10, 120, 60), fill="royalblue")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    vae = ROOT / "imagediff" / "weights" / "vae"
    with torch.no_grad():
        latents = ImageCodec(load_vae(vae)).encode(pixels)
    error = LinearCode.load(vae).encode(pixels) - latents
    assert error.square().mean().sqrt() < 0.01 < latents.std() / 50


def test_noise_on_latents_is_between_its_bounds_and_by_its_seed():
    config = AutoencoderConfig(model={}, loop=LoopConfig(steps=1), latent_noise=(0.1, 0.4))
    noise = latent_noise(range(64), (4, 16, 16), config)
    spread = noise.std((1, 2, 3))
    assert spread.min() > 0.09 and spread.max() < 0.43
    assert spread.mean().item() == pytest.approx(0.25, abs=0.03) and spread.std() > 0.05
    assert torch.equal(latent_noise([7], (4, 16, 16), config)[0], noise[7])


def test_channels_weigh_what_they_are_told(tmp_path):
    asked: dict = {"unet": {"out_channels": 4}, "scheduler": {}, "text": {}}
    for weights in ((1, 2), (0, 0, 0, 0), (1, 1, 1, -1)):
        config = DenoiserConfig(**asked, loop=LoopConfig(steps=1), channel_weights=weights)
        with pytest.raises(UserError, match="channel_weights must be 4 numbers from 0 up"):
            build_objective(config, [], tmp_path)
