"""Which of several candidates is taken, by numbers alone."""

from dataclasses import replace

import pytest

from onnxqp.compress.goal import Closeness, Goal, Measured, choose, goal_of
from onnxqp.options import Gates


def measured(speedup, agreement=100.0, drop=0.0, noise=1e-4, size=1000, samples=10_000):
    return Measured(Closeness(samples, agreement, drop, noise), speedup, 4000 / size, size)


def taken(goal, **points):
    return choose(list(points.items()), goal)


def goal(gates=None, *, classes=True, labelled=False, enough_db=25.0, samples=200):
    return goal_of(gates or Gates(), classes=classes, labelled=labelled, enough_db=enough_db, samples=samples)


def test_without_budgets_next_to_no_loss_is_the_goal():
    assert goal(labelled=True) == Goal(max_drop=1.0, lenient=True)
    assert goal() == Goal(min_agreement=99.0, lenient=True)
    assert goal(classes=False, enough_db=40.0) == Goal(min_sqnr_db=40.0, lenient=True)


def test_too_few_samples_to_show_a_share_of_changes_are_judged_by_noise_as_well():
    assert goal(samples=17) == Goal(min_agreement=99.0, min_sqnr_db=25.0, lenient=True)
    assert not goal(samples=17).accurate(Closeness(17, 100.0, 0.0, 10**-1.9))
    assert goal(Gates(min_agreement=99.0), samples=17) == Goal(min_agreement=99.0)


def test_no_more_is_asked_than_int8_alone_gives_unless_that_costs_points():
    alone = Closeness(200, 97.5, 0.1, 10**-2.0, 0.1)
    worse, ruined = replace(alone, agreement=96.0), replace(alone, drop=5.0)
    assert not goal().accurate(alone)
    assert goal().at_most(alone).accurate(alone)
    assert not goal().at_most(alone).accurate(worse)
    assert not goal().at_most(ruined).accurate(ruined)
    assert goal(samples=20).at_most(alone).accurate(alone)
    asked = goal(Gates(min_agreement=99.0))
    assert asked.at_most(alone) is asked


def test_what_cannot_be_told_from_nothing_is_no_room():
    assert goal().leaves_room(Closeness(200, 100.0, 0.0, 1e-3))
    noisy = goal(classes=False)
    assert noisy.leaves_room(Closeness(200, None, None, 10**-2.6))
    assert not noisy.leaves_room(Closeness(200, None, None, 10**-2.51))


def test_fewer_channels_must_be_more_faithful_than_rounding_where_there_are_no_classes():
    int8 = Closeness(200, None, None, 10**-2.6)
    cut = replace(int8, cut=True)
    assert goal(classes=False).accurate(int8)
    assert not goal(classes=False).accurate(cut)
    assert goal(classes=False).accurate(replace(cut, noise=10**-3.6))
    assert not goal(classes=False, enough_db=40.0).accurate(replace(cut, noise=10**-3.6))
    assert not goal(classes=False).at_most(int8).accurate(cut)
    assert goal().accurate(Closeness(10_000, 99.9, 0.0, 0.5, cut=True))  # predictions tell


def test_a_budget_of_speed_alone_leaves_accuracy_open():
    asked = goal(Gates(min_speedup=2.0), labelled=True)
    assert not asked.bounds_accuracy
    assert asked == Goal(min_speedup=2.0)


def test_an_output_without_classes_is_bounded_by_its_noise():
    asked = goal(Gates(max_drop=1.0), classes=False, labelled=True)
    assert asked.accurate(Closeness(100, None, None, 10**-2.6))
    assert not asked.accurate(Closeness(100, None, None, 10**-2.4))


def test_the_fastest_within_the_accuracy_is_taken():
    goal = Goal(max_drop=1.0)
    points = {"original": measured(1.0), "int8": measured(2.0, 99.5, 0.4), "both": measured(3.0, 97.0, 2.0)}
    assert taken(goal, **points) == "int8"


def test_the_most_faithful_that_is_fast_enough_is_taken():
    points = {"slow": measured(1.5), "fast": measured(2.2, 99.0), "faster": measured(4.0, 90.0)}
    assert taken(Goal(min_speedup=2.0), **points) == "fast"


def test_equal_speed_goes_to_the_more_faithful():
    points = {"one": measured(2.0, 99.5, noise=1e-2), "other": measured(1.99, 99.5, noise=1e-4)}
    assert taken(Goal(min_agreement=99.0), **points) == "other"


def test_equal_speed_goes_to_the_smaller():
    points = {"original": measured(1.0, size=4000), "weights": measured(0.99, 99.5, noise=1e-4, size=1100)}
    assert taken(Goal(min_agreement=99.0), **points) == "weights"


def test_both_kinds_of_budget_must_hold():
    points = {"accurate": measured(2.0, 99.9, 0.1), "small": measured(1.5, 99.0, 0.5, size=500)}
    assert taken(Goal(max_drop=1.0, min_size_ratio=8.0), **points) == "small"


def test_accuracy_outweighs_speed_where_not_all_can_be_had():
    points = {"original": measured(1.0), "int8": measured(2.0, 99.9, 0.1), "ruined": measured(5.0, 50.0, 40.0)}
    assert taken(Goal(max_drop=1.0, min_speedup=4.0), **points) == "int8"
    assert taken(Goal(min_speedup=9.0), **points) == "ruined"


@pytest.mark.parametrize(("samples", "kept"), [(100_000, True), (50, False)])
def test_few_samples_must_leave_a_margin(samples, kept):
    assert Goal(max_drop=1.0).accurate(Closeness(samples, 99.1, 0.9, 1e-4)) is kept


def test_equal_predictions_need_no_margin():
    assert Goal(min_agreement=99.0).accurate(Closeness(10, 100.0, 0.0, 1e-4))


@pytest.mark.parametrize(("error", "kept"), [(0.2, True), (0.4, False), (None, False)])
def test_a_measured_standard_error_of_the_drop_is_to_spare(error, kept):
    found = Closeness(256, 97.0, 0.7, 1e-4, error)
    assert Goal(max_drop=1.0).accurate(found) is kept


@pytest.mark.parametrize(
    ("gates", "trivial"),
    [
        (Gates(max_size=5000), True),
        (Gates(max_size=3999), False),
        (Gates(min_speedup=0.5, min_size_ratio=1.0), True),
        (Gates(min_speedup=1.5, max_size=5000), False),
    ],
)
def test_what_the_original_has_already_bounds_nothing(gates, trivial):
    found = goal_of(gates, classes=True, labelled=False, enough_db=25.0, samples=200, original=4000)
    assert found.bounds_accuracy is trivial
    assert found.min_agreement == (99.0 if trivial else None)
    assert found.max_size == gates.max_size


def test_decibels_that_cannot_be_gained_are_told():
    found = Closeness(29, None, None, 10**-1.7, cut=True)
    assert goal(classes=False).within(found, 18.1)
    assert not goal(classes=False).within(found, 17.9)
    assert goal().within(Closeness(200, 90.0, 1.0, 1.0), 0.0)
