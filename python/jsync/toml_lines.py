"""Where the keys of a TOML document are: `tomllib` gives values but not their lines.

The document must be one that `tomllib` has accepted; the scanner relies on it being well-formed.
"""

import re

Path = tuple[str | int, ...]
"""Keys and, in arrays of tables, indices from 0."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}

    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def skip_blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1

    def skip_string(self) -> str:
        """Pass over the string that starts here; its text, escapes left as they are."""
        quote = self.text[self.at]
        delimiter = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        start = self.at = self.at + len(delimiter)
        while not self.text.startswith(delimiter, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        end = self.at
        self.at += len(delimiter)
        # A multi-line string may end in up to two quotes of its own.
        while len(delimiter) == 3 and self.text.startswith(quote, self.at):
            self.at += 1
        return self.text[start:end]

    def key(self) -> list[str]:
        """A dotted key."""
        parts = []
        while True:
            self.skip_blank()
            if self.text[self.at] in "\"'":
                parts.append(self.skip_string())
            else:
                match = _BARE.match(self.text, self.at)
                if match is None:
                    return parts
                parts.append(match.group())
                self.at = match.end()
            self.skip_blank()
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def value(self, path: Path) -> None:
        """Pass over a value; elements of arrays and keys of inline tables get lines too."""
        self.skip_blank()
        opening = self.text[self.at]
        if opening in "\"'":
            self.skip_string()
        elif opening == "[":
            self.at += 1
            index = 0
            while not self.past_filler("]"):
                self.lines[(*path, index)] = self.line()
                self.value((*path, index))
                index += 1
        elif opening == "{":
            self.at += 1
            while not self.past_filler("}"):
                self.pair(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def past_filler(self, closing: str) -> bool:
        """Skip blanks, commas and comments; True if the bracket closed."""
        while True:
            character = self.text[self.at]
            if character == "#":
                self.skip_line()
            elif character in " \t\r\n,":
                self.at += 1
            elif character == closing:
                self.at += 1
                return True
            else:
                return False

    def pair(self, table: Path) -> None:
        line = self.line()
        path = table
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.at += 1  # =
        self.value(path)

    def header(self) -> Path:
        """A table's header; the path that the keys below it have."""
        line = self.line()
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        path: Path = ()
        parts = self.key()
        for part in parts[:-1]:
            path = (*path, part)
            if path in self.tables:  # the latest table of an array is meant
                path = (*path, self.tables[path])
            self.lines.setdefault(path, line)
        path = (*path, parts[-1])
        self.lines.setdefault(path, line)
        if is_array:
            index = self.tables[path] = self.tables.get(path, -1) + 1
            path = (*path, index)
            self.lines[path] = line
        self.skip_line()
        return path

    def scan(self) -> None:
        table: Path = ()
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in " \t\r\n":
                self.at += 1
            elif character == "#":
                self.skip_line()
            elif character == "[":
                table = self.header()
            else:
                self.pair(table)
                self.skip_line()


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every table and key of a well-formed document."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


def nearest_line(lines: dict[Path, int], path: Path) -> int | None:
    """The line of the longest beginning of `path` that is in the document."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None
