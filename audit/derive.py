"""The derived files of an export: made, and made again to compare (`audit.views`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audit import views
from audit.errors import ExportInvalid
from audit.export import Source
from audit.note import Verifier
from audit.views import parquet, report


def derive(source: Source, sign: Callable[[str], str]) -> dict[str, bytes]:
    """Return all derived files by path.

    The page is left out where it could not check itself: of events that are proven
    one by one, and of more than `report.MAX_EVENTS`.

    Args:
        sign: Makes the page's signed note, with the key that signs the manifest.
    """
    rows, context = _seen(source)
    files = {**views.derive(rows, context), parquet.PATH: parquet.write(rows, context)}
    if source.span.kind != "events" and len(rows) <= report.MAX_EVENTS:
        files[report.PATH] = report.render(rows, context, sign)
    return files


def check(files: Mapping[str, bytes], source: Source, verifiers: Sequence[Verifier]) -> tuple[str, ...]:
    """Return the derived files of an export that could not be made again here, if all others agree.

    Raises:
        ExportInvalid: One is not what deriving it again gives.
        NoteInvalid: The page is signed by no known key.
    """
    rows, context = _seen(source)
    for path, content in views.derive(rows, context).items():
        if path in files and files[path] != content:
            raise _differs(path)
    if report.PATH in files:
        report.confirm(files[report.PATH], rows, context, verifiers)
    if parquet.PATH not in files:
        return ()
    if importlib.util.find_spec("pyarrow") is None:
        return (parquet.PATH,)
    made = parquet.write(rows, context)
    if files[parquet.PATH] != made and not _is_same_table(files[parquet.PATH], made):
        raise _differs(parquet.PATH)
    return ()


def _seen(source: Source) -> tuple[tuple[views.Row, ...], views.Context]:
    reading, span = source.reading, source.span
    rows = tuple(
        map(views.Row, reading.indices, reading.hashes, reading.events, reading.lines),
    )
    return rows, views.Context(
        origin=span.head.origin,
        checkpoint=source.note,
        size=span.head.size,
        root=span.head.root,
        start=span.start,
        end=span.end,
        vkeys=source.vkeys,
        controller=source.facts.controller,
        left=source.left,
        right=source.right,
        hashes=source.hashes,
        backends=source.facts.backends,
    )


def _is_same_table(given: bytes, made: bytes) -> bool:
    """Return whether two Parquet files say the same: another release of pyarrow writes other bytes."""
    import pyarrow as pa
    from pyarrow import parquet as reader

    def table(content: bytes) -> Any:
        return reader.read_table(io.BytesIO(content))

    try:
        if (
            reader.read_metadata(io.BytesIO(given)).num_rows
            != reader.read_metadata(io.BytesIO(made)).num_rows
        ):
            return False
        return bool(table(given).equals(table(made), check_metadata=True))
    except (pa.ArrowException, OSError, ValueError):
        return False


def _differs(path: str) -> ExportInvalid:
    return ExportInvalid("derived_differs", f"{path} is not what the entries give")
