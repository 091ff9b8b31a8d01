"""Message rules of protovalidate, rebuilt from the descriptor in its wheel (Apache-2.0; see LICENSE.md)."""
