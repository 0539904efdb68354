"""The daemon's log: one event a line, key=value or JSON, on stderr."""

import json
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

Format = Literal["text", "json"]


def quoted(value: object) -> str:
    """A value as it stands behind `key=`: in quotes if it holds blanks, quotes or controls."""
    text = str(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return json.dumps(text, ensure_ascii=False)


class Log:
    """Writes events. A message comes first, what a machine may look for follows as keys."""

    def __init__(self, format: Format = "text", stream: TextIO | None = None) -> None:
        self._format = format
        self._stream = stream if stream is not None else sys.stderr

    def info(self, message: str, **values: object) -> None:
        """Something that an operator may want to know."""
        self._write("info", message, values)

    def warning(self, message: str, **values: object) -> None:
        """Something that an operator should look at."""
        self._write("warning", message, values)

    def error(self, message: str, **values: object) -> None:
        """Something that keeps the daemon from doing its work."""
        self._write("error", message, values)

    def _write(self, level: str, message: str, values: dict[str, object]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._format == "json":
            known = {
                k: v if isinstance(v, int | float | bool) else str(v) for k, v in values.items()
            }
            line = json.dumps({"time": time, "level": level, "message": message, **known})
        else:
            pairs = [f"time={time}", f"level={level}", f"message={quoted(message)}"]
            pairs += [f"{key}={quoted(value)}" for key, value in values.items()]
            line = " ".join(pairs)
        print(line, file=self._stream, flush=True)
