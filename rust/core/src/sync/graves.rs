//! Sessions that were removed a moment ago: what keeps an older copy, still on its way in a late
//! frame or a snapshot, from bringing them back.

use alloc::collections::{BTreeMap, VecDeque};

use crate::table::SessionKey;
use crate::time::Time;

/// Removals remembered at most. The oldest go first.
const MAX_GRAVES: usize = 1 << 16;
/// How long a removal is remembered, ms: longer than a frame can be on its way.
const REMEMBER_MS: u64 = 30_000;

/// Removals of late.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    versions: BTreeMap<SessionKey, (u32, Time)>,
    order: VecDeque<(Time, SessionKey)>,
}

impl Graves {
    /// The session was removed at this version.
    pub fn bury(&mut self, now: Time, key: SessionKey, version: u32) {
        let grave = self.versions.entry(key).or_insert((version, now));
        if !newer(grave.0, version) {
            *grave = (version, now);
        }
        self.order.push_back((now, key));
        let forget = |front: &(Time, SessionKey), len| {
            len > MAX_GRAVES || now.millis_since(front.0) > REMEMBER_MS
        };
        while self.order.front().is_some_and(|front| forget(front, self.order.len())) {
            let Some((buried, key)) = self.order.pop_front() else { break };
            if self.versions.get(&key).is_some_and(|grave| grave.1 <= buried) {
                self.versions.remove(&key);
            }
        }
    }

    /// The version of the removal, if a copy of `version` is older. One of the same version was
    /// refreshed while it was removed elsewhere, and prevails.
    pub fn find(&self, now: Time, key: &SessionKey, version: u32) -> Option<u32> {
        let &(removed, buried) = self.versions.get(key)?;
        let counts = now.millis_since(buried) <= REMEMBER_MS && newer(removed, version);
        counts.then_some(removed)
    }
}

/// Whether version `a` is later than `b`, modulo 2^32.
fn newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::{Endpoint4, Endpoint6, Proto};

    fn key(port: u16) -> SessionKey {
        let src6 = Endpoint6 { addr: "2001:db8::8".parse().unwrap(), port };
        let v4 = Endpoint4 { addr: "192.0.2.1".parse().unwrap(), port };
        SessionKey { proto: Proto::Tcp, src6, src4: v4, dst4: v4 }
    }

    #[test]
    fn only_a_later_version_comes_back() {
        let mut graves = Graves::default();
        let now = Time::from_millis(1000);
        graves.bury(now, key(1), u32::MAX);
        graves.bury(now, key(1), u32::MAX - 3);
        assert_eq!(graves.find(now, &key(1), u32::MAX - 1), Some(u32::MAX));
        assert_eq!(graves.find(now, &key(1), u32::MAX), None, "a refresh beats a removal");
        assert_eq!(graves.find(now, &key(1), 0), None, "versions wrap");
        assert_eq!(graves.find(now, &key(2), 0), None);
        assert_eq!(graves.find(now + REMEMBER_MS + 1, &key(1), 5), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut graves = Graves::default();
        for i in 0..3 * MAX_GRAVES as u32 {
            let mut key = key(i as u16);
            key.dst4.addr = i.into();
            graves.bury(Time::ZERO, key, 1);
        }
        assert_eq!((graves.order.len(), graves.versions.len()), (MAX_GRAVES, MAX_GRAVES));
        graves.bury(Time::ZERO + REMEMBER_MS + 1, key(1), 1);
        assert_eq!((graves.order.len(), graves.versions.len()), (1, 1));
    }
}
