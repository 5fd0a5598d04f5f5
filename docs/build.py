"""Writes docs/commands/ from the program itself: a page per command, all that --help says.

python docs/build.py            write the pages
python docs/build.py --check    exit 1 where one is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from onnxqp.cli.parameters import Option
from onnxqp.cli.program import onnxqp as program

FOLDER = Path(__file__).parent / "commands"


def pages() -> dict[str, str]:
    """The content of every page, by its file name."""
    found = {f"{name}.md": "\n".join(_page(name, command)) for name, command in program.commands.items()}
    found["README.md"] = "\n".join(_index())
    return found


def _index() -> Iterator[str]:
    yield "# Commands\n"
    yield "Written by `docs/build.py` from the program; `onnxqp COMMAND --help` says the same.\n"
    yield "| command | what it does |\n|---|---|"
    for name, command in program.commands.items():
        yield f"| [`onnxqp {name}`]({name}.md) | {command.short_help} |"
    yield ""


def _page(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=click.Context(program, info_name="onnxqp"))
    yield f"# onnxqp {name}\n"
    yield f"    {' '.join(command.get_usage(context).removeprefix('Usage: ').split())}\n"
    yield _text(command.help or "")
    examples = getattr(command, "examples", ())
    if examples:
        yield "\n```bash"
        yield from examples
        yield "```"
    sections: dict[str, list[click.Option]] = {}
    for param in command.get_params(context):
        if isinstance(param, click.Option):
            sections.setdefault(param.section if isinstance(param, Option) else "Reporting", []).append(param)
    for section, options in sections.items():
        yield f"\n## {section}\n\n| option | meaning |\n|---|---|"
        for option in options:
            record = option.get_help_record(context)
            if record is not None:
                yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    yield from _presets(command)
    yield ""


def _presets(command: click.Command) -> Iterator[str]:
    if any(param.name == "preprocess" for param in command.params):
        from onnxqp.data.preprocess import PRESETS

        yield "\n## Presets of --preprocess\n\n| preset | what it does |\n|---|---|"
        for name, preset in PRESETS.items():
            yield f"| `{name}` | {_cell(preset.describe())} |"


def _text(content: str) -> str:
    """Paragraphs, their lines joined; click marks a paragraph that keeps its lines with a backspace."""
    return "\n\n".join(" ".join(part.replace("\b", "").split()) for part in content.split("\n\n"))


def _cell(content: str) -> str:
    return " ".join(content.split()).replace("|", "\\|")


def main() -> int:
    found = pages()
    if "--check" in sys.argv[1:]:
        stale = [name for name, page in found.items() if not _same(FOLDER / name, page)]
        stale += [path.name for path in FOLDER.glob("*.md") if path.name not in found]
        sys.stderr.write("".join(f"docs/commands/{name} is not current: run python docs/build.py\n" for name in stale))
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        path.unlink()
    for name, page in found.items():
        (FOLDER / name).write_text(page, encoding="utf-8")
    return 0


def _same(path: Path, page: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == page


if __name__ == "__main__":
    sys.exit(main())
