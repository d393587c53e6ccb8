"""The commands about music: parse, call, report. Nothing heavy is imported before it is needed."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from audiodiff import edit_commands
from audiodiff.control_options import METER, asked_controls, control_options
from audiodiff.edit_settings import EditSettings
from audiodiff.mix_settings import MixSettings
from audiodiff.settings import DEFAULT_GUIDANCE_SCALE
from shared.comparison import parse_comparison
from shared.console import (
    FILE,
    advance,
    all_of,
    count_and_seed_options,
    guidance_options,
    json_option,
    model_options,
    negative_option,
    overwrite_option,
    progress,
    quality_option,
    sampling_options,
    say,
    schedule_option,
    show,
)
from shared.errors import UserError
from shared.sampler_commands import Comparing
from shared.settings import GuidanceSettings


@click.command()
@click.argument("prompt")
@click.option(
    "-o", "--output", type=FILE, help="A .wav, .flac, .mp3 or .ogg file, or an existing folder."
)
@click.option(
    "--seconds", type=float, help="Length, 0.5 to 600.  [default: 6, or as long as controls last]"
)
@click.option("--bpm", type=float, help="Beats a minute, whatever the prompt says.")
@click.option("--key", help="Such as 'A minor', whatever the prompt says.")
@click.option("--meter", type=METER, help="Such as 3/4, whatever the prompt says.")
@control_options
@click.option("--loop", type=int, metavar="BARS", help="A loop of so many bars, without a seam.")
@click.option("--save-controls", is_flag=True, help="Chords, beats and tune as .mid beside it.")
@count_and_seed_options("Clips", "clip")
@all_of(
    sampling_options(DEFAULT_GUIDANCE_SCALE), schedule_option, guidance_options, negative_option
)
@click.option("--sample-rate", type=int, help="In Hz; by default the model's own.")
@click.option("--loudness", type=float, help="In LUFS.  [default: -16, or as --dynamics say]")
@click.option(
    "--best-of",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Make N of each clip, with as many seeds, and keep the one that holds its controls best.",
)
@click.option("--only", metavar="PART", help="A single part: drums, bass, piano, flute, ...")
@click.option(
    "--with", "along", type=FILE, help="A recording to add a part to; both are written together."
)
@click.option("--part-level", type=float, default=0.0, help="Of --with: dB over the recording.")
@click.option("--save-part", is_flag=True, help="Of --with: the part alone beside it.")
@click.option("--report", is_flag=True, help="Print how well each control was kept.")
@all_of(model_options, quality_option, json_option("clip"), overwrite_option)
def music(
    prompt: str,
    output: Path | None,
    seconds: float | None,
    bpm: float | None,
    key: str | None,
    meter: int | None,
    loop: int | None,
    save_controls: bool,
    count: int,
    seed: int | None,
    steps: int,
    guidance_scale: float,
    sampler: str,
    schedule: str,
    quality: bool,
    guidance: GuidanceSettings,
    negative_prompt: str,
    sample_rate: int | None,
    loudness: float | None,
    best_of: int | None,
    only: str | None,
    along: Path | None,
    part_level: float,
    save_part: bool,
    report: bool,
    model: str,
    device: str,
    dtype: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Make music of PROMPT and print the paths of the clips."""
    import secrets

    from audiodiff.audio_file import FORMATS
    from audiodiff.backing import laid_down, mix_settings, read_along, save_mix, save_part_alone
    from audiodiff.controls_midi import has_controls
    from audiodiff.controls_midi import save_controls as save_midi
    from audiodiff.inputs.read import read_sketch
    from audiodiff.settings import check_output
    from audiodiff.stems import alone, heard_only
    from shared.files import output_paths, slug
    from shared.models import find_model
    from shared.settings import check_count
    from shared.student import choose_denoiser

    # First what can be told without torch, whose import takes longer than all of this.
    check_count(count * (best_of or 1))
    name = slug(prompt)
    if only is not None:
        prompt, negative_prompt = alone(only, prompt, negative_prompt)
        name = f"{name}-{slug(only)}"
    found = find_model(model, "music")
    choice = choose_denoiser(
        found.folder,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        negative_prompt=negative_prompt,
        guidance=guidance,
        quality=quality,
    )
    backing = None
    if along is not None:
        backing = read_along(along, seconds, bpm, meter, loop, part_level)
        seconds, rate = backing.seconds, backing.sample_rate
        sample_rate = rate if sample_rate is None else sample_rate
    elif save_part or part_level:
        raise UserError("--save-part and --part-level are about the part that --with FILE adds")
    outline = read_sketch(asked_controls(), prompt, seconds, bpm, key, meter, loop)
    if backing is not None:
        outline = laid_down(outline, backing)
        key = key or (backing.ground.key and backing.ground.key.name)
    if best_of is not None:
        outline.check_controlled(prompt, key)
    each = best_of or 1
    first = secrets.randbelow(2**31) if seed is None else seed
    seeds = [str(first + i * each) for i in range(count)]
    chosen = "" if best_of is None else f"-best-of-{best_of}"
    names = [f"{name}-{s}{chosen}" for s in seeds]
    paths = output_paths(output, names, seeds, list(FORMATS), overwrite)
    parts = [path.with_stem(f"{path.stem}-part") for path in paths] if save_part else []
    for path in parts:
        output_paths(path, [""], [""], list(FORMATS), overwrite)
    if save_controls:
        for path in paths:
            output_paths(path.with_suffix(".mid"), [""], [""], [".mid"], overwrite)
    if loudness is None:
        loudness = outline.loudness()
    if sample_rate is not None:
        from audiodiff.clip import check_format

        check_output(sample_rate, loudness)
        check_format(paths[0].suffix.lower(), sample_rate)

    from audiodiff import MusicPipeline
    from audiodiff.best import best_of_each
    from audiodiff.kept import told

    pipeline = MusicPipeline.load(model, device, dtype, choice.student)
    plan = pipeline.plan(
        prompt,
        seconds=outline.seconds,
        bpm=outline.bpm,
        key=key,
        meter=outline.meter,
        loop=loop,
        sketch=outline.sketch,
        negative_prompt=negative_prompt,
        count=count * each,
        seed=first,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=choice.sampler,
        schedule=choice.schedule,
        guidance=guidance,
        sample_rate=sample_rate,
        loudness=loudness,
    )
    if backing is not None:
        plan = [mix_settings(one, backing, part_level) for one in plan]
    if save_controls and not has_controls(plan[0]):
        raise UserError("there are no controls to save: state a tempo, chords, a tune or a rhythm")
    about = pipeline.remarks(prompt, outline.bpm, key, outline.meter, loop)
    for remark in (*outline.notes, *about, *pipeline.remarks(negative_prompt)):
        say(f"Note: {remark}")
    with progress(steps * len(list(pipeline.batches(plan))), "step") as bar:
        clips = pipeline.generate(plan, callback=lambda *_: advance(bar))
        listening = as_json or report or best_of is not None
        for number, best in enumerate(best_of_each(clips, each, listening)):
            path = paths[number]
            if backing is None:
                best.clip.save(path, overwrite)
            else:
                save_mix(path, best.clip, backing.at(best.clip.sample_rate), overwrite)
            if parts:
                save_part_alone(parts[number], best.clip, overwrite)
            if save_controls:
                save_midi(path.with_suffix(".mid"), best.clip.settings, overwrite)
            record = {"path": str(path)} | best.clip.settings.record() | best.record()
            heard = {}
            if only is not None and listening:
                heard = {"only": heard_only(only, best.clip)}
                record |= {"kept": {**best.kept, **heard}}
            bar.write(json.dumps(record) if as_json else str(path), file=sys.stdout)
            if parts and not as_json:
                bar.write(str(parts[number]), file=sys.stdout)
            if report and not as_json:
                for line in told({**best.kept, **heard}) or ["no control was given"]:
                    bar.write(f"  {line}", file=sys.stdout)


def info(file: Path, as_json: bool, plot: Path | None, overwrite: bool) -> None:
    """Show what made the recording ``file``, if it tells, and what it sounds like.

    Raises:
        UserError: it is no audio file, or the plot cannot be written.
    """
    from audiodiff.analysis import analyse
    from audiodiff.audio_file import read_audio, read_loop
    from audiodiff.clip import what_made
    from shared.files import output_paths

    samples, sample_rate = read_audio(file)
    if plot is not None:
        (plot,) = output_paths(plot, [file.stem], [""], [".png"], overwrite)
    record, loop = what_made(file), read_loop(file)
    analysis = analyse(samples, sample_rate)
    if plot is not None:
        from audiodiff.plot import save_spectrogram

        save_spectrogram(samples, sample_rate, plot, overwrite)
        say(f"Spectrogram: {plot}")
    if as_json:
        points = {} if loop is None else {"loop_points": asdict(loop)}
        click.echo(json.dumps(record | points | {"analysis": analysis.record()}))
    else:
        points = {} if loop is None else {f"file's {k}": v for k, v in loop.lines().items()}
        # Apart from the record, whose names (seconds, key, ...) say what was asked for.
        show(record | points | {f"heard {name}": value for name, value in analysis.lines().items()})


def replay(
    file: Path,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the clip ``file`` again from its record and compare the samples.

    Raises:
        UserError: it has no record, or what is needed is not here.
    """
    from audiodiff.audio_file import FORMATS, read_audio
    from audiodiff.backing import samples_of, save_mix
    from audiodiff.clip import difference, read_settings
    from shared.files import output_paths
    from shared.sources import found

    original, _ = read_audio(file)
    recorded = read_settings(file)
    if isinstance(recorded, EditSettings):
        edit_commands.replay(file, recorded, original, output, model, device, dtype, overwrite)
        return
    suffix = file.suffix.lower()
    suffixes = sorted(FORMATS, key=lambda other: other != suffix)  # its own first
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], suffixes, overwrite)

    from audiodiff import MusicPipeline
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    name, precision = model or recorded.model, dtype or recorded.dtype
    pipeline = MusicPipeline.load(name, device, precision, recorded.student)
    (settings,) = pipeline.plan(
        recorded.prompt,
        seconds=recorded.seconds,
        bpm=recorded.bpm,
        key=recorded.key,
        meter=recorded.meter,
        loop=recorded.loop,
        sketch=recorded.sketch,
        negative_prompt=recorded.negative_prompt,
        seed=recorded.seed,
        steps=recorded.steps,
        guidance_scale=recorded.guidance_scale,
        sampler=recorded.sampler,
        schedule=recorded.schedule,
        guidance=recorded.guidance,
        sample_rate=recorded.sample_rate,
        loudness=recorded.loudness,
    )
    along = None
    if isinstance(recorded, MixSettings):
        along = samples_of(found(file, recorded.backing, recorded.backing_hash), recorded)
        settings = MixSettings(
            **vars(settings),
            backing=recorded.backing,
            backing_hash=recorded.backing_hash,
            balance=recorded.balance,
        )
    for change in recorded.changes(settings):
        say(f"Note: {change}")
    with progress(settings.steps, "step") as bar:
        (clip,) = pipeline.generate([settings], callback=lambda *_: advance(bar))
    if along is None:
        clip.save(path, overwrite)
    else:
        save_mix(path, clip, along, overwrite)
    click.echo(path)
    # As read back: files keep 16 bits of a sample, or less.
    click.echo(difference(original, read_audio(path)[0]))


def compare_samplers(prompt: str, seconds: float | None, comparing: Comparing) -> None:
    """Play the prompt with every sampler in every number of steps: clips and their spectrograms."""
    import secrets

    from audiodiff.settings import check_seconds
    from shared.files import folder_paths, slug
    from shared.models import find_model

    comparison = parse_comparison(comparing.names, comparing.steps)
    seconds = 6.0 if seconds is None else seconds
    check_seconds(seconds)
    find_model(comparing.model, "music")
    seed = secrets.randbelow(2**31) if comparing.seed is None else comparing.seed
    folder = comparing.output or Path(f"{slug(prompt)}-{seed}-samplers")
    names = [f"{sampler}-{steps}.wav" for sampler, steps in comparison.pairs()]
    *paths, sheet = folder_paths(folder, [*names, "spectrograms.png"], comparing.overwrite)
    scale = comparing.guidance_scale

    from audiodiff import MusicPipeline
    from audiodiff.plot import draw_spectrogram, stack
    from shared.files import whole_file

    pipeline = MusicPipeline.load(comparing.model, comparing.device, comparing.dtype)
    plan = [
        settings
        for sampler, steps in comparison.pairs()
        for settings in pipeline.plan(
            prompt,
            seconds=seconds,
            negative_prompt=comparing.negative_prompt,
            seed=seed,
            steps=steps,
            guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
            sampler=sampler,
            schedule=comparing.schedule,
            guidance=comparing.guidance,
        )
    ]
    for remark in pipeline.remarks(prompt) + pipeline.remarks(comparing.negative_prompt):
        say(f"Note: {remark}")
    folder.mkdir(exist_ok=True)
    drawn = []
    with progress(sum(settings.steps for settings in plan), "step") as bar:
        clips = pipeline.generate(plan, callback=lambda *_: advance(bar))
        for path, caption, clip in zip(paths, comparison.captions(), clips, strict=True):
            clip.save(path, comparing.overwrite)
            drawn.append(draw_spectrogram(clip.samples, clip.sample_rate, caption))
            bar.write(str(path), file=sys.stdout)
    with whole_file(sheet, comparing.overwrite) as file:
        stack(drawn, columns=len(comparison.steps)).save(file, format="PNG")
    click.echo(sheet)
