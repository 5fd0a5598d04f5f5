"""Which channels go: counts, rounding, allocation, thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxqp.options import PruneOptions
from onnxqp.prune.groups import Bundle, ChannelGroup
from onnxqp.prune.select import choose, rounded_count


def group(scores: list[float], first: int = 0, width: int = 1, name: str = "g") -> ChannelGroup:
    """Channels that stand alone, or in bound bundles of `width`."""
    order = np.argsort(scores, kind="stable")
    bundles = tuple(
        Bundle(first + np.arange(n * width, (n + 1) * width), scores[n], (place + 1) / len(scores), bound=width > 1)
        for place, n in enumerate(order.tolist())
    )
    return ChannelGroup(name, (name,), first + np.arange(len(scores) * width), bundles, (name,))


def removed(groups: list[ChannelGroup], step: int = 1, **options: object) -> list[list[int]]:
    chosen = choose(groups, PruneOptions(**options), step)  # type: ignore[arg-type]
    return [sorted(int(c) for bundle in bundles for c in bundle.classes) for bundles in chosen]


def test_uniform_takes_the_weakest_of_every_group() -> None:
    groups = [group([4.0, 1.0, 3.0, 2.0]), group([1.0, 9.0, 5.0, 6.0, 7.0], first=4)]
    assert removed(groups, ratio=0.5) == [[1, 3], [4, 6]]  # half of five, ties to even: two


def test_global_ranks_all_groups_together() -> None:
    groups = [group([0.1, 0.2, 0.3, 3.4]), group([1.0, 0.9, 1.1, 1.0], first=4)]
    assert removed(groups, ratio=0.5, allocation="global") == [[0, 1, 2], [5]]


def test_global_never_empties_a_group() -> None:
    groups = [group([0.1, 0.1]), group([5.0, 5.0, 5.0, 5.0], first=2)]
    assert removed(groups, ratio=0.8, allocation="global") == [[0], [2, 3, 4]]
    assert removed(groups, ratio=0.8, allocation="global", min_channels=2) == [[], [2, 3]]


def test_threshold_is_relative_to_the_mean_of_the_group() -> None:
    groups = [group([0.5, 1.0, 1.5]), group([10.0, 2.0, 18.0], first=3)]
    assert removed(groups, threshold=0.6) == [[0], [4]]
    assert removed(groups, threshold=0.0) == [[], []]


def test_the_last_channel_stays() -> None:
    assert removed([group([1.0, 2.0])], ratio=0.99) == [[0]]
    assert removed([group([1.0])], ratio=0.99) == [[]]


def test_bundles_go_whole() -> None:
    groups = [group([1.0, 2.0, 3.0, 4.0], width=3)]
    assert removed(groups, ratio=0.5) == [[0, 1, 2, 3, 4, 5]]
    assert removed(groups, ratio=0.3) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("before", "wanted", "step", "kept"),
    [
        (64, 32, 8, 32),
        (64, 45, 8, 48),  # 6.7 % off
        (100, 50, 16, 48),
        (116, 58, 16, 64),  # 10 % off
        (24, 12, 8, 12),  # 8 and 16 are a third off, 12 itself is a multiple of 4
        (10, 5, 8, 5),
        (16, 15, 16, 14),  # 16 would undo the cut
        (16, 8, 16, 8),
        (8, 8, 8, 8),
        (1000, 999, 16, 992),
    ],
)
def test_automatic_rounding(before: int, wanted: int, step: int, kept: int) -> None:
    assert rounded_count(before, wanted, round_to=None, step=step) == kept


@given(st.integers(1, 300), st.data(), st.sampled_from([1, 4, 8, 16]), st.sampled_from([1, 2, 3, 12]))
def test_automatic_rounding_keeps_near_the_request(before: int, data: st.DataObject, step: int, width: int) -> None:
    wanted = data.draw(st.integers(1, before))
    kept = rounded_count(before, wanted, round_to=None, step=step, width=width)
    assert 1 <= kept <= before
    assert abs(kept - wanted) <= 0.125 * wanted
    assert (kept < before) == (wanted < before)


def test_rounding_to_a_number() -> None:
    assert rounded_count(64, 30, round_to=8, step=16) == 32
    assert rounded_count(64, 3, round_to=8, step=16) == 8
    assert rounded_count(8, 4, round_to=8, step=16) == 8  # no larger than the number: stays whole
    assert rounded_count(64, 37, round_to=1, step=16) == 37
    assert rounded_count(64, 2, round_to=1, step=16, minimum=6) == 6


def test_rounding_of_the_selection() -> None:
    groups = [group([float(n) for n in range(64)])]
    assert len(removed(groups, ratio=0.3, step=8)[0]) == 64 - 48  # 45 asked for
    assert len(removed(groups, ratio=0.3, step=8, round_to=1)[0]) == 19


@pytest.mark.parametrize("amount", [{"ratio": 0.5}, {"ratio": 0.5, "allocation": "global"}, {"threshold": 0.0}])
def test_layers_with_ratios_of_their_own(amount: dict[str, object]) -> None:
    groups = [group([float(n) for n in range(8)], 8 * place, name=f"block{place}/conv") for place in range(3)]
    found = removed(groups, layers=(("block*", 0.25), ("block1/*", 0.0)), round_to=1, **amount)
    assert [len(channels) for channels in found] == [2, 0, 2]
    assert len(removed(groups, layers=(("block1*", 0.75),), round_to=1, **amount)[1]) == 6


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_all_channels_compete_and_no_group_is_emptied(ratio: float) -> None:
    groups = [group([0.01 * n for n in range(16)], name="weak"), group([1.0 + n for n in range(64)], 16, name="strong")]
    weak, strong = removed(groups, ratio=ratio, allocation="global", round_to=1)
    assert len(weak) == 16 - int(np.ceil(16 * (1 - ratio) / 2))
    assert len(weak) + len(strong) == pytest.approx(80 * ratio, abs=1)


def test_channels_that_compete_go_in_whole_steps_of_rounding() -> None:
    cheap = [0.1] * 13 + [9.0] * 51  # to the nearest count that is fast, 48, three dear ones would go too
    groups = [group(cheap), group([0.5] * 8 + [9.0] * 56, 64)]
    assert [len(channels) for channels in removed(groups, step=8, ratio=0.125, allocation="global")] == [8, 8]
    assert [len(channels) for channels in removed(groups, step=8, ratio=0.125, allocation="global", round_to=1)] == [
        13,
        3,
    ]


def test_dear_channels_do_not_fill_the_place_of_a_step_that_is_too_large() -> None:
    groups = [group([0.1] * 128), group([5.0 + n for n in range(8)], 128)]
    assert [len(channels) for channels in removed(groups, step=16, ratio=0.08, allocation="global")] == [16, 0]
    groups = [group([0.1] * 128), group([0.12 + n for n in range(8)], 128)]
    assert [len(channels) for channels in removed(groups, step=16, ratio=0.05, allocation="global")] == [0, 1]


@given(st.lists(st.integers(2, 80), min_size=1, max_size=4), st.floats(0.0, 0.95), st.sampled_from([1, 8, 16]))
def test_channels_that_compete_are_as_many_as_asked_for_but_for_a_step(
    sizes: list[int], ratio: float, step: int
) -> None:
    random, first, groups = np.random.default_rng(0), 0, []
    for size in sizes:
        groups.append(group(random.random(size).tolist(), first))
        first += size
    found = [len(channels) for channels in removed(groups, step=step, ratio=ratio, allocation="global")]
    kept = [size - gone for size, gone in zip(sizes, found, strict=True)]
    assert all(
        rounded_count(size, left, round_to=None, step=step) == left for size, left in zip(sizes, kept, strict=True)
    )
    assert sum(found) <= round(ratio * first) + step // 2 or sum(1 for gone in found if gone) == 1
    assert sum(found) > 0 or round(ratio * first) == 0
