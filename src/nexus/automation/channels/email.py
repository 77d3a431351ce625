"""E-mail through a mail server of one's own choice, with TLS or STARTTLS."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import socket
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.errors import RequestFailed, RequestFailedForNow
from nexus.automation.posting import TIMEOUT, needed
from nexus.http.fetch import checked_addresses

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}


def _address(text: str) -> str:
    name = parseaddr(text)[1]
    if "@" not in name or any(ord(letter) < 32 or letter == "\x7f" for letter in text):
        raise ValueError("this is no e-mail address")
    return text


Address = Annotated[str, Field(min_length=3, max_length=320), AfterValidator(_address)]


class EmailConfig(ChannelConfig):
    """The mail server and who writes to whom. `username` takes the credential as its password."""

    host: str = Field(min_length=1, max_length=255)
    port: int | None = Field(None, ge=1, le=65535, description="587 for starttls, 465 for tls, 25 for none")
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = Field(None, min_length=1, max_length=320)
    sender: Address
    recipients: Annotated[list[Address], Field(min_length=1, max_length=50)]
    ca: str | None = Field(None, max_length=65_536, description="Certificates (PEM) to trust beside the usual ones")

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> EmailConfig:
        if self.security == "none" and self.username is not None:
            raise ValueError("a username needs security starttls or tls: its password would go in the clear")
        return self


class Email:
    """The channel `email`."""

    kind = "email"
    summary = "An e-mail through a mail server of yours."
    credential = "The password of the username, where the server wants one"
    Config = EmailConfig

    async def send(self, notice: Notice, config: EmailConfig, credential: str | None) -> int | None:
        """Hand the mail to the server. Attempts share the Message-ID, by which servers know repetitions."""
        port = config.port or _PORTS[config.security]
        addresses = await checked_addresses(config.host, port)
        password = needed(credential) if config.username else None
        await asyncio.to_thread(_send, config, addresses, port, password, _mail(notice, config))
        return 250


def _mail(notice: Notice, config: EmailConfig) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = " ".join(notice.headline.split())[:200]
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.recipients)
    mail["Date"] = format_datetime(datetime.fromisoformat(notice.at))
    domain = parseaddr(config.sender)[1].rpartition("@")[2]
    mail["Message-ID"] = f"<{notice.id}@{domain}>"
    thread = f"<{hashlib.sha256(notice.key.encode()).hexdigest()[:32]}@{domain}>"
    mail["References"] = mail["In-Reply-To"] = thread  # the notices of one alert stand together
    mail["Auto-Submitted"] = "auto-generated"
    lines = [notice.title, ""]
    lines += [notice.text, ""] if notice.text else []
    lines += [f"{name}: {value}" for name, value in notice.facts()]
    lines += ["", notice.link] if notice.link else []
    mail.set_content("\n".join(lines))
    return mail


class _Pinned:
    """Connects to checked addresses, whatever the name has come to mean since."""

    addresses: list[str] = []  # noqa: RUF012  set on each connection

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        failed: OSError = OSError("no address")
        for address in self.addresses:
            try:
                return self._dressed(socket.create_connection((address, port), timeout), host)
            except ssl.SSLError:
                raise
            except OSError as error:
                failed = error
        raise failed

    def _dressed(self, connection: socket.socket, host: str) -> socket.socket:
        return connection


class _Plain(_Pinned, smtplib.SMTP):
    """SMTP without TLS at first."""


class _Secure(_Pinned, smtplib.SMTP_SSL):
    """SMTP within TLS."""

    context: ssl.SSLContext

    def _dressed(self, connection: socket.socket, host: str) -> socket.socket:
        return self.context.wrap_socket(connection, server_hostname=host)


def _send(config: EmailConfig, addresses: list[str], port: int, password: str | None, mail: EmailMessage) -> None:
    """Speak SMTP. Raises `RequestFailedForNow` for what may pass, `RequestFailed` for the rest."""
    context = ssl.create_default_context()
    try:
        if config.ca:
            context.load_verify_locations(cadata=config.ca)
        client: Any = _Secure(timeout=TIMEOUT, context=context) if config.security == "tls" else _Plain(timeout=TIMEOUT)
        client.addresses = addresses
        client._host = config.host  # noqa: SLF001  the name to check the certificate for: connect() alone forgets it
        with client:
            client.connect(config.host, port)
            if config.security == "starttls":
                client.starttls(context=context)
            if config.username:
                client.login(config.username, password)
            refused = client.send_message(mail)
    except smtplib.SMTPResponseException as error:
        # What the server says may quote the credential; its number says enough.
        kind = RequestFailedForNow if 400 <= error.smtp_code < 500 else RequestFailed
        raise kind(f"The mail server answered with {error.smtp_code}.", answer_status=error.smtp_code) from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        kind = RequestFailedForNow if all(400 <= code < 500 for code in codes) else RequestFailed
        raise kind("The mail server refused every recipient.", answer_status=codes[0]) from None
    except smtplib.SMTPNotSupportedError:
        raise RequestFailed("The mail server does not offer what is wanted (STARTTLS or a login).") from None
    except ssl.SSLError:
        raise RequestFailed("The mail server's certificate or TLS set-up is not valid.") from None
    except (OSError, smtplib.SMTPException):
        raise RequestFailedForNow("The mail server does not answer.") from None
    if refused:
        raise RequestFailed(f"The mail server refused {len(refused)} of {len(config.recipients)} recipients.")


plug = Email()
