"""Package lethe.v1."""
