"""What is looked for in a prompt, and what is done where it is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_CHARS: Final = 2000
"""The longest prompt, as the wire has it."""

ENTITIES: Final = (
    # In the order in which they win where two overlap: what has check digits or a fixed form comes first.
    "national_id",
    "iban",
    "payment_card",
    "email",
    "url",
    "ip_address",
    "mac_address",
    "file_name",
    "date_of_birth",
    "phone",
    "document_number",
    "coordinates",
    "address",
    "handle",
    "person",
)
"""Codes of what is found; they stand in leaves and in the configuration."""

HIDDEN: Final = "hidden_text"
"""Characters that nobody sees; they are always dropped, and counted."""

ACTIONS: Final = ("mask", "drop", "refuse")
"""`mask` puts `[code]` in its place, `drop` nothing; `refuse` takes no prompt that has it."""


class PromptRefused(Exception):
    """The prompt may not be passed on; `detail` is `too_long`, `residue_found`, or what it holds."""

    def __init__(self, detail: str) -> None:
        """Keep the code; it never quotes the prompt."""
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PromptPolicy:
    """What is done per entity; an entity that is not named is masked."""

    actions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse codes that nobody knows: a misspelt one would protect nothing."""
        if not self.actions.keys() <= set(ENTITIES) or not set(self.actions.values()) <= set(ACTIONS):
            raise ValueError("unknown entity or action")

    def action(self, entity: str) -> str:
        """Return what is done with an entity."""
        return "drop" if entity == HIDDEN else self.actions.get(entity, "mask")
