"""Which provision asks for which part of a package."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PARTS = (
    "confirmation",
    "purposes",
    "categories",
    "recipients",
    "retention",
    "rights",
    "complaint",
    "source",
    "decisions",
    "transfers",
    "copy",
)
"""What an answer to a request for access says."""


def _as_gdpr(law: str) -> Mapping[str, tuple[str, ...]]:
    letters = {"purposes": "a", "categories": "b", "recipients": "c", "retention": "d", "rights": "e"}
    letters |= {"complaint": "f", "source": "g", "decisions": "h"}
    return MappingProxyType(
        {
            "confirmation": (f"{law} Art. 15(1)",),
            **{part: (f"{law} Art. 15(1)({letter})",) for part, letter in letters.items()},
            "transfers": (f"{law} Art. 15(2)",),
            "copy": (f"{law} Art. 15(3)",),
        }
    )


_CCPA = ("Cal. Civ. Code 1798.110",)
_SCH1 = ("PIPEDA Sch. 1 cl. 4.9",)

ANSWERS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "gdpr": _as_gdpr("GDPR"),
        "uk_gdpr": _as_gdpr("UK GDPR"),
        "ccpa": MappingProxyType(
            {
                **dict.fromkeys(("purposes", "categories", "recipients", "source"), _CCPA),
                "confirmation": _CCPA,
                "retention": ("Cal. Civ. Code 1798.100(a)(3)",),
                # Templates are named, never disclosed; none is kept.
                "copy": ("Cal. Civ. Code 1798.130(a)(2)", "11 CCR 7024(d)"),
            }
        ),
        "pipeda": MappingProxyType(
            {
                **dict.fromkeys(("confirmation", "categories", "copy"), _SCH1),
                "purposes": ("PIPEDA Sch. 1 cl. 4.9.1",),
                "recipients": ("PIPEDA Sch. 1 cl. 4.9.3",),
                "retention": ("PIPEDA Sch. 1 cl. 4.5.2",),
                "complaint": ("PIPEDA s. 8(7)",),
            }
        ),
    }
)
"""Pack id to the citations of each part; a law that is not here is cited by its pack's own right."""
