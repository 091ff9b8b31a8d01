"""The migrations of the records.

A new one is drafted against a migrated scratch database, and then read:

    lethe migrate ...
    alembic -c gateway/adapters/sql/migrations/alembic.ini -x url=sqlite:////tmp/scratch.db \
        revision --autogenerate -m "say what it does"
"""
