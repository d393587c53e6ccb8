"""A model folder in diffusers' layout, whole but tiny, with random weights."""

from pathlib import Path

import torch

from shared.checkpoints import write_model_index, write_scheduler
from shared.text import TextEncoder, train_tokenizer
from shared.unet import UNet
from shared.vae import AutoencoderKL
from shared.weights import save_component

CAPTIONS = ["a red apple on a blue background", "a green cat to the left of a dog"]

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 32,
    "scaling_factor": 0.5,
}
SCHEDULER = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
}


def write_tiny_model(folder: Path) -> None:
    """Write it: 32x32 pixels (sides are multiples of 8), 12 tokens, two captions' words."""
    torch.manual_seed(0)
    train_tokenizer(CAPTIONS, None, 12, folder / "tokenizer")
    text = TextEncoder.from_scratch(folder / "tokenizer", hidden_size=16, layers=1, heads=2)
    text.save(folder / "text_encoder", torch.float32)
    save_component(UNet.from_config(UNET), folder / "unet", torch.float32)
    save_component(AutoencoderKL.from_config(VAE), folder / "vae", torch.float32)
    write_scheduler(folder, SCHEDULER)
    write_model_index(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny model\n")
