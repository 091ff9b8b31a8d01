"""What the vault has to say when bytes are not what they were."""

from __future__ import annotations


class SealBroken(Exception):
    """Sealed bytes do not open: altered, cut, moved to another place, or another key.

    Which of these it was is not told: authenticated encryption cannot know, and
    an attacker should not.
    """
