"""An upscaler's folder, whole but tiny, with random weights."""

from pathlib import Path

import torch

from imagediff.upscaler import Upscaler, build_upscaler, save_upscaler

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "in_channels": 24,
    "out_channels": 12,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "num_class_embeds": 2,
}
SCHEDULER = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def tiny_upscaler() -> Upscaler:
    """Windows of 16 pixels."""
    torch.manual_seed(0)
    return build_upscaler(UNET, SCHEDULER, (0.08, 0.14))


def write_tiny_upscaler(folder: Path) -> None:
    """Write it, in float16."""
    save_upscaler(tiny_upscaler(), SCHEDULER, folder)
