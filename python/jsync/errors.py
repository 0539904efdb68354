"""What every part of jsync may raise to end a command with a message and an exit status."""

FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_READY = 4


class Failure(Exception):
    """A command can't go on: the message, for people, says why and what to do about it."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
