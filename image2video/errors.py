"""The errors of image2video: each is an `Image2VideoError` and the builtin error it stands for.

A message says what came, what was needed, and what to do; tests/test_dialect.py holds its form.
"""

LONGEST = 10_000
"""Characters of a message; what came may have any length, and a message shows it."""


class Image2VideoError(Exception):
    """The base of every error that image2video raises on purpose; a message without end is cut in its middle."""

    # Not in a constructor: compiled graphs that raise our errors could not make them.
    def __str__(self) -> str:
        message, half = super().__str__(), LONGEST // 2
        left_out = len(message) - 2 * half
        return message if left_out <= 0 else f"{message[:half]} … ({left_out} characters) … {message[-half:]}"


class InputError(Image2VideoError, ValueError):
    """A value that cannot be used: it is out of range, of the wrong shape, or unknown."""


class InputTypeError(Image2VideoError, TypeError):
    """A value of the wrong type or dtype."""


class StateError(Image2VideoError, RuntimeError):
    """A call at the wrong time: on a wrapped, compiled or unwrapped model, or outside of its context."""


class MissingError(Image2VideoError, FileNotFoundError):
    """A file, folder or name that does not exist."""


class ExistsError(Image2VideoError, FileExistsError):
    """Something is in the way of what was to be written."""


class UnsupportedError(Image2VideoError, NotImplementedError):
    """A model, layer or option that image2video cannot support, with the reason."""
