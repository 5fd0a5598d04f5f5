"""The sentence that says why one candidate was taken."""

import pytest

from onnxqp.compress import explained
from onnxqp.compress.goal import Closeness, Goal, Measured

INT8 = Measured(Closeness(256, 99.8, 0.1, 1e-3), 2.0, 4.0, 250_000)
NO_CLASSES = Measured(Closeness(29, None, None, 1e-3), 2.0, 4.0, 250_000)
LOSES = Measured(Closeness(256, 80.0, 9.0, 1e-1), 4.0, 5.0, 200_000)


@pytest.mark.parametrize(
    ("goal", "points", "said"),
    [
        (Goal(min_agreement=99.0), [INT8, LOSES], "taken is the fastest with at least 99.0 % agreement"),
        (Goal(max_drop=3.0, min_speedup=1.5), [INT8], "of those that are 1.5x as fast"),
        (Goal(min_speedup=1.5, max_size=300_000), [INT8], "closest to the original of those that are 1.5x as fast and"),
        (Goal(min_sqnr_db=25.0), [NO_CLASSES], "at least 25.0 dB (35 dB if pruned)"),
        (Goal(min_agreement=99.0, min_speedup=3.0), [INT8, LOSES], "no candidate keeps every budget"),
        (Goal(min_agreement=99.0, min_speedup=3.0), [INT8], "taken is the fastest with at least 99.0 %"),
        (Goal(min_agreement=99.9), [LOSES], "taken is the fastest, judged on 256 samples"),
    ],
)
def test_it_names_the_budgets_and_what_was_done(goal, points, said):
    assert said in explained(goal, points, 256)
