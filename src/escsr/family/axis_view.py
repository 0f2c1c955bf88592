"""Which pixels of an enlarged image a piece of the image answers for, along one axis."""

from dataclasses import dataclass

from escsr.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisView:
    """A stretch of the result's axis, and the piece of the image's axis that it is made from.

    Places are those of the whole image, so that pieces meet exactly whatever the factor.

    Raises:
        ConfigurationError: no output pixel, or a side below 1.
    """

    length: int
    """Of the whole image, in pixels."""
    output_length: int
    """Of the whole result, in pixels."""
    start: int = 0
    """First pixel of the image that is at hand."""
    first: int = 0
    """First pixel of the result that is asked for."""
    stop: int
    """One past the last."""
    before: int = 0
    """Pixels that the image was extended by in front; ``length`` and ``start`` leave them out."""
    after: int = 0
    """Likewise behind."""

    def __post_init__(self) -> None:
        """Check that there is something to make, and something to make it from."""
        if min(self.length, self.output_length, self.stop - self.first) < 1:
            raise ConfigurationError(
                f"An axis of {self.length} pixels was asked to become {self.output_length}, of "
                f"them {self.first} to {self.stop}; all three need at least 1 pixel."
            )

    @classmethod
    def whole(cls, *, length: int, output_length: int) -> "AxisView":
        """All of the result from all of the image."""
        return cls(length=length, output_length=output_length, stop=output_length)

    @property
    def num_pixels(self) -> int:
        """Pixels of the result that are asked for."""
        return self.stop - self.first
