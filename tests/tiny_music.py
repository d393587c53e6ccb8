"""A music model's folder, whole but tiny, with random weights and Griffin-Lim as its vocoder."""

from pathlib import Path

import torch
from tiny import SCHEDULER, UNET, VAE
from torch import Tensor

from audiodiff.codec import FOLD
from audiodiff.controls import CHANNELS, write_controls
from audiodiff.spectrogram import FrontEnd
from audiodiff.vocoder import write_vocoder
from shared.checkpoints import write_scheduler
from shared.layout import MODEL_INDEX
from shared.text import TextEncoder, train_tokenizer
from shared.unet import UNet
from shared.vae import AutoencoderKL
from shared.weights import save_component, write_json

CAPTIONS = ["a slow waltz for piano in A minor", "fast techno with drums at bpm"]
FRONT_END = FrontEnd(n_mels=64)  # two rows of latents
WINDOW = 32  # latent frames, 2.97 s


def write_tiny_music_model(folder: Path) -> None:
    """Write it: 4 latent channels, 2 rows, windows of 32 frames in multiples of 2, 24 tokens."""
    torch.manual_seed(0)
    train_tokenizer(CAPTIONS, None, 24, folder / "tokenizer")
    text = TextEncoder.from_scratch(folder / "tokenizer", hidden_size=16, layers=1, heads=2)
    text.save(folder / "text_encoder", torch.float32)
    unet = UNET | {"sample_size": [2, WINDOW], "in_channels": 4 + CHANNELS}
    vae = VAE | {
        "in_channels": 2 * FOLD,
        "out_channels": 2 * FOLD,
        "block_out_channels": [8] * 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    save_component(UNet.from_config(unet), folder / "unet", torch.float32)
    save_component(AutoencoderKL.from_config(vae), folder / "vae", torch.float32)
    write_vocoder(folder / "vocoder", FRONT_END)
    write_scheduler(folder, SCHEDULER)
    write_controls(folder)
    write_json(
        folder / MODEL_INDEX,
        {
            "_class_name": "DuotoneMusicPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny music model\n")


def play_levels(mel: Tensor) -> Tensor:
    """A vocoder of no time: two tones as loud as the mel (b 2 f t) is."""
    levels = mel.clamp(-3, 3).exp().mean(2).repeat_interleave(512, -1)  # (b 2 s)
    return levels * torch.sin(torch.arange(levels.shape[-1]) * torch.tensor([[0.1], [0.13]])) / 30
