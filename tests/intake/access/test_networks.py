"""Networks as settings name them."""

from __future__ import annotations

import pytest

from maildefer.errors import ConfigurationError
from maildefer.intake.access.networks import Networks


@pytest.mark.parametrize(
    ("text", "address", "inside"),
    [
        ("127.0.0.0/8", "127.200.0.1", True),
        ("127.0.0.0/8", "128.0.0.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("10.0.0.0/8, 192.0.2.0/30", "192.0.2.3", True),
        ("10.0.0.0/8, 192.0.2.0/30", "192.0.2.4", False),
        ("2001:db8::/33", "2001:db8:7fff::1", True),
        ("2001:db8::/33", "2001:db8:8000::1", False),
        ("::/0", "192.0.2.1", False),
        ("0.0.0.0/0", "::1", False),
        ("0.0.0.0/0", "", False),
        ("unix", "", True),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("0.0.0.0/0", "localhost", False),
        ("", "127.0.0.1", False),
    ],
)
def test_an_address_is_in_a_network_or_not(text: str, address: str, inside: bool) -> None:
    assert Networks(text).has(address) is inside
    assert bool(Networks(text)) is bool(text)


@pytest.mark.parametrize("text", ["localhost", "127.0.0.0/33", "127.0.0.0/", "::1/129", "1.2.3.4/x", "1.2.3"])
def test_what_is_no_network_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no network"):
        Networks(text)
