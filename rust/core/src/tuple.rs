//! Transport addresses and the protocols that a NAT64 tells apart (RFC 6146 §2).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A transport protocol with sessions of its own. The numbers are joold's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Proto {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP queries; the identifier stands in the place of both ports.
    Icmp = 2,
}

impl Proto {
    /// Every protocol, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The protocol of that number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Tcp),
            1 => Some(Self::Udp),
            2 => Some(Self::Icmp),
            _ => None,
        }
    }

    /// Its name as the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An IPv6 transport address: src6 or dst6 with its port or identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint6 {
    /// The address.
    pub addr: Ipv6Addr,
    /// Port, or ICMPv6 identifier.
    pub port: u16,
}

/// An IPv4 transport address: src4 or dst4 with its port or identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint4 {
    /// The address.
    pub addr: Ipv4Addr,
    /// Port, or ICMP identifier.
    pub port: u16,
}

impl fmt::Display for Endpoint6 {
    /// `addr#port`, as Jool writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.addr, self.port)
    }
}

impl fmt::Display for Endpoint4 {
    /// `addr#port`, as Jool writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.addr, self.port)
    }
}
