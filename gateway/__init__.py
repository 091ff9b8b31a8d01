"""The gateway acts: it serves the wire, keeps the records, and does what policy decided."""

import os

# grpc's Python API cannot set a lowest TLS version (grpc/grpc#37305).  Its list of cipher suites
# rules TLS 1.2 alone, so a list of one suite that needs a pre-shared key, which nobody has, leaves
# TLS 1.3.  grpc reads the variable once, when it is imported: hence here.  Where grpc was imported
# before us, `gateway.rpc.interceptors` refuses each call over TLS 1.2 instead.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES256-CBC-SHA"
