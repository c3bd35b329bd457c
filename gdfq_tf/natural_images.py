"""What is known of photographs before any is seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Amplitudes of photographs fall with frequency to this power, about (Field 1987).
SPECTRUM = 1.0
# Share of a channel's variance that the others do not have.
OWN_COLOUR = 0.1


def amplitudes_of(
    frequencies: npt.NDArray[np.float64], spectrum: float = SPECTRUM
) -> npt.NDArray[np.float64]:
    """How strong waves of so many periods an image are, those of half a one being 1.

    Below, the spectrum is flat: images differ in brightness.
    """
    return np.maximum(2 * frequencies, 1.0) ** -spectrum


def colour_deviations(num_channels: int) -> npt.NDArray[np.float64]:
    """The symmetric root of the channels' covariance, float64 (C, C).

    Each has variance 1 and shares all but `OWN_COLOUR` of it with every other.
    """
    common = np.full((num_channels, num_channels), 1 / num_channels)
    own = np.eye(num_channels) - common
    shared = OWN_COLOUR + num_channels * (1 - OWN_COLOUR)
    return np.sqrt(OWN_COLOUR) * own + np.sqrt(shared) * common
