"""Structured pruning of a normalised model: label, group, select, cut, prove."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut
from onnxqp.errors import DataError, OnnxqpError, UnsupportedError, UsageError, VerificationError
from onnxqp.evaluate.noise import Reference
from onnxqp.model import parameters
from onnxqp.options import PruneOptions
from onnxqp.prune.apply import cut_model, never_empty
from onnxqp.prune.budgets import DOUBTS, SAME, SMALL, Budget, Clock, budget_of, count_macs
from onnxqp.prune.cost import channel_macs
from onnxqp.prune.criteria import Scorer, criterion_scorer
from onnxqp.prune.groups import Bundle, ChannelGroup, Grouping, find_groups
from onnxqp.prune.latency import find_cut, nearest
from onnxqp.prune.masked import mask_model
from onnxqp.prune.proof import opened, prove, random_feeds
from onnxqp.prune.select import choose, removed_labels
from onnxqp.prune.states import state_notes
from onnxqp.prune.units import Units, label_heads, label_units
from onnxqp.report.records import Group, Proof, Pruning
from onnxqp.runtime import Session
from onnxqp.specs import Feed

JUDGES = 8  # samples on which two plans are held against each other
ABOUT = 0.1  # of what one plan saves, the other may save less
TRIAL = 0.3  # ratio at which they are, where a budget leaves it open
MARGIN = 0.8  # of the other's noise: 1 dB
PER_MAC = ("activation", "reconstruction")  # criteria whose scores are for each multiply-accumulate, where all compete
DISAGREE = "pruned and masked disagree"


@dataclass(frozen=True)
class PruneResult:
    """The pruned model, what was done to it and proven of it, and what a user should know."""

    model: ir.Model
    pruning: Pruning
    warnings: tuple[str, ...]
    cut: Cut


@dataclass(frozen=True)
class Plan:
    """What would be cut: nothing is changed yet."""

    model: ir.Model
    labels: AxisLabels
    grouping: Grouping
    chosen: tuple[tuple[Bundle, ...], ...]  # per group
    score_kind: str  # the criterion

    @property
    def cut(self) -> Cut:
        """The cut as a whole."""
        return self.cut_of(range(len(self.chosen)))

    def cut_of(self, places: Sequence[int]) -> Cut:
        """The cut of some of the groups."""
        return Cut(self.labels, removed_labels([self.chosen[n] for n in places], self.grouping.roots))

    @property
    def removes(self) -> bool:
        return any(self.chosen)

    @property
    def record(self) -> Pruning:
        """The `pruning` section of the report as far as it is known without cutting."""
        return self.describe(None, None)

    def describe(self, pruned: ir.Model | None, proof: Proof | None) -> Pruning:
        """The `pruning` section of the report, with the pruned model's costs where there is one."""
        counts = [
            (group, group.size, group.size - sum(len(bundle.classes) for bundle in bundles))
            for group, bundles in zip(self.grouping.groups, self.chosen, strict=True)
        ]
        macs, size = count_macs(self.model), parameters(self.model)
        return Pruning(
            channels_before=sum(before for _, before, _ in counts),
            channels_after=sum(after for _, _, after in counts),
            macs_ratio=count_macs(pruned) / macs if pruned is not None and macs else None,
            params_ratio=parameters(pruned) / size if pruned is not None and size else 1.0,
            groups=[Group(g.id, list(g.members), before, after, self.score_kind) for g, before, after in counts],
            pinned=list(self.grouping.pinned),
            proof=proof,
        )


def plan(
    model: ir.Model,
    options: PruneOptions,
    *,
    step: int = 16,
    scorer: Scorer | None = None,
    clock: Clock | None = None,
    samples: Sequence[Feed] = (),
) -> Plan:
    """Decide which channels of a normalised model go. `step`: the channel multiple that is fast on the target.

    `scorer` measures what channels are worth; without it, and for channels that it does not know, norms decide.
    `clock` times a pruned model, as a share of the original's time, for `latency_ratio`. On `samples` it is tried
    whether whole heads cost less than channels of all heads; without, heads stay where their channels can go.
    """
    check(options)
    order: Literal[1, 2] = 2 if options.criterion == "l2" else 1
    units = label_units(model.graph, options.selection, order)
    heads = label_heads(model.graph, options.selection, order, units) if samples else None
    if heads is not None and _heads_cost_less(model, options, units, heads, step, samples):
        units = heads
    return _planned(model, options, units, step, scorer, clock)


def _heads_cost_less(
    model: ir.Model, options: PruneOptions, units: Units, heads: Units, step: int, samples: Sequence[Feed]
) -> bool:
    """Whether whole heads save about as much and change the outputs less; by norms, which are at hand."""
    trial = replace(
        options,
        ratio=TRIAL if options.ratio is None else options.ratio,
        threshold=None,
        macs_ratio=None,
        params_ratio=None,
        latency_ratio=None,
        criterion="l1",
    )
    single, whole = (_planned(model, trial, each, step, None, None) for each in (units, heads))
    return single.removes and whole.removes and _saves_as_much(whole, single) and _costs_less(whole, single, samples)


def _planned(
    model: ir.Model, options: PruneOptions, units: Units, step: int, scorer: Scorer | None, clock: Clock | None
) -> Plan:
    order: Literal[1, 2] = 2 if options.criterion == "l2" else 1
    labels, grouping = units.labels, units.grouping
    scorer = scorer or criterion_scorer(options.criterion)
    if scorer is not None:
        measured = scorer(model, labels, grouping)
        grouping = find_groups(model.graph, labels, options.selection, order, measured)
    kind = "l1" if options.criterion == "auto" else options.criterion
    made = Plan(model, labels, grouping, (), kind)
    budget = budget_of(options, model, clock)
    return _choose(made, options, step) if budget is None else _within(made, options, budget, step)


def _saves_as_much(one: Plan, other: Plan) -> bool:
    whole = count_macs(one.model)
    left, others = (count_macs(cut_model(made.model, made.labels, made.cut)) for made in (one, other))
    return whole - left >= (1 - ABOUT) * (whole - others)


def _costs_less(one: Plan, other: Plan, samples: Sequence[Feed]) -> bool:
    """Whether a plan changes the outputs less than another, by a good margin."""
    probe = Reference(one.model, samples[:JUDGES])
    try:
        noise = [probe.noise_of(cut_model(made.model, made.labels, made.cut)) for made in (one, other)]
    except OnnxqpError:  # the proof will tell why
        return False
    return noise[0] < MARGIN * noise[1]


def _choose(made: Plan, options: PruneOptions, step: int) -> Plan:
    chosen = tuple(tuple(bundles) for bundles in choose(made.grouping.groups, options, step))
    return _spare_last(replace(made, chosen=chosen))


def _within(made: Plan, options: PruneOptions, budget: Budget, step: int) -> Plan:
    """The plan that leaves the share that the budget wants, as nearly as channels allow."""
    plain = replace(options, macs_ratio=None, params_ratio=None, latency_ratio=None)
    whole = count_macs(made.model) or 1
    last: list[tuple[Plan, ir.Model]] = []  # work and time are asked of the same plan, one after the other

    def cut(scored: Plan, ratio: float) -> Plan:
        return _choose(scored, replace(plain, ratio=ratio), step)

    def pruned(tried: Plan) -> ir.Model:
        if not last or last[0][0] is not tried:
            last[:] = [(tried, cut_model(made.model, made.labels, tried.cut) if tried.removes else made.model)]
        return last[0][1]

    def share(tried: Plan) -> float:
        return budget.share(pruned(tried)) if tried.removes else 1.0

    if budget.timed:
        best = find_cut(budget.wanted, partial(cut, made), lambda tried: count_macs(pruned(tried)) / whole, share)
        return _without_idle(best, budget) if best.removes else best
    best = nearest(budget.wanted, partial(cut, made), share)
    if options.macs_ratio is None or options.allocation != "global" or options.criterion not in PER_MAC:
        return best
    again = nearest(budget.wanted, partial(cut, _by_what_is_left(made, best)), share)
    return again if again.removes else best


def _by_what_is_left(made: Plan, tried: Plan) -> Plan:
    """The plan with scores for each multiply-accumulate that a channel takes where its neighbours are cut as `tried`.

    Scores are for what a channel takes in the whole model; a layer of which both sides shrink saves less. (SqueezeNet
    at 80 %, photographs of another source: 65.6 % of the predictions stay, with this 68.8 %.)
    """
    roots, graph = made.grouping.roots, made.model.graph
    gone = removed_labels(tried.chosen, roots)
    whole, left = (channel_macs(graph, made.labels, roots, each) for each in (None, gone))
    dearer = np.where(left > 0, whole / np.maximum(left, 1.0), 1.0)
    groups = tuple(
        replace(
            group, bundles=tuple(replace(b, score=b.score * float(dearer[b.classes].mean())) for b in group.bundles)
        )
        for group in made.grouping.groups
    )
    return replace(made, grouping=replace(made.grouping, groups=groups))


def _without_idle(made: Plan, budget: Budget) -> Plan:
    """Without those cuts that do not make the model faster: small ones, by what they save, are undone and timed.

    All of them together, then the smaller half, and so on: each measurement takes as long as many inferences.
    """
    macs = channel_macs(made.model.graph, made.labels, made.grouping.roots)
    saved = {n: float(sum(macs[b.classes].sum() for b in bundles)) for n, bundles in enumerate(made.chosen) if bundles}
    small, total = list[int](), 0.0
    for place in sorted(saved, key=lambda n: saved[n]):
        total += saved[place]
        if total > SMALL * sum(saved.values()) or len(small) + 1 == len(saved):
            break
        small.append(place)
    share = budget.share(cut_model(made.model, made.labels, made.cut)) if small else 0.0
    for _ in range(DOUBTS):
        if not small:
            break
        spared = replace(made, chosen=tuple(() if n in small else each for n, each in enumerate(made.chosen)))
        if budget.share(cut_model(made.model, made.labels, spared.cut)) <= share * (1 + SAME):
            return spared
        small = small[: len(small) // 2]
    return made


def check(options: PruneOptions) -> None:
    """UsageError unless exactly one of the ways to say how much is given, in range."""
    given = [name for name, value in options.amounts.items() if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"pass exactly one of {', '.join(f'--{name}' for name in options.amounts)}",
            hint="--ratio 0.5 removes half of the channels",
        )
    for name in ("macs-ratio", "params-ratio", "latency-ratio"):
        share = options.amounts[name]
        if share is not None and not 0.0 < share <= 1.0:
            raise UsageError(f"--{name} must lie above 0 and not above 1, not {share}", hint="0.5 halves")
    if options.ratio is not None and not 0.0 <= options.ratio < 1.0:
        raise UsageError(f"--ratio must be at least 0 and below 1, not {options.ratio}", hint="0.5 removes half")
    if options.threshold is not None and not options.threshold >= 0.0:
        raise UsageError(f"--threshold must not be negative, not {options.threshold}", hint="0.5 is a usual value")
    if options.min_channels < 1 or (options.round_to is not None and options.round_to < 1):
        raise UsageError("--min-channels and --round-to must be at least 1", hint="1 changes nothing")


def _spare_last(made: Plan) -> Plan:
    """Give back the strongest channels of a part of the graph that would keep none (one half of a Split, say)."""
    while True:
        empty = never_empty(made.labels, made.cut, made.model.graph)
        if not empty:
            return made
        classes = {
            int(c) for family in made.labels.families(empty[0]) for c in made.grouping.roots[family.labels].reshape(-1)
        }
        hit = [
            (bundle.score, n, bundle)
            for n, bundles in enumerate(made.chosen)
            for bundle in bundles
            if classes & set(bundle.classes.tolist())
        ]
        _, place, spared = max(hit, key=lambda entry: entry[:2])
        left = tuple(bundle for bundle in made.chosen[place] if bundle is not spared)
        made = replace(made, chosen=(*made.chosen[:place], left, *made.chosen[place + 1 :]))


def prune_model(
    model: ir.Model,
    feeds: Sequence[Feed],
    options: PruneOptions,
    *,
    step: int = 16,
    seed: int = 0,
    scorer: Scorer | None = None,
    clock: Clock | None = None,
    samples: Sequence[Feed] = (),
) -> PruneResult:
    """Prune a normalised model and prove the result on `feeds` and on random inputs like them; see `plan`.

    Raises UsageError for options that make no sense, DataError without `feeds`, UnsupportedError when there is nothing
    to cut (with the reasons), VerificationError when the result cannot be proven.
    """
    made = plan(model, options, step=step, scorer=scorer, clock=clock, samples=samples)
    if not feeds:
        raise DataError("there are no inputs to prove the pruned model on", hint="pass at least one sample")
    warnings: list[str] = []
    random: Sequence[Feed] = random_feeds(feeds[:2], seed)
    asked = not random
    while True:
        if not made.removes:
            raise _nothing(made, options)
        everything, trial = range(len(made.chosen)), [*feeds, *random]
        pruned, proof = attempt(made, everything, trial)
        if proof.max_abs_diff is None and not asked:  # perhaps the original refuses inputs that were made up
            asked, accepted = True, runnable(model, random)
            if len(accepted) < len(random):
                random = accepted
                continue
        if pruned is not None and proof.checked:
            warnings += state_notes(model.graph, made.cut)
            return PruneResult(pruned, made.describe(pruned, proof), tuple(warnings), made.cut)
        if proof.max_abs_diff is None:
            Session(model).run(feeds[0])  # inputs that the original refuses are not the cut's fault
        guilty = offenders(made, [n for n in everything if made.chosen[n]], trial)
        if not guilty:
            raise VerificationError(
                f"the pruned model cannot be proven: {proof.skipped_reason}",
                hint="this is worth a bug report; --exclude leaves nodes alone",
            )
        for group in [made.grouping.groups[n] for n in guilty]:
            warnings.append(f"channels of '{group.id}' are left alone: {DISAGREE} ({proof.skipped_reason})")
            made = _without(made, group)


def runnable(model: ir.Model, feeds: Sequence[Feed]) -> list[Feed]:
    """Those of some made-up inputs that the model accepts."""
    found = []
    with opened(model) as session:
        for feed in feeds:
            with contextlib.suppress(OnnxqpError):
                session.run(feed)
                found.append(feed)
    return found


def attempt(made: Plan, places: Sequence[int], feeds: Sequence[Feed]) -> tuple[ir.Model | None, Proof]:
    """Cut some groups and prove it; a rewrite that fails is a proof that failed."""
    cut = made.cut_of(places)
    try:
        pruned, masked = cut_model(made.model, made.labels, cut), mask_model(made.model, made.labels, cut)
    except (ValueError, IndexError, KeyError) as error:
        return None, Proof(False, None, 1e-3, f"the graph could not be rewritten: {error}")
    return pruned, prove(masked, pruned, feeds)


def offenders(made: Plan, places: Sequence[int], feeds: Sequence[Feed]) -> list[int]:
    """The groups whose cut alone already breaks the proof; all of them when only together they do."""
    if not places or attempt(made, places, feeds)[1].checked:
        return []
    if len(places) == 1:
        return list(places)
    half = len(places) // 2
    found = offenders(made, places[:half], feeds) + offenders(made, places[half:], feeds)
    return found or list(places)


def _without(made: Plan, group: ChannelGroup) -> Plan:
    place = next(n for n, other in enumerate(made.grouping.groups) if other is group)
    return replace(
        made,
        grouping=made.grouping.without(group, DISAGREE),
        chosen=(*made.chosen[:place], *made.chosen[place + 1 :]),
    )


def _nothing(made: Plan, options: PruneOptions) -> UnsupportedError:
    groups, pinned = made.grouping.groups, made.grouping.pinned
    if groups:
        asked = next(f"--{name} {value}" for name, value in options.amounts.items() if value is not None)
        return UnsupportedError(
            f"{asked} removes nothing: {len(groups)} groups could be cut",
            hint="raise it, or lower --round-to and --min-channels",
        )
    reasons = sorted({entry.reason for entry in pinned})
    shown = "; ".join(reasons[:5]) + ("; …" if len(reasons) > 5 else "")
    return UnsupportedError(
        f"no channel can be cut: {shown}" if reasons else "no channel can be cut: the model has no weights to prune",
        hint="`onnxqp inspect --groups` lists every group and its reason",
    )
