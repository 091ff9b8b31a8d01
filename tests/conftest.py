"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A test says what is right, never how fast it was: machines that run other things beside are slow.
settings.register_profile("lethe", deadline=None)
settings.load_profile("lethe")
