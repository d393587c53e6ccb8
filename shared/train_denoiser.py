"""What training a text-conditioned denoiser is in either art.

The noise levels, the captions, the loss, and two figures that tell whether the network listens to
its words and to its controls.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from shared.checkpoints import load_unet, save_component, write_scheduler
from shared.conditioning import Conditioning
from shared.config import STRICT
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import classifier_free
from shared.layers import channels_last
from shared.noise import seeded_noise
from shared.parameterization import parameterization_from_config
from shared.samplers import sample_dpmpp_2m
from shared.schedules import NoiseSchedule, schedule_from_config, trained
from shared.text import TextEncoder, train_tokenizer
from shared.training import Draw, LoopConfig
from shared.unet import UNet
from shared.vocabulary import WORDS_FILE, add_words

Repeats = dict[str, dict[str, Annotated[int, Field(ge=1)]]]
"""Label -> value -> how many times a row with it counts."""
GAP_SIGMAS = (0.3, 1.0, 3.0, 10.0, 30.0)


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True)
class NoiseLevels:
    """Which noise levels a denoiser trains on.

    ``ln sigma`` is normal with ``mean`` and ``std`` (Karras et al. 2022, arXiv 2206.00364, table 1)
    but for a share ``uniform`` of draws that are uniform in the schedule's t, so that its ends are
    visited too. What the words decide is decided at high noise: see ``caption_gap`` in the log.
    """

    mean: float = 0.8
    std: float = 1.2
    uniform: float = 0.1


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """What a run of ``train diffusion`` asks for in either art.

    Attributes:
        unet: the ``config.json`` of diffusers' UNet2DConditionModel.
        scheduler: the ``scheduler_config.json``: noise schedule and prediction type.
        loop: see :class:`shared.training.LoopConfig`.
        text: hidden_size, layers and heads of the text encoder that is trained along.
        max_tokens: tokens of a prompt, start and end included.
        noise: the noise levels.
        caption_dropout: share of samples that see an empty caption, for guidance.
        channel_weights: of the latents' channels in the loss, such as what a decoder makes of an
            error in each; none for all alike.
        latents: "vae" encodes the data; "code" takes the linear code the encoder was trained to
            reproduce, exact and far quicker.
        where: label -> values; only rows of the data with one of these are trained on, such as
            {kind: [single]} to begin a curriculum.
        repeat: label -> value -> how many times a row with it counts among the others, such as
            {kind: {recolour: 3}} for what is learnt last.
        guidance_scale: of the samples to look at.
        prompts: of the samples to look at.
        init: a model folder whose U-Net, text encoder and tokenizer to begin with.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    loop: LoopConfig
    text: dict[str, int]
    max_tokens: int = 32
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    caption_dropout: float = 0.1
    channel_weights: tuple[float, ...] = ()
    latents: Literal["vae", "code"] = "vae"
    where: dict[str, list[str]] = field(default_factory=dict)
    repeat: Repeats = field(default_factory=dict)
    guidance_scale: float = 4.0
    prompts: tuple[str, ...] = ()
    init: str | None = None


class DiffusionObjective(nn.Module):
    """The denoiser's loss with its text encoder in one module, for both learn together."""

    channel_weights: Tensor | None

    def __init__(
        self, denoiser: Denoiser, text: TextEncoder, channel_weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text = text
        weights = torch.tensor(channel_weights) if channel_weights else None
        self.register_buffer("channel_weights", weights)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the denoiser knows."""
        assert self.denoiser.schedule is not None
        return self.denoiser.schedule

    def forward(
        self, x0: Tensor, noise: Tensor, sigma: Tensor, ids: Tensor, concat: Tensor | None = None
    ) -> Tensor:
        """The loss (b,).

        Args:
            x0: (b c h w) latents.
            noise: likewise, standard normal.
            sigma: (b,) noise levels.
            ids: (b n) token ids.
            concat: (b k h w) extra input channels; h or w may be 1 where they do not vary.
        """
        if concat is not None:
            concat = concat.expand(-1, -1, *x0.shape[2:])
            concat = concat.contiguous(memory_format=torch.channels_last)
        cond = Conditioning(context=self.text(ids), concat=concat)
        x0 = x0.contiguous(memory_format=torch.channels_last)
        return self.denoiser.loss(x0, noise, sigma, cond, self.channel_weights)


@dataclass(frozen=True)
class Captions:
    """The tokens of every item's captions, of which there may be several.

    Attributes:
        ids: (m + 1, n), item after item; the last row is the empty caption's.
        first: (items + 1,) where each item's rows begin.
    """

    ids: Tensor
    first: Tensor

    @classmethod
    def tokenize(cls, captions: Sequence[Sequence[str]], text: TextEncoder) -> Captions:
        """Of the captions of each item, one or more."""
        counts = torch.tensor([0, *map(len, captions)])
        return cls(text.tokenize([c for item in captions for c in item] + [""]), counts.cumsum(0))

    def draw(self, items: Sequence[int], uniforms: Tensor, dropout: float) -> Tensor:
        """One caption's tokens (b n) an item, by uniform random numbers (b 2).

        The first decides whether it is the empty one, with probability ``dropout``; the second,
        which of the item's own it is.
        """
        index = torch.as_tensor(items)
        first, end = self.first[index], self.first[index + 1]
        chosen = first + (uniforms[:, 1] * (end - first)).long()
        return self.ids[torch.where(uniforms[:, 0] < dropout, len(self.ids) - 1, chosen)]


def draw_sigmas(uniforms: Tensor, levels: NoiseLevels, schedule: NoiseSchedule) -> Tensor:
    """Noise levels (b,) from uniform random numbers (b 2)."""
    choice, u = uniforms.double().unbind(1)
    log_normal = (levels.mean + levels.std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))).exp()
    uniform = schedule.t_to_sigma(u * (len(schedule) - 1))
    sigmas = torch.where(choice < levels.uniform, uniform, log_normal)
    return sigmas.clamp(schedule.sigma_min, schedule.sigma_max).float()


def draw_noise(
    draws: Sequence[Draw],
    items: Sequence[int],
    shape: Sequence[int],
    captions: Captions,
    config: DenoiserConfig,
    schedule: NoiseSchedule,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch takes besides its latents: noise (b c h w), sigma (b,), token ids (b n).

    Args:
        items: which item of the data each draw is.
        shape: (c h w) of the latents.
    """
    seeds = [draw.seed for draw in draws]
    # A second stream for the scalars: the first one's start is the noise itself.
    generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
    scalars = torch.stack([torch.rand(4, generator=generator) for generator in generators])
    sigma = draw_sigmas(scalars[:, :2], config.noise, schedule)
    return (
        seeded_noise(seeds, shape),
        sigma,
        captions.draw(items, scalars[:, 2:], config.caption_dropout),
    )


def rows_where(
    labels: Sequence[Mapping[str, Any]],
    where: Mapping[str, Sequence[str]],
    repeat: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> list[int]:
    """The numbers of the rows whose labels are among those asked for, as often as they count."""
    return [
        number
        for number, row in enumerate(labels)
        if all(row.get(label) in values for label, values in where.items())
        for _ in range(prod(times.get(str(row.get(label)), 1) for label, times in repeat.items()))
    ]


def build_objective(
    config: DenoiserConfig, captions: Sequence[str], out: Path
) -> DiffusionObjective:
    """The denoiser and text encoder that a run begins with, and ``out/tokenizer``.

    Args:
        captions: all of the data's; a new tokenizer learns from them.

    Raises:
        UserError: the config is at fault.
    """
    weights, channels = config.channel_weights, config.unet.get("out_channels")
    if weights and (len(weights) != channels or min(weights) < 0 or not any(weights)):
        raise UserError(
            f"channel_weights must be {channels} numbers from 0 up, one of the latents' channels "
            f"each, not {weights}"
        )
    schedule = schedule_from_config(config.scheduler)
    text = _text_encoder(config, captions, out)
    unet = UNet.from_config(config.unet)
    if config.init is not None:
        unet.load_state_dict(load_unet(Path(config.init) / "unet").state_dict())
    denoiser = Denoiser(unet, parameterization_from_config(config.scheduler, schedule), schedule)
    return DiffusionObjective(channels_last(denoiser), text, config.channel_weights)


def _text_encoder(config: DenoiserConfig, captions: Sequence[str], out: Path) -> TextEncoder:
    tokenizer = out / "tokenizer"
    if config.init is not None:
        shutil.copytree(Path(config.init) / "tokenizer", tokenizer, dirs_exist_ok=True)
        if (tokenizer / WORDS_FILE).exists():
            add_words(captions, tokenizer / WORDS_FILE)
        return TextEncoder.load(Path(config.init))
    if not (tokenizer / "tokenizer.json").exists():
        train_tokenizer(captions, None, config.max_tokens, tokenizer)
    torch.manual_seed(config.loop.seed)
    return TextEncoder.from_scratch(tokenizer, **config.text)


def save_objective(objective: DiffusionObjective, config: DenoiserConfig, out: Path) -> None:
    """Write ``unet``, ``text_encoder`` and ``scheduler`` of the model folder ``out``."""
    save_component(objective.denoiser.network, out / "unet")
    objective.text.save(out / "text_encoder")
    write_scheduler(out, config.scheduler)


def caption_gap(
    objective: DiffusionObjective,
    latents: Tensor,
    ids: Tensor,
    concat: Tensor | None = None,
    sigmas: Sequence[float] = GAP_SIGMAS,
) -> dict[str, float]:
    """How much the loss rises, relatively, when captions are exchanged, for each noise level.

    Near zero at high noise means that the model ignores its captions there: train on more of it.

    Args:
        latents: (b c h w).
        ids: (b n) token ids of a caption each.
        concat: (b k h w) as in :meth:`DiffusionObjective.forward`.
    """
    return _gap(objective, latents, (ids, concat), (ids.roll(1, 0), concat), sigmas)


def control_gap(
    objective: DiffusionObjective,
    latents: Tensor,
    ids: Tensor,
    concat: Tensor,
    sigmas: Sequence[float] = GAP_SIGMAS,
) -> dict[str, float]:
    """As :func:`caption_gap`, but ``concat`` is exchanged and the captions stay."""
    return _gap(objective, latents, (ids, concat), (ids, concat.roll(1, 0)), sigmas)


@torch.no_grad()
def _gap(
    objective: DiffusionObjective,
    latents: Tensor,
    true: tuple[Tensor, Tensor | None],
    exchanged: tuple[Tensor, Tensor | None],
    sigmas: Sequence[float],
) -> dict[str, float]:
    device = next(objective.parameters()).device
    noise = seeded_noise(range(len(latents)), latents.shape[1:]).to(device)
    latents = latents.to(device)
    gaps = {}
    for sigma in sigmas:
        levels = torch.full((len(latents),), sigma, device=device)
        losses = [
            objective(
                latents, noise, levels, ids.to(device), None if c is None else c.to(device)
            ).mean()
            for ids, c in (true, exchanged)
        ]
        gaps[f"{sigma:g}"] = round((losses[1] / losses[0] - 1).item(), 4)
    return gaps


@torch.no_grad()
def sample_latents(
    objective: DiffusionObjective,
    prompts: Sequence[str],
    shape: Sequence[int],
    guidance_scale: float,
    concat: Tensor | None = None,
) -> Tensor:
    """Latents (b c h w) of the prompts, on the CPU, one seed each, for looking at.

    Args:
        shape: (c h w) of the latents.
        concat: (b k h w) extra input channels, with and without the prompt.
    """
    device = next(objective.parameters()).device
    concat = None if concat is None else concat.to(device)
    cond = Conditioning(context=objective.text.encode(prompts), concat=concat)
    uncond = Conditioning(context=objective.text.encode([""] * len(prompts)), concat=concat)
    denoise = classifier_free(objective.denoiser, cond, uncond, guidance_scale)
    sigmas = trained(20, objective.schedule)
    x = seeded_noise(range(len(prompts)), shape).to(device) * sigmas[0]
    return sample_dpmpp_2m(denoise, x, sigmas.to(device)).cpu()
