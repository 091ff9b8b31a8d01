"""Package buf.validate."""
