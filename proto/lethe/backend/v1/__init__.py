"""Package lethe.backend.v1."""
