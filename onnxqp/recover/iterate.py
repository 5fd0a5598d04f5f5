"""Prune and recover: in one go, or in steps that each start from what the last one gave back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.calibrate.collect import even_places
from onnxqp.errors import UnsupportedError, UsageError
from onnxqp.evaluate.noise import Reference
from onnxqp.measurements import Measurements
from onnxqp.options import Criterion, PruneOptions, Recover
from onnxqp.prune import check_pattern, drop_layers, make_sparse, plan, prune_model
from onnxqp.prune.budgets import Clock, count_macs, wall_clock
from onnxqp.prune.places import Way, at_fewer_places, ways_of
from onnxqp.recover.input_sizes import element_scores
from onnxqp.recover.least_squares import Kind
from onnxqp.recover.reconstruct import BUDGET, Progress, recover_model
from onnxqp.recover.sampling import affordable, held_out
from onnxqp.recover.scorers import Scored, channel_scorer
from onnxqp.recover.unseen import Kinds, kinds_of
from onnxqp.report.records import Group, Pruning
from onnxqp.specs import Feed, Likeness

JUDGES = 64  # samples on which two ways to save the same work are held against each other
WITNESSES = (16, 128)  # samples, at least and at most, that tell what is lost at places, from all over...
WITNESSED_WORK = 2e10  # ...within so many multiply-accumulates
NEARLY = 0.05  # of the arithmetic that is asked for: no way may leave less
RARE = 2.0  # classes for each that samples show, above which they say little of the others
CHECKED_WORK = 5e10  # multiply-accumulates of a pass over the samples, up to which both ways are made once more
FLATTERY = 5.0  # times less noise than elsewhere is seen on samples of the kinds that a cut was made from


@dataclass(frozen=True)
class Recovered:
    """The pruned model, recovered where that was asked for; what was done, and what a user should know."""

    model: ir.Model
    pruning: Pruning
    warnings: tuple[str, ...]


def recovery_kind(asked: Recover, likeness: Likeness) -> Kind | None:
    """What is done for `--recover`. Made-up pictures serve least squares, too, and better than they serve means: with
    them ResNet-20 at 80 % of its arithmetic keeps 87 % of its predictions, and 62 % as it was cut. What noise says of
    sound or text is worse than nothing."""
    if asked == "auto":
        return None if likeness == "noise" else "least-squares"
    return None if asked == "none" else asked


def settled(options: PruneOptions, likeness: Likeness) -> PruneOptions:
    """The options with `auto` decided. What a channel is worth made-up pictures say as well, if less well; what a
    single weight is worth they do not."""
    criterion: Criterion = options.criterion
    if criterion == "auto":
        whole: Criterion = "l1" if likeness == "noise" else "reconstruction"
        single: Criterion = "activation" if likeness == "data" else "l1"
        criterion = whole if options.pattern == "structured" else single
    allocation = options.allocation
    if allocation == "auto":  # measured: uniform cuts ruin residual streams, which cost little arithmetic to keep
        counted = options.ratio is not None or options.threshold is not None or options.params_ratio is not None
        allocation = "uniform" if counted or criterion != "reconstruction" else "global"
    return replace(options, criterion=criterion, allocation=allocation)


def places_count(model: ir.Model, options: PruneOptions, kind: Kind | None, likeness: Likeness) -> bool:
    """Whether work may be saved at places instead of channels: where work is what is asked for, and samples judge."""
    if options.macs_ratio is None or options.criterion != "reconstruction" or kind is None:
        return False
    return bool(ways_of(model, options.selection, real=likeness == "data"))


@dataclass(frozen=True)
class Stage:
    """How far a model has been pruned: the model now, the cuts that led there, and a record of each."""

    model: ir.Model
    cuts: tuple[Cut, ...] = ()
    records: tuple[Pruning, ...] = ()
    warnings: tuple[str, ...] = ()
    places: tuple[Way, ...] = ()  # at which layers compute

    @property
    def pruning(self) -> Pruning:
        """The record of all steps as of one; there must have been one."""
        return _joined(self.records)


@dataclass(frozen=True)
class Choice:
    """A way to compute fewer places: the noise of it, what it and the cuts that are missing yet should add up to, and
    the noise of cuts alone."""

    way: Way
    noise: float
    expected: float
    after: float


@dataclass(frozen=True)
class Pruner:
    """Cuts a normalised model, step by step, and gives its accuracy back on `samples` after each.

    Every cut is proven on `trial` before it is recovered, and recovered towards the first model. `threads`: of what
    measures time, for `latency_ratio`; `measured` keeps or gives back the times. `doubts`: what samples of few classes
    say of two ways to save the same work is checked on others, which takes three times as long.
    """

    original: ir.Model
    trial: Sequence[Feed]
    samples: Sequence[Feed]
    kind: Kind | None
    likeness: Likeness
    step: int = 16
    seed: int = 0
    threads: int = 1
    measured: Measurements | None = None
    progress: Progress | None = None
    doubts: bool = True
    _scored: list[Scored] = field(default_factory=list)

    def cut(self, stage: Stage, options: PruneOptions) -> Stage:
        """One step on from `stage`, by the amount in `options`, of what is left. Errors are those of `prune_model`.

        Where layers go too they go first; what is left is then recovered towards the model without them.
        """
        if options.drop_layers is not None:
            short, rest = self.drop(stage, options), replace(options, drop_layers=None)
            return replace(self, original=short.model).cut(short, rest) if any(rest.amounts.values()) else short
        plain = self._channels(stage, options)
        if places_count(stage.model, options, self.kind, self.likeness):
            return self._with_fewer_places(stage, options, plain)
        return plain

    def _channels(self, stage: Stage, options: PruneOptions) -> Stage:
        scorer = channel_scorer(options, self.samples, self.seed, self._scored)
        clock = _clock(stage.model, options, self.trial, self.threads, self.measured)
        done = prune_model(
            stage.model,
            self.trial,
            options,
            step=self.step,
            seed=self.seed,
            scorer=scorer,
            clock=clock,
            samples=self.samples,
        )
        cuts = (*stage.cuts, done.cut)
        warnings = [*stage.warnings, *done.warnings]
        record, current = done.pruning, done.model
        if self.kind is not None:
            mended = recover_model(
                self._aim(stage), current, cuts, self.samples, kind=self.kind, seed=self.seed, progress=self.progress
            )
            record, current = replace(record, recovery=mended.recovery), mended.model
            warnings += [f"not wholly recovered: {reason}" for reason in mended.left]
        return Stage(current, cuts, (*stage.records, record), tuple(dict.fromkeys(warnings)), stage.places)

    def _aim(self, stage: Stage) -> ir.Model:
        """What recovery leads to: the first model, at the places at which it is still computed."""
        model = self.original
        for way in stage.places:
            model = way.of(model)
        return model

    # ---- fewer places

    def _with_fewer_places(self, stage: Stage, options: PruneOptions, plain: Stage) -> Stage:
        """The same work saved at fewer places where these are only averaged, and by cutting what is still to be cut;
        `plain` where that costs less, on samples that no refit has seen.

        Where samples show few of the classes, those of their kinds flatter what was made from them, and places need
        none to be made: then both are made from some kinds once more and judged on the others. (MobileNetV1 at 80 %:
        squared error 0.02 to 0.04 where kinds were seen, 0.08 to 0.10 where not.)
        """
        held = [feed for n, feed in enumerate(self.samples) if held_out(n, len(self.samples))][:JUDGES]
        choice = self._cheapest(stage, options, plain, held) if held else None
        if choice is None:
            return plain
        if choice.expected < choice.after:
            found = self._at_places(stage, options, choice)
            return found if Reference(self.original, held).noise_of(found.model) < choice.after else plain
        cheap = count_macs(self.original) * len(self.samples) <= CHECKED_WORK
        doubtful = self.doubts and cheap and choice.expected < FLATTERY * choice.after
        kinds = kinds_of(self.original, self.samples) if doubtful else Kinds()
        making, judging = by_kinds(self.samples, kinds) if kinds.rarity > RARE else ([], [])
        if not making:
            return plain
        judging = self._witnesses(judging)
        some = replace(self, samples=making, _scored=[])
        choice = some._cheapest(stage, options, some._channels(stage, options), judging)
        if choice is None or choice.expected >= choice.after:
            return plain
        noise = Reference(self.original, judging).noise_of(some._at_places(stage, options, choice).model)
        return self._at_places(stage, options, choice) if noise < choice.after else plain

    def _cheapest(self, stage: Stage, options: PruneOptions, plain: Stage, judges: Sequence[Feed]) -> Choice | None:
        """Which way promises most, before anything is made; None where each would save more than was asked for.

        What cutting costs grows with the square of what it saves (SqueezeNet at 85, 80 and 77 %), so most is known;
        what is lost at places any sample may tell.
        """
        probe, whole = Reference(self.original, judges), count_macs(stage.model)
        before, after = probe.noise_of(stage.model), probe.noise_of(plain.model)
        all_over = Reference(self.original, self._witnesses(self.samples))
        saved, found = 1 - count_macs(plain.model) / whole, list[Choice]()
        for way in ways_of(stage.model, options.selection, real=self.likeness == "data"):
            model = way.of(stage.model)
            left = count_macs(model) / whole
            if left >= (1 - NEARLY) * (options.macs_ratio or 0.0):
                noise, missing = all_over.noise_of(model), max(1 - (1 - saved) / left, 0.0)
                expected = noise + (after - before) * (missing / saved) ** 2
                found.append(Choice(way, noise - before, expected, after))
        return min(found, key=lambda choice: choice.expected, default=None)

    def _witnesses(self, samples: Sequence[Feed]) -> list[Feed]:
        least, most = WITNESSES
        count = min(max(int(WITNESSED_WORK / max(count_macs(self.original), 1)), least), most)
        return [samples[n] for n in even_places(len(samples), count)]

    def _at_places(self, stage: Stage, options: PruneOptions, choice: Choice) -> Stage:
        way = choice.way
        groups = plan(stage.model, replace(options, macs_ratio=None, ratio=0.0, criterion="l1")).record
        model, record = at_fewer_places(stage.model, way, self.trial, groups, choice.noise, self.seed)
        warnings = stage.warnings if way.warning is None else (*stage.warnings, way.warning)
        fewer = Stage(model, stage.cuts, (*stage.records, record), warnings, (*stage.places, way))
        left = (options.macs_ratio or 1.0) / (record.macs_ratio or 1.0)
        self._scored[:] += [replace(each, model=model) for each in self._scored if each.model is stage.model]
        try:
            return self._channels(fewer, replace(options, macs_ratio=left)) if left < 1 else fewer
        except UnsupportedError:  # what is still to be cut is less than a block of channels
            return fewer

    def drop(self, stage: Stage, options: PruneOptions) -> Stage:
        """Without whole layers, as many as `options` say; those behind them are recovered towards the model with them.

        Without two layers ResNet-20 (128 samples) agrees with itself in 74.0 % of what it did not see, and in 94.3 %
        once least squares have refitted the layers that are left.
        """
        done = drop_layers(
            stage.model, self.trial, self.samples, options.drop_layers or 0, selection=options.selection, seed=self.seed
        )
        record, current = done.pruning, done.model
        if self.kind is not None:
            mended = recover_model(
                stage.model,
                current,
                (),
                self.samples,
                kind=self.kind,
                seed=self.seed,
                progress=self.progress,
                changed=done.stand_ins,
            )
            record, current = replace(record, recovery=mended.recovery), mended.model
        return replace(stage, model=current, records=(*stage.records, record))


def prune_and_recover(
    model: ir.Model,
    trial: Sequence[Feed],
    samples: Iterable[Feed],
    options: PruneOptions,
    *,
    kind: Kind | None,
    likeness: Likeness = "data",
    step: int = 16,
    seed: int = 0,
    threads: int = 1,
    measured: Measurements | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """Prune a normalised model and give its accuracy back on `samples`, `options.steps` times; see `Pruner`."""
    structured = options.pattern == "structured"
    if not structured:
        check_pattern(options)
    elif options.steps > 1 and options.ratio is None:
        raise UsageError("--steps needs --ratio", hint="the other budgets are met in one step")
    pruner = Pruner(model, trial, affordable(samples, BUDGET), kind, likeness, step, seed, threads, measured, progress)
    stage = Stage(model)
    if options.drop_layers is not None:
        stage, options = pruner.drop(stage, options), replace(options, drop_layers=None)
        pruner = replace(pruner, original=stage.model)
        if structured and not any(options.amounts.values()):
            return Recovered(stage.model, stage.pruning, stage.warnings)
    if not structured:
        stage = _sparse(pruner, stage, options)
        return Recovered(stage.model, stage.pruning, stage.warnings)
    for number in range(1, options.steps + 1):
        stage = pruner.cut(stage, _step_options(options, number))
    return Recovered(stage.model, stage.pruning, stage.warnings)


def _sparse(pruner: Pruner, stage: Stage, options: PruneOptions) -> Stage:
    """Zeros in place of smaller layers; nothing is recovered."""
    wanda = options.criterion == "activation"
    scores = element_scores(stage.model, pruner.samples, seed=pruner.seed) if wanda else None
    done = make_sparse(stage.model, pruner.trial, options, scores=scores, seed=pruner.seed)
    return Stage(done.model, (), (*stage.records, done.pruning), (*stage.warnings, *done.warnings))


def plan_with_samples(
    model: ir.Model, samples: Iterable[Feed], options: PruneOptions, *, step: int, seed: int, threads: int = 1
) -> Pruning:
    """What would be cut, with the scores that samples give; nothing is changed."""
    feeds = affordable(samples, BUDGET)
    clock = _clock(model, options, feeds[:2], threads)
    scorer = channel_scorer(options, feeds, seed)
    return plan(model, options, step=step, scorer=scorer, clock=clock, samples=feeds).record


def by_kinds(samples: Sequence[Feed], kinds: Kinds) -> tuple[list[Feed], list[Feed]]:
    """Samples of one half of the kinds, and of the other: classes beside each other are often alike."""
    limit = sorted(kinds.of_feeds)[len(kinds.of_feeds) // 2]
    parts: tuple[list[Feed], list[Feed]] = ([], [])
    for feed, kind in zip(samples, kinds.of_feeds, strict=True):
        parts[kind >= limit].append(feed)
    return parts


def _clock(
    model: ir.Model,
    options: PruneOptions,
    feeds: Sequence[Feed],
    threads: int,
    measured: Measurements | None = None,
) -> Clock | None:
    if options.latency_ratio is None or not feeds:
        return None
    return wall_clock(model, feeds, threads=threads, measured=measured)


def _step_options(options: PruneOptions, number: int) -> PruneOptions:
    """What step `number` removes of what is left; counts are rounded in the last one only."""
    if options.steps == 1 or options.ratio is None:
        return options
    left, wanted = (1 - options.ratio * n / options.steps for n in (number - 1, number))
    return replace(
        options, ratio=1 - wanted / left, round_to=options.round_to if number == options.steps else 1, steps=1
    )


def _joined(records: Sequence[Pruning]) -> Pruning:
    """The record of all steps as of one."""
    if len(records) == 1:
        return records[0]
    cut = [record for record in records if record.groups] or list(records[:1])  # where layers go, no channels are cut
    first, last = cut[0], cut[-1]
    before = {group.id: group.before for group in first.groups}
    after = {group.id: group.after for record in records for group in record.groups}
    macs, parameters = 1.0, 1.0
    for record in records:
        macs *= record.macs_ratio if record.macs_ratio is not None else 1.0
        parameters *= record.params_ratio
    proofs = [record.proof for record in records if record.proof is not None]
    recoveries = [record.recovery for record in records if record.recovery is not None]
    return replace(
        last,
        channels_before=first.channels_before,
        groups=[Group(g.id, g.members, before[g.id], after[g.id], g.score_kind) for g in first.groups],
        macs_ratio=macs,
        params_ratio=parameters,
        proof=max(proofs, key=lambda proof: proof.max_abs_diff or 0.0) if proofs else None,
        dropped=[layer for record in records for layer in record.dropped or []] or None,
        perforated=[region for record in records for region in record.perforated or []] or None,
        narrowed=[image for record in records for image in record.narrowed or []] or None,
        recovery=replace(recoveries[-1], seconds=round(sum(r.seconds for r in recoveries), 3)) if recoveries else None,
    )
