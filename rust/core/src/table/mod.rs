//! BIB and sessions in memory.

pub mod record;

pub use record::{BibRecord, Change, Learned, SessionKey, SessionRecord, State};
