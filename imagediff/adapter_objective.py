"""What is trained of an adapter: its configuration, its loss, where it begins and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic.dataclasses import dataclass as validated
from safetensors.torch import save
from torch import Tensor, nn

from imagediff.adapter import INPUTS, AdapterInputs, Told, load_inputs
from shared.checkpoints import load_denoiser
from shared.conditioning import Conditioning
from shared.config import STRICT
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.layers import channels_last
from shared.layout import ADAPTER
from shared.low_rank import DIFFERENCE, begin_with, difference, make_low_rank, take_more_inputs
from shared.text import TextEncoder
from shared.train_denoiser import NoiseLevels
from shared.training import LoopConfig
from shared.unet import UNet
from shared.weights import load_state, save_component, write_bytes, write_json


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A run of ``train adapter``.

    Attributes:
        loop: see :class:`shared.training.LoopConfig`.
        model: name or folder of the model that the adapter is for.
        init: a folder that this command made before, whose adapter to go on from.
        rank: of the difference to the model's U-Net.
        phrases: channels that what regions hold is told in.
        noise: the noise levels.
        caption_dropout, layout_dropout: share of samples with an empty caption, without a layout.
        hole: share of samples of which something is known.
        some: share of the layouts of several regions that leave one out.
        guidance_scale: of the samples to look at.
        latents: "vae" encodes the data; "code" takes the linear code, if the model has one.
    """

    loop: LoopConfig
    art: Literal["image"] = "image"
    model: str = "builtin"
    init: str | None = None
    rank: int = 3
    phrases: int = 12
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    caption_dropout: float = 0.1
    layout_dropout: float = 0.25
    hole: float = 0.4
    some: float = 0.1
    guidance_scale: float = 4.0
    latents: Literal["vae", "code"] = "vae"


class AdapterObjective(nn.Module):
    """The loss of the model's denoiser with the adapter; nothing else of it is trained."""

    def __init__(
        self, denoiser: Denoiser, inputs: AdapterInputs, encode: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.inputs = inputs
        # A plain function, for what is trained must not own the text encoder: its weights would be
        # averaged and kept in checkpoints.
        self.encode = encode

    def forward(
        self,
        x0: Tensor,
        noise: Tensor,
        sigma: Tensor,
        ids: Tensor,
        shares: Tensor,
        phrases: Tensor,
        said: Tensor,
        free: Tensor,
    ) -> Tensor:
        """The loss (b,).

        Args:
            x0: (b c h w) latents.
            noise: likewise, standard normal.
            sigma: (b,) noise levels.
            ids: (b n) token ids.
            shares, phrases, said, free: see :class:`imagediff.adapter.Told`.
        """
        concat = self.inputs(Told(shares, phrases, said, free, x0))
        concat = concat.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            context = self.encode(ids)
        x0 = x0.contiguous(memory_format=torch.channels_last)
        return self.denoiser.loss(x0, noise, sigma, Conditioning(context=context, concat=concat))


def build_objective(config: AdapterConfig, model: Path, text: TextEncoder) -> AdapterObjective:
    """The model's denoiser, ready to learn from further inputs.

    Raises:
        UserError: the model has no such U-Net, or what to begin with does not fit.
    """
    denoiser = load_denoiser(model)
    network = denoiser.network
    if not isinstance(network, UNet) or denoiser.schedule is None:
        raise UserError(f"{model} has no U-Net with a list of trained noise levels")
    if network.hyper.context_dim is None:
        raise UserError(f"the U-Net of {model} attends to no text; an adapter tells it phrases")
    torch.manual_seed(config.loop.seed)
    latents = network.hyper.out_channels
    inputs = AdapterInputs(network.hyper.context_dim, config.phrases, latents)
    wide = UNet.from_config(
        network.config | {"in_channels": network.hyper.in_channels + inputs.channels}
    )
    wide.conv_in = network.conv_in  # the model's own, and the further channels beside it
    wide.load_state_dict(network.state_dict())
    wide = channels_last(wide)
    take_more_inputs(wide.conv_in, inputs.channels)
    make_low_rank(wide, config.rank, seed=config.loop.seed)
    if config.init is not None:
        former = Path(config.init)
        begun = load_inputs(former)
        if begun.config != inputs.config:
            raise UserError(
                f"the adapter in {former} has inputs {begun.config}, this run {inputs.config}"
            )
        inputs.load_state_dict(begun.state_dict())
        begin_with(wide, load_state(former / ADAPTER / "unet", DIFFERENCE))
    return AdapterObjective(
        Denoiser(wide, denoiser.parameterization, denoiser.schedule), inputs, text.forward_ids
    )


def save_adapter(objective: AdapterObjective, out: Path) -> None:
    """Write ``out/adapter``: ``unet/`` (config and difference) and ``inputs/``, in float16."""
    root, network = out / ADAPTER, objective.denoiser.network
    assert isinstance(network, UNet)
    state = {key: tensor.to("cpu", torch.float16) for key, tensor in difference(network).items()}
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    write_bytes(
        root / "unet" / f"{DIFFERENCE}.safetensors", save(tensors, metadata={"format": "pt"})
    )
    write_json(root / "unet" / "config.json", network.config)
    save_component(objective.inputs, root / INPUTS)
