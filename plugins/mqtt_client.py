"""The MQTT connection as the loop needs it: aiomqtt, with acknowledgements of our own and errors that are not swallowed.

What aiomqtt 2.5.1 leaves out and is added here: a received message is acknowledged to the broker only by `ack` (after
the journal's commit); a publish that the broker refuses or that the connection loses raises at once; a task that is cancelled
while it waits for the broker ends, always; a socket that was closed meanwhile is left alone. One object is one
connection: after a loss a fresh one is made, because a used one does not wait for the broker's greeting again.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.config import BrokerConfig
from runtime.errors import BadConfig

IN_FLIGHT = 64  # messages the broker may send us before an acknowledgement (brokers take it as a hint)
READ_AHEAD = 1024  # messages that may wait here, unread by us
TIMEOUT = 5.0  # seconds for the broker to answer


T = TypeVar("T")


class Refused(aiomqtt.MqttError):
    """The broker understood and said no: trying again would not help."""


class Client(aiomqtt.Client):
    """aiomqtt's, made safe to cancel and to lose.

    It waits with `asyncio.wait_for`, which until Python 3.12 loses a cancellation that comes together with the answer
    (cpython issue 86296): a task that was to end went on, and who waited for its end hung. And it watches the number of a
    socket a turn of the loop after it was told to: the socket may be closed by then, or the number another's.
    """

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        limit = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("the broker did not answer in time") from None

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._write_on, sock)

    def _write_on(self, sock: Any) -> None:
        if sock is self._client.socket() and sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._write)

    def _write(self) -> None:
        with self._or_lost():
            self._client.loop_write()

    @contextmanager
    def _or_lost(self) -> Iterator[None]:
        """What goes wrong at the socket is the loss of the connection."""
        try:
            yield
        except Exception as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)


class DurableClient(Client):
    """One MQTT 5 connection with a persistent session."""

    def __init__(
        self, config: BrokerConfig, *, identifier: str, will: aiomqtt.Will | None = None, timeout: float = TIMEOUT
    ) -> None:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = config.session_expiry
        session.ReceiveMaximum = IN_FLIGHT
        super().__init__(
            config.host,
            config.port,
            username=config.username or None,
            password=config.password.get_secret_value() or None,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            timeout=timeout,
            keepalive=config.keepalive,
            clean_start=False,
            properties=session,
            tls_context=tls_context(config) if config.tls else None,
        )
        self.session_present = False
        self.greeting: Properties | None = None  # the CONNACK's
        self._again: set[int] = set()  # packet ids that came with DUP = 1
        self._held: Any = None  # the socket, while it is not read
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._client.manual_ack_set(True)
        self.pending_calls_threshold = IN_FLIGHT

    def ack(self, message: aiomqtt.Message) -> None:
        """Tell the broker that this message is ours now. Without effect if the connection is gone: it comes again."""
        if message.qos:
            self._client.ack(message.mid, message.qos)

    def again(self, message: aiomqtt.Message) -> bool:
        """Whether the broker says that it may have sent this message before (DUP = 1)."""
        return message.mid in self._again

    async def publish(
        self, /, topic: str, payload: Any = None, qos: int = 0, retain: bool = False,
        properties: Properties | None = None, *args: Any, timeout: float | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Publish and wait for the broker's word. Raises MqttError if it refuses, is lost or says nothing in time."""
        sent = self._client.publish(topic, payload, qos, retain, properties)
        if sent.rc:
            raise aiomqtt.MqttCodeError(sent.rc, f"cannot publish to {topic}")
        if not qos:
            return
        answer = self._answers[sent.mid] = self._loop.create_future()
        limit = self.timeout if timeout is None else timeout
        try:
            await asyncio.wait(
                (answer, self._disconnected),
                timeout=None if limit == math.inf else limit,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._answers.pop(sent.mid, None)
        if not answer.done():
            lost = self._disconnected.done()
            raise aiomqtt.MqttError(f"publish to {topic}: {'the connection was lost' if lost else 'no answer in time'}")
        if answer.result().is_failure:
            raise Refused(f"the broker refused the publish to {topic}: {answer.result()}")

    async def subscribe_all(self, filters: Sequence[str], qos: int = 1) -> None:
        """Raises MqttError naming the first filter that the broker refuses."""
        for topic in filters:
            for code in await self.subscribe(topic, qos=qos):
                if getattr(code, "is_failure", False):
                    raise aiomqtt.MqttError(f"the broker refused the subscription {topic!r}: {code}")

    async def received(self) -> AsyncIterator[aiomqtt.Message]:
        """What arrives, until the connection is lost (MqttError). While too much waits here nothing is read from the socket:
        at QoS 0 that is the only way to hold the broker back."""
        waiting = self.messages
        while True:
            yield self._queue.get_nowait() if len(waiting) else await anext(waiting)
            if self._held is not None and len(waiting) < READ_AHEAD // 2:
                self._read_on()

    def _read_on(self) -> None:
        held, self._held = self._held, None
        if held.fileno() >= 0:  # else it was closed meanwhile
            self._loop.add_reader(held.fileno(), self._read)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        super()._on_message(client, userdata, message)
        (self._again.add if message.dup else self._again.discard)(message.mid)
        socket = client.socket()
        if self._held is None and len(self.messages) >= READ_AHEAD and socket is not None:
            self._loop.remove_reader(socket.fileno())
            self._held = socket

    def _read(self) -> None:
        """As aiomqtt's own reader, which it keeps to itself."""
        with self._or_lost():
            self._client.loop_read()
            while (socket := self._client.socket()) is not None and getattr(socket, "pending", int)():
                self._client.loop_read()  # TLS has more in its buffer than the socket tells of

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.session_present = bool(flags.session_present)
        self.greeting = properties
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    async def __aenter__(self) -> Self:
        """Connect. A broker that does not greet us leaves no half-open connection behind."""
        try:
            return await super().__aenter__()
        except BaseException:
            self._client.disconnect()
            raise

    async def __aexit__(self, *error: Any) -> None:
        """Leave without a farewell that could fail: whoever leaves because of an error keeps that error."""
        if self._disconnected.done():
            self._disconnected.exception()  # seen, so that asyncio does not report it
        try:
            await super().__aexit__(*error)
        except aiomqtt.MqttError:
            if error[0] is None:
                raise


def tls_context(config: BrokerConfig) -> ssl.SSLContext:
    """The TLS settings of `[broker]`. Raises BadConfig naming the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"[broker] ca_file: cannot use {config.ca_file!r}: {error}") from None
    if config.cert_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise BadConfig(f"[broker] cert_file, key_file: cannot use {config.cert_file!r}: {error}") from None
    return context
