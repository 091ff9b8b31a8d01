"""The wire between the gateway and its inference backends."""
