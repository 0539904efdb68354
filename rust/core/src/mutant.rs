//! Faults that the simulator puts into the code on purpose, to see that its invariants bite. Without
//! the feature `mutants`, which the simulator alone asks for, [`Mutant::is_on`] is `false` at
//! compile time.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Removals that peers tell of are ignored.
    KeepsRemoved,
    /// The changes of every fourth update are never told.
    ForgetsChanges,
    /// Snapshots lack the sessions of the table's first places.
    ShortSnapshots,
    /// A node keeps its own copy of a session that packets at it made or changed, whatever peers tell.
    KeepsOwnCopy,
    /// Sessions that arrive late are applied, though they may have been removed since.
    AppliesAnything,
    /// An update of eight is taken from the queue and not sent, nor is its number.
    LosesUpdates,
    /// A node that starts is ready as soon as it begins to fetch sessions.
    ReadyTooEarly,
    /// Of two TCP states that were reached at the same time the later copy's stays: half of a
    /// handshake or of a close is forgotten.
    ForgetsHalves,
    /// A port of pool4 that somebody has is given away again.
    GivesPortsTwice,
    /// What a peer has missed is sent again and again.
    RepeatsForever,
    /// Peers are not told that a session goes on.
    SkipsRefreshes,
    /// A node that was cut off says that it can take over before it has what it missed.
    StaysInService,
    /// Removals that peers tell of are not remembered.
    ForgetsRemovals,
    /// Snapshots lack removals.
    HidesRemovals,
}

impl Mutant {
    /// Every fault.
    pub const ALL: &'static [Self] = &[
        Self::KeepsRemoved,
        Self::ForgetsChanges,
        Self::ShortSnapshots,
        Self::KeepsOwnCopy,
        Self::AppliesAnything,
        Self::LosesUpdates,
        Self::ReadyTooEarly,
        Self::ForgetsHalves,
        Self::GivesPortsTwice,
        Self::RepeatsForever,
        Self::SkipsRefreshes,
        Self::StaysInService,
        Self::ForgetsRemovals,
        Self::HidesRemovals,
    ];

    /// Whether the fault is in the code that this thread runs.
    #[inline(always)]
    pub fn is_on(self) -> bool {
        #[cfg(feature = "mutants")]
        return switch::CURRENT.get() == Some(self);
        #[cfg(not(feature = "mutants"))]
        false
    }
}

#[cfg(feature = "mutants")]
mod switch {
    extern crate std;
    use super::Mutant;
    use core::cell::Cell;

    std::thread_local! {
        pub static CURRENT: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Runs `f` with this fault in the code that the thread runs.
    pub fn with<T>(mutant: Mutant, f: impl FnOnce() -> T) -> T {
        CURRENT.set(Some(mutant));
        let result = f();
        CURRENT.set(None);
        result
    }
}

#[cfg(feature = "mutants")]
pub use switch::with;
