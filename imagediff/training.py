"""Training the two parts of a text-to-image model: the autoencoder, then the denoiser.

Both write into one model folder, ``out``: first ``vae/``, then everything else. Their runs
(checkpoints, logs, sample grids) live in ``out/runs/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.codec import ImageCodec
from imagediff.data import Row, read_folder
from imagediff.latents import load_images, precompute
from imagediff.linear_code import FILE as CODE_FILE
from imagediff.linear_code import LinearCode, fit
from imagediff.sheets import save_sheet
from shared.checkpoints import load_vae, save_component, write_model_index, write_scheduler
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import classifier_free
from shared.noise import seeded_noise
from shared.parameterization import parameterization_from_config
from shared.samplers import sample_dpmpp_2m
from shared.schedules import NoiseSchedule, schedule_from_config, trained
from shared.text import TextEncoder, train_tokenizer
from shared.training import Draw, LoopConfig, train
from shared.unet import UNet
from shared.vae import AutoencoderKL

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid")


@validated(frozen=True, config=_STRICT)
@dataclass(frozen=True)
class VAEConfig:
    """A run of ``train vae``.

    Attributes:
        model: the ``config.json`` of diffusers' AutoencoderKL.
        loop: see :class:`shared.training.LoopConfig`.
        anchor_weight: of the squared distance between the encoder's mean and the linear code.
        kl_weight: of the posterior's divergence from the standard normal, a latent element.
        latent_noise: standard deviation of noise on the latents that the decoder learns from; it
            will meet a denoiser's imperfect ones.
        code_images: pictures that the linear code is fitted on.
        crop: side in pixels of the random squares that are trained on, in multiples of the latents'
            patches; 0 takes whole pictures. Backgrounds are flat: crops tell more a pixel.
        init: a ``vae`` folder whose weights to begin with.
    """

    model: dict[str, Any]
    loop: LoopConfig
    anchor_weight: float = 1.0
    kl_weight: float = 1e-6
    latent_noise: float = 0.05
    code_images: int = 4000
    crop: int = 0
    init: str | None = None


@validated(frozen=True, config=_STRICT)
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


@validated(frozen=True, config=_STRICT)
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
    latents: str = "vae"
    guidance_scale: float = 4.0
    prompts: tuple[str, ...] = ()
    init: str | None = None


def read_config(path: Path, kind: type[T]) -> T:
    """Read a YAML file as a configuration of ``kind``.

    Raises:
        UserError: the file is missing, is no YAML, or a key is missing, unknown or of a wrong type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return TypeAdapter(kind).validate_python(content)
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}") from error


# The autoencoder


class VAEObjective(nn.Module):
    """Reconstruction, closeness to the linear code, and a touch of KL."""

    def __init__(self, vae: AutoencoderKL, config: VAEConfig) -> None:
        super().__init__()
        self.vae = vae
        self.config = config

    def forward(self, images: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """(b 3 h w), (b z h/f w/f) code, standard normal noise likewise -> loss (b,)."""
        posterior = self.vae.encode(_channels_last(images))
        # The decoder learns from the code itself, so that it and the encoder never chase each
        # other: either can be trained on when the other is done.
        decoded = self.vae.decode(_channels_last(code + self.config.latent_noise * noise))
        error = decoded.float() - images
        # L1 keeps edges; the square is what PSNR counts.
        reconstruction = error.abs().flatten(1).mean(1) + 2 * error.square().flatten(1).mean(1)
        anchor = (posterior.mean.float() - code).square().flatten(1).mean(1)
        kl = posterior.kl().float() / posterior.mean[0].numel()
        return reconstruction + self.config.anchor_weight * anchor + self.config.kl_weight * kl


def train_vae(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an autoencoder on the pictures of a folder; write ``out/vae``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VAEConfig)
    rows = read_folder(data)
    vae = AutoencoderKL.from_config(config.model)
    if config.init is not None:
        vae.load_state_dict(load_vae(Path(config.init)).state_dict())
    folder = Path(out) / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CODE_FILE).exists():
        every = max(1, len(rows) // config.code_images)
        fit(_image_batches(rows[::every]), vae.latent_channels, vae.downsampling).save(folder)
    code = LinearCode.load(folder)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        seeds = [draw.seed for draw in draws]
        images = load_images([rows[draw.index].path for draw in draws])
        if config.crop:
            images = random_crops(images, config.crop, code.factor, seeds)
        latents = code.encode(images)
        return images, latents, seeded_noise(seeds, latents.shape[1:])

    examples = load_images([row.path for row in rows[-32:]])
    latents = code.encode(examples)

    @torch.no_grad()
    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, VAEObjective)
        _save_vae(objective.vae, folder)
        device = next(objective.parameters()).device
        means = objective.vae.encode(examples.to(device)).mean
        decoded = objective.vae.decode(means).clamp(-1, 1).cpu()
        pairs = torch.stack([examples[:16], decoded[:16]], dim=1).flatten(0, 1)
        save_sheet(pairs, Path(out) / "runs" / "vae" / "samples" / f"{step:06d}.png", columns=8)
        return {
            "psnr": round(psnr(examples, decoded), 2),
            "code_error": round((means.cpu() - latents).square().mean().sqrt().item(), 4),
        }

    objective = VAEObjective(vae.to(memory_format=torch.channels_last), config)
    run = Path(out) / "runs" / "vae"
    trained_one = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(trained_one, VAEObjective)
    _save_vae(trained_one.vae, folder)


def random_crops(images: Tensor, side: int, grid: int, seeds: Sequence[int]) -> Tensor:
    """A square of each picture (b 3 h w), its corner on a multiple of ``grid``, by its seed.

    Raises:
        UserError: the pictures are smaller than the squares, or the side is off the grid.
    """
    height, width = images.shape[2:]
    if side % grid or side > min(height, width):
        raise UserError(
            f"crop {side} must be a multiple of {grid} and at most {min(height, width)}, "
            "the shorter side of the pictures"
        )
    crops = []
    for image, seed in zip(images, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        top, left = (
            int(torch.randint((length - side) // grid + 1, (), generator=generator)) * grid
            for length in (height, width)
        )
        crops.append(image[:, top : top + side, left : left + side])
    return torch.stack(crops)


def psnr(images: Tensor, decoded: Tensor) -> float:
    """Mean over pictures (b 3 h w) in [-1, 1] of the peak signal-to-noise ratio, in dB."""
    error = (images - decoded).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).mean().item()


def _save_vae(vae: AutoencoderKL, folder: Path) -> None:
    # The code's latents have unit variance already.
    vae.config = {"scaling_factor": 1.0, **vae.config}
    save_component(vae, folder)


def _image_batches(rows: Sequence[Row], size: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        yield load_images([row.path for row in rows[start : start + size]])


# The denoiser


class DiffusionObjective(nn.Module):
    """The denoiser's loss with its text encoder in one module, for both learn together."""

    def __init__(self, denoiser: Denoiser, text: TextEncoder) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text = text

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        """Latents (b c h w), noise likewise, sigma (b,), token ids (b n) -> loss (b,)."""
        cond = Conditioning(context=self.text(ids))
        return self.denoiser.loss(_channels_last(x0), _channels_last(noise), sigma, cond)


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
    latents = precompute([row.path for row in rows], encode, run / f"latents-{config.latents}")
    text = _text_encoder(config, captions, out)
    ids = text.tokenize(["", *captions])
    empty, ids = ids[0], ids[1:]
    schedule = schedule_from_config(config.scheduler)
    unet = UNet.from_config(config.unet)
    if config.init is not None:
        from shared.checkpoints import load_unet

        unet.load_state_dict(load_unet(Path(config.init) / "unet").state_dict())
    denoiser = Denoiser(unet, parameterization_from_config(config.scheduler, schedule), schedule)
    objective = DiffusionObjective(denoiser.to(memory_format=torch.channels_last), text)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        x0 = torch.stack([latents[draw.index] for draw in draws]).float()
        seeds = [draw.seed for draw in draws]
        noise = seeded_noise(seeds, x0.shape[1:])
        # A second stream for the scalars: the first one's start is the noise itself.
        scalars = torch.stack(
            [torch.rand(3, generator=torch.Generator().manual_seed(s ^ 0x5EED)) for s in seeds]
        )
        sigma = draw_sigmas(scalars[:, :2], config.noise, schedule)
        dropped = scalars[:, 2] < config.caption_dropout
        tokens = torch.where(dropped[:, None], empty, ids[[draw.index for draw in draws]])
        return x0, noise, sigma, tokens

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, DiffusionObjective)
        _save_model(objective, config, out)
        save_sheet(
            sample(objective, config, _decoder(config.latents, out / "vae")),
            run / "samples" / f"{step:06d}.png",
        )
        return {"caption_gap": caption_gap(objective, latents[-256:].float(), ids[-256:])}

    finished = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
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


def _decoder(kind: str, vae: Path) -> Callable[[Tensor], Tensor]:
    if (vae / "config.json").exists():
        return ImageCodec(load_vae(vae)).decode
    return LinearCode.load(vae).decode


def _text_encoder(config: DiffusionConfig, captions: Sequence[str], out: Path) -> TextEncoder:
    if config.init is not None:
        return TextEncoder.load(Path(config.init)).train()
    tokenizer = out / "tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
        train_tokenizer(captions, None, config.max_tokens, tokenizer)
    torch.manual_seed(config.loop.seed)
    return TextEncoder.from_scratch(tokenizer, **config.text)


def _save_model(objective: DiffusionObjective, config: DiffusionConfig, out: Path) -> None:
    save_component(objective.denoiser.network, out / "unet")
    objective.text.save(out / "text_encoder")
    write_scheduler(out, config.scheduler)
    write_model_index(out)


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)
