"""The timeline: what happens, as it happens, in words that need no manual."""

import time

from rich.console import Console


class Timeline:
    """Prints lines with the time since the story began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def story(self, title: str) -> None:
        """Begin a story; its clock starts at zero."""
        self._began = time.monotonic()
        self._console.print(f"\n[bold]{title}[/bold]")

    def tell(self, text: str) -> None:
        """Tell something that has no time."""
        self._console.print(f"            {text}", highlight=False)

    def say(self, text: str, at: float | None = None) -> None:
        """Tell what happens (now, or at a time of the monotonic clock)."""
        moment = (time.monotonic() if at is None else at) - self._began
        self._console.print(f"{moment:8.3f} s  {text}", highlight=False)
