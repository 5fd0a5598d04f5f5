"""Numbers and names as people read them: one spelling for the screen, Markdown and JUnit alike."""

from __future__ import annotations

_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def printable(text: str) -> str:
    """`text` on one line, with control characters (names come from models) written as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def size(count: float) -> str:
    """Bytes: 1 MB = 10^6."""
    for unit, name in _SIZES:
        if abs(count) >= unit:
            return f"{_three_digits(count / unit)} {name}"
    return f"{count:.0f} B"


def quantity(count: float) -> str:
    """A large count, shortened: 41.0 M. Below ten thousand it is written out."""
    if abs(count) < 10_000:
        return f"{count:.0f}"
    for unit, name in _COUNTS:
        if abs(count) >= unit:
            return f"{_three_digits(count / unit)} {name}"
    raise AssertionError("unreachable: 10 000 is more than 1 k")


def milliseconds(value: float) -> str:
    return f"{_three_digits(value)} ms"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def times(ratio: float) -> str:
    """A ratio as a factor: 3.56x."""
    return f"{ratio:.2f}x"


def percent(value: float) -> str:
    """Percent that is already in 0..100; 100 only when it is all of it."""
    shown = f"{value:.1f}"
    return f"{value:.2f} %" if shown == "100.0" and value < 100 else f"{shown} %"


def change(before: float, after: float) -> str:
    """From `before` to `after`, in percent with a sign."""
    if before == after:
        return "same"
    if before == 0:
        return "new"
    return f"{(after / before - 1) * 100:+.1f} %"


def scientific(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def number(value: float) -> str:
    """A plain number without needless digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _three_digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def smaller(ratio: float) -> str:
    if f"{ratio:.2f}" == "1.00":
        return "same"
    return f"{times(ratio)} smaller" if ratio > 1 else f"{times(1 / ratio)} larger"
