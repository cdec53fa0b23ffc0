"""The blog in one process: handlers loaded, pages in a temporary folder, answers kept instead of sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.testing import settings
from maildefer.mail import MailRequest, MailResponse
from maildefer.pytest_plugin import maildefer_queue as maildefer_queue  # also where it is not installed
from maildefer.routing import Router
from workers import blog

Post = Callable[..., MailRequest]


class FakeRelay:
    """Keeps what it should deliver, or fails as a relay does that can't be reached."""

    def __init__(self) -> None:
        self.delivered: list[MailResponse] = []
        self.senders: list[str | None] = []
        self.fault: OSError | None = None

    def deliver(self, message: MailResponse, To: str | None = None, From: str | None = None) -> None:
        if self.fault is not None:
            raise self.fault
        self.delivered.append(message)
        self.senders.append(From)


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blog, "ROOT", str(tmp_path / "blog"))
    return tmp_path / "blog"


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> FakeRelay:
    fake = FakeRelay()
    monkeypatch.setattr(settings, "relay", fake)
    return fake


@pytest.fixture
def mail(pages: Path, relay: FakeRelay) -> Iterator[Post]:
    """Make a request as a worker would: with a key that stays the same over attempts."""

    def make(
        to: str = "hello@osb.example", *, sender: str = "ann@example.org", key: str = "1.M1", **headers: str
    ) -> MailRequest:
        text = headers.pop("text", "It works.")
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        request = MailRequest("test", sender, to, "\n".join(["Subject: A title", *lines, "", text, ""]))
        request.key = key
        return request

    yield make
    Router.clear_states()
