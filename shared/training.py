"""The training loop: accelerate's, resumable, and the same whatever the number of processes.

What is trained is an *objective*: a module whose ``forward(*batch)`` gives one loss a sample. Each
sample of a run has a number of its own, and from it follow which item it is (``Draw.index``) and
every random number drawn for it (``Draw.seed``). So a run that was killed and resumed, or spread
over several processes, sees exactly what a run in one piece would.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from shared.devices import resolve_dtype
from shared.ema import EMA
from shared.errors import UserError
from shared.files import whole_file
from shared.muon import Muon, is_hidden_matrix
from shared.naming import choose

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps in all.
        batch_size: samples a step and process.
        learning_rate: at its height.
        warmup: steps of linear rise at the start.
        anneal_from: share of the run after which the rate falls, by half a cosine, to zero.
        weight_decay, beta2: of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).
        optimizer: "adamw", or "muon": see :mod:`shared.muon`.
        clip_norm: the largest gradient norm; larger ones are scaled down to it.
        ema_decay: see :class:`shared.ema.EMA`.
        seed: of the order of samples and of all their noise.
        mixed_precision: "no" or "bf16"; "auto" is bf16 where the device is made for it.
        log_every, checkpoint_every, sample_every: steps between; 0 is never.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    anneal_from: float = 0.5
    weight_decay: float = 0.01
    beta2: float = 0.99
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    optimizer: str = "adamw"
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    log_every: int = 50
    checkpoint_every: int = 500
    sample_every: int = 500


@dataclass(frozen=True)
class Draw:
    """One sample of a run: which item of the data, the seed of its random numbers, which step."""

    index: int
    seed: int
    step: int


Batch = tuple[Tensor, ...]
MakeBatch = Callable[[Sequence[Draw]], Batch]
Report = Callable[[int, nn.Module], dict[str, Any]]
"""(steps done, the objective holding averaged weights) -> what to add to the log."""


def processes() -> AcceleratorState:
    """This process among those that train: its device, whether it is the main one, who goes first.

    As :func:`train` sees them. accelerate's ``PartialState``, made first and by itself, takes each
    of several processes on CPUs for the only one, and so does all that comes after it.
    """
    return Accelerator().state


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """The share of ``learning_rate`` that step ``step`` takes: rise, height, half a cosine down."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    start = config.anneal_from * config.steps
    if step < start:
        return 1.0
    progress = torch.tensor((step - start) / max(1.0, config.steps - start))
    return (0.5 * (1 + torch.cos(torch.pi * progress))).item()


def draws(step: int, count: int, config: LoopConfig, rank: int, processes: int) -> list[Draw]:
    """The samples of one step and process, out of ``count`` items shuffled anew each epoch."""
    total = config.batch_size * processes
    first = step * total + rank * config.batch_size
    numbers = range(first, first + config.batch_size)
    orders = {epoch: _order(epoch, count, config.seed) for epoch in {n // count for n in numbers}}
    return [Draw(orders[n // count][n % count], config.seed * 1_000_003 + n, step) for n in numbers]


_ORDERS: dict[tuple[int, int, int], list[int]] = {}


def _order(epoch: int, count: int, seed: int) -> list[int]:
    key = (epoch, count, seed)
    if key not in _ORDERS:
        _ORDERS.clear()  # one epoch at a time is in use
        generator = torch.Generator().manual_seed(seed * 65_537 + epoch)
        _ORDERS[key] = torch.randperm(count, generator=generator).tolist()
    return _ORDERS[key]


def train(
    objective: nn.Module,
    make_batch: MakeBatch,
    count: int,
    config: LoopConfig,
    folder: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> nn.Module:
    """Minimize the objective's mean loss; return it with averaged weights.

    Runs alone or under ``accelerate launch``, on CPUs or GPUs. Progress goes to stderr, and to
    ``folder/log.jsonl`` as one JSON object a line: step, loss, rate, samples a second and minutes
    left, with what ``report`` adds.

    Args:
        objective: ``objective(*batch)`` is a loss a sample, (b,).
        make_batch: the CPU tensors of some samples.
        count: items in the data.
        folder: for the checkpoint and the log.
        resume: go on from the checkpoint in the folder, if there is one.
        report: called every ``sample_every`` steps and at the end, on the main process.

    Raises:
        UserError: the folder holds a checkpoint and ``resume`` is off, or it belongs to another
            model, or there is nothing to train on.
    """
    if count < 1:
        raise UserError("there is nothing to train on: the data holds no items")
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise UserError(
            f"{folder} holds a run already; go on with --resume or choose another --out"
        )
    accelerator = Accelerator()
    device = accelerator.device
    native = resolve_dtype("auto", device) == torch.bfloat16
    bf16 = native if config.mixed_precision == "auto" else config.mixed_precision == "bf16"
    folder.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(config.seed)
    optimizers = choose("optimizer", config.optimizer, OPTIMIZERS)(objective, config)
    average = EMA(objective, config.ema_decay)
    done = 0
    if checkpoint.exists():
        done = _load_checkpoint(checkpoint, objective, optimizers, average)
    model = accelerator.prepare(objective)
    optimizers = [accelerator.prepare(optimizer) for optimizer in optimizers]
    average.averages = {k: v.to(accelerator.device) for k, v in average.averages.items()}

    rank, processes = accelerator.process_index, accelerator.num_processes
    main = accelerator.is_main_process
    bar = tqdm(total=config.steps, initial=done, unit="step", disable=not main, smoothing=0.05)
    losses: list[Tensor] = []
    since, began = done, time.monotonic()
    for step in range(done, config.steps):
        batch = make_batch(draws(step, count, config, rank, processes))
        batch = tuple(tensor.to(accelerator.device, non_blocking=True) for tensor in batch)
        rate = config.learning_rate * learning_rate_factor(step, config)
        for group in itertools.chain.from_iterable(o.param_groups for o in optimizers):
            group["lr"] = rate
        # Not accelerate's autocast: its precision is fixed once for the whole process.
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(*batch).mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(accelerator.unwrap_model(model), step)
        losses.append(loss.detach())
        done = step + 1
        bar.update()
        last = done == config.steps
        entry: dict[str, Any] = {}
        if last or _due(done, config.log_every):
            mean = float(accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))  # pyright: ignore[reportArgumentType]
            losses.clear()
            pace = (done - since) / (time.monotonic() - began)
            since, began = done, time.monotonic()
            entry = {
                "step": done,
                "loss": round(mean, 5),
                "learning_rate": rate,
                "samples_per_second": round(pace * config.batch_size * processes, 2),
                "minutes_left": round((config.steps - done) / pace / 60, 1),
            }
            bar.set_postfix(loss=f"{mean:.4f}")
        if main and report is not None and (last or _due(done, config.sample_every)):
            averaged = _with_averages(accelerator.unwrap_model(model), average)
            entry |= {"step": done} | report(done, averaged)
            began = time.monotonic()
            since = done
        if main and entry:
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
        if main and (last or _due(done, config.checkpoint_every)):
            _save_checkpoint(checkpoint, accelerator.unwrap_model(model), optimizers, average, done)
    bar.close()
    accelerator.wait_for_everyone()
    return _with_averages(accelerator.unwrap_model(model), average)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _adamw(module: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    return [_adamw_of(module.named_parameters(), config)]


def _muon(module: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    named = list(module.named_parameters())
    hidden = [parameter for name, parameter in named if is_hidden_matrix(name, parameter)]
    rest = [(name, parameter) for name, parameter in named if not is_hidden_matrix(name, parameter)]
    muon = Muon(hidden, config.learning_rate, weight_decay=config.weight_decay)
    return [muon, _adamw_of(rest, config)]


def _adamw_of(
    named: Iterable[tuple[str, nn.Parameter]], config: LoopConfig
) -> torch.optim.Optimizer:
    parameters = [parameter for _, parameter in named]
    # Matrices and kernels decay; biases, norms' gains and other vectors do not.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(groups, config.learning_rate, betas, foreach=True)


OPTIMIZERS: dict[str, Callable[[nn.Module, LoopConfig], list[torch.optim.Optimizer]]] = {
    "adamw": _adamw,
    "muon": _muon,
}


def _with_averages(module: nn.Module, average: EMA) -> nn.Module:
    averaged = copy.deepcopy(module).eval()
    average.copy_to(averaged)
    return averaged


# A checkpoint is one safetensors file, so that resuming never loads a pickle: the parameters, their
# averages, the optimizers' moments, and the number of steps done in the file's metadata.
_MOMENTS = ("exp_avg", "exp_avg_sq")


def _save_checkpoint(
    path: Path, module: nn.Module, optimizers: Sequence[Any], average: EMA, steps: int
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        tensors[f"ema/{name}"] = average.averages[name]
        for optimizer in optimizers:
            state = optimizer.state.get(parameter, {})
            tensors |= {f"{key}/{name}": state[key] for key in _MOMENTS if key in state}
    tensors = {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}
    with whole_file(path, overwrite=True) as file:
        file.write(save(tensors, metadata={"steps": str(steps)}))


def _load_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[Any], average: EMA) -> int:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            steps = int((file.metadata() or {})["steps"])
        names = {parameter: name for name, parameter in module.named_parameters()}
        with torch.no_grad():
            for parameter, name in names.items():
                parameter.copy_(tensors[f"model/{name}"])
        for optimizer in optimizers:
            for parameter in itertools.chain(*(g["params"] for g in optimizer.param_groups)):
                keys = {key: f"{key}/{names[parameter]}" for key in _MOMENTS}
                state = {key: tensors[k].clone() for key, k in keys.items() if k in tensors}
                if state:
                    optimizer.state[parameter] = {"step": torch.tensor(float(steps)), **state}
        average.load({name: tensors[f"ema/{name}"] for name in names.values()})
    except Exception as error:
        raise UserError(
            f"{path} does not fit this model ({error}); choose another --out"
        ) from error
    return steps
