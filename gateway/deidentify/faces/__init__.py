"""Faces in pictures: found, hidden, and looked for again.

Functions on arrays, run in a worker behind walls.  A picture is height, width,
channels RGB, uint8, upright, and changed in place.  What could tell one person
from another (landmarks, blendshapes, templates) never leaves that worker.
"""

from __future__ import annotations
