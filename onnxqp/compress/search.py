"""The search for a combination of pruning and quantization that fits the budgets.

The unpruned model is quantized first. Then the model is pruned on, step by step, each step recovered towards the
original; every step is a candidate in float and, where its accuracy allows, once more in int8. A step that loses too
much ends the way, and the interval between it and the last good one is halved (on a logarithmic scale). How many steps
there are depends on what one takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxqp.compress.candidates import Candidate
from onnxqp.compress.explanation import explained
from onnxqp.compress.goal import Closeness, Goal, Measured, choose, loss
from onnxqp.compress.judging import CAREFUL, HeldBack
from onnxqp.compress.pace import Pace
from onnxqp.compress.packed import Order, order_weights
from onnxqp.errors import UnsupportedError, VerificationError
from onnxqp.model import to_bytes
from onnxqp.options import PruneOptions, QuantizeOptions
from onnxqp.prune import plan
from onnxqp.quantize import QuantizeResult, quantize_model
from onnxqp.quantize.decide import Decision
from onnxqp.recover import Pruner, Stage
from onnxqp.report.records import FrontierPoint
from onnxqp.runtime import Session
from onnxqp.specs import Feed

SHARES = (0.85, 0.7, 0.55, 0.4, 0.3, 0.2)  # of the multiply-accumulates that are left on the way
HALVINGS = 3
MOST = 2 * (2 + len(SHARES) + HALVINGS)  # candidates: each step in float and in int8
QUIETER_DB = 9.0  # that a cut half as deep gains at most: on the zoo 0.3 to 7.5 dB
FINE = 1.06  # steps closer than this are not told apart
MOST_RIVALS = 4  # that are timed once more, together
CLEANER = 1.1  # times as fast as the original as it was given: by less the normalised one is taken to be as fast
NEARLY = 0.9  # of the speed that is asked for: another measurement may find all of it

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What was taken, and all that was judged, in order, by what is asked of them."""

    candidate: Candidate
    judged: list[Candidate]
    goal: Goal

    @property
    def points(self) -> list[FrontierPoint]:
        """What was judged, for the report."""
        return [each.point(self.goal, chosen=each is self.candidate) for each in self.judged]

    @property
    def choice(self) -> str:
        """Why this one was taken."""
        measured = [each.measured for each in self.judged]
        return explained(self.goal, measured, self.candidate.measured.closeness.samples)


@dataclass
class Search:
    """`bytes`: the size of the model as it was given. `feeds`: to calibrate on. A named target decides by its table:
    then speed is predicted, and never timed."""

    held: HeldBack
    goal: Goal
    pruner: Pruner
    prune: PruneOptions
    quantize: QuantizeOptions
    feeds: Iterable[Feed]
    few: Iterable[Feed]
    bytes: int
    threads: int
    warn: Warn
    advance: Callable[[int, int | None], None]
    typical: bool = True  # samples show what a model will see, most of its classes: what four bits cost, too
    judged: list[Candidate] = field(default_factory=list)
    partly: bool = True  # whether what `quantize` refuses is worth returning to float in parts
    float_ns: float | None = None  # what the table says of the original
    pace: Pace = field(default_factory=Pace)
    refusal: str = ""  # why the last step that could not be made could not

    @property
    def timed(self) -> bool:
        """Whether speed is measured, for this machine."""
        return self.quantize.target == "auto"

    # ---- the way

    def run(self, *, pruning: bool) -> Found:
        """Try what there is to try; without `pruning` only quantization. Raises UnsupportedError where nothing can be
        done."""
        start = Stage(self.pruner.original)
        self._judge(Candidate(start.model, start, self._measured(start, start.model, 1.0)))
        refusal = self._quantized(start)
        if pruning:
            self._pruned(start)
        if len(self.judged) == 1 and refusal is not None:
            raise refusal
        return self._decide()

    def once(self, options: PruneOptions) -> Found:
        """Prune by the amount in `options`, quantize, and nothing else."""
        stage = self.pruner.cut(Stage(self.pruner.original), options)
        plain = Candidate(stage.model, stage, self._measured(stage, stage.model, self._ratio(stage)))
        self._judge(plain)
        refusal = self._quantized(stage)
        if refusal is not None:
            self.warn(f"pruned, not quantized: {refusal.message}")
        return self._decide()

    def _pruned(self, start: Stage) -> None:
        """By whole blocks of channels where there are any, for what is left of one costs a kernel as much as a whole;
        else as finely as it goes."""
        block = self.pruner.step
        whole = replace(self.prune, round_to=block)
        groups = plan(start.model, replace(self.prune, ratio=0.0, criterion="l1"), step=block).record.groups
        wide = self.prune.round_to is None and any(group.before > block for group in groups)
        if not (wide and self._descend(start, whole)) and not self._descend(start, self.prune):
            self.warn(f"nothing was pruned: {self.refusal}")

    def _descend(self, start: Stage, options: PruneOptions) -> bool:
        """Prune on until a step loses too much; whether any step could be made."""
        last, share, ahead = start, 1.0, list(SHARES)
        while ahead:
            wanted = ahead.pop(0)
            stage = self._step(last, options, wanted)
            if stage is last:
                continue
            if self._ends(stage):
                if last is not start or self._worth_halving(wanted):
                    self._halve(last, options, share, wanted)
                return True
            last, share = stage, wanted
            few = self.pace.fitting(ahead)
            if len(few) < len(ahead):
                self.warn("the search took fewer and larger steps than usual: each takes long on this model")
            ahead = few
        return last is not start

    def _ends(self, stage: Stage) -> bool:
        """Judge a step in float and in int8; whether there is no point in going on."""
        plain = Candidate(stage.model, stage, self._measured(stage, stage.model, self._ratio(stage)))
        self._judge(plain)
        if self.goal.bounds_accuracy and not self.goal.accurate(plain.measured.closeness):
            return True
        before = len(self.judged)
        self._quantized(stage)
        fits = any(self.goal.small_and_fast(each.measured) for each in self.judged[before - 1 :])
        return fits and not self.goal.bounds_accuracy

    def _worth_halving(self, share: float) -> bool:
        """Whether the smallest cut that halving comes to may be quiet enough, by what the first, to `share`, did: half
        of a cut leaves an eighth of its noise, at best."""
        finest = share
        for _ in range(HALVINGS):
            finest = math.sqrt(finest) if 1 / finest >= FINE else finest
        return self.goal.within(self.judged[-1].measured.closeness, QUIETER_DB * math.log2((1 - share) / (1 - finest)))

    def _halve(self, good: Stage, options: PruneOptions, high: float, low: float) -> None:
        """Between a share that keeps the accuracy (or misses the speed) and one that does not (or reaches it)."""
        ends: dict[float, bool] = {}  # by what is left: a cut that gets no finer is judged once
        for _ in range(HALVINGS):
            if high / low < FINE or self.pace.left() < 1:
                return
            middle = math.sqrt(high * low)
            stage = self._step(good, options, middle)
            if stage is good:
                return
            left = self._ratio(stage)
            if left not in ends:
                ends[left] = self._ends(stage)
            if ends[left]:
                low = middle
            else:
                good, high = stage, middle

    def _step(self, stage: Stage, options: PruneOptions, share: float) -> Stage:
        """Pruned on to `share` of the original's multiply-accumulates; the same where that cannot be, or removes
        nothing."""
        left = self._ratio(stage)
        if share >= left:
            return stage
        self.pace.begin()
        try:
            return self.pruner.cut(stage, replace(options, macs_ratio=share / left))
        except UnsupportedError as err:
            self.refusal = err.message
        except VerificationError as err:
            self.refusal = err.message
            self.warn(f"nothing was pruned beyond {left:.0%} of the multiply-accumulates: {err.message}")
        return stage

    # ---- candidates

    def _quantized(self, stage: Stage) -> UnsupportedError | None:
        """Judge a stage in int8, as `quantize` would make it; what stands against it, if anything.

        Where that costs too much, with blocks returned to float, else with int8 weights alone. Where it is all in float
        because int8 would cost too much by the measure of `quantize`, as much of that int8 as the budgets allow, too.
        """
        try:
            result = quantize_model(
                stage.model,
                self.feeds,
                self.quantize,
                few=self.few,
                hopeless=self.goal.bounds_accuracy and self.partly,
                threads=self.threads,
                measured=self.held.measured,
            )
        except UnsupportedError as err:
            return err
        for warning in result.warnings:
            self.warn(warning)
        first = self._of(stage, result, result.trial.placement.speedup)
        self._judge(first)
        if not stage.records:
            self.goal = self.goal.at_most(first.measured.closeness)
        limit = self.goal.most_bytes(self.bytes)
        if not self.goal.bounds_accuracy:
            if limit is not None and first.measured.bytes > limit:
                self._packed(first, limit)
        elif first.integers and not self.goal.accurate(first.measured.closeness) and not self._returned(stage, result):
            plain = result.trial.material.build(Decision((), {}))
            self._judge(self._of(stage, replace(result, candidate=plain), 1.0))
        elif result.refused is not None:
            self.partly = self._refused(stage, result.refused)
        return None

    def _refused(self, stage: Stage, result: QuantizeResult) -> bool:
        """Judge integers that `quantize` refused, and with as few blocks in float as it takes; whether any do."""
        whole = self._of(stage, result, result.trial.placement.speedup)
        self._judge(whole)
        return self.goal.accurate(whole.measured.closeness) or self._returned(stage, result, least=1)

    def _returned(self, stage: Stage, result: QuantizeResult, least: int = 0) -> bool:
        """Judge the same with as few blocks in float as it takes, if that leaves so many integers; whether it does."""

        def keeps(model: ir.Model) -> bool:
            return self.goal.accurate(self._closeness(stage, model))

        within = result.within(keeps)
        kept = [each for each in within.tried if each.kept and each.integers >= least]
        if kept:
            best = max(kept, key=lambda each: each.integers)
            self._judge(self._of(stage, within, best.speedup))
        return bool(kept)

    def _of(self, stage: Stage, result: QuantizeResult, speedup: float) -> Candidate:
        """A quantized candidate; `speedup` is predicted, over the stage in float."""
        time = result.trial.placement.float_ns
        if self.float_ns is None:
            self.float_ns = time
        pruned = self.float_ns / time if time and self.float_ns else 1 / self._ratio(stage)
        return Candidate(
            result.model,
            stage,
            self._measured(stage, result.model, 1 / (pruned * speedup)),
            result.candidate,
        )

    def _measured(self, stage: Stage, model: ir.Model, time: float) -> Measured:
        """Judge a model made from `stage`; `time` is the share of the original's that it is thought to take, where no
        clock runs."""
        session = Session(model, threads=self.threads)
        closeness = replace(self.held.closeness(session), cut=bool(stage.records))
        size = len(to_bytes(model))
        speedup = self.held.speedups([session])[0] if self.timed else 1 / time
        return Measured(closeness, speedup, self.bytes / size, size)

    def _judge(self, candidate: Candidate) -> None:
        self.judged.append(candidate)
        self.advance(len(self.judged), MOST)

    @staticmethod
    def _ratio(stage: Stage) -> float:
        """Share of the multiply-accumulates that is left."""
        return (stage.pruning.macs_ratio or 1.0) if stage.records else 1.0

    # ---- four bits

    def _pack(self) -> None:
        """Weights in four bits: of what would be taken; where bytes are bounded, of the fastest that get there so."""
        limit = self.goal.most_bytes(self.bytes)
        if not self.goal.bounds_accuracy:
            return
        if limit is None:
            if self.typical:
                self._packed(self._taken(), None)
            return
        fit = [each for each in self.judged if each.made is not None and self._may_be_packed(each)]
        fit.sort(key=lambda each: -each.measured.speedup)
        for base in dict.fromkeys([*fit[:MOST_RIVALS], *(each for each in fit if not each.stage.records)]):
            if self._packed(base, limit):
                return

    def _may_be_packed(self, base: Candidate) -> bool:
        fast = self.goal.min_speedup is None or base.measured.speedup >= self.goal.min_speedup
        return fast and self.goal.accurate(base.measured.closeness)

    def _packed(self, base: Candidate, limit: int | None) -> bool:
        """Judge a candidate with weights in four bits; whether that keeps all budgets. Kernels stay as fast."""
        if base.made is None or not self._may_be_packed(base):
            return False
        if limit is None and not self.goal.leaves_room(base.measured.closeness):
            return False
        order = order_weights(base.model, list(self.few), self.held.measured)
        count = self._how_many(order, base, limit)
        if not count:
            return self.goal.keeps(base.measured)
        model = order.model(count)
        size = len(to_bytes(model))
        measured = Measured(self._closeness(base.stage, model), base.measured.speedup, self.bytes / size, size)
        made = replace(base.made, model=model, packed=count)
        self._judge(replace(base, model=model, measured=measured, made=made))
        return self.goal.keeps(measured)

    def _how_many(self, order: Order, base: Candidate, limit: int | None) -> int:
        """As many as half of the accuracy that is left pays for; as many more as a limit of bytes asks for, if all of
        it pays for those."""
        enough = 0 if limit is None else order.enough(limit)
        if enough is None or not self.goal.bounds_accuracy:
            return enough or 0
        midway = self.goal.midway(base.measured.closeness)
        most = order.most(lambda model: midway.accurate(self._closeness(base.stage, model)))
        if most >= enough:
            return most
        return enough if self.goal.accurate(self._closeness(base.stage, order.model(enough))) else 0

    def _closeness(self, stage: Stage, model: ir.Model) -> Closeness:
        return replace(self.held.closeness(Session(model, threads=self.threads)), cut=bool(stage.records))

    # ---- the choice

    def _decide(self) -> Found:
        if self.timed:
            self._time_rivals()
            self._even_out()
        self._pack()
        return Found(self._taken(), self.judged, self.goal)

    def _taken(self) -> Candidate:
        return choose([(each, each.measured) for each in self.judged], self.goal)

    def _time_rivals(self) -> None:
        """Time those that may win once more, interleaved: a figure of its own may be a figure of noise."""
        near = self._fastest() if self.goal.bounds_accuracy else self._most_faithful()
        sessions = [Session(each.model, threads=self.threads) for each in near]
        if not sessions:
            return
        for each, speedup in zip(near, self.held.speedups(sessions, CAREFUL), strict=True):
            place = self.judged.index(each)
            self.judged[place] = replace(each, measured=replace(each.measured, speedup=speedup))

    def _even_out(self) -> None:
        """Weights that are only stored as integers cost no time, whatever the clock says: the runtime folds them. Nor
        is the original faster than itself by what noise may be; by more it is, where the runtime could not fuse what
        normalising has cleaned up."""
        in_float = {id(each.stage): each.measured.speedup for each in self.judged if each.made is None}
        for place, each in enumerate(self.judged):
            if each.made is not None and each.made.layers:
                continue
            speedup = max(in_float.get(id(each.stage), 0.0), each.measured.speedup)
            if not each.stage.records:
                speedup = in_float.get(id(each.stage), 1.0)
                speedup = speedup if speedup > CLEANER else 1.0
            self.judged[place] = replace(each, measured=replace(each.measured, speedup=speedup))

    def _fastest(self) -> list[Candidate]:
        """The fastest that was not pruned and the fastest in float always run: no result is slower than what quantizing
        or pruning alone would give."""
        fit = [each for each in self.judged if self.goal.accurate(each.measured.closeness)] or list(self.judged)
        if len(fit) < 2:
            return []
        fit.sort(key=lambda each: -each.measured.speedup)
        unpruned = [each for each in fit if not each.stage.records][:1]
        in_float = [each for each in fit if each.stage.records and not each.integers][:1]
        return list(dict.fromkeys([*fit[:MOST_RIVALS], *unpruned, *in_float]))

    def _most_faithful(self) -> list[Candidate]:
        """Of those that are nearly fast enough, or more than that, where that is all that is asked besides bytes."""
        if self.goal.min_speedup is None:
            return []
        nearly = replace(self.goal, min_speedup=NEARLY * self.goal.min_speedup)
        fit = [each for each in self.judged if nearly.small_and_fast(each.measured)]
        return sorted(fit, key=lambda each: loss(each.measured.closeness))[:MOST_RIVALS]
