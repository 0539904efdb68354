//! Step 1: the incoming tuple (RFC 6146 §3.4), in the form that the table knows sessions by.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::tcp_fsm::Event;
use super::verdict::Verdict;
use crate::addr::Pool6;
use crate::stats::DropReason;
use crate::tuple::{Endpoint4, Endpoint6, Proto};
use crate::wire::{Inner, L4, View4, View6};

/// The tuple of an IPv6 packet: dst6 is taken for the IPv4 address inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple6 {
    /// Its protocol.
    pub proto: Proto,
    /// (X', x).
    pub src6: Endpoint6,
    /// (Z, z); the port of an echo is its identifier, which the mask's replaces.
    pub dst4: Endpoint4,
    /// What it does to a TCP connection.
    pub event: Event,
}

/// The tuple of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple4 {
    /// Its protocol.
    pub proto: Proto,
    /// (Z, z); the port of an echo is its identifier.
    pub src4: Endpoint4,
    /// (T, t).
    pub dst4: Endpoint4,
    /// What it does to a TCP connection.
    pub event: Event,
}

/// The session that the inner packet of an ICMP error belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerTuple<A> {
    /// Its protocol.
    pub proto: Proto,
    /// The end on the side that the error comes from: (X', x) or (Z, z).
    pub near: A,
    /// The other.
    pub far: Endpoint4,
}

/// Refuses IPv6 packets that aren't ours to translate.
///
/// # Errors
/// The destination isn't in pool6; or the source is, and the packet would go round in circles.
#[inline(always)]
pub fn check6(pool6: &Pool6, src: &Ipv6Addr, dst: &Ipv6Addr) -> Verdict<Ipv4Addr> {
    let dst4 = pool6.extract(dst).ok_or(DropReason::NotPool6)?;
    if pool6.contains(src) {
        return Err(DropReason::SourceInPool6.into());
    }
    Ok(dst4)
}

/// The tuple of an IPv6 packet with ports.
///
/// # Errors
/// See [`check6`] and [`Pool6::check`].
#[inline(always)]
pub fn tuple6(pool6: &Pool6, view: &View6, allow_non_global: bool) -> Verdict<Tuple6> {
    let addr = check6(pool6, &view.src, &view.dst)?;
    pool6.check(addr, allow_non_global)?;
    Ok(Tuple6 {
        proto: proto(view.l4)?,
        src6: Endpoint6 { addr: view.src, port: view.src_port },
        dst4: Endpoint4 { addr, port: view.dst_port },
        event: Event::of(view.tcp_flags),
    })
}

/// The tuple of an IPv4 packet with ports.
///
/// # Errors
/// None but for ICMP errors, which have no tuple of their own.
#[inline(always)]
pub fn tuple4(view: &View4) -> Verdict<Tuple4> {
    Ok(Tuple4 {
        proto: proto(view.l4)?,
        src4: Endpoint4 { addr: view.src, port: view.src_port },
        dst4: Endpoint4 { addr: view.dst, port: view.dst_port },
        event: Event::of(view.tcp_flags),
    })
}

#[inline]
fn proto(l4: L4) -> Verdict<Proto> {
    Ok(l4.proto().ok_or(DropReason::UnsupportedIcmp)?)
}

/// The session that an ICMPv6 error is about. Its inner packet went from IPv4 to IPv6.
///
/// # Errors
/// The inner packet didn't come from pool6.
pub fn inner6(pool6: &Pool6, inner: &Inner<Ipv6Addr>) -> Verdict<InnerTuple<Endpoint6>> {
    let addr = pool6.extract(&inner.src).ok_or(DropReason::NoSession)?;
    Ok(InnerTuple {
        proto: inner.proto,
        near: Endpoint6 { addr: inner.dst, port: inner.dst_port },
        far: Endpoint4 { addr, port: inner.src_port },
    })
}

/// The session that an ICMPv4 error is about. Its inner packet went from IPv6 to IPv4.
pub fn inner4(inner: &Inner<Ipv4Addr>) -> InnerTuple<Endpoint4> {
    InnerTuple {
        proto: inner.proto,
        near: Endpoint4 { addr: inner.dst, port: inner.dst_port },
        far: Endpoint4 { addr: inner.src, port: inner.src_port },
    }
}
