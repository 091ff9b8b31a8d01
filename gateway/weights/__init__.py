"""The model files that Lethe runs: which they are, proof that these are they, and where they come from."""

from __future__ import annotations

from gateway.weights.files import (
    Weight,
    WeightsInvalid,
    checked,
    digest,
    directory,
    manifest,
    missing,
    named,
    read,
)

__all__ = [
    "Weight",
    "WeightsInvalid",
    "checked",
    "digest",
    "directory",
    "manifest",
    "missing",
    "named",
    "read",
]
