"""Zeros instead of smaller layers: single weights, N of every M, or blocks, by ratio or threshold.

Shapes stay, so nothing is coupled and every weight can take part. Of a weight's scores (magnitudes, or magnitudes times
the size of what they multiply: Sun et al. 2023, Wanda) the lowest go. `N:M` keeps the N highest of every M neighbours
along the input channels; `block` takes blocks of 4 neighbouring output channels at one input, as the kernels want them
that skip zeros at all (4x1). What is left over at the end of an axis stays dense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Weight
from onnxqp.errors import UnsupportedError, UsageError, VerificationError
from onnxqp.graph import add_initializer, constant, set_initializer, unique_name
from onnxqp.model import clone
from onnxqp.options import PruneOptions
from onnxqp.prune.coupling import label_axes
from onnxqp.prune.magnitude import prune_magnitude
from onnxqp.prune.packed import pack_zeros
from onnxqp.prune.proof import prove, random_feeds
from onnxqp.prune.pruning import runnable
from onnxqp.report.records import NodeNote, Proof, Pruning, Sparsity
from onnxqp.specs import Feed

Array: TypeAlias = npt.NDArray[Any]
Scores: TypeAlias = Mapping[str, Array]  # by weight: a score for every element

BLOCK = 4  # neighbouring output channels
STRUCTURED = "structured"
CRITERIA = ("auto", "l1", "l2", "activation", "random")
_RATIO = re.compile(r"([1-9][0-9]*):([1-9][0-9]*)")


@dataclass(frozen=True)
class SparseResult:
    """The model with zeros, what was done to it, and what a user should know."""

    model: ir.Model
    pruning: Pruning
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """One weight to make sparse."""

    weight: Weight
    array: Array
    ratio: float | None  # of its own, from the configuration


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """(N, M) of a pattern N:M, 0 < N < M; None for the other patterns. Raises UsageError for anything else."""
    if pattern in (STRUCTURED, "unstructured", "block"):
        return None
    found = _RATIO.fullmatch(pattern)
    kept, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < kept < of:
        raise UsageError(
            f"--pattern: {pattern!r} is no pattern", hint="use structured, unstructured, block, or N:M as 2:4"
        )
    return kept, of


def check_pattern(options: PruneOptions) -> None:
    """UsageError for options that say nothing of zeros, or contradict the pattern."""
    whole = n_of_m(options.pattern)
    name = f"--pattern {options.pattern}"
    others = [key for key, value in options.amounts.items() if value is not None and key not in ("ratio", "threshold")]
    if others:
        raise UsageError(f"{name} cannot be met by --{others[0]}: zeros save nothing of it", hint="give --ratio")
    if options.criterion not in CRITERIA:
        raise UsageError(f"{name} knows no --criterion {options.criterion}", hint=f"use {', '.join(CRITERIA)}")
    if options.recover in ("bias", "least-squares"):
        raise UsageError(f"{name} is not recovered", hint="leave --recover out")
    if options.steps > 1:
        raise UsageError(f"{name} is made in one step", hint="leave --steps out")
    if whole is None and options.ratio is None and options.threshold is None:
        raise UsageError(f"{name} needs --ratio or --threshold", hint="--ratio 0.5 zeroes half of the weights")
    if whole is not None:
        removed = 1 - whole[0] / whole[1]
        if options.threshold is not None or (options.ratio is not None and abs(options.ratio - removed) > 1e-6):
            raise UsageError(f"{name} itself says how much goes: {removed:.4g}", hint="leave the amount out")


def make_sparse(
    model: ir.Model, feeds: Sequence[Feed], options: PruneOptions, *, scores: Scores | None = None, seed: int = 0
) -> SparseResult:
    """Zero weights of a normalised model and store what is left packed, where that is smaller.

    `scores` by element take the place of magnitudes where they are known. The result is held against the original
    times 0 and 1 on `feeds` and on random inputs like them. Raises UsageError, UnsupportedError with nothing to
    zero, and VerificationError.
    """
    check_pattern(options)
    left: list[NodeNote] = []
    places = list(_places(model.graph, options, left))
    if not places:
        raise UnsupportedError("no weight can be zeroed", hint="`onnxqp inspect` lists the layers; see --exclude")
    masks = _masks(places, options, scores or {}, seed, left)
    sparse, masked = clone(model), clone(model)
    zeros = sum(int(mask.size - mask.sum()) for mask in masks.values())
    if not zeros:
        raise UnsupportedError(
            f"--pattern {options.pattern} zeroes nothing here",
            hint="raise the ratio or the threshold; N:M needs M input channels, block 4 output channels",
        )
    for name, mask in masks.items():
        _zero(sparse.graph, name, mask)
        _mask(masked.graph, name, mask)
    packed = pack_zeros(sparse)
    trial = [*feeds, *runnable(model, random_feeds(feeds[:2], seed))]
    proof = prove(masked, sparse, trial)
    if not proof.checked:
        raise VerificationError(
            f"the zeroed model cannot be proven: {proof.skipped_reason}", hint="this is worth a bug report"
        )
    elements = sum(mask.size for mask in masks.values())
    facts = Sparsity(options.pattern, len(masks), elements, zeros, zeros / elements, packed, left)
    return SparseResult(sparse, _record(facts, proof), tuple(_warnings(facts)))


def _record(facts: Sparsity, proof: Proof) -> Pruning:
    return Pruning(0, 0, 1.0, 1.0, [], [], proof=proof, sparsity=facts)


def _warnings(facts: Sparsity) -> Iterator[str]:
    yield (
        "zeros make nothing faster: the kernels of onnxruntime's CPU provider multiply by them all the same; "
        "for speed use --pattern structured"
    )
    if not facts.packed:
        yield "the file does not shrink either: no weight is smaller without its zeros"


def _places(graph: ir.Graph, options: PruneOptions, left: list[NodeNote]) -> Iterator[_Place]:
    """Each float matrix or kernel once, with the first node that multiplies with it."""
    seen: set[str] = set()
    for weight in label_axes(graph).weights:
        value = graph.initializers.get(weight.value)
        array = constant(value)
        if value is None or array is None or array.dtype.kind != "f" or weight.value in seen:
            continue
        if sum(size > 1 for size in array.shape) < 2:
            continue  # a vector: scales and shifts are no products
        seen.add(weight.value)
        reason = options.selection.reason_against(weight.node, weight.op_type)
        if reason is not None:
            left.append(NodeNote(weight.node, weight.op_type, reason))
            continue
        yield _Place(weight, array, options.ratio_of([weight.node]))


def _masks(
    places: Sequence[_Place], options: PruneOptions, scores: Scores, seed: int, left: list[NodeNote]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Where each weight stays; weights that the pattern does not fit are told of in `left`."""
    whole = n_of_m(options.pattern)
    found: dict[str, npt.NDArray[np.bool_]] = {}
    parts: list[tuple[_Place, Array, Array]] = []  # with the score of every unit that goes as one, and its place
    random = np.random.default_rng(seed)
    for place in places:
        score = np.abs(place.array.astype(np.float64))
        if options.criterion == "random":
            score = random.random(place.array.shape)
        score = np.asarray(scores.get(place.weight.value, score))
        if whole is not None:
            mask = _highest(score, place.weight.consumed, *whole)
        elif options.pattern == "block":
            units = _blocks(score, place.weight.produced)
            mask = None
            if units is not None:
                parts.append((place, *units))
                continue
        else:
            parts.append((place, score.reshape(-1), np.arange(score.size)))
            continue
        if mask is None:
            left.append(NodeNote(place.weight.node, place.weight.op_type, f"too few channels for {options.pattern}"))
        else:
            found[place.weight.value] = mask
    found.update(_lowest(parts, options))
    return found


def _lowest(
    parts: Sequence[tuple[_Place, Array, Array]], options: PruneOptions
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Masks without the lowest units: of every weight, or of all together by their scores over the weight's mean."""
    relative = [score / (score.mean() or 1.0) for _, score, _ in parts]
    if options.threshold is not None:
        kept = [score >= options.threshold for score in relative]
    elif options.allocation == "global" and relative:
        joined = np.concatenate(relative)
        together = _without_lowest(joined, options.ratio or 0.0)
        kept = np.split(together, np.cumsum([len(score) for score in relative])[:-1])
    else:
        ratios = [options.ratio if place.ratio is None else place.ratio for place, _, _ in parts]
        kept = [_without_lowest(score, ratio or 0.0) for score, ratio in zip(relative, ratios, strict=True)]
    for (place, _, units), stays in zip(parts, kept, strict=True):
        mask = np.append(stays, True)[units]  # -1: elements in no unit
        yield place.weight.value, mask.reshape(place.array.shape)


def _without_lowest(score: Array, ratio: float) -> npt.NDArray[np.bool_]:
    return np.asarray(prune_magnitude(np.where(score > 0, score, np.finfo(np.float64).tiny), ratio=ratio) != 0)


def _highest(score: Array, axis: int | None, kept: int, of: int) -> npt.NDArray[np.bool_] | None:
    """True for the `kept` highest of every `of` neighbours along `axis`; None where it is too short."""
    if axis is None or score.shape[axis] < of:
        return None
    moved = np.moveaxis(score, axis, -1)
    length = moved.shape[-1] // of * of
    groups = moved[..., :length].reshape(*moved.shape[:-1], -1, of)
    order = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1)
    mask = np.ones(moved.shape, np.bool_)
    mask[..., :length] = (order < kept).reshape(*moved.shape[:-1], length)
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


def _blocks(score: Array, axis: int | None) -> tuple[Array, Array] | None:
    """The mean score of every block of `BLOCK` neighbours along `axis`, and for every element its block or -1."""
    if axis is None or score.shape[axis] < BLOCK:
        return None
    moved = np.moveaxis(score, axis, -1)
    length = moved.shape[-1] // BLOCK * BLOCK
    blocks = moved[..., :length].reshape(*moved.shape[:-1], -1, BLOCK).mean(axis=-1)
    number = np.full(moved.shape, -1, np.int64)
    number[..., :length] = np.repeat(np.arange(blocks.size).reshape(blocks.shape), BLOCK, axis=-1)
    return blocks.reshape(-1), np.ascontiguousarray(np.moveaxis(number, -1, axis)).reshape(-1)


def _zero(graph: ir.Graph, name: str, mask: npt.NDArray[np.bool_]) -> None:
    value = graph.initializers[name]
    array = constant(value)
    assert array is not None
    set_initializer(value, np.where(mask, array, np.zeros((), array.dtype)))


def _mask(graph: ir.Graph, name: str, mask: npt.NDArray[np.bool_]) -> None:
    """Multiply a weight by 0 and 1 for all that read it."""
    value = graph.initializers[name]
    array = constant(value)
    assert array is not None
    factor = add_initializer(graph, f"{name}_mask", mask.astype(array.dtype))
    product = ir.Node("", "Mul", [value, factor], name=unique_name(graph, f"{name}_masked"))
    output = product.outputs[0]
    output.name = unique_name(graph, f"{name}_masked_out")
    output.type, output.shape = value.type, value.shape
    for user, index in [use for use in value.uses() if use[0] is not product]:
        user.replace_input_with(index, output)
    graph.insert_before(graph[0], product)
