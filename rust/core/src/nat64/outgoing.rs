//! Steps 3 to 5: the outgoing tuple, translation, and hairpinning (RFC 6146 §§3.6 to 3.8).

use core::net::Ipv4Addr;

use super::Nat64;
use super::incoming::{self, InnerTuple, Tuple4, Tuple6};
use super::verdict::{Stop, Verdict};
use crate::packet::{Outcome, Packet};
use crate::stats::{Counter, DropReason};
use crate::time::Time;
use crate::tuple::{Endpoint4, Endpoint6, Proto};
use crate::wire::{self, IcmpError, Parsed, Refusal, View4, View6};
use crate::xlat::{Translated, hairpin, v4to6, v6to4};

/// Where a packet goes: the addresses of the translated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From IPv6 to IPv4.
    To4 {
        /// The mask.
        src: Endpoint4,
        /// The IPv4 node.
        dst: Endpoint4,
    },
    /// From IPv4 to IPv6.
    To6 {
        /// pool6 + the IPv4 node.
        src: Endpoint6,
        /// The IPv6 node.
        dst: Endpoint6,
    },
    /// From IPv6 to IPv6.
    Hairpin {
        /// pool6 + the sender's mask.
        src: Endpoint6,
        /// The node behind the mask that the packet was sent to.
        dst: Endpoint6,
    },
}

impl Nat64 {
    /// Takes a packet through all steps.
    #[inline(never)]
    pub(super) fn all_steps(&mut self, now: Time, packet: &mut Packet<'_>, hint: Option<u32>) {
        let verdict = match wire::parse(packet.bytes()) {
            Ok(Parsed::V6(view)) => self.packet6(now, packet, &view, hint),
            Ok(Parsed::V4(view)) => self.packet4(now, packet, &view, hint),
            Err(refusal) => Err(refusal.into()),
        };
        self.settle(now, packet, verdict);
    }

    fn packet6(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        view: &View6,
        hint: Option<u32>,
    ) -> Verdict<()> {
        if view.inner.is_some() {
            return self.error6(packet, view);
        }
        if let Some(fragment) = view.fragment {
            return self.fragment6(now, packet, view, fragment);
        }
        let route = self.resolve6(now, packet, view, hint)?;
        self.send6(packet, view, route)
    }

    fn packet4(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        view: &View4,
        hint: Option<u32>,
    ) -> Verdict<()> {
        if view.inner.is_some() {
            return self.error4(packet, view);
        }
        if let Some(fragment) = view.fragment {
            return self.fragment4(now, packet, view, fragment);
        }
        let route = self.resolve4(now, packet, view, hint)?;
        self.send4(packet, view, route)
    }

    /// Finds or makes the session of an IPv6 packet with ports, and where it goes.
    #[inline]
    pub(super) fn resolve6(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        view: &View6,
        hint: Option<u32>,
    ) -> Verdict<Route> {
        let tuple =
            incoming::tuple6(&self.config.pool6, view, self.config.global.allow_non_global)?;
        if tuple.proto == Proto::Icmp && self.config.global.drop_icmpv6_info {
            return Err(DropReason::Filtered.into());
        }
        if self.is_denied(tuple.dst4.addr) {
            return Err(Refusal::Reply(DropReason::Denylisted, IcmpError::AdminProhibited).into());
        }
        check_hops(view.hop_limit)?;
        let target = tuple.dst4.addr.to_bits();
        if self.table.pool4().contains(tuple.proto, target, tuple.dst4.port) {
            return self.hairpin(now, packet, &tuple, hint);
        }
        let slot = self.filter6(now, &tuple, hint, packet)?;
        Ok(Route::To4 { src: self.mask_of(slot), dst: tuple.dst4 })
    }

    /// The same for IPv4.
    #[inline]
    pub(super) fn resolve4(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        view: &View4,
        hint: Option<u32>,
    ) -> Verdict<Route> {
        let tuple = incoming::tuple4(view)?;
        self.check4(view.src)?;
        // Before the session is touched, but only for those who reach a mapping.
        if view.hop_limit <= 1
            && self.table.find4(tuple.proto, tuple.dst4.addr.to_bits(), tuple.dst4.port).is_some()
        {
            check_hops(view.hop_limit)?;
        }
        let slot = self.filter4(now, &tuple, hint, packet)?;
        Ok(Route::To6 { src: self.embed(tuple.src4), dst: self.node_of(slot) })
    }

    /// A packet from one of our IPv6 nodes to the mask of another (§3.8): both sessions are found
    /// or made, as if the packet had gone out and come back.
    fn hairpin(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        tuple: &Tuple6,
        hint: Option<u32>,
    ) -> Verdict<Route> {
        if tuple.proto == Proto::Icmp {
            return Err(DropReason::UnsupportedIcmp.into());
        }
        let target = self.table.find4(tuple.proto, tuple.dst4.addr.to_bits(), tuple.dst4.port);
        if target.is_none() {
            // Of the sender's mask nothing is known yet, so any session of the mapping will do.
            let nobody = Endpoint4 { addr: Ipv4Addr::UNSPECIFIED, port: 0 };
            let sender = tuple.src6.addr.to_bits();
            if self.ask_owner(now, packet, sender, tuple.proto, tuple.dst4, nobody) {
                return Err(Stop::Held);
            }
            return Err(DropReason::NoBib.into());
        }
        let (src4, held) = match self.filter6(now, tuple, hint, packet) {
            Ok(slot) => (self.mask_of(slot), false),
            // It has made a session, and shall have made the other when both are told.
            Err(Stop::Held) => {
                let (address, port) = (tuple.src6.addr.to_bits(), tuple.src6.port);
                let slot = self.table.find6(tuple.proto, address, port).ok_or(Stop::Held)?;
                (self.mask_of(slot), true)
            }
            Err(stop) => return Err(stop),
        };
        let back = Tuple4 { proto: tuple.proto, src4, dst4: tuple.dst4, event: tuple.event };
        if held {
            // If that is refused, so will the packet be when it goes on.
            let _ = self.without_holding(|nat64| nat64.filter4(now, &back, target, packet));
            return Err(Stop::Held);
        }
        let slot = self.filter4(now, &back, target, packet)?;
        Ok(Route::Hairpin { src: self.embed(src4), dst: self.node_of(slot) })
    }

    /// Translates an IPv6 packet.
    #[inline]
    pub(super) fn send6(
        &mut self,
        packet: &mut Packet<'_>,
        view: &View6,
        route: Route,
    ) -> Verdict<()> {
        match route {
            Route::To4 { src, dst } => {
                let ident = self.next_ident();
                v6to4::translate(packet, view, src, dst, &self.config.global, ident)?;
                self.stats.count(Counter::Translated6to4);
                Ok(())
            }
            Route::Hairpin { src, dst } => {
                hairpin::translate(packet, view, src, dst)?;
                self.stats.count(Counter::Hairpinned);
                Ok(())
            }
            Route::To6 { .. } => Err(DropReason::Malformed.into()),
        }
    }

    /// Translates an IPv4 packet; it may become several, which are queued.
    #[inline]
    pub(super) fn send4(
        &mut self,
        packet: &mut Packet<'_>,
        view: &View4,
        route: Route,
    ) -> Verdict<()> {
        let Route::To6 { src, dst } = route else { return Err(DropReason::Malformed.into()) };
        let translated = v4to6::translate(packet, view, src, dst, &self.config.global)?;
        self.stats.count(Counter::Translated4to6);
        match translated {
            Translated::InPlace => Ok(()),
            Translated::Fragments(fragments) => {
                for fragment in fragments {
                    self.push_packet(fragment);
                }
                Err(Stop::Consumed)
            }
        }
    }

    /// An ICMPv6 error: it goes to the sender of the inner packet if that belonged to a session,
    /// and changes nothing (§3.5).
    fn error6(&mut self, packet: &mut Packet<'_>, view: &View6) -> Verdict<()> {
        incoming::check6(&self.config.pool6, &view.src, &view.dst)?;
        let inner = view.inner.as_ref().ok_or(DropReason::Malformed)?;
        let InnerTuple { proto, near, far } = incoming::inner6(&self.config.pool6, inner)?;
        let slot = self.table.find6(proto, near.addr.to_bits(), near.port);
        let slot = slot.ok_or(DropReason::NoSession)?;
        self.known_session(slot, proto, far)?;
        let mask = self.mask_of(slot);
        let sender = self.table.find4(proto, far.addr.to_bits(), far.port);
        if let (Some(sender), true) = (sender, proto != Proto::Icmp) {
            // The inner packet had been hairpinned, so the error is.
            let src = self.config.pool6.embed(mask.addr);
            let inner_dst = self.embed(mask);
            hairpin::translate_error(packet, view, src, self.node_of(sender), inner_dst)?;
            self.stats.count(Counter::Hairpinned);
            return Ok(());
        }
        let ident = self.next_ident();
        let far =
            Endpoint4 { port: if proto == Proto::Icmp { mask.port } else { far.port }, ..far };
        v6to4::translate_error(packet, view, mask.addr, far, mask, &self.config.global, ident)?;
        self.stats.count(Counter::Translated6to4);
        Ok(())
    }

    /// An ICMPv4 error, likewise.
    fn error4(&mut self, packet: &mut Packet<'_>, view: &View4) -> Verdict<()> {
        let inner = view.inner.as_ref().ok_or(DropReason::Malformed)?;
        let InnerTuple { proto, near, far } = incoming::inner4(inner);
        let slot = self.table.find4(proto, far.addr.to_bits(), far.port);
        let slot = slot.ok_or(DropReason::NoSession)?;
        self.known_session(slot, proto, near)?;
        let node = self.node_of(slot);
        // A router with a private address may tell us something, but can't appear as itself.
        let router =
            self.config.global.source_icmpv6_errors_better && self.check4(view.src).is_ok();
        let from = if router { view.src } else { near.addr };
        let src = self.config.pool6.embed(from);
        let port = if proto == Proto::Icmp { node.port } else { near.port };
        let inner_dst = Endpoint6 { port, ..self.embed(near) };
        v4to6::translate_error(packet, view, src, node, inner_dst, &self.config.global)?;
        self.stats.count(Counter::Translated4to6);
        Ok(())
    }

    fn known_session(&self, slot: u32, proto: Proto, dst4: Endpoint4) -> Verdict<()> {
        let port = if proto == Proto::Icmp { self.table.bib(slot).port4 } else { dst4.port };
        let found = self.table.find_session(slot, dst4.addr.to_bits(), port);
        found.map(|_| ()).ok_or_else(|| DropReason::NoSession.into())
    }

    /// Whether the operator forbids packets to the address.
    #[inline]
    pub(super) fn is_denied(&self, addr: Ipv4Addr) -> bool {
        self.config.global.denylist4.iter().any(|denied| denied.contains(addr))
    }

    /// Whether pool6 may carry the address.
    #[inline]
    pub(super) fn check4(&self, addr: Ipv4Addr) -> Result<(), DropReason> {
        self.config.pool6.check(addr, self.config.global.allow_non_global)
    }

    #[inline]
    pub(super) fn embed(&self, endpoint: Endpoint4) -> Endpoint6 {
        Endpoint6 { addr: self.config.pool6.embed(endpoint.addr), port: endpoint.port }
    }

    #[inline]
    pub(super) fn mask_of(&self, slot: u32) -> Endpoint4 {
        let bib = self.table.bib(slot);
        Endpoint4 { addr: bib.src4.into(), port: bib.port4 }
    }

    #[inline]
    pub(super) fn node_of(&self, slot: u32) -> Endpoint6 {
        let bib = self.table.bib(slot);
        Endpoint6 { addr: bib.src6.into(), port: bib.port6 }
    }

    /// Identifications of IPv4 packets that bring none: a counter that starts at a secret place.
    #[inline]
    fn next_ident(&mut self) -> u16 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }

    /// What became of a packet after all steps.
    #[inline]
    fn settle(&mut self, now: Time, packet: &mut Packet<'_>, verdict: Verdict<()>) {
        packet.outcome = match verdict {
            Ok(()) => Outcome::Forward,
            Err(Stop::Consumed | Stop::Held) => Outcome::Consumed,
            Err(Stop::Refused(refusal)) => {
                let reason = refusal.reason();
                self.stats.drop(reason);
                if let Refusal::Reply(_, error) = refusal {
                    self.reply(now, packet.bytes(), error);
                }
                Outcome::Drop(reason)
            }
        };
    }
}

/// Step 4 decrements; a packet that this would end goes no further, and changes no session.
#[inline]
fn check_hops(hop_limit: u8) -> Verdict<()> {
    if hop_limit <= 1 {
        return Err(Refusal::Reply(DropReason::TtlExpired, IcmpError::TimeExceeded).into());
    }
    Ok(())
}
