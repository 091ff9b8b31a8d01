"""The records in SQL: SQLite for one machine, PostgreSQL for several, through the same code.

`records.open_records` gives the port, `schema.migrate` prepares the database.
Both import SQLModel and SQLAlchemy, which takes about a second: import them late.
"""
