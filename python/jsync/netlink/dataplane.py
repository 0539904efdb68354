"""Set-up and undoing of the host's side of the data plane."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from jsync.config import Settings
from jsync.errors import Failure
from jsync.failover import WHOLE
from jsync.log import Log
from jsync.netlink.arp import announce
from jsync.netlink.journal import Entry, Journal
from jsync.netlink.kernel import Kernel
from jsync.netlink.plan import connect_steps, held_steps, pool4_addresses, prepare_steps
from jsync.netlink.steps import HOST_WIDE, AnyStep


class Dataplane:
    """The host's side of one daemon. Every method blocks, and waits for those of other threads."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        make_kernel: Callable[[], Kernel] = Kernel,
        journal: Journal | None = None,
    ) -> None:
        """`make_kernel` and `journal` are for tests."""
        self._settings = settings
        self._log = log
        self._make_kernel = make_kernel
        path = Path(settings.node.control).parent / f"{settings.dataplane.device}.json"
        self._journal = journal if journal is not None else Journal(path)
        self._held: frozenset[int] = frozenset()
        self._is_over = False
        self._lock = Lock()

    def prepare(self) -> None:
        """Do what comes before the TUN: black holes first, then what leads to them.

        What a killed predecessor has left is taken over where it is wanted again, so that the
        host doesn't answer for the translator in between, and undone where it isn't. Raises
        Failure.
        """
        with self._kernel() as kernel:
            wanted = prepare_steps(self._settings, kernel.learned_default_routes())
            left = self._unwanted([*wanted, *connect_steps(self._settings)])
            if self._journal.entries:
                self._log.info(
                    "cleaning up after a daemon that was killed",
                    undone=len(left),
                    taken_over=len(self._journal.entries) - len(left),
                )
            self._undo(kernel, left)
            self._apply(kernel, wanted)
            self._settle(kernel)

    def connect(self) -> None:
        """Lead packets to the TUN, which exists now. Raises Failure."""
        with self._kernel() as kernel:
            self._apply(kernel, connect_steps(self._settings))

    def hold(self, held: frozenset[int]) -> None:
        """Answer ARP for these slices of pool4, and tell the neighbours of those that are new.

        Leaves ARP for others to the nodes that hold them now. Raises Failure.
        """
        new, self._held = held - self._held, held
        keys = {step.key for step in held_steps(self._settings, held)}
        possible = {step.key for step in held_steps(self._settings, {WHOLE})}
        if not possible:
            return
        with self._kernel() as kernel:
            gone = possible - keys
            self._undo(kernel, [e for e in self._journal.entries if e.step.key in gone])
            self._apply(kernel, held_steps(self._settings, held))
        self._announce(new)

    def announce(self) -> None:
        """Tell the neighbours, who may have missed it, once more. Raises Failure."""
        self._announce(self._held)

    def _announce(self, held: frozenset[int]) -> None:
        for interface in self._settings.dataplane.proxy_arp:
            announce(interface, pool4_addresses(self._settings, held))

    def change(self, settings: Settings, follow_marks: Callable[[Settings], None]) -> None:
        """Follow a changed pool4 while packets flow. Raises Failure; nothing is changed then."""
        with self._kernel() as kernel:
            wanted = settings
            try:
                self._change(kernel, settings, follow_marks)
            except Failure:
                wanted = self._settings
                self._change(kernel, wanted, follow_marks)
                raise
            else:
                self._settings = settings
            finally:
                self._undo(kernel, self._unwanted(self._all_steps(kernel, wanted)))
                self._settle(kernel)

    def _change(
        self, kernel: Kernel, settings: Settings, follow_marks: Callable[[Settings], None]
    ) -> None:
        """What is missing. A device that isn't wanted is let go of before it is removed."""
        learned = kernel.learned_default_routes()
        self._apply(kernel, prepare_steps(settings, learned), anew=False)
        follow_marks(settings)
        steps = [*connect_steps(settings), *held_steps(settings, self._held)]
        self._apply(kernel, steps, anew=False)

    def undo(self) -> None:
        """Take everything back, the black holes last. Says in the log what could not be."""
        with self._kernel() as kernel:
            self._is_over = True
            self._undo(kernel, self._journal.entries)

    @contextmanager
    def _kernel(self) -> Iterator[Kernel]:
        with self._lock, self._make_kernel() as kernel:
            yield kernel

    def _all_steps(self, kernel: Kernel, settings: Settings) -> list[AnyStep]:
        return [
            *prepare_steps(settings, kernel.learned_default_routes()),
            *connect_steps(settings),
            *held_steps(settings, self._held),
        ]

    def _unwanted(self, wanted: list[AnyStep]) -> list[Entry]:
        keys = {step.key for step in wanted}
        return [entry for entry in self._journal.entries if entry.step.key not in keys]

    def _apply(self, kernel: Kernel, steps: list[AnyStep], *, anew: bool = True) -> None:
        """Do the steps; with `anew` also those that are done as far as the journal knows.

        Once all is undone there is nothing to do: a late command must not begin again.
        """
        if self._is_over and steps:
            raise Failure("the daemon is ending")
        known = {entry.step.key: entry for entry in self._journal.entries}
        for step in steps:
            entry = known.get(step.key)
            if entry is not None:
                if entry.step != step:
                    entry.before = step.before_both(kernel, entry.before)
                    entry.step = step
                    self._journal.save()
                elif not anew:
                    continue
                step.apply(kernel)
                continue
            entry = Entry(step, step.before(kernel))
            self._journal.entries.append(entry)
            self._journal.save()
            try:
                step.apply(kernel)
            except Failure:
                # What kept it from being done may keep it from being undone too: no privilege,
                # no nft. Then there is nothing to undo.
                with suppress(Failure):
                    step.undo(kernel, entry.before)
                self._journal.entries.remove(entry)
                self._journal.save()
                raise

    def _settle(self, kernel: Kernel) -> None:
        """Take back what steps have of earlier ones. Says in the log what could not be."""
        for entry in self._journal.entries:
            try:
                before = entry.step.settle(kernel, entry.before)
            except Failure as failure:
                name = type(entry.step).__name__
                self._log.warning("could not be undone", step=name, error=failure)
                continue
            if before != entry.before:
                entry.before = before
                self._journal.save()

    def _undo(self, kernel: Kernel, entries: list[Entry]) -> None:
        others = kernel.other_daemons(self._settings.dataplane.device)
        for entry in reversed(list(entries)):
            name = type(entry.step).__name__
            if not (others and name in HOST_WIDE):
                try:
                    entry.step.undo(kernel, entry.before)
                except Failure as failure:
                    self._log.warning("could not be undone", step=name, error=failure)
                    continue
            self._journal.entries.remove(entry)
        self._journal.save()
