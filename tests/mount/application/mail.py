"""What is sent to a front end: of each message its name tells the rest."""


def text(name: str) -> bytes:
    """A large one where the number ends with 0 or 5."""
    lines = 15_000 if name[-1] in "05" else 40
    return f"Subject: {name}\n\n".encode() + f"{name} all of it, and once\n".encode() * lines
