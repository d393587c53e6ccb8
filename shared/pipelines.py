"""What the pipelines of both arts do alike: prompts in, batches, modules made ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import torch

from shared.conditioning import Conditioning
from shared.memory import keep_freed_memory
from shared.models import known_words, unknown_words
from shared.packing import pack_convolutions, remember_contexts
from shared.settings import SampleSettings
from shared.text import TextEncoder

Module = TypeVar("Module", bound=torch.nn.Module)
Settings = TypeVar("Settings", bound=SampleSettings)

GPU_BATCH = 8  # samples computed at once on a GPU


def for_sampling(module: Module) -> Module:
    """The module made quick to compute with, its weights not to be changed any more."""
    if next(module.parameters()).device.type == "cpu":
        keep_freed_memory()
    # Convolutions take tensors in this order as they are; others they re-arrange at each call.
    module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    pack_convolutions(module)  # on a CPU, the weights as well
    remember_contexts(module)
    return module.requires_grad_(False)  # guidance wants gradients through it, not to its weights


def batches(plan: Sequence[Settings], device: torch.device) -> Iterator[list[Settings]]:
    """What is computed at once: settings that differ in prompt and seed only, in their order.

    On a CPU each sample is computed alone, so that no byte of it depends on its neighbours.
    """
    most = 1 if device.type == "cpu" else GPU_BATCH
    for _, alike in groupby(plan, key=lambda settings: replace(settings, prompt="-", seed=0)):
        group = list(alike)
        for start in range(0, len(group), most):
            yield group[start : start + most]


def encode_prompts(text_encoder: TextEncoder, prompts: Sequence[str]) -> Conditioning:
    """Prompts as context (b n d), each encoded alone and once: it does not depend on the others."""
    contexts = {text: text_encoder.encode([text]) for text in dict.fromkeys(prompts)}
    return Conditioning(context=torch.cat([contexts[text] for text in prompts]))


def prompt_remarks(name: str, folder: Path, text_encoder: TextEncoder, prompt: str) -> list[str]:
    """What to tell a user about a prompt, a line each: words never seen, an end cut off.

    Args:
        name: of the model.
        folder: of the model, which may hold a list of the words that its captions had.
    """
    remarks = []
    words = known_words(folder)
    strange = unknown_words(prompt, words) if words else []
    if strange:
        told = [f"{w} (nearest: {', '.join(near)})" if near else w for w, near in strange[:8]]
        more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
        remarks.append(f"model {name!r} never saw: {'; '.join(told)}{more}")
    cut = text_encoder.truncated(prompt)
    if cut:
        shown = cut if len(cut) <= 60 else f"{cut[:60]}... ({len(cut)} characters)"
        limit = text_encoder.max_length - 2  # without start and end
        remarks.append(f"the prompt is longer than {limit} tokens; cut off: {shown}")
    return remarks
