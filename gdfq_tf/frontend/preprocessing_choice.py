"""The preprocessing of a network: chosen where nobody gave one, checked where one did.

A wrong one gives a verified model that is of no use. What is known is how the graph
begins, and how well the candidates fit its statistics (`preprocessing_fit`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from gdfq_tf.config import PREPROCESSINGS
from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.canonical import Canonical
from gdfq_tf.frontend.preprocessing_fit import (
    Fit,
    candidates,
    guess_input_range,
    rank,
    scales_pixels,
)
from gdfq_tf.preprocessing import Preprocessing, make_preprocessing

_A_PREPROCESSING = f"{option('preprocessing')}: one of {', '.join(PREPROCESSINGS)}"
_PASS_A_PREPROCESSING = f"pass the scaling it was trained with, {_A_PREPROCESSING}"
_PASS_A_RANGE = (
    f"pass the {option('input_range')} of the features that it was trained on"
)
# Misfits and their differences; docs/results.md has those of networks of all kinds.
# Right ones fitted by 0.4 at worst, and the best one was right by 0.15 or unclear.
_EXPLAINS = 0.6
_CLEAR = 0.15
# Right ones lay at most 0.1 behind the best. Refused is only what images of another
# kind than thought of cannot explain: deviations that are off by a factor of four.
_MUCH_BETTER = 0.3
_GROSS = 1.5


def choose_preprocessing(name: str, canonical: Canonical) -> Preprocessing:
    """The one that the network's graph or statistics tell.

    Args:
      name: of the classifier, for messages.
      canonical: the network.

    Warns (UserWarning) of what was chosen.

    Raises:
      UserError: they tell none; with how well each fits.
    """
    channels = canonical.model.input_shape[-1]
    if scales_pixels(canonical.input_scale, canonical.input_offset):
        warnings.warn(
            f"{name} begins with a scaling of pixels itself, so that preprocessing "
            "'uint8' is taken: pixels as they are",
            stacklevel=2,
        )
        return make_preprocessing("uint8", channels)
    fits = _fits(canonical, candidates(channels))
    if not _tell(fits):
        raise UserError(_question(name, canonical, fits))
    best, second = fits[:2]
    warnings.warn(
        f"preprocessing {best.preprocessing.name!r} is taken, which fits the "
        f"statistics of {name} best: {best}, next {second}; if it was trained with "
        "another one, pass that",
        stacklevel=2,
    )
    return best.preprocessing


def check_preprocessing(
    name: str, canonical: Canonical, preprocessing: Preprocessing
) -> None:
    """Holds the preprocessing that was given against graph and statistics.

    Args:
      name: of the classifier, for messages.
      canonical: the network.
      preprocessing: pixels -> input of the network as its author built it; that of
        features is not comparable with the others.

    Warns (UserWarning) if another one fits much better.

    Raises:
      UserError: pixels would be scaled twice, or another one fits and this one does
        not at all.
    """
    if preprocessing.input_range is not None:
        return
    channels = canonical.model.input_shape[-1]
    fits = _fits(canonical, [preprocessing, *candidates(channels)])
    _refuse_scaling_twice(name, canonical, preprocessing, fits)
    if not fits:
        return
    best = fits[0]
    given = next(fit for fit in fits if fit.preprocessing == preprocessing)
    lead = given.misfit - best.misfit
    if best.misfit > _EXPLAINS or lead < _MUCH_BETTER:
        return
    message = (
        f"preprocessing {preprocessing.name!r} does not fit the statistics of {name}: "
        f"misfit {given.misfit:.2f}, but {best.misfit:.2f} of "
        f"{best.preprocessing.name!r}"
    )
    if lead >= _GROSS:
        better = option("preprocessing", best.preprocessing.name)
        raise UserError(
            f"{message}; pass the scaling it was trained with, which may be {better}"
        )
    warnings.warn(f"{message}; check what it was trained with", stacklevel=2)


def in_words(preprocessing: Preprocessing) -> str:
    """What was given, for messages."""
    if preprocessing.input_range is None:
        return f"preprocessing {preprocessing.name!r}"
    low, high = np.min(preprocessing.input_range), np.max(preprocessing.input_range)
    return option("input_range", f"{low:g},{high:g}")


def what_to_pass(preprocessing: Preprocessing) -> str:
    """What to do if it is a wrong one, for messages."""
    is_of_pixels = preprocessing.input_range is None
    return _PASS_A_PREPROCESSING if is_of_pixels else _PASS_A_RANGE


def _fits(canonical: Canonical, preprocessings: Sequence[Preprocessing]) -> list[Fit]:
    """How well they fit; none where inputs are no images that could be made."""
    if tuple(canonical.model.input_shape[1:3]) == (1, 1):
        return []
    return rank(
        canonical.model, preprocessings, canonical.input_scale, canonical.input_offset
    )


def _tell(fits: Sequence[Fit]) -> bool:
    """Whether the first one is right beyond doubt."""
    if not fits or fits[0].misfit > _EXPLAINS:
        return False
    return fits[1].misfit - fits[0].misfit >= _CLEAR


def _refuse_scaling_twice(
    name: str, canonical: Canonical, given: Preprocessing, fits: Sequence[Fit]
) -> None:
    if given.name == "uint8":
        return
    changes_pixels = given in candidates(len(given.scale)) or scales_pixels(
        np.array(given.scale), np.array(given.offset)
    )
    # Networks that were trained so, by mistake, have the statistics of it.
    trained_so = bool(fits) and fits[0].preprocessing == given
    itself = scales_pixels(canonical.input_scale, canonical.input_offset)
    if itself and changes_pixels and not trained_so:
        raise UserError(
            f"{name} begins with a scaling of pixels itself, and preprocessing "
            f"{given.name!r} would change them before: pass "
            f"{option('preprocessing', 'uint8')} for pixels as they are"
        )


def _question(name: str, canonical: Canonical, fits: Sequence[Fit]) -> str:
    """What to ask where neither graph nor statistics tell."""
    message = "the model does not tell how its input was scaled"
    if fits:
        ranking = ", ".join(map(str, fits))
        message += (
            f", and the statistics of {name} leave it open (misfits, 0 is perfect: "
            f"{ranking})"
        )
    message += f"; {_PASS_A_PREPROCESSING}"
    guess = guess_input_range(canonical.model)
    if guess is None:
        return message
    ends = [(x - canonical.input_offset) / canonical.input_scale for x in guess]
    low, high = np.min(ends), np.max(ends)
    input_range = option("input_range", f"{low:.3g},{high:.3g}")
    return (
        f"{message}, or, for features that are no pixels, {input_range} (a guess from "
        "the statistics)"
    )
