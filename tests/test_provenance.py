"""Records of what made a file, the text form of other tools, and files written whole."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.files import output_paths, slug, whole_file
from shared.provenance import (
    format_parameters,
    from_json,
    parse_parameters,
    printable,
    to_json,
)


@dataclass(frozen=True)
class Thing:
    prompt: str
    steps: int
    scale: float
    size: tuple[int, int]


THING = Thing("a \x00\n\"cat\", 'élan' 🍎 قطة", 25, 4.0, (128, 96))


def test_json_round_trip_is_exact_and_ascii() -> None:
    text = to_json(THING)
    assert text.isascii() and "\n" not in text
    assert from_json(text, Thing) == THING


def test_json_of_a_later_version_may_say_more() -> None:
    text = to_json(THING)[:-1] + ', "mood": "blue"}'
    assert from_json(text, Thing) == THING


@pytest.mark.parametrize(
    "text, fragment",
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "lacks prompt, steps, scale, size"),
        ('{"prompt": 1, "steps": 1, "scale": 1, "size": [1, 2]}', "prompt is 1, not str"),
        ('{"prompt": "", "steps": true, "scale": 1, "size": [1, 2]}', "steps is True, not int"),
        ('{"prompt": "", "steps": 1.5, "scale": 1, "size": [1, 2]}', "steps is 1.5, not int"),
        ('{"prompt": "", "steps": 1, "scale": "1", "size": [1, 2]}', "scale is '1', not float"),
        ('{"prompt": "", "steps": 1, "scale": 1, "size": [1]}', "size is [1], not tuple[int, int]"),
        ('{"prompt": "", "steps": 1, "scale": 1, "size": [1, "2"]}', "size is '2', not int"),
        ('{"prompt": "", "steps": 1, "scale": null, "size": [1, 2]}', "scale is None, not float"),
    ],
)
def test_a_broken_record_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(UserError) as error:
        from_json(text, Thing)
    assert fragment in str(error.value)


def test_parameters_have_the_standard_form() -> None:
    values = {"Steps": 25, "Sampler": "Euler", "CFG scale": 4.0, "Size": "128x96", "Model": "a, b"}
    assert format_parameters("a cat", "dog", values) == (
        "a cat\nNegative prompt: dog\n"
        'Steps: 25, Sampler: Euler, CFG scale: 4.0, Size: 128x96, Model: "a, b"'
    )
    assert format_parameters("a\x00\x1b cat", "", {"Steps": 1}) == "a cat\nSteps: 1"


@pytest.mark.parametrize(
    "prompt, negative",
    [("a cat", ""), ("a cat", "dog, frog"), ("two\nlines, of: it", "and\nhere"), ("قطة 🍎", "")],
)
def test_parameters_round_trip(prompt: str, negative: str) -> None:
    values = {"Steps": "25", "Sampler": "DPM++ 2M", "Model": 'x, "y": z', "Version": "duotone 1"}
    parsed = parse_parameters(format_parameters(prompt, negative, values))
    expected = {"Prompt": prompt} | ({"Negative prompt": negative} if negative else {}) | values
    assert parsed == expected


@pytest.mark.parametrize("text", ["", "hello", "a\n\nb", "Steps: , : ,,", "x" * 99999])
def test_parameters_of_no_form_are_the_prompt(text: str) -> None:
    assert parse_parameters(text)["Prompt"] == text.strip()


def test_a1111_text_with_quoted_json_is_read() -> None:
    text = 'cat\nSteps: 20, Hires prompt: "a, \\"b\\": c", Lora hashes: "x: 1, y: 2", Version: v1.9'
    parsed = parse_parameters(text)
    assert parsed["Hires prompt"] == 'a, "b": c'
    assert parsed["Lora hashes"] == "x: 1, y: 2" and parsed["Version"] == "v1.9"


def test_printable_shows_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[31m\nb\u202e é🍎") == "a\\x1b[31m\\nb\\u202e é🍎"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A red  Apple!", "a-red-apple"),
        ("../../etc/passwd", "etc-passwd"),
        ("🍎🍏👩‍🚀", "untitled"),
        ("☀️ sun", "sun"),
        ("\x00\x1b\n", "untitled"),
        ("", "untitled"),
        ("नमस्ते 2", "नमस्ते-2"),
        ("é" * 100, "é" * 30),
        ("a" * 59 + "é", "a" * 59),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_output_paths_name_one_file_for_many(tmp_path: Path) -> None:
    paths = output_paths(tmp_path / "x.png", ["a-1", "a-2"], ["1", "2"], [".png"])
    assert [path.name for path in paths] == ["x-1.png", "x-2.png"]
    assert output_paths(tmp_path, ["a-1"], ["1"], [".png"]) == [tmp_path / "a-1.png"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a-1.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        output_paths(tmp_path, ["a-1"], ["1"], [".png"], overwrite=True)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"

    with pytest.raises(KeyboardInterrupt), whole_file(path, overwrite=True) as file:
        file.write(b"tw")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with pytest.raises(UserError, match="exists"), whole_file(path) as file:
        file.write(b"new")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_rights_of_others(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "whole"):
        pass
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
