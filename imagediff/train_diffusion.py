"""Training a text-conditioned denoiser, with its text encoder, in an autoencoder's latents.

Completes the model folder ``out`` beside ``out/vae``; the run (checkpoint, log, sample grids,
latents) lives in ``out/runs/diffusion``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.codec import ImageCodec
from imagediff.data import read_folder
from imagediff.latents import precompute
from imagediff.linear_code import LinearCode
from imagediff.sheets import save_sheet
from shared.checkpoints import (
    load_unet,
    load_vae,
    save_component,
    write_model_index,
    write_scheduler,
)
from shared.conditioning import Conditioning
from shared.config import STRICT, read_config
from shared.denoiser import Denoiser
from shared.guidance import classifier_free
from shared.layers import channels_last
from shared.noise import seeded_noise
from shared.parameterization import parameterization_from_config
from shared.samplers import sample_dpmpp_2m
from shared.schedules import NoiseSchedule, schedule_from_config, trained
from shared.text import TextEncoder, train_tokenizer
from shared.training import Draw, LoopConfig, train
from shared.unet import UNet


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


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True)
class DiffusionConfig:
    """A run of ``train diffusion``.

    Attributes:
        unet: the ``config.json`` of diffusers' UNet2DConditionModel.
        scheduler: the ``scheduler_config.json``: noise schedule and prediction type.
        loop: see :class:`shared.training.LoopConfig`.
        text: hidden_size, layers and heads of the text encoder that is trained along.
        max_tokens: tokens of a prompt, start and end included.
        noise: the noise levels.
        caption_dropout: share of samples that see an empty caption, for guidance.
        latents: "vae" encodes the pictures; "code" takes the linear code the encoder was trained
            to reproduce, exact and far quicker.
        where: label -> values; only rows of the data with one of these are trained on, such as
            {kind: [single]} to begin a curriculum.
        guidance_scale: of the sample grids.
        prompts: of the sample grids.
        init: a model folder whose U-Net, text encoder and tokenizer to begin with.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    loop: LoopConfig
    text: dict[str, int]
    max_tokens: int = 32
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    caption_dropout: float = 0.1
    latents: Literal["vae", "code"] = "vae"
    where: dict[str, list[str]] = field(default_factory=dict)
    guidance_scale: float = 4.0
    prompts: tuple[str, ...] = ()
    init: str | None = None


class DiffusionObjective(nn.Module):
    """The denoiser's loss with its text encoder in one module, for both learn together."""

    def __init__(self, denoiser: Denoiser, text: TextEncoder) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text = text

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        """Latents (b c h w), noise likewise, sigma (b,), token ids (b n) -> loss (b,)."""
        cond = Conditioning(context=self.text(ids))
        x0 = x0.contiguous(memory_format=torch.channels_last)
        return self.denoiser.loss(x0, noise, sigma, cond)


def draw_sigmas(uniforms: Tensor, levels: NoiseLevels, schedule: NoiseSchedule) -> Tensor:
    """Noise levels (b,) from uniform random numbers (b 2)."""
    choice, u = uniforms.double().unbind(1)
    log_normal = (levels.mean + levels.std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))).exp()
    uniform = schedule.t_to_sigma(u * (len(schedule) - 1))
    sigmas = torch.where(choice < levels.uniform, uniform, log_normal)
    return sigmas.clamp(schedule.sigma_min, schedule.sigma_max).float()


def train_diffusion(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train a text-conditioned denoiser and its text encoder; complete the model folder ``out``.

    ``out/vae`` has to be there (``train vae``, or any diffusers AutoencoderKL with its config).

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, DiffusionConfig)
    out = Path(out)
    run = out / "runs" / "diffusion"
    rows = read_folder(data)
    captions = [row.text for row in rows]
    encode = _encoder(config.latents, out / "vae")
    with PartialState().main_process_first():  # the others find what it has written
        latents = precompute([row.path for row in rows], encode, run / f"latents-{config.latents}")
        text = _text_encoder(config, captions, out)
    ids = text.tokenize(["", *captions])
    empty, ids = ids[0], ids[1:]
    chosen = [
        i
        for i, row in enumerate(rows)
        if all(row.labels.get(label) in values for label, values in config.where.items())
    ]
    schedule = schedule_from_config(config.scheduler)
    unet = UNet.from_config(config.unet)
    if config.init is not None:
        unet.load_state_dict(load_unet(Path(config.init) / "unet").state_dict())
    denoiser = Denoiser(unet, parameterization_from_config(config.scheduler, schedule), schedule)
    objective = DiffusionObjective(channels_last(denoiser), text)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        items = [chosen[draw.index] for draw in draws]
        x0 = latents[items].float()
        seeds = [draw.seed for draw in draws]
        noise = seeded_noise(seeds, x0.shape[1:])
        # A second stream for the scalars: the first one's start is the noise itself.
        scalars = torch.stack(
            [torch.rand(3, generator=torch.Generator().manual_seed(s ^ 0x5EED)) for s in seeds]
        )
        sigma = draw_sigmas(scalars[:, :2], config.noise, schedule)
        dropped = scalars[:, 2] < config.caption_dropout
        tokens = torch.where(dropped[:, None], empty, ids[items])
        return x0, noise, sigma, tokens

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, DiffusionObjective)
        _save_model(objective, config, out)
        save_sheet(
            sample(objective, config, _decoder(out / "vae")),
            run / "samples" / f"{step:06d}.png",
        )
        return {"caption_gap": caption_gap(objective, latents[-256:].float(), ids[-256:])}

    finished = train(
        objective, make_batch, len(chosen), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, DiffusionObjective)
    _save_model(finished, config, out)


@torch.no_grad()
def caption_gap(
    objective: DiffusionObjective,
    latents: Tensor,
    ids: Tensor,
    sigmas: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0),
) -> dict[str, float]:
    """How much the loss rises, relatively, when captions are exchanged, for each noise level.

    Near zero at high noise means that the model ignores its captions there: train on more of it.
    """
    gaps = {}
    device = next(objective.parameters()).device
    noise = seeded_noise(range(len(latents)), latents.shape[1:]).to(device)
    latents, ids = latents.to(device), ids.to(device)
    for sigma in sigmas:
        levels = torch.full((len(latents),), sigma, device=device)
        true = objective(latents, noise, levels, ids).mean()
        shuffled = objective(latents, noise, levels, ids.roll(1, 0)).mean()
        gaps[f"{sigma:g}"] = round((shuffled / true - 1).item(), 4)
    return gaps


@torch.no_grad()
def sample(
    objective: DiffusionObjective, config: DiffusionConfig, decode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Pictures (b 3 h w) of the config's prompts, one seed each, for looking at."""
    denoiser, text = objective.denoiser, objective.text
    assert denoiser.schedule is not None
    device = next(objective.parameters()).device
    prompts = config.prompts or ("",)
    cond = Conditioning(context=text.encode(prompts))
    uncond = Conditioning(context=text.encode([""] * len(prompts)))
    denoise = classifier_free(denoiser, cond, uncond, config.guidance_scale)
    sigmas = trained(20, denoiser.schedule)
    side = config.unet["sample_size"]
    shape = (config.unet["in_channels"], side, side)
    x = seeded_noise(range(len(prompts)), shape).to(device) * sigmas[0]
    return decode(sample_dpmpp_2m(denoise, x, sigmas.to(device)).cpu()).clamp(-1, 1)


def _encoder(kind: str, vae: Path) -> Callable[[Tensor], Tensor]:
    if kind == "code":
        return LinearCode.load(vae).encode
    return ImageCodec(load_vae(vae)).encode


def _decoder(vae: Path) -> Callable[[Tensor], Tensor]:
    if (vae / "config.json").exists():
        return ImageCodec(load_vae(vae)).decode
    return LinearCode.load(vae).decode


def _text_encoder(config: DiffusionConfig, captions: Sequence[str], out: Path) -> TextEncoder:
    tokenizer = out / "tokenizer"
    if config.init is not None:
        shutil.copytree(Path(config.init) / "tokenizer", tokenizer, dirs_exist_ok=True)
        return TextEncoder.load(Path(config.init))
    if not (tokenizer / "tokenizer.json").exists():
        train_tokenizer(captions, None, config.max_tokens, tokenizer)
    torch.manual_seed(config.loop.seed)
    return TextEncoder.from_scratch(tokenizer, **config.text)


def _save_model(objective: DiffusionObjective, config: DiffusionConfig, out: Path) -> None:
    save_component(objective.denoiser.network, out / "unet")
    objective.text.save(out / "text_encoder")
    write_scheduler(out, config.scheduler)
    write_model_index(out)
