//! BIB and sessions in memory.

pub mod record;

pub use record::{SessionKey, SessionRecord, State};
