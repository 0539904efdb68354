//! What a step says about a packet.

use crate::stats::DropReason;
use crate::wire::Refusal;

/// Why a packet takes no further step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is refused.
    Refused(Refusal),
    /// It is kept, or something else goes out in its place.
    Consumed,
    /// It waits, as it came, until peers know its session or have told of it.
    Held,
}

/// A step's result: what the next one needs, or that there is none.
pub type Verdict<T> = Result<T, Stop>;

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Refused(Refusal::Drop(reason))
    }
}
