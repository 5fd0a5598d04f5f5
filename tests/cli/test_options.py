"""Options become the records of onnxqp.options, with the same names and defaults."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_api import FakeApi, Ran

from onnxqp.options import (
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    Selection,
    WriteOptions,
)

Run = Callable[..., Ran]


def test_defaults_are_those_of_the_library(run: Run, api: FakeApi) -> None:
    assert run("quantize", "m.onnx").code == 0
    assert api.arguments == ("m.onnx",)
    assert api.options == {
        "options": QuantizeOptions(),
        "data": DataOptions(),
        "measure": MeasureOptions(),
        "gates": Gates(),
        "write": WriteOptions(),
        "progress": None,
    }


def test_every_option_of_quantize_arrives(run: Run, api: FakeApi) -> None:
    text = (
        "quantize m.onnx --method mse --per-tensor --no-bias-correction --no-equalize --target arm64 "
        "--include a* --include b --exclude c --op-type Conv "
        "--data d.npz --eval e.npz --preprocess vit --samples 9 --batch-size 2 --seed 3 --shape x:0:1,3 --shape y:4 "
        "--metric top5 --output-name probs --threads 2 --no-validate --max-drop 0.5 --min-agreement 99 "
        "--min-speedup 1.2 --max-size 1.5MB --min-size-ratio 3 -o out.onnx --force --dry-run --keep-failed"
    )
    assert run(*text.split()).code == 0
    chosen = Selection(("a*", "b"), ("c",), ("Conv",))
    assert api.options["options"] == QuantizeOptions(
        "mse", True, "arm64", chosen, bias_correction=False, equalize=False
    )
    assert api.options["data"] == DataOptions("d.npz", "e.npz", "vit", 9, 2, 3, {"x:0": (1, 3), "y": (4,)})
    assert api.options["measure"] == MeasureOptions("top5", "probs", 2, validate=False)
    assert api.options["gates"] == Gates(0.5, 99, 1.2, 1_500_000, 3)
    assert api.options["write"] == WriteOptions("out.onnx", force=True, dry_run=True, keep_failed=True)


def test_every_option_of_prune_arrives(run: Run, api: FakeApi) -> None:
    text = "prune m.onnx --ratio 0.5 --allocation global --criterion l2 --round-to 4 --min-channels 2 --exclude fc"
    assert run(*text.split()).code == 0
    expected = PruneOptions(0.5, None, "global", "l2", 4, 2, selection=Selection(exclude=("fc",)))
    assert api.options["options"] == expected


def test_rounding_is_left_to_the_target_unless_named(run: Run, api: FakeApi) -> None:
    run("prune", "m.onnx", "--threshold", "0.3", "--round-to", "auto")
    assert api.options["options"] == PruneOptions(threshold=0.3)


def test_validate_and_bench_and_inspect(run: Run, api: FakeApi) -> None:
    run("validate", "a.onnx", "b.onnx", "--eval", "e.npz", "--max-size", "12MB", "--threads", "2")
    run("bench", "a.onnx", "b.onnx", "--shape", "x:1,2", "--threads", "2")
    run("inspect", "a.onnx", "b.onnx", "--groups", "--target", "portable")
    (_, validated, validate), (_, benched, bench), (_, inspected, inspect) = api.calls
    assert validated == ("a.onnx", "b.onnx")
    assert validate["gates"] == Gates(max_size=12_000_000)
    assert validate["measure"] == MeasureOptions(threads=2)
    assert benched == (["a.onnx", "b.onnx"],)
    assert bench == {"data": DataOptions(shapes={"x": (1, 2)}), "measure": MeasureOptions(threads=2), "progress": None}
    assert inspected == ("a.onnx", "b.onnx")
    assert inspect == {"groups": True, "target": "portable"}


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("500kB", 500_000), ("12 mb", 12_000_000), ("1.5GB", 1_500_000_000), ("2MiB", 2**21)]
)
def test_sizes(run: Run, api: FakeApi, text: str, size: int) -> None:
    run("validate", "a", "b", "--max-size", text)
    assert api.options["gates"].max_size == size


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        (
            "prune m.onnx",
            "none of --ratio, --threshold, --macs-ratio, --params-ratio, --latency-ratio was given",
            "exactly one",
        ),
        ("prune m.onnx --ratio 0.1 --threshold 1", "--ratio and --threshold were given", "exactly one"),
        ("prune m.onnx --ratio 1", "--ratio: 1 is out of range, it must be at least 0 and less than 1", "prune --help"),
        ("prune m.onnx --ratio nan", "--ratio: nan is not a finite number", "prune --help"),
        ("prune m.onnx --ratio half", "--ratio: 'half' is not a number", "prune --help"),
        ("prune m.onnx --ratio 50%", "--ratio: '50%' is not a number: write 0.5", "prune --help"),
        ("quantize m.onnx --min-agreement 99%", "'99%' is not a number: write 99", "quantize --help"),
        ("prune m.onnx --ratio -0.1", "--ratio: -0.1 is out of range", "prune --help"),
        ("prune m.onnx --ratio 0.5 --round-to 0", "--round-to: '0' is neither a whole number", "prune --help"),
        ("prune m.onnx --ratio 0.5 --min-channels 0", "--min-channels: 0 is not in the range", "prune --help"),
        ("quantize m.onnx --method mimax", "--method: 'mimax' is not one of", "did you mean minmax?"),
        ("quantize m.onnx --target x64-avx", "--target: 'x64-avx' is not one of", "did you mean x64-avx2?"),
        ("quantize m.onnx --metod mse", "no such option: --metod", "did you mean --method?"),
        ("quantize m.onnx --ratio 0.5", "no such option: --ratio", "an option of onnxqp prune"),
        ("quantize m.onnx --method", "--method requires an argument", "onnxqp quantize --help"),
        ("quantize m.onnx --samples 0", "--samples: 0 is not in the range", "quantize --help"),
        ("quantize m.onnx --seed -1", "--seed: -1 is not in the range", "quantize --help"),
        ("quantize m.onnx --threads 0", "--threads: 0 is not in the range", "quantize --help"),
        ("quantize m.onnx --max-size 12XB", "--max-size: '12XB' is not a size", "quantize --help"),
        ("quantize m.onnx --max-size 0", "--max-size: '0' is less than one byte", "quantize --help"),
        ("quantize m.onnx --min-agreement 101", "--min-agreement: 101 is out of range", "quantize --help"),
        ("quantize m.onnx --max-drop inf", "--max-drop: inf is not a finite number", "quantize --help"),
        ("quantize m.onnx --min-speedup 0", "--min-speedup: 0 is out of range", "quantize --help"),
        ("quantize m.onnx --shape 1,3", "--shape: '1,3' is not NAME:1,3,224,224", "quantize --help"),
        ("quantize m.onnx --shape x:1,0", "--shape: 'x:1,0' is not NAME:1,3,224,224", "quantize --help"),
        ("quantize m.onnx --shape x:N,3", "--shape: 'x:N,3' is not NAME:1,3,224,224", "quantize --help"),
        ("quantize m.onnx --shape x:1 --shape x:2", "--shape gives x twice", "one shape"),
        ("quantize m.onnx --metric top3", "--metric: unknown metric 'top3'", "top1, top5 or file.py:function"),
        ("quantize m.onnx --report r.pdf", "no kind of report ends in '.pdf'", ".json, .md, .html, .xml"),
        ("quantize m.onnx --config none.toml", "none.toml: cannot be read", "path of the configuration"),
        ("quantize a.onnx b.onnx", "Got unexpected extra argument", "quantize --help"),
        ("quantize m.onnx --force=yes", "--force does not take a value", "quantize --help"),
        ("validate a.onnx", "CANDIDATE is missing", "usage: onnxqp validate [OPTIONS] BASELINE CANDIDATE"),
        ("quntize m.onnx", "no such command: quntize", "did you mean onnxqp quantize?"),
        ("zzz", "no such command: zzz", "commands: inspect, quantize"),
        ("--nonsense", "no such option: --nonsense", "--help"),
        ("", "no command given", "onnxqp inspect MODEL"),
    ],
)
def test_mistakes_exit_2_with_two_lines(run: Run, api: FakeApi, command: str, message: str, hint: str) -> None:
    ran = run(*command.split())
    assert ran.code == 2
    assert message in ran.error[0]
    assert hint in ran.error[1]
    assert not api.calls
