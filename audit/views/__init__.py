"""Views: what the leaves say, for those who read tables, pages and other people's formats.

Each is a pure function of the rows and the context, so that whoever holds the
entries derives it again and compares.  None of them proves anything by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.views import article30, ocsf, table
from audit.views.rows import Context, Controller, Row

__all__ = ["Context", "Controller", "Row", "derive"]


def derive(rows: Sequence[Row], context: Context) -> dict[str, bytes]:
    """Return the text views by their paths in an export; the same input gives the same bytes.

    Parquet (`audit.views.parquet`) and the page (`audit.views.report`) are apart:
    the one needs a package that a verifier need not have, the other a signature.
    """
    record = article30.record(rows, context)
    return {
        table.PATH: table.write(rows),
        ocsf.PATH: ocsf.write(rows, context),
        article30.JSON_PATH: article30.as_json(record),
        article30.CSV_PATH: article30.as_csv(record),
    }
