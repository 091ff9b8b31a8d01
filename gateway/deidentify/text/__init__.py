"""Scrub prompts from strangers: what names, reaches or numbers a person does not get through.

`scrub` is a function on text; `TextScrubber` runs it in a worker behind walls, with a deadline.
"""

from __future__ import annotations

from gateway.deidentify.text.entities import ACTIONS, ENTITIES, MAX_CHARS, PromptPolicy, PromptRefused
from gateway.deidentify.text.pool import PromptScrubber, TextScrubber
from gateway.deidentify.text.scrub import Found, ScrubbedText, scrub

__all__ = [
    "ACTIONS",
    "ENTITIES",
    "MAX_CHARS",
    "Found",
    "PromptPolicy",
    "PromptRefused",
    "PromptScrubber",
    "ScrubbedText",
    "TextScrubber",
    "scrub",
]
