"""DATA and BDAT as they come, cut anywhere: the same bytes are kept as of the whole."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from maildefer.intake.smtp.body import ChunkReader, DotReader, MessageBuffer

TEXTS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\r\n.", b"x", b"\r\n" * 3, b"xy" * 5])).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 40), max_size=8)


def buffer() -> MessageBuffer:
    async def send_part(pieces: tuple[bytes, ...]) -> None:
        return None

    return MessageBuffer(1 << 20, hold=lambda size: True, part_bytes=1 << 20, send_part=send_part)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at) if b > a]


@given(TEXTS, CUTS)
@example(b"a\r\n.b\r\n", [3, 4])
@example(b"a\r", [])
@example(b"\r\n\r\n..\r\n", [1])
def test_data_ends_at_the_first_lone_dot_and_is_kept_unstuffed_with_lf(text: bytes, cuts: list[int]) -> None:
    sent = text + b"\r\n.\r\nQUIT\r\n"
    own, _, behind = (b"\r\n" + sent).partition(b"\r\n.\r\n")
    kept = buffer()
    body, rest = DotReader(kept), None
    fed = pieces(sent, cuts)
    while rest is None:
        rest = body.feed(fed.pop(0))
    assert rest + b"".join(fed) == behind
    assert (
        b"".join(kept.take_pieces()) == (own + b"\r\n").replace(b"\r\n.", b"\r\n").replace(b"\r\n", b"\n")[1:]
    )


@given(TEXTS, CUTS, CUTS)
def test_chunks_are_kept_with_lf_wherever_they_are_cut(
    text: bytes, chunks: list[int], cuts: list[int]
) -> None:
    kept = buffer()
    body = ChunkReader(kept)
    for chunk in pieces(text, chunks):
        body.begin_chunk(len(chunk))
        for piece in pieces(chunk, cuts):
            body.feed(piece)
    body.end_message()
    assert b"".join(kept.take_pieces()) == text.replace(b"\r\n", b"\n")
