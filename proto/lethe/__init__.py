"""The wire, generated from the .proto files beside it."""
