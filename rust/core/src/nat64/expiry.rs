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

/// Sessions that one call looks at: some 0.2 ms, even if none is in a cache.
const BUDGET: usize = 1024;
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
        while let Some(packet) = self.stored.pop_expired(now) {
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
