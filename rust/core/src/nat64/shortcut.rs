//! The short way of nearly every packet: TCP or UDP without options, extension headers or
//! fragmentation, of a session that is there, with nobody to be told anything.
//!
//! The steps are those of the long way, the same functions, but in one place, so that the compiler
//! keeps addresses and ports in registers: to hand views, tuples and routes from step to step in
//! memory cost as much as the work itself. Whatever is not as expected has changed nothing here
//! and takes the long way from its beginning, which knows what to do and what to count.

use super::Nat64;
use super::incoming::{tuple4, tuple6};
use super::tcp_fsm::Side;
use crate::packet::Packet;
use crate::stats::Counter;
use crate::time::Time;
use crate::wire::{ordinary4, ordinary6};
use crate::xlat::{Translated, v4to6, v6to4};

impl Nat64 {
    /// Translates an IPv6 packet of the session that `hint` leads to. None if it can't.
    #[inline(always)]
    pub(super) fn shortcut6(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        hint: Option<u32>,
    ) -> Option<()> {
        let slot = hint?;
        let view = ordinary6(packet.bytes())?;
        let tuple = tuple6(&self.config.pool6, &view, self.config.global.allow_non_global).ok()?;
        let (address, port) = (tuple.src6.addr.to_bits(), tuple.src6.port);
        let (target, target_port) = (tuple.dst4.addr.to_bits(), tuple.dst4.port);
        let bib = self.table.bib(slot);
        let is_common = bib.has_src6(tuple.proto, address, port)
            && bib.is_live()
            && !self.is_denied(tuple.dst4.addr)
            && !self.table.pool4().contains(tuple.proto, target, target_port);
        if !is_common {
            return None;
        }
        let id = self.table.find_session(slot, target, target_port)?;
        let (src, ident) = (self.mask_of(slot), self.ident.wrapping_add(1));
        v6to4::translate(packet, &view, src, tuple.dst4, &self.config.global, ident).ok()?;
        self.ident = ident;
        self.update(now, id, tuple.proto, Side::V6, tuple.event);
        self.stats.count(Counter::Translated6to4);
        Some(())
    }

    /// The same from IPv4.
    #[inline(always)]
    pub(super) fn shortcut4(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        hint: Option<u32>,
    ) -> Option<()> {
        let slot = hint?;
        let view = ordinary4(packet.bytes())?;
        let tuple = tuple4(&view).ok()?;
        let (address, port) = (tuple.dst4.addr.to_bits(), tuple.dst4.port);
        let bib = self.table.bib(slot);
        let is_common = (bib.src4, bib.port4, bib.proto()) == (address, port, tuple.proto)
            && bib.is_live()
            && self.check4(view.src).is_ok()
            && !v4to6::is_cut(packet, &view, &self.config.global);
        if !is_common {
            return None;
        }
        let id = self.table.find_session(slot, tuple.src4.addr.to_bits(), tuple.src4.port)?;
        let (src, dst) = (self.embed(tuple.src4), self.node_of(slot));
        match v4to6::translate(packet, &view, src, dst, &self.config.global) {
            Ok(Translated::InPlace) => {}
            Ok(Translated::Fragments(_)) | Err(_) => return None,
        }
        self.update(now, id, tuple.proto, Side::V4, tuple.event);
        self.stats.count(Counter::Translated4to6);
        Some(())
    }
}
