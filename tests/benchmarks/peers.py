"""The processes: a backend that answers at once, a hop that only passes on, a gateway with meters.

    python -m tests.benchmarks.peers backend FOLDER
    python -m tests.benchmarks.peers proxy FOLDER ADDRESS
    python -m tests.benchmarks.peers metered FOLDER OUT

Each prints `listening` once it serves, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from lethe.backend.v1 import backend_pb2 as pb
from lethe.backend.v1 import backend_pb2_grpc
from PIL import Image

from gateway import compose
from gateway.adapters import telemetry
from gateway.admin.folder import Layout
from gateway.rpc.interceptors import _caller
from gateway.settings import load

CHUNK = 256 << 10
GENERATE = "/lethe.backend.v1.InferenceBackendService/Generate"
OPTIONS = [("grpc.max_receive_message_length", 1 << 20)]


def small_jpeg() -> bytes:
    """Return what the backend answers to every picture."""
    made = io.BytesIO()
    Image.linear_gradient("L").resize((512, 512)).save(made, "JPEG", quality=90)
    return made.getvalue()


class Echo(backend_pb2_grpc.InferenceBackendServiceServicer):
    """Takes the whole picture in and answers at once with a small one."""

    digest = hashlib.sha256(b"benchmarks").hexdigest()
    answer = small_jpeg()

    async def Describe(self, _request: Any, _context: Any) -> pb.DescribeResponse:  # noqa: N802 - the wire names it
        return pb.DescribeResponse(
            name="echo",
            version="1",
            device="cpu",
            model_digest=self.digest,
            styles=["studio_grey"],
            region="local",
            supports_cancel=True,
            supports_forget=True,
        )

    async def Generate(self, requests: Any, _context: Any) -> AsyncIterator[pb.GenerateResponse]:  # noqa: N802 - the wire names it
        async for _ in requests:
            pass
        yield pb.GenerateResponse(
            result=pb.ResultHeader(
                image_type="jpeg",
                size_bytes=len(self.answer),
                width=512,
                height=512,
                backend="echo",
                device="cpu",
                model_digest=self.digest,
            )
        )
        for start in range(0, len(self.answer), CHUNK):
            yield pb.GenerateResponse(chunk=self.answer[start : start + CHUNK])

    async def Cancel(self, _request: Any, _context: Any) -> pb.CancelResponse:  # noqa: N802 - the wire names it
        return pb.CancelResponse()

    async def Forget(self, _request: Any, _context: Any) -> pb.ForgetResponse:  # noqa: N802 - the wire names it
        return pb.ForgetResponse()


def server_credentials(layout: Layout) -> grpc.ServerCredentials:
    """Return the backend's own certificate, and a demand for one that its CA signed."""
    pair = (layout.key("backend").read_bytes(), layout.cert("backend").read_bytes())
    return grpc.ssl_server_credentials([pair], layout.backend_ca.read_bytes(), require_client_auth=True)


def channel_to(layout: Layout, address: str) -> grpc.aio.Channel:
    """Return a connection to the backend, or to the proxy, which shows the same certificate."""
    name = "gateway-to-backend"
    credentials = grpc.ssl_channel_credentials(
        layout.backend_ca.read_bytes(), layout.key(name).read_bytes(), layout.cert(name).read_bytes()
    )
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)


async def backend(layout: Layout) -> None:
    """Serve the backend where the folder's configuration expects it."""
    server = grpc.aio.server(options=OPTIONS)
    backend_pb2_grpc.add_InferenceBackendServiceServicer_to_server(Echo(), server)
    await _serve(server, layout, load(layout.config).backends[0].address)


async def proxy(layout: Layout, address: str) -> None:
    """Serve a hop that passes messages on as they came: no parsing, no keeping, no looking."""
    channel = channel_to(layout, load(layout.config).backends[0].address)
    onward = channel.stream_stream(GENERATE)

    async def relay(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for response in onward(requests, timeout=context.time_remaining()):
            yield response

    service, _, method = GENERATE[1:].partition("/")
    server = grpc.aio.server(options=OPTIONS)
    handlers = {method: grpc.stream_stream_rpc_method_handler(relay)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    await _serve(server, layout, address)
    await channel.close()


async def _serve(server: grpc.aio.Server, layout: Layout, address: str) -> None:
    server.add_secure_port(address, server_credentials(layout))
    await server.start()
    await _until_terminated()
    await server.stop(None)


async def _until_terminated() -> None:
    stop = _stop_at_sigterm()
    print("listening", flush=True)
    await stop.wait()


def _stop_at_sigterm() -> asyncio.Event:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


# --- the gateway with a clock at its doors ---------------------------------------------------


@dataclass
class Times:
    """Seconds spent behind each door, apart for the call that is served and for the worker behind it."""

    spent: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, door: str, begun: float) -> None:
        who = "worker" if _caller.get(None) is None else "call"
        self.spent[f"{who}: {door}"] += time.perf_counter() - begun
        self.calls[f"{who}: {door}"] += 1

    def as_json(self) -> dict[str, Any]:
        return {"spent": dict(self.spent), "calls": dict(self.calls)}


class Metered:
    """A door like the one behind it, whose coroutines and streams are timed under a name."""

    def __init__(self, door: Any, times: Times, **names: str) -> None:
        self._door, self._times, self._names = door, times, names

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._door, attribute)
        name = self._names.get(attribute)
        if name is None:
            return found
        return self._stream(found, name) if attribute in {"get", "generate"} else self._call(found, name)

    def _call(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return await method(*args, **kwargs)
            finally:
                self._times.add(name, begun)

        return timed

    def _stream(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            stream, begun = method(*args, **kwargs), time.perf_counter()
            try:
                async for item in stream:
                    yield item
            finally:
                await stream.aclose()
                self._times.add(name, begun)

        return timed


async def metered(layout: Layout, out: Path) -> None:
    """Serve as `lethe serve` does; forget the times at SIGUSR1, write them to `out` at SIGUSR2."""
    settings = load(layout.config)
    telemetry.set_up_logs(settings.telemetry.level)
    times = Times()

    def put_between(outside: compose.Outside) -> compose.Outside:
        return replace(
            outside,
            records=Metered(outside.records, times, transact="transactions"),
            objects=Metered(
                outside.objects, times, put="seal, write, fsync", get="read", delete="delete bytes"
            ),
            scrubber=Metered(outside.scrubber, times, scrub="scrub"),
            deidentifier=Metered(outside.deidentifier, times, deidentify="see to faces"),
            keys=Metered(outside.keys, times, mac="key service", wrap="key service", unwrap="key service"),
            backends={
                name: Metered(door, times, generate="forward and infer", forget="forget at the backend")
                for name, door in outside.backends.items()
            },
        )

    def forget() -> None:
        times.spent.clear()
        times.calls.clear()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, forget)
    stop = _stop_at_sigterm()

    def write() -> None:
        draft = out.with_suffix(".draft")
        draft.write_text(json.dumps(times.as_json()))
        draft.rename(out)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, write)
    await compose.serve(settings, lambda _address: print("listening", flush=True), stop, put_between)


def main(role: str, folder: str, *rest: str) -> None:
    """Run one of the processes until SIGTERM."""
    layout = Layout(Path(folder))
    if role == "backend":
        asyncio.run(backend(layout))
    elif role == "proxy":
        asyncio.run(proxy(layout, *rest))
    else:
        asyncio.run(metered(layout, Path(rest[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])
