"""The wire's side of the gateway: who calls, what is allowed, how refusals leave."""
