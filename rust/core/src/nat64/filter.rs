//! Step 2: filtering, and updating BIB and sessions (RFC 6146 §3.5).

use super::Nat64;
use super::incoming::{Tuple4, Tuple6};
use super::tcp_fsm::{Event, Side, Step, next};
use super::verdict::{Stop, Verdict};
use crate::packet::Packet;
use crate::stats::{Counter, DropReason};
use crate::table::State;
use crate::table::session::SessionId;
use crate::table::subscriber::Quota;
use crate::time::Time;
use crate::tuple::Proto;
use crate::wire::{self, IcmpError, Parsed, Refusal};

impl Nat64 {
    /// Finds or makes BIB entry and session of an IPv6 packet (§§3.5.1 to 3.5.3). `hint` is the
    /// slot of its BIB entry, if the burst's look ahead found one; `packet` is what may have to
    /// wait. Returns the slot.
    ///
    /// # Errors
    /// A TCP segment that opens nothing and belongs to nothing; no room for another session; no
    /// free transport address.
    #[inline]
    pub(super) fn filter6(
        &mut self,
        now: Time,
        tuple: &Tuple6,
        hint: Option<u32>,
        packet: &Packet<'_>,
    ) -> Verdict<u32> {
        let (address, port) = (tuple.src6.addr.to_bits(), tuple.src6.port);
        let hint = hint.filter(|&slot| {
            let bib = self.table.bib(slot);
            bib.has_src6(tuple.proto, address, port) && bib.is_live()
        });
        let slot = hint.or_else(|| self.table.find6(tuple.proto, address, port));
        if let Some(slot) = slot {
            let dst_port = match tuple.proto {
                Proto::Icmp => self.table.bib(slot).port4,
                _ => tuple.dst4.port,
            };
            if let Some(id) = self.table.find_session(slot, tuple.dst4.addr.to_bits(), dst_port) {
                self.update(now, id, tuple.proto, Side::V6, tuple.event);
                return Ok(slot);
            }
        }
        self.open6(now, tuple, slot, packet)
    }

    /// A packet from IPv6 that has no session yet.
    fn open6(
        &mut self,
        now: Time,
        tuple: &Tuple6,
        slot: Option<u32>,
        packet: &Packet<'_>,
    ) -> Verdict<u32> {
        let mut state = State::Established;
        let mut mask = None;
        if tuple.proto == Proto::Tcp {
            if tuple.event != Event::Syn {
                // §3.5.2.2, CLOSED: with a BIB entry it is translated, but makes no session.
                return match slot {
                    Some(slot) => Ok(slot),
                    None if self.ask_all6(now, packet, tuple) => Err(Stop::Held),
                    None => Err(DropReason::NotSyn.into()),
                };
            }
            state = State::V6Init;
            let src4 = slot.map(|slot| self.mask_of(slot));
            if let Some(waiting) = self.stored.take(tuple.dst4, src4) {
                // The IPv4 node has sent its SYN already: both sides are opening.
                state = State::Established;
                mask = Some(waiting);
            }
        }
        if !self.table.has_room() {
            return Err(DropReason::TableFull.into());
        }
        self.admit(now, tuple.src6.addr.to_bits(), slot.is_none())?;
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let (address, port) = (tuple.src6.addr.to_bits(), tuple.src6.port);
                let (mark, f_args) = (packet.mark, self.config.global.f_args);
                let free = mask.filter(|mask| {
                    let (address, port) = (mask.addr.to_bits(), mask.port);
                    // Another node's slice isn't ours to give away, whoever was written to there.
                    self.table.pool4().is_own(tuple.proto, mark, address, port)
                        && self.table.find4(tuple.proto, address, port).is_none()
                });
                let mask = free
                    .or_else(|| {
                        let (proto, dst4) = (tuple.proto, tuple.dst4);
                        self.table.choose_mask(proto, mark, address, port, dst4, f_args)
                    })
                    .ok_or_else(|| {
                        let reason = self.no_mask(mark);
                        Refusal::Reply(reason, IcmpError::AddressUnreachable)
                    })?;
                self.table
                    .create_bib(tuple.proto, tuple.src6, mask, false)
                    .map_err(|_| DropReason::TableFull)?
            }
        };
        let dst_port = match tuple.proto {
            Proto::Icmp => self.table.bib(slot).port4,
            _ => tuple.dst4.port,
        };
        self.create(now, slot, tuple.dst4.addr.to_bits(), dst_port, state)?;
        if self.held.wants_openers() && self.hold_opener(now, packet) {
            return Err(Stop::Held);
        }
        Ok(slot)
    }

    /// Why a packet of that mark can have no mapping.
    fn no_mask(&self, mark: u32) -> DropReason {
        match self.table.port_block_size() {
            _ if self.table.pool4().mark(mark).is_none() => DropReason::NoPool4Mark,
            0 => DropReason::Pool4Exhausted,
            _ => DropReason::NoPortBlock,
        }
    }

    /// Finds the BIB entry of an IPv4 packet, and finds or makes its session. `packet` is what may
    /// have to be kept. Returns the entry's slot.
    ///
    /// # Errors
    /// No BIB entry; filtered; a SYN that is kept until the IPv6 node sends its own; no room for
    /// another session.
    #[inline]
    pub(super) fn filter4(
        &mut self,
        now: Time,
        tuple: &Tuple4,
        hint: Option<u32>,
        packet: &Packet<'_>,
    ) -> Verdict<u32> {
        let (address, port) = (tuple.dst4.addr.to_bits(), tuple.dst4.port);
        let hint = hint.filter(|&slot| {
            let bib = self.table.bib(slot);
            (bib.src4, bib.port4, bib.proto()) == (address, port, tuple.proto) && bib.is_live()
        });
        let Some(slot) = hint.or_else(|| self.table.find4(tuple.proto, address, port)) else {
            return self.without_bib(now, tuple, packet);
        };
        let (src, src_port) = (tuple.src4.addr.to_bits(), self.session_port4(tuple));
        match self.table.find_session(slot, src, src_port) {
            Some(id) => {
                self.update(now, id, tuple.proto, Side::V4, tuple.event);
                Ok(slot)
            }
            None => self.open4(now, tuple, slot, packet),
        }
    }

    /// The IPv4 node's port in the session's key.
    #[inline]
    fn session_port4(&self, tuple: &Tuple4) -> u16 {
        // An echo has one identifier, which is the mask's here.
        if tuple.proto == Proto::Icmp { tuple.dst4.port } else { tuple.src4.port }
    }

    #[cold]
    fn without_bib(&mut self, now: Time, tuple: &Tuple4, packet: &Packet<'_>) -> Verdict<u32> {
        if !self.table.pool4().contains(tuple.proto, tuple.dst4.addr.to_bits(), tuple.dst4.port) {
            return Err(DropReason::NotPool4.into());
        }
        let sender = u128::from(tuple.src4.addr.to_bits());
        if self.ask_owner(now, packet, sender, tuple.proto, tuple.dst4, tuple.src4) {
            return Err(Stop::Held);
        }
        let opens = tuple.proto == Proto::Tcp && tuple.event == Event::Syn;
        if opens && !self.config.global.drop_externally_initiated_tcp {
            return Err(self.keep_syn(now, tuple, packet, DropReason::NoBib));
        }
        Err(DropReason::NoBib.into())
    }

    /// A packet from IPv4 to a mapping that has no session with its sender's transport address.
    fn open4(&mut self, now: Time, tuple: &Tuple4, slot: u32, packet: &Packet<'_>) -> Verdict<u32> {
        let global = &self.config.global;
        let src = tuple.src4.addr.to_bits();
        let filtered =
            global.address_dependent_filtering && !self.table.has_session_with(slot, src);
        if filtered && self.ask_all4(now, packet, tuple) {
            return Err(Stop::Held);
        }
        let global = &self.config.global;
        if tuple.proto == Proto::Tcp {
            if tuple.event == Event::Syn && global.drop_externally_initiated_tcp {
                return Err(DropReason::Filtered.into());
            }
            if filtered && tuple.event == Event::Syn {
                return Err(self.keep_syn(now, tuple, packet, DropReason::Filtered));
            }
            if !filtered && tuple.event != Event::Syn {
                // §3.5.2.2, CLOSED, as from IPv6.
                return Ok(slot);
            }
        }
        if filtered {
            return Err(DropReason::Filtered.into());
        }
        let state = if tuple.proto == Proto::Tcp { State::V4Init } else { State::Established };
        self.admit(now, self.table.bib(slot).src6, false)?;
        self.create(now, slot, src, self.session_port4(tuple), state)?;
        if self.held.wants_openers() && self.hold_opener(now, packet) {
            return Err(Stop::Held);
        }
        Ok(slot)
    }

    /// Whether the subscriber may have another session (RFC 6888 REQ-4, REQ-5). Nobody is told if
    /// not: that would answer a flood.
    fn admit(&mut self, now: Time, src6: u128, needs_port: bool) -> Verdict<()> {
        let admitted = self.table.admit(now, src6, needs_port);
        admitted.map_err(|quota| {
            let reason = match quota {
                Quota::Ports => DropReason::SubscriberPorts,
                Quota::Sessions => DropReason::SubscriberSessions,
                Quota::Rate => DropReason::SubscriberRate,
            };
            reason.into()
        })
    }

    /// Keeps a SYN from IPv4 for the case that the IPv6 node opens the same connection.
    fn keep_syn(
        &mut self,
        now: Time,
        tuple: &Tuple4,
        packet: &Packet<'_>,
        otherwise: DropReason,
    ) -> Stop {
        // A SYN with an ACK opens nothing: it answers a SYN of which nothing is known here.
        let answers = match wire::parse(packet.bytes()) {
            Ok(Parsed::V4(view)) => view.tcp_flags.ack(),
            Ok(Parsed::V6(view)) => view.tcp_flags.ack(),
            Err(_) => true,
        };
        if answers {
            return otherwise.into();
        }
        let limit = self.config.global.maximum_simultaneous_opens;
        if self.stored.keep(now, tuple.src4, tuple.dst4, packet, limit) {
            self.stats.count(Counter::SynsStored);
            Stop::Consumed
        } else {
            otherwise.into()
        }
    }

    #[inline]
    fn create(
        &mut self,
        now: Time,
        slot: u32,
        dst4: u32,
        dst_port: u16,
        state: State,
    ) -> Verdict<SessionId> {
        let id = self
            .table
            .create_session(now, slot, dst4, dst_port, state)
            .map_err(|_| DropReason::TableFull)?;
        self.stats.count(Counter::SessionsCreated);
        Ok(id)
    }

    /// A packet of a session that exists.
    #[inline(always)]
    pub(super) fn update(
        &mut self,
        now: Time,
        id: SessionId,
        proto: Proto,
        side: Side,
        event: Event,
    ) {
        if proto != Proto::Tcp {
            let lifetime = self.table.timeouts().of(proto, State::Established);
            self.table.refresh(now, id, lifetime);
            return;
        }
        let before = self.table.session(id).state();
        let handle_rst = self.config.global.handle_rst_during_fin_rcv;
        let Step::To(state) = next(before, side, event, handle_rst) else { return };
        let lifetime = self.table.timeouts().of(proto, state);
        if state == before {
            self.table.refresh(now, id, lifetime);
        } else {
            self.table.change_state(now, id, state, lifetime);
        }
    }
}
