"""Sealing and opening: the stream format, the key hierarchy, who holds which key."""
