"""The doors between the gateway and what lies outside it.

A port is a `Protocol` whose docstring is the contract: what is durable when it
returns, what a failure leaves open, what may be repeated.
"""
