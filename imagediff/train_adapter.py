"""Training the adapter that a picture model carries: layouts, and holes to be filled, on its plane.

The model's own weights stay as they are; a low-rank difference, the weights of the further input
channels and the projection of phrases are learnt. Makes ``out`` a model folder of its own, a copy
of the model with ``adapter/``; the run lives in ``out/runs/adapter``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imagediff.adapter import Told, encode_phrases
from imagediff.adapter_objective import (
    AdapterConfig,
    AdapterObjective,
    build_objective,
    save_adapter,
)
from imagediff.data import read_folder
from imagediff.latents import precompute
from imagediff.region_data import RegionData, draw_hole, draw_shares, lies_in, read_regions
from imagediff.regions import MOST_REGIONS
from imagediff.sheets import save_sheet
from imagediff.train_diffusion import decoder, encoder
from shared.conditioning import Conditioning
from shared.config import read_config
from shared.errors import UserError
from shared.guidance import classifier_free
from shared.latents import encoder_files
from shared.layout import ADAPTER, MODEL_INDEX, component_names, read_model_index
from shared.models import find_model
from shared.noise import seeded_noise
from shared.samplers import sample_dpmpp_2m
from shared.schedules import trained
from shared.text import TextEncoder
from shared.train_denoiser import draw_sigmas
from shared.training import Draw, processes, train

GAP_SIGMAS, GAP_PICTURES = (1.0, 5.0, 25.0), 64
LOOKED_AT = 16  # last pictures of the data whose layouts and holes samples are drawn for


def train_adapter(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an adapter on a folder of pictures whose objects' boxes and outlines are known.

    Raises:
        UserError: the config, the data or the model is at fault, or ``out`` is in use.
    """
    config = read_config(config_path, AdapterConfig)
    model, out = find_model(config.model, "image").folder, Path(out)
    if (out / MODEL_INDEX).exists() and not resume:
        raise UserError(f"{out} holds a model already; go on with --resume or choose another --out")
    run = out / "runs" / "adapter"
    rows = read_folder(data)
    encode = encoder(config.latents, model / "vae")
    with processes().main_process_first():  # the others find what it has written
        latents = precompute(
            [row.path for row in rows],
            encode,
            encoder_files(config.latents, model / "vae"),
            run / f"latents-{config.latents}",
        )
        _copy_model(model, out)
    grid = (latents.shape[2], latents.shape[3])
    regions = read_regions(rows, _pixels(rows[0].path))
    text = TextEncoder.load(model, processes().device).requires_grad_(False).eval()
    objective = build_objective(config, model, text)
    examples = _Examples(
        config,
        regions,
        latents,
        captions=text.tokenize([row.text for row in rows]),
        named=text.tokenize(regions.phrases),
        nothing=text.tokenize([""]),
        encoded=encode_phrases(text, regions.phrases).cpu(),
        grid=grid,
    )
    schedule = objective.denoiser.schedule
    assert schedule is not None

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        seeds = [draw.seed for draw in draws]
        told = [examples.draw(draw.index, draw.seed) for draw in draws]
        ids, shares, phrases, said, free = (torch.stack(part) for part in zip(*told, strict=True))
        x0 = latents[[draw.index for draw in draws]].float()
        # A second stream for the scalars: the first one's start is the noise itself.
        generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
        scalars = torch.stack([torch.rand(2, generator=generator) for generator in generators])
        sigma = draw_sigmas(scalars, config.noise, schedule)
        return x0, seeded_noise(seeds, x0.shape[1:]), sigma, ids, shares, phrases, said, free

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, AdapterObjective)
        save_adapter(objective, out)
        sheet = run / "samples" / f"{step:06d}.png"
        save_sheet(_samples(objective, examples, text, decoder(model / "vae")), sheet)
        return examples.gaps(objective)

    finished = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, AdapterObjective)
    save_adapter(finished, out)


@dataclass(frozen=True, eq=False)
class _Examples:
    """What the samples of a run are told.

    Attributes:
        captions: token ids (n m) of the pictures' captions.
        named: token ids of the regions' phrases, one each.
        nothing: token ids (1 m) of the empty caption.
        encoded: (phrases d), see :func:`imagediff.adapter.encode_phrases`.
    """

    config: AdapterConfig
    regions: RegionData
    latents: Tensor
    captions: Tensor
    named: Tensor
    nothing: Tensor
    encoded: Tensor
    grid: tuple[int, int]

    def draw(self, item: int, seed: int) -> tuple[Tensor, ...]:
        """Token ids, shares, phrases, said and free of one sample."""
        rng, config = np.random.default_rng(seed), self.config
        regions = self.regions.items[item]
        ids = self.captions[item]
        free = np.ones(self.grid, bool)
        if rng.random() < config.hole:
            free = draw_hole(regions, self.grid, rng)
            within = lies_in(regions, free)
            # Who fills a hole names what goes there, not all of the picture.
            if within and rng.random() < 0.5:
                ids = self.named[regions.phrases[within[int(rng.integers(len(within)))]]]
        if rng.random() < config.caption_dropout:
            ids = self.nothing[0]
        shares, phrases = self.layout(item, draw_shares(regions, self.grid, rng))
        if len(regions.boxes) > 1 and rng.random() < config.some:
            shares[int(rng.integers(len(regions.boxes)))] = 0
        said = torch.tensor(float(rng.random() >= config.layout_dropout))
        return ids, shares, phrases, said, torch.from_numpy(free)[None].float()

    def layout(self, item: int, shares: np.ndarray) -> tuple[Tensor, Tensor]:
        """Shares and phrases with empty regions up to as many as there can be."""
        regions = self.regions.items[item]
        padded = torch.zeros(MOST_REGIONS, *self.grid)
        padded[: len(shares)] = torch.from_numpy(shares)
        phrases = torch.zeros(MOST_REGIONS, self.encoded.shape[1])
        phrases[: len(shares)] = self.encoded[list(regions.phrases)]
        return padded, phrases

    def last(self, count: int) -> tuple[Tensor, Told, Tensor]:
        """Latents, layouts (each in a shape of its own) and holes of the last pictures, captions.

        Every second one has a hole and no layout.
        """
        items = range(max(0, len(self.latents) - count), len(self.latents))
        shares, phrases, free, said = [], [], [], []
        for item in items:
            rng, regions = np.random.default_rng(item), self.regions.items[item]
            some = self.layout(item, draw_shares(regions, self.grid, rng))
            shares.append(some[0])
            phrases.append(some[1])
            hole = draw_hole(regions, self.grid, rng) if item % 2 else np.ones(self.grid, bool)
            free.append(torch.from_numpy(hole)[None].float())
            said.append(float(item % 2 == 0))
        known = self.latents[items.start :].float()
        told = Told(
            torch.stack(shares), torch.stack(phrases), torch.tensor(said), torch.stack(free), known
        )
        return known, told, self.captions[items.start :]

    @torch.no_grad()
    def gaps(self, objective: AdapterObjective) -> dict[str, Any]:
        """How much the loss rises, relatively, for each noise level.

        When layouts are another picture's, when regions of one picture exchange what they hold,
        and when what is known is not told.
        """
        device = next(objective.parameters()).device
        x0, told, ids = self.last(GAP_PICTURES)
        noise = seeded_noise(range(len(x0)), x0.shape[1:])
        everywhere, always = torch.ones_like(told.free), torch.ones_like(told.said)
        right = (told.shares, told.phrases)
        wrong = (told.shares.roll(1, 0), told.phrases.roll(1, 0))
        counts = [len(regions.boxes) for regions in self.regions.items[-len(x0) :]]
        turned = [
            torch.cat([these[:n].roll(1, 0), these[n:]])
            for these, n in zip(told.phrases, counts, strict=True)
        ]
        swapped = (told.shares, torch.stack(turned))

        def loss(sigma: float, *layout: Tensor) -> float:
            levels = torch.full((len(x0),), sigma)
            batch = (x0, noise, levels, ids, *layout)
            return objective(*(tensor.to(device) for tensor in batch)).mean().item()

        def risen(false: float, true: float) -> float:
            return round(false / true - 1, 4)

        layout, places, hole = {}, {}, {}
        for sigma in GAP_SIGMAS:
            true = loss(sigma, *right, always, everywhere)
            layout[f"{sigma:g}"] = risen(loss(sigma, *wrong, always, everywhere), true)
            places[f"{sigma:g}"] = risen(loss(sigma, *swapped, always, everywhere), true)
            known = loss(sigma, *right, 0 * always, told.free)
            hole[f"{sigma:g}"] = risen(loss(sigma, *right, 0 * always, everywhere), known)
        return {"layout_gap": layout, "phrase_gap": places, "hole_gap": hole}


@torch.no_grad()
def _samples(
    objective: AdapterObjective,
    examples: _Examples,
    text: TextEncoder,
    decode: Callable[[Tensor], Tensor],
) -> Tensor:
    """Pictures (b 3 h w) to look at: made, the real ones, and what was told; eight in a row."""
    device = next(objective.parameters()).device
    known, told, ids = examples.last(LOOKED_AT)
    parts = [told.shares, told.phrases, told.said, told.free, told.known]
    concat = objective.inputs(Told(*(part.to(device) for part in parts)))
    without = objective.inputs(
        Told(*(part.to(device) for part in (*parts[:2], 0 * parts[2], *parts[3:])))
    )
    nothing = examples.nothing.expand_as(ids)
    denoise = classifier_free(
        objective.denoiser,
        Conditioning(context=text.forward_ids(ids), concat=concat),
        Conditioning(context=text.forward_ids(nothing), concat=without),
        examples.config.guidance_scale,
    )
    schedule = objective.denoiser.schedule
    assert schedule is not None
    sigmas = trained(20, schedule).to(device)
    x = seeded_noise(range(len(known)), known.shape[1:]).to(device) * sigmas[0]
    made = decode(sample_dpmpp_2m(denoise, x, sigmas).cpu())
    real = decode(known)
    size = made.shape[2:]
    said = told.said[:, None, None, None]
    seen = said * told.shares.sum(1, keepdim=True) + (1 - said) * told.free
    maps = nn.functional.interpolate(seen, size).expand(-1, 3, -1, -1) * 2 - 1
    rows = zip(made.split(8), real.split(8), maps.split(8), strict=True)
    return torch.cat([part for row in rows for part in row]).clamp(-1, 1)


def _copy_model(model: Path, out: Path) -> None:
    """All of a model that is not there yet, but for an adapter."""
    names = [name for name in component_names(read_model_index(model)) if name != ADAPTER]
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (out / name).exists():
            shutil.copytree(model / name, out / name)
    shutil.copyfile(model / MODEL_INDEX, out / MODEL_INDEX)


def _pixels(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size
