"""Colour profiles by their hash: which may stay in a picture.

A profile can name its owner, its maker's serial number, or be the measured
curves of one single monitor.  So none stays but those that everybody has, byte
for byte.  sRGB is what a picture without a profile is taken for, so that a
known sRGB profile says nothing and goes; Display P3 says how to read the
pixels, and stays.

Rule:
    ICC.1:2022, 7.2: the profile header.
    IEC 61966-2-1: sRGB.  SMPTE EG 432-1: the primaries of P3.
"""

from __future__ import annotations

import hashlib
from typing import Final

MAX_PROFILE: Final = 4 << 20
"""Bytes of one profile; those of presses reach two megabytes."""
PNG_PROFILE_NAME: Final = b"icc\0\0"
"""The name that a profile gets in a PNG, and its one method of compression."""

DISPLAY_P3: Final = frozenset(
    {
        # Apple's, 536 bytes, in pictures of its phones.
        "20789fdbea9835251a4f0796c8bf45cbd964896044886540da21ffc7457af0ab",
        # Skia's, 520 bytes, in pictures of Android phones.
        "cbc24bdec8bc4a41cb3e2a8381adfa90a0a9b6f25791cf54c75d4476f6786f43",
    }
)


def is_kept(profile: bytes) -> bool:
    """Return whether the profile is one that may stay."""
    return hashlib.sha256(profile).hexdigest() in DISPLAY_P3
