"""The gateway acts: it serves the wire, keeps the records, and does what policy decided."""
