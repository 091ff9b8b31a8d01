"""The typed client over the stubs."""

from gateway.client.client import Client, Refused
from gateway.client.profile import ClientFiles, ProfileInvalid, read_profile

__all__ = ["Client", "ClientFiles", "ProfileInvalid", "Refused", "read_profile"]
