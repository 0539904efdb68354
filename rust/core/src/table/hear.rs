//! Sessions that somebody tells of who keeps no versions: a joold, or a kernel module.
//!
//! What is new is told to peers and over the other bridge as if packets here had done it, but it
//! isn't told back, nor are its ends asked whether they are there.

use super::merge::Merge;
use super::record::{Learned, SessionRecord, Side};
use super::session::{Session, SessionId, deadline, flag};
use super::{COUNT, Table, bib::bib_flag};
use crate::time::Time;

/// How much later a copy that peers gave us may end at the other end of a bridge without a packet
/// having come there: as long as it took to get there. It has slack of a quarter of its timeout, so
/// that it stays a copy here and our peers needn't hear of it.
const ECHO_MS: u32 = 10_000;

impl Table {
    /// Merges a session that was heard over a bridge; its `version` means nothing. `timeout_ms` is
    /// its timer's: what its lifetime lacks of that is the time since its last packet.
    pub fn hear(
        &mut self,
        now: Time,
        side: Side,
        record: &SessionRecord,
        timeout_ms: u32,
    ) -> Merge {
        if !self.is_plausible(record) {
            return Learned::Rejected.into();
        }
        let key = &record.key;
        let (src6, src4) = (key.src6.addr.to_bits(), key.src4.addr.to_bits());
        let by6 = self.find6(key.proto, src6, key.src6.port);
        let by4 = self.find4(key.proto, src4, key.src4.port);
        let slot = match (by6, by4) {
            (Some(slot), Some(same)) if slot == same => Some(slot),
            (None, None) => None,
            // Nothing says which is the newer. What is here has an end, and joold tells again.
            _ => return Learned::Collision.into(),
        };
        let (dst4, dst_port) = (key.dst4.addr.to_bits(), key.dst4.port);
        if let Some(id) = slot.and_then(|slot| self.find_session(slot, dst4, dst_port)) {
            return self.hear_again(now, side, id, record, timeout_ms).into();
        }
        if !self.has_room() {
            return Learned::Full.into();
        }
        let slot = slot.map_or_else(|| self.create_bib(key.proto, key.src6, key.src4, false), Ok);
        let Ok(slot) = slot else { return Learned::Full.into() };
        let end = deadline(now, record.lifetime_ms);
        let mut session = Session::new(dst4, dst_port, record.state, end, self.clock | COUNT);
        session.set_heard(side);
        match self.insert_session(now, slot, session) {
            Ok(id) => {
                self.mark_changed(id);
                Learned::Applied.into()
            }
            Err(_) => {
                let bib = self.bib(slot);
                if bib.sessions == 0 && bib.flags & bib_flag::STATIC == 0 {
                    self.remove_bib(slot);
                }
                Learned::Full.into()
            }
        }
    }

    fn hear_again(
        &mut self,
        now: Time,
        side: Side,
        id: SessionId,
        record: &SessionRecord,
        timeout_ms: u32,
    ) -> Learned {
        let proto = record.key.proto;
        let session = *self.arena.session(id);
        let remaining = session.remaining_ms(now);
        // A module that tells its whole table tells of what it was told itself, too.
        let echo = if session.flags & flag::LOCAL == 0 { ECHO_MS.min(timeout_ms / 16) } else { 0 };
        let lives_longer = record.lifetime_ms > remaining.saturating_add(echo);
        if session.state() == record.state {
            if !lives_longer {
                return Learned::Unchanged;
            }
        } else if session.flags & (flag::LOCAL | flag::HEARD) == flag::LOCAL {
            // Packets came here too. The later of the two has seen more.
            let ours = self.timeouts.of(proto, session.state()).saturating_sub(remaining);
            if ours <= timeout_ms.saturating_sub(record.lifetime_ms) {
                return Learned::Stale;
            }
        }
        let news = session.state() != record.state || session.flags & flag::IDLE != 0;
        self.enter_state(id, record.state);
        let session = self.arena.session_mut(id);
        session.deadline = deadline(now, record.lifetime_ms);
        session.flags = session.flags & !flag::IDLE | flag::TOUCHED;
        session.set_heard(side);
        if news {
            self.mark_changed(id);
        }
        if news || !lives_longer {
            self.arm(now, id);
        }
        Learned::Applied
    }
}
