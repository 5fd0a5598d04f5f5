"""How much a channel matters: norms of the weight slices that make it and that read it.

Every weight that a group's channels run through (the filters that produce a channel, the input columns that consume it)
votes with the norms of its slices, each divided by their mean over the group so that large layers do not drown small
ones; a channel's score is the mean of the votes. Scores of a group therefore average 1, which is what `--threshold` and
global allocation compare.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


def scores(count: int, weight: IntArray, channel: IntArray, group: IntArray, norm: FloatArray) -> FloatArray:
    """The score of each of `count` channels, from the votes on them: 0 for a channel nobody voted on.

    One entry per vote: by which weight, on which channel of which group, with which norm. A weight whose slices are all
    zero counts the channels of a group alike.
    """
    _, cast = np.unique(np.stack([weight, group]), axis=1, return_inverse=True)
    cast = cast.reshape(-1)
    mean = (np.bincount(cast, weights=norm) / np.maximum(np.bincount(cast), 1))[cast]
    votes = np.divide(norm, mean, out=np.ones_like(norm), where=mean > 0)
    total = np.bincount(channel, weights=votes, minlength=count)
    return np.asarray(total / np.maximum(np.bincount(channel, minlength=count), 1), np.float64)
