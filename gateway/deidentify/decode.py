"""The trial decode: what cannot be decoded completely is not a picture."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.scrubbed import Scrubbed


def trial_decode(picture: Scrubbed, limits: Limits) -> None:
    """Decode every pixel and throw them away.

    Raises:
        Rejected: The decoder refuses, warns, sees another size than the header
            promises, or needs more memory than there is.
    """
    with decoding(limits):
        _load(picture)


@contextlib.contextmanager
def decoding(limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder raises in this block into a refusal.

    Raises:
        Rejected: See there.
    """
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except (MemoryError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Rejected("too_many_pixels") from error
    except UnidentifiedImageError as error:
        raise Rejected("not_an_image") from error
    except (OSError, EOFError) as error:
        # Pillow has one exception for both; the words are all it tells.
        raise Rejected("truncated" if "truncated" in str(error) else "not_an_image") from error
    except (ArithmeticError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError, Warning) as error:
        raise Rejected("not_an_image") from error


def _load(picture: Scrubbed) -> None:
    with Image.open(io.BytesIO(picture.data), formats=[picture.format.upper()]) as image:
        if image.size != (picture.width, picture.height):
            raise Rejected("not_an_image")
        if getattr(image, "n_frames", 1) != 1:
            raise Rejected("multi_frame")
        image.load()
