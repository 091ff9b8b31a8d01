"""The policy packs that decisions named."""

from gateway.adapters.sql.table import Table, blob, words


class PackTextRow(Table, table=True):
    """Table of `PackText`."""

    __tablename__ = "pack_text"

    digest: str = words(key=True)
    pack_id: str = words()
    version: str = words()
    body: bytes = blob()
