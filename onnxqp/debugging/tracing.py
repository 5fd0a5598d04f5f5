"""Where a candidate goes wrong: the error of every matched value, split by its cause, over samples.

Four models run side by side: both as they are, with taps; the baseline in pieces between the matched values, each fed
with what the candidate computes, which tells what error came in; and the candidate in pieces, without integer kernels,
which tells what the kernels did. Only sums stay, and the values are looked at in groups of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from onnxqp.calibrate.collect import TAP_BYTES, split, value_bytes
from onnxqp.debugging.matching import Pair, match
from onnxqp.debugging.segments import Segments, baseline_segments, candidate_segments
from onnxqp.debugging.sums import ErrorSums
from onnxqp.errors import DataError, OnnxqpError, UnsupportedError
from onnxqp.model import clone
from onnxqp.normalize.shapes import infer_shapes
from onnxqp.report.records import TensorError
from onnxqp.runtime import Session, cpu
from onnxqp.specs import Array, Feed

Progress: TypeAlias = Callable[[int, int | None], None]

FLOAT_KERNELS = {"session.disable_quant_qdq": "1"}  # QDQ as written: every operator in float between its Q and DQ
EXACT_KERNELS = {"session.x64quantprecision": "1"}  # integer kernels of x64 that cannot saturate, which are slower
_RUNS = 5  # arrays of one value in memory at a time
_GUESS, _LEAST_GUESS = 16, 2**18  # a value of unknown shape: so many times the inputs, at least so many bytes


@dataclass
class Trace:
    """The error of every value, worst first."""

    tensors: list[TensorError]
    warnings: list[str] = field(default_factory=list)


def trace(
    baseline: ir.Model,
    candidate: ir.Model,
    samples: Iterable[Feed],
    *,
    threads: int = 1,
    budget: int = TAP_BYTES,
    progress: Progress | None = None,
) -> Trace:
    """Compare two versions of one model value by value; `samples` are iterated once or twice for each group.

    Both models should come from `with_shapes`. Raises UnsupportedError when they share no name, DataError when there is
    no sample.
    """
    first = next(iter(samples), None)
    if first is None:
        raise DataError("there is no input to compare the models on", hint="the data source yielded nothing")
    found = _Tracer(baseline, candidate, samples, threads)
    sizes = found.compare_shapes(match(baseline, candidate), first, budget)
    if not found.pairs:
        raise UnsupportedError(
            "the two models have no value in common: no name and shape of one is found in the other",
            hint="compare a model with what was made from it, by a tool that keeps the names of values",
        )
    groups = split([pair.name for pair in found.pairs], sizes, budget // _RUNS)
    by_name = {pair.name: pair for pair in found.pairs}
    for done, names in enumerate(groups, start=1):
        found.group([by_name[name] for name in names])
        if progress is not None:
            progress(done, len(groups))
    return Trace(found.errors(), found.warnings)


class _Tracer:
    def __init__(self, baseline: ir.Model, candidate: ir.Model, samples: Iterable[Feed], threads: int) -> None:
        self.baseline = baseline
        self.candidate = candidate
        self.samples = samples
        self.threads = threads
        self.pairs: list[Pair] = []
        self.sums: dict[str, ErrorSums] = {}
        self.sources: dict[str, list[Pair]] = {}
        self.warnings: list[str] = []
        nodes = (value for node in baseline.graph for value in node.outputs)
        self.values = {value.name or "": value for value in (*baseline.graph.inputs, *nodes)}

    # ---- running

    def compare_shapes(self, pairs: Sequence[Pair], feed: Feed, budget: int) -> dict[str, int]:
        """Keep the pairs whose shapes agree on one sample; returns the bytes of each value there."""
        by_name = {pair.name: pair for pair in pairs}
        guess = max(_LEAST_GUESS, _GUESS * sum(array.nbytes for array in feed.values()))
        guessed = dict.fromkeys(by_name, guess) | value_bytes(self.baseline, feed)
        sizes: dict[str, int] = {}
        for names in split(list(by_name), guessed, budget // 2):
            group = [by_name[name] for name in names]
            truth = self._values_of(self._tapped_baseline(group), feed, names)
            found = self._tapped_candidate(group).run(feed, [pair.candidate for pair in group])
            kept = [pair for pair in group if truth[pair.name].shape == found[pair.candidate].shape]
            sizes |= {pair.name: truth[pair.name].nbytes for pair in kept}
            self.pairs += kept
        return sizes

    def group(self, pairs: Sequence[Pair]) -> None:
        """All sums of these pairs, in one pass over the samples, or two where kernels are suspected."""
        for pair in pairs:
            self.sums[pair.name] = ErrorSums(pair.quantizer)
        before = baseline_segments(self.baseline, self.pairs, pairs)
        after = candidate_segments(self.candidate, self.pairs, pairs)
        self.sources |= before.sources()
        truth, found = self._tapped_baseline(pairs), self._tapped_candidate(self._needed(pairs, before, after))
        inherited, exact = self._open(before, {}), self._open(after, FLOAT_KERNELS)
        for feed in self.samples:
            expected = self._values_of(truth, feed, [pair.name for pair in pairs])
            actual = found.run(feed)
            came = {} if inherited is None else inherited.run(feed, actual)
            for pair in pairs:
                self.sums[pair.name].update(expected.pop(pair.name), actual[pair.candidate], came.pop(pair.name, None))
            self._update_kernels(exact, feed, actual)
        suspects = [pair for pair in pairs if self.sums[pair.name].cause() == "saturation"]
        if suspects and cpu().machine in ("x86_64", "AMD64"):
            self._convict(suspects)

    def _convict(self, suspects: Sequence[Pair]) -> None:
        """Hold integer kernels against integer kernels: what remains different is saturation and nothing else."""
        after = candidate_segments(self.candidate, self.pairs, suspects)
        found, exact = self._tapped_candidate(self._needed(suspects, after)), self._open(after, EXACT_KERNELS)
        for pair in suspects:
            self.sums[pair.name].kernel = 0.0
        for feed in self.samples:
            self._update_kernels(exact, feed, found.run(feed))

    def _update_kernels(self, exact: _Pieces | None, feed: Feed, actual: Mapping[str, Array]) -> None:
        if exact is None:
            return
        results = exact.run(feed, actual)
        for name, pair in exact.segments.outputs.items():
            self.sums[pair.name].update_kernel(actual[name], results.pop(name))

    def _needed(self, pairs: Sequence[Pair], *segments: Segments) -> list[Pair]:
        given = (pair for each in segments for pair in each.given.values())
        return list(dict.fromkeys([*pairs, *given]))

    def _tapped_baseline(self, pairs: Sequence[Pair]) -> Session | None:
        names = [pair.name for pair in pairs if not self.values[pair.name].is_graph_input()]
        return Session(self.baseline, taps=names, threads=self.threads) if names else None

    def _tapped_candidate(self, pairs: Sequence[Pair]) -> Session:
        return Session(self.candidate, taps=[pair.candidate for pair in pairs], threads=self.threads)

    def _values_of(self, session: Session | None, feed: Feed, names: Sequence[str]) -> dict[str, Array]:
        fed = {name: feed[name] for name in names if self.values[name].is_graph_input()}
        return fed if session is None else fed | session.run(feed, [name for name in names if name not in fed])

    def _open(self, segments: Segments, options: Mapping[str, str]) -> _Pieces | None:
        if not segments.outputs:
            return None
        try:
            return _Pieces(segments, Session(segments.model, options=options, threads=self.threads))
        except OnnxqpError as err:
            self.warnings.append(f"causes are guessed in part, for a piece of the model does not run alone: {err}")
            return None

    # ---- the verdict

    def errors(self) -> list[TensorError]:
        """Worst first."""
        found = [self._error(place, pair) for place, pair in enumerate(self.pairs)]
        return sorted(found, key=lambda each: (each.sqnr_db is None, each.sqnr_db or 0.0, each.place))

    def _error(self, place: int, pair: Pair) -> TensorError:
        sums = self.sums[pair.name]
        cause = sums.cause()
        return TensorError(
            name=pair.name,
            node=pair.node,
            sqnr_db=sums.sqnr_db,
            cause=cause,
            place=place,
            source=self._origin(pair) if cause == "inherited" else None,
            local_sqnr_db=sums.local_sqnr_db,
            clipped=sums.beyond / sums.elements if sums.quantizer is not None and sums.elements else None,
        )

    def _origin(self, pair: Pair) -> str:
        """The value whose own error makes up most of the inherited error of this one.

        Up the worst inputs; on each step the share of the error that came in from further up is known.
        """
        share, best, origin = 1.0, 0.0, pair.name
        seen: set[str] = set()
        while pair.name not in seen:
            seen.add(pair.name)
            share *= self.sums[pair.name].inherited_share
            above = [source for source in self.sources.get(pair.name, ()) if source.name in self.sums]
            if not above or share <= best:
                break
            pair = max(above, key=lambda source: self._noise(source.name))
            own = share * (1 - self.sums[pair.name].inherited_share)
            if own > best:
                best, origin = own, pair.name
        return origin

    def _noise(self, name: str) -> float:
        sums = self.sums[name]
        return sums.total / sums.signal if sums.signal else float(sums.total > 0)


@dataclass
class _Pieces:
    """Segments with their session."""

    segments: Segments
    session: Session

    def run(self, feed: Feed, actual: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, from what the candidate computed."""
        inputs: Feed = {}
        for spec in self.session.inputs:
            pair = self.segments.given.get(spec.name)
            array = feed[spec.name] if pair is None else actual[pair.candidate]
            inputs[spec.name] = array if spec.dtype is None else array.astype(spec.dtype, copy=False)
        return self.session.run(inputs, list(self.segments.outputs))


def closest(normal: ir.Model, baseline: ir.Model, candidate: ir.Model) -> ir.Model:
    """The form of the baseline that shares more values with the candidate: cleaned up, or else as it is.

    Cleaning up keeps the name of a convolution's output when it folds the normalisation behind it, so a tie means that
    the candidate was made from the clean form.
    """
    return max((normal, baseline), key=lambda each: len(match(each, candidate)))


def with_shapes(model: ir.Model) -> ir.Model:
    """A copy in which shapes and types are stated wherever they can be inferred."""
    copy = clone(model)
    infer_shapes(copy)
    return copy
