"""`duotone models average`: weights between those of two models."""

import shutil
from pathlib import Path

import torch
from command import Duotone
from safetensors.torch import load_file, save_file

from imagediff import ImagePipeline

UNET = "unet/diffusion_pytorch_model.safetensors"


def trained_on(model: Path, folder: Path) -> Path:
    """The model with other weights in its U-Net."""
    shutil.copytree(model, folder)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for key, tensor in load_file(folder / UNET).items()
    }
    save_file(state, folder / UNET, metadata={"format": "pt"})
    return folder


def test_an_average_lies_between_and_is_a_model(
    duotone: Duotone, tiny_model: Path, tmp_path: Path
) -> None:
    other, out = trained_on(tiny_model, tmp_path / "other"), tmp_path / "average"
    result = duotone("models", "average", tiny_model, other, "--share", "0.25", "--out", out)
    assert result.code == 0 and result.out == [str(out)]
    first, second, mixed = (load_file(folder / UNET) for folder in (tiny_model, other, out))
    for key, tensor in mixed.items():
        expected = 0.75 * first[key].double() + 0.25 * second[key].double()
        torch.testing.assert_close(tensor.double(), expected, atol=2e-3, rtol=1e-3)
        assert tensor.dtype == first[key].dtype
    (picture,) = ImagePipeline.load(out, device="cpu")("a red apple", steps=1)
    assert picture.size == (32, 32)
    whole = tmp_path / "first"
    duotone("models", "average", tiny_model, other, "--share", "0", "--out", whole)
    assert all(torch.equal(tensor, first[key]) for key, tensor in load_file(whole / UNET).items())


def test_what_cannot_be_averaged_is_refused(
    duotone: Duotone, tiny_model: Path, tiny_music_model: Path, tmp_path: Path
) -> None:
    def refusal(*args: object) -> str:
        result = duotone("models", "average", *args)
        assert result.code == 2 and not (tmp_path / "out").exists()
        return result.err

    out = ("--out", tmp_path / "out")
    assert "0 to 1" in refusal(tiny_model, tiny_model, "--share", "1.5", *out)
    assert "same tensors" in refusal(tiny_model, tiny_music_model, *out)
    assert "exists already" in refusal(tiny_model, tiny_model, "--out", tiny_model)
