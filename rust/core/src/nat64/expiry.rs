//! What time does: sessions end, probes go out, kept SYNs are answered.

use super::Nat64;
use crate::packet::{Offload, OwnedPacket};
use crate::stats::{Counter, DropReason};
use crate::table::State;
use crate::table::session::{SessionId, flag};
use crate::time::Time;
use crate::tuple::{Endpoint6, Proto};
use crate::wire::checksum::Sum;
use crate::wire::{IcmpError, ipv4, ipv6, put16, tcp};

/// Sessions that one call looks at, and as many of whatever else has come to its end: packets wait
/// meanwhile. Some 0.1 ms, even if nothing is in a cache; a call for each burst of packets still
/// ends more sessions than the burst can make.
const BUDGET: usize = 256;
/// Hop limit of a probe.
const HOP_LIMIT: u8 = 64;

impl Nat64 {
    /// Does what is due at `now`, a bounded part of it: ask `poll_timeout` for the rest.
    pub fn handle_timeout(&mut self, now: Time) {
        let mut budget = BUDGET;
        while let Some(id) = self.table.pop_expired(now, &mut budget) {
            self.expire(now, id);
        }
        self.table.sweep(BUDGET);
        let lost = self.fragments.expire(now, BUDGET);
        self.stats.drop_many(DropReason::FragmentTimeout, lost);
        self.expire_held(now);
        for _ in 0..BUDGET {
            let Some(packet) = self.stored.pop_expired(now) else { break };
            // §3.5.2.2: nobody opened the connection from the other side.
            self.reply(now, &packet, IcmpError::PortUnreachable);
        }
        self.count_bibs();
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.table.needs_sweep() {
            return Some(Time::ZERO);
        }
        let due = [
            self.table.next_due(),
            self.stored.next_due(),
            self.fragments.next_due(),
            self.held.next_due(),
        ];
        due.into_iter().flatten().min()
    }

    /// A session's lifetime is over (§3.5.2.2 for TCP).
    fn expire(&mut self, now: Time, id: SessionId) {
        let session = self.table.session(id);
        let proto = self.table.bib(self.table.bib_of(id)).proto();
        let ours = session.flags & (flag::LOCAL | flag::HEARD) == flag::LOCAL;
        if proto == Proto::Tcp && session.state() == State::Established && ours {
            // Perhaps both ends are there and just silent: one of them is asked. A copy of a
            // peer's session isn't worth a probe, since the peer sends it.
            self.probe(id);
            let lifetime = self.table.timeouts().of(Proto::Tcp, State::Trans);
            self.table.change_state(now, id, State::Trans, lifetime);
            return;
        }
        self.table.remove_session(id);
        self.stats.count(Counter::SessionsExpired);
    }

    /// An empty segment to the IPv6 node with sequence and acknowledgement number 0, which a node
    /// that has the connection answers with an ACK.
    fn probe(&mut self, id: SessionId) {
        const LEN: usize = ipv6::HEADER_LEN + tcp::HEADER_LEN;
        let session = self.table.session(id);
        let src = Endpoint6 {
            addr: self.config.pool6.embed(session.dst4.into()),
            port: session.dst_port,
        };
        let dst = self.node_of(self.table.bib_of(id));
        let mut bytes = alloc::vec![0; LEN];
        if let Some((ip, segment)) = bytes.split_first_chunk_mut() {
            let header = ipv6::Repr {
                traffic_class: 0,
                payload_len: tcp::HEADER_LEN as u16,
                next_header: ipv4::TCP,
                hop_limit: HOP_LIMIT,
                src: src.addr,
                dst: dst.addr,
            };
            *ip = header.to_bytes();
            put16(segment, 0, src.port);
            put16(segment, 2, dst.port);
            segment[tcp::DATA_OFFSET] = (tcp::HEADER_LEN as u8 / 4) << 4;
            segment[tcp::FLAGS] = tcp::Flags::ACK;
            let pseudo_header = Sum::ZERO
                .add6(src.addr)
                .add6(dst.addr)
                .add32(tcp::HEADER_LEN as u32)
                .add(ipv4::TCP.into());
            let checksum = pseudo_header.add_bytes(segment).checksum();
            put16(segment, tcp::CHECKSUM, checksum);
        }
        self.stats.count(Counter::ProbesSent);
        self.push_packet(OwnedPacket { bytes, offload: Offload::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::table::{SessionKey, SessionRecord};
    use crate::tuple::Endpoint4;
    use alloc::vec::Vec;

    /// Packets of a burst, as the worker has them.
    const BURST: u32 = 64;

    fn nat64() -> Nat64 {
        let json = r#"{"pool4": [{"prefix": "198.51.100.0/28", "ports": "1024-65535"}]}"#;
        let config: Config = serde_json::from_str(json).unwrap();
        Nat64::new(config, &[7; 32]).unwrap()
    }

    fn mask(n: u32) -> Endpoint4 {
        Endpoint4 { addr: (0xc633_6400 + n / 60_000).into(), port: 1024 + (n % 60_000) as u16 }
    }

    fn node(n: u32) -> Endpoint6 {
        Endpoint6 { addr: ((0x2001_0db8 << 96) + u128::from(n)).into(), port: 4000 }
    }

    /// Session `n` of a mapping, with so many ms to live.
    fn learn(nat64: &mut Nat64, now: Time, mapping: u32, n: u32, lifetime_ms: u32) {
        let dst4 = Endpoint4 { addr: (0xcb00_7100 + n / 60_000).into(), port: (n % 60_000) as u16 };
        let (src6, src4) = (node(mapping), mask(mapping));
        let key = SessionKey { proto: Proto::Udp, src6, src4, dst4 };
        let record = SessionRecord { key, state: State::Established, lifetime_ms, version: 1 };
        assert_eq!(nat64.learn(now, &record).learned, crate::table::Learned::Applied);
    }

    #[test]
    fn a_call_ends_a_bounded_number_of_sessions() {
        const SESSIONS: u32 = 10 * BUDGET as u32 + 1;
        let (mut nat64, start) = (nat64(), Time::from_millis(1_000));
        for n in 0..SESSIONS {
            learn(&mut nat64, start, n, n, 1_000);
        }
        let now = start + 2_000;
        for n in 1..=11 {
            assert!(nat64.poll_timeout().is_some_and(|due| due <= now), "there is more to do");
            nat64.handle_timeout(now);
            let ended = (n * BUDGET as u32).min(SESSIONS);
            assert_eq!(nat64.session_count(), SESSIONS - ended);
        }
        assert_eq!(nat64.poll_timeout(), None);
    }

    #[test]
    fn a_call_sweeps_a_bounded_number_of_sessions() {
        const SESSIONS: u32 = 4 * BUDGET as u32;
        let (mut nat64, start) = (nat64(), Time::from_millis(1_000));
        for n in 0..=SESSIONS {
            learn(&mut nat64, start, 0, n, 1_000_000);
        }
        nat64.bib_remove(Proto::Udp, Some(node(0)), None).unwrap();
        // The first lies within the mapping's record.
        assert_eq!(nat64.session_count(), SESSIONS);
        for n in 1..=4 {
            assert_eq!(nat64.poll_timeout(), Some(Time::ZERO), "there is more to do");
            nat64.handle_timeout(start);
            assert_eq!(nat64.session_count(), SESSIONS - n * BUDGET as u32);
        }
        assert_eq!(nat64.poll_timeout(), None);
    }

    #[test]
    fn a_call_ends_a_bounded_number_of_mappings_that_pool4_has_lost() {
        const MAPPINGS: u32 = 4 * BUDGET as u32;
        let (mut nat64, start) = (nat64(), Time::from_millis(1_000));
        for n in 0..MAPPINGS {
            learn(&mut nat64, start, n, n, 1_000_000);
        }
        nat64.pool4_replace(Vec::new()).unwrap();
        nat64.bib_scan(0, 10_000, &mut |bib| panic!("{bib:?}"));
        let mut left = MAPPINGS;
        while nat64.poll_timeout() == Some(Time::ZERO) {
            assert_eq!((nat64.session_count(), nat64.bib_count()), (left, left));
            nat64.handle_timeout(start);
            left = left.saturating_sub(BUDGET as u32);
        }
        assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    }

    /// Whoever drives this calls it once before each burst.
    #[test]
    fn sessions_end_as_fast_as_bursts_make_them() {
        const LIFETIME_MS: u32 = 1_000;
        const TICK_MS: u32 = 256;
        let mut nat64 = nat64();
        for ms in 0..3_000 {
            let now = Time::from_millis(ms.into());
            if nat64.poll_timeout().is_some_and(|due| due <= now) {
                nat64.handle_timeout(now);
            }
            for n in ms * BURST..(ms + 1) * BURST {
                learn(&mut nat64, now, n, n, LIFETIME_MS);
            }
            // Those of a tick end in a quarter of the next.
            let most = (LIFETIME_MS + TICK_MS + TICK_MS / 4) * BURST;
            assert!(nat64.session_count() <= most, "{} after {ms} ms", nat64.session_count());
        }
    }
}
