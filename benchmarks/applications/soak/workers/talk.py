"""A conversation, whose state goes to and fro."""

from __future__ import annotations

from typing import Any

from maildefer.routing import route


@route("talk[0-9]*@test")
def START(message: Any) -> Any:
    return ANSWERED


@route("talk[0-9]*@test")
def ANSWERED(message: Any) -> Any:
    return START
