"""Events as Parquet: the columns of the table, typed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from audit.views import table
from audit.views.rows import Context, Row

PATH = "events.parquet"
ROW_GROUP = 65_536


def write(rows: Sequence[Row], context: Context) -> bytes:
    """Return the events as Parquet; the same input and the same pyarrow give the same bytes.

    Times are milliseconds in UTC, `leaf_hash` is the 32 bytes, `line` the leaf's own
    bytes: its leaf hash is SHA-256(00 || line).  What a leaf does not say is null.
    """
    import pyarrow as pa
    from pyarrow import parquet

    text = [name for name in table.CODED if name != "nseal"]
    schema = pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("leaf_hash", pa.binary(32), nullable=False),
            pa.field("type", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("actor", pa.string(), nullable=False),
            *(pa.field(name, pa.string()) for name in text),
            pa.field("nseal", pa.int64()),
            pa.field("exp", pa.timestamp("ms", tz="UTC")),
            pa.field("seals", pa.int32(), nullable=False),
            pa.field("line", pa.binary(), nullable=False),
        ],
        metadata={
            "origin": context.origin,
            "size": str(context.size),
            "root": context.root.hex(),
            "range": f"{context.start} {context.end}",
        },
    )
    columns: dict[str, list[Any]] = {
        "index": [row.index for row in rows],
        "leaf_hash": [row.hash for row in rows],
        "line": [row.line for row in rows],
        "seals": [len(row.event["seals"]) for row in rows],
        "nseal": [row.event.get("nseal") for row in rows],
        "exp": [row.event.get("exp") for row in rows],
        **{
            column: [row.event[name] for row in rows]
            for column, name in {"type": "ty", "time": "t", "id": "id", "actor": "act"}.items()
        },
        **{name: [_text(row.event.get(name)) for row in rows] for name in text},
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    sink = io.BytesIO()
    parquet.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP,
        version="2.6",
    )
    return sink.getvalue()


def _text(value: Any) -> str | None:
    return None if value is None else table.plain(value)
