"""Folders of images: one folder per class, or a flat folder, with or without `labels.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxqp.data.files import ACCEPTED, files_below
from onnxqp.data.labels import LABELS_FILE, class_numbers, read_labels_file
from onnxqp.data.pixels import SUFFIXES, PixelInput
from onnxqp.errors import DataError
from onnxqp.specs import Feed


@dataclass(frozen=True)
class ImageSource:
    """Image files, decoded when they are read."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    pixels: PixelInput

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        for index in indices:
            path = self.files[index]
            yield {self.pixels.name: self.pixels.from_file(path)}, str(path)


def image_source(
    folder: Path, pixels: PixelInput, *, classes: int | None, labelled: bool
) -> tuple[ImageSource, list[str]]:
    """The images of a folder and their labels, and warnings. Without `labelled`, labels are not looked at."""
    found, odd = files_below(folder, SUFFIXES)
    warnings = [f"{folder}: {odd} image names skipped, they lead to no regular file"] if odd else []
    if not found:
        raise DataError(
            "no images found in the folder",
            where=str(folder),
            hint=f"images end in {', '.join(sorted(SUFFIXES))}; {ACCEPTED}",
        )
    if not labelled:
        return ImageSource(tuple(found), None, pixels), warnings
    listing = folder / LABELS_FILE
    if listing.exists():
        pairs, more = read_labels_file(listing, classes)
        left = len(found) - len(pairs)
        if left > 0:
            more.append(f"{listing}: {left} images of the folder are not listed and were left out")
        files = tuple(path for path, _ in pairs)
        return ImageSource(files, tuple(label for _, label in pairs), pixels), [*warnings, *more]
    tops = [path.relative_to(folder).parts for path in found]
    loose = sum(len(parts) == 1 for parts in tops)
    if loose == len(found):
        return ImageSource(tuple(found), None, pixels), warnings
    if loose:
        warnings.append(f"{folder}: images lie both beside and inside folders, so they have no labels")
        return ImageSource(tuple(found), None, pixels), warnings
    numbers, more = class_numbers((parts[0] for parts in tops), folder, classes)
    return ImageSource(tuple(found), tuple(numbers[parts[0]] for parts in tops), pixels), [*warnings, *more]
