"""Fuzzes one target until the time is up or it fails: `python -m tests.fuzz.one NAME LIBFUZZER-ARGUMENTS`."""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["gateway.deidentify"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()
