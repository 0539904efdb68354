//! Fragments in both directions (RFC 6146 §3.4).

use alloc::vec;

use super::Nat64;
use super::incoming;
use super::outgoing::Route;
use super::verdict::{Stop, Verdict};
use crate::packet::{HEADROOM, OwnedPacket, Packet};
use crate::stats::DropReason;
use crate::table::fragment::{DatagramKey, Fate};
use crate::time::Time;
use crate::wire::{self, Fragment, Parsed, View4, View6};

impl Nat64 {
    /// A fragment from IPv6.
    #[cold]
    pub(super) fn fragment6(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        view: &View6,
        fragment: Fragment,
    ) -> Verdict<()> {
        incoming::check6(&self.config.pool6, &view.src, &view.dst)?;
        let key = DatagramKey {
            src: view.src.to_bits(),
            dst: view.dst.to_bits(),
            proto: view.l4.proto().ok_or(DropReason::FragmentUntranslatable)?,
            id: fragment.id,
        };
        if !fragment.is_first() {
            let route = self.follow(now, key, packet)?;
            return self.send6(packet, view, route);
        }
        let sent = self
            .resolve6(now, packet, view, None)
            .and_then(|route| self.send6(packet, view, route).map(|()| route));
        if sent == Err(Stop::Held) {
            // The others wait for it too.
            return Err(Stop::Held);
        }
        self.lead(now, key, sent)
    }

    /// A fragment from IPv4.
    #[cold]
    pub(super) fn fragment4(
        &mut self,
        now: Time,
        packet: &mut Packet<'_>,
        view: &View4,
        fragment: Fragment,
    ) -> Verdict<()> {
        let key = DatagramKey {
            src: view.src.to_bits().into(),
            dst: view.dst.to_bits().into(),
            proto: view.l4.proto().ok_or(DropReason::FragmentUntranslatable)?,
            id: fragment.id,
        };
        if !fragment.is_first() {
            if !self.table.pool4().has_address(key.proto, view.dst.to_bits()) {
                return Err(DropReason::NotPool4.into());
            }
            let route = self.follow(now, key, packet)?;
            return self.send4(packet, view, route);
        }
        let route = self.resolve4(now, packet, view, None);
        let sent = match route {
            // Cut again or not, the others go the same way.
            Ok(route) => match self.send4(packet, view, route) {
                Err(Stop::Consumed) => {
                    self.lead(now, key, Ok(route))?;
                    return Err(Stop::Consumed);
                }
                sent => sent.map(|()| route),
            },
            Err(Stop::Held) => return Err(Stop::Held),
            Err(stop) => Err(stop),
        };
        self.lead(now, key, sent)
    }

    /// Where a fragment that isn't first goes; it may have to wait.
    fn follow(&mut self, now: Time, key: DatagramKey, packet: &Packet<'_>) -> Verdict<Route> {
        match self.fragments.later(now, key, packet.bytes(), packet.offload) {
            Fate::Route(route) => Ok(route),
            Fate::Kept => Err(Stop::Consumed),
            Fate::Drop(reason) => Err(reason.into()),
        }
    }

    /// The first fragment was sent or refused: those that waited share its fate.
    fn lead(&mut self, now: Time, key: DatagramKey, sent: Verdict<Route>) -> Verdict<()> {
        let waited = self.fragments.first(now, key, sent.ok());
        for fragment in waited {
            match sent {
                Ok(route) => self.release(fragment, route),
                Err(_) => self.stats.drop(DropReason::FragmentRefused),
            }
        }
        sent.map(|_| ())
    }

    /// Translates a fragment that has waited and queues it.
    fn release(&mut self, fragment: OwnedPacket, route: Route) {
        let len = fragment.bytes.len();
        let mut buffer = vec![0; HEADROOM + len];
        buffer[HEADROOM..].copy_from_slice(&fragment.bytes);
        let mut packet = Packet::new(&mut buffer, HEADROOM, len, fragment.offload);
        let sent = match wire::parse(packet.bytes()) {
            Ok(Parsed::V6(view)) => self.send6(&mut packet, &view, route),
            Ok(Parsed::V4(view)) => self.send4(&mut packet, &view, route),
            Err(refusal) => Err(refusal.into()),
        };
        match sent {
            Ok(()) => {
                let (bytes, offload) = (packet.bytes().to_vec(), packet.offload);
                self.push_packet(OwnedPacket { bytes, offload });
            }
            Err(Stop::Consumed | Stop::Held) => {}
            Err(Stop::Refused(refusal)) => self.stats.drop(refusal.reason()),
        }
    }
}
