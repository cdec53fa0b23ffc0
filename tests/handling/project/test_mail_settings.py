"""What the settings say about mail, in processes of different users."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.project.mail_settings import provide
from maildefer.maildir.layout import create_queue
from tests.support.other_users import as_user, give_to_nobody

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")


@pytest.fixture
def settings() -> Iterator[ModuleType]:
    """Settings with a key that root alone can read, and a queue of root's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        key = Path(folder, "dkim.pem")
        key.write_text("whatever it holds")
        key.chmod(0o600)
        made = ModuleType("settings")
        queue = create_queue(f"{folder}/queue").path
        os.chmod(queue, 0o755)
        entry = {"selector": "mail", "key": str(key)}
        vars(made).update(queues={queue: ["x"]}, dkim_config={"osb.example": entry})
        yield made


def test_a_key_that_it_may_not_read_is_no_error_for_a_user_who_can_claim_nothing(
    settings: ModuleType,
) -> None:
    """A front end of another user loads the project for its routes."""
    as_user(NOBODY, NOBODY, lambda: provide(settings))


def test_a_key_that_it_may_not_read_is_an_error_for_a_worker(settings: ModuleType) -> None:
    give_to_nobody(Path(next(iter(settings.queues))))

    def refused() -> None:
        with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
            provide(settings)

    as_user(NOBODY, NOBODY, refused)


def test_a_key_that_can_be_read_and_is_none_is_an_error_for_all(settings: ModuleType) -> None:
    with pytest.raises(ConfigurationError, match="no RSA key"):
        provide(settings)
