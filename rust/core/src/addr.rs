//! Prefixes, and IPv4 addresses inside IPv6 addresses (RFC 6052).

use alloc::string::{String, ToString};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::stats::DropReason;

/// Text that is not what it should be: a prefix, a range, a transport address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrError(pub String);

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for AddrError {}

/// The IPv6 prefix under which this NAT64 shows the IPv4 Internet (RFC 6052 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pool6 {
    prefix: Ipv6Addr,
    /// Ones where `prefix` counts.
    mask: Ipv6Addr,
    len: u8,
}

impl Pool6 {
    /// The well-known prefix, 64:ff9b::/96 (RFC 6052 §2.1).
    pub const WELL_KNOWN: Self = Self::new(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

    /// `len` is from 1 to 128.
    const fn new(prefix: Ipv6Addr, len: u8) -> Self {
        Self { prefix, mask: Ipv6Addr::from_bits(u128::MAX << (128 - len)), len }
    }

    /// The prefix, with zeros behind its length.
    pub fn prefix(&self) -> Ipv6Addr {
        self.prefix
    }

    /// Its length in bits: 32, 40, 48, 56, 64 or 96.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether `addr` lies in the prefix.
    #[inline]
    pub fn contains(&self, addr: &Ipv6Addr) -> bool {
        // The same in either byte order.
        let [addr, prefix, mask] =
            [*addr, self.prefix, self.mask].map(|addr| u128::from_ne_bytes(addr.octets()));
        (addr ^ prefix) & mask == 0
    }

    /// The IPv4 address inside `addr`, if `addr` lies in the prefix.
    #[inline]
    pub fn extract(&self, addr: &Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.contains(addr) {
            return None;
        }
        let bits = addr.to_bits();
        if self.len == 96 {
            return Some(Ipv4Addr::from_bits(bits as u32));
        }
        // Drop the u octet (bits 64 to 71), then the address stands right behind the prefix.
        let joined = (bits >> 64 << 64) | ((bits << 72) >> 64);
        Some(Ipv4Addr::from_bits((joined >> (96 - u32::from(self.len))) as u32))
    }

    /// The IPv6 address that stands for `addr`; u octet and suffix are zero.
    #[inline]
    pub fn embed(&self, addr: Ipv4Addr) -> Ipv6Addr {
        let prefix = self.prefix.to_bits();
        let v4 = u128::from(addr.to_bits());
        if self.len == 96 {
            return Ipv6Addr::from_bits(prefix | v4);
        }
        let joined = v4 << (96 - u32::from(self.len));
        let high = joined >> 64 << 64;
        let low = (joined << 64) >> 72;
        Ipv6Addr::from_bits(prefix | high | low)
    }

    /// Whether a packet may be translated whose IPv4 side is `addr`: it is a host's, and the
    /// well-known prefix carries global addresses alone unless `allow_non_global`
    /// (RFC 6052 §3.1).
    ///
    /// # Errors
    /// What to count.
    #[inline]
    pub fn check(&self, addr: Ipv4Addr, allow_non_global: bool) -> Result<(), DropReason> {
        if is_global4(addr) {
            return Ok(());
        }
        if !is_unicast4(addr) {
            return Err(DropReason::BadAddress);
        }
        if *self == Self::WELL_KNOWN && !allow_non_global {
            return Err(DropReason::NonGlobal);
        }
        Ok(())
    }
}

impl FromStr for Pool6 {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = |why: &str| AddrError(alloc::format!("pool6 {text:?}: {why}"));
        let (addr, len) = text
            .split_once('/')
            .ok_or_else(|| error("write PREFIX/LENGTH, such as 64:ff9b::/96"))?;
        let prefix: Ipv6Addr = addr.parse().map_err(|_| error("not an IPv6 address"))?;
        let len: u8 = len.parse().map_err(|_| error("the length is not a number"))?;
        if ![32, 40, 48, 56, 64, 96].contains(&len) {
            return Err(error("the length must be 32, 40, 48, 56, 64 or 96 (RFC 6052)"));
        }
        if prefix.to_bits() << len != 0 {
            return Err(error("bits are set behind the prefix length"));
        }
        if prefix.octets()[8] != 0 {
            return Err(error("bits 64 to 71 must be zero (RFC 6052)"));
        }
        Ok(Self::new(prefix, len))
    }
}

impl TryFrom<String> for Pool6 {
    type Error = AddrError;

    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<Pool6> for String {
    fn from(pool6: Pool6) -> Self {
        pool6.to_string()
    }
}

impl fmt::Display for Pool6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.len)
    }
}

/// An IPv4 prefix; an address alone is a /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix4 {
    prefix: Ipv4Addr,
    len: u8,
}

impl Prefix4 {
    /// The first address.
    pub fn first(&self) -> Ipv4Addr {
        self.prefix
    }

    /// Its length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// How many addresses it has.
    pub fn count(&self) -> u64 {
        1 << (32 - self.len)
    }

    /// Its lower and its upper half, unless it is one address.
    pub fn halves(&self) -> Option<(Self, Self)> {
        let len = self.len + 1;
        let bit = 1u32.checked_shl(u32::from(32u8.checked_sub(len)?))?;
        let high = Ipv4Addr::from_bits(self.prefix.to_bits() | bit);
        Some((Self { prefix: self.prefix, len }, Self { prefix: high, len }))
    }

    /// Whether `addr` lies in the prefix.
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        u64::from(addr.to_bits() ^ self.prefix.to_bits()) < self.count()
    }
}

impl FromStr for Prefix4 {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = |why: &str| AddrError(alloc::format!("IPv4 prefix {text:?}: {why}"));
        let (addr, len) = text.split_once('/').unwrap_or((text, "32"));
        let prefix: Ipv4Addr = addr.parse().map_err(|_| error("not an IPv4 address"))?;
        let len: u8 = len.parse().map_err(|_| error("the length is not a number"))?;
        if len > 32 {
            return Err(error("the length must be at most 32"));
        }
        if u64::from(prefix.to_bits()) & ((1 << (32 - len)) - 1) != 0 {
            return Err(error("bits are set behind the prefix length"));
        }
        Ok(Self { prefix, len })
    }
}

impl TryFrom<String> for Prefix4 {
    type Error = AddrError;

    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<Prefix4> for String {
    fn from(prefix: Prefix4) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.len)
    }
}

/// A range of ports or ICMP identifiers, both ends included. Written `1024-65535` or `53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The lowest.
    pub min: u16,
    /// The highest, not below `min`.
    pub max: u16,
}

impl PortRange {
    /// All of them, 0 to 65535.
    pub const ALL: Self = Self { min: 0, max: u16::MAX };

    /// Whether `port` is in the range.
    pub fn contains(&self, port: u16) -> bool {
        (self.min..=self.max).contains(&port)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::from(self.max) - u32::from(self.min) + 1
    }
}

impl FromStr for PortRange {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = |why: &str| AddrError(alloc::format!("port range {text:?}: {why}"));
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let number =
            |s: &str| s.trim().parse().map_err(|_| error("write MIN-MAX, each 0 to 65535"));
        let (min, max) = (number(min)?, number(max)?);
        if min > max {
            return Err(error("the first port is above the last"));
        }
        Ok(Self { min, max })
    }
}

impl TryFrom<String> for PortRange {
    type Error = AddrError;

    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// Whether a packet may come from or go to `addr` across a router: not "this network", loopback,
/// multicast, class E or broadcast (RFC 1812 §5.3.7, RFC 6890).
#[inline]
pub const fn is_unicast4(addr: Ipv4Addr) -> bool {
    !matches!(addr.octets()[0], 0 | 127 | 224..)
}

/// Whether `addr` may mean the same host to everybody (RFC 6890). The documentation prefixes
/// (RFC 5737) count as global though they are not: nobody has them, so that a packet can't reach
/// the wrong host, and every example is written with them.
#[inline]
pub const fn is_global4(addr: Ipv4Addr) -> bool {
    !matches!(
        addr.octets(),
        [0 | 10 | 127 | 224.., ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0, _]
            | [198, 18 | 19, ..]
    )
}

/// Whether a packet may come from or go to `addr` across a router: not multicast, link-local,
/// unspecified, loopback, or an IPv4-mapped or IPv4-compatible address (RFC 4291 §2.5, ::/80).
#[inline]
pub const fn is_unicast6(addr: Ipv6Addr) -> bool {
    let bits = addr.to_bits();
    bits >> 120 != 0xff && bits >> 118 != 0x3fa && bits >> 48 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6052 §2.4, table 2.
    #[test]
    fn rfc6052_examples() {
        for (pool6, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let pool6: Pool6 = pool6.parse().unwrap();
            let v4 = Ipv4Addr::new(192, 0, 2, 33);
            let v6: Ipv6Addr = expected.parse().unwrap();
            assert_eq!(pool6.embed(v4), v6, "{pool6}");
            assert_eq!(pool6.extract(&v6), Some(v4), "{pool6}");
        }
    }

    /// RFC 6052 §2.2: a suffix that isn't zero is ignored.
    #[test]
    fn suffix_is_ignored() {
        for (pool6, addr) in [
            ("2001:db8::/32", "2001:db8:c000:221:0:ffff:ffff:ffff"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:21ff:ffff:ffff"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:21ff:ffff"),
        ] {
            let pool6: Pool6 = pool6.parse().unwrap();
            let v4 = Ipv4Addr::new(192, 0, 2, 33);
            assert_eq!(pool6.extract(&addr.parse().unwrap()), Some(v4), "{pool6}");
        }
    }

    #[test]
    fn refuses_bad_prefixes_and_says_why() {
        for (text, why) in [
            ("64:ff9b::", "write PREFIX/LENGTH"),
            ("64:ff9b::/95", "the length must be"),
            ("64:ff9b::1/96", "bits are set"),
            ("2001:db8:0:0:ff00::/96", "bits 64 to 71"),
            ("x/96", "not an IPv6 address"),
        ] {
            let error = text.parse::<Pool6>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
        assert!("192.0.2.1/24".parse::<Prefix4>().is_err());
        assert!("0.0.0.0/0".parse::<Prefix4>().unwrap().contains(Ipv4Addr::new(255, 0, 0, 1)));
        assert!("5-4".parse::<PortRange>().is_err());
    }

    #[test]
    fn well_known_prefix_carries_global_addresses_alone() {
        let other: Pool6 = "2001:db8::/96".parse().unwrap();
        let check = |pool6: Pool6, addr: &str, allow| pool6.check(addr.parse().unwrap(), allow);
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "192.0.0.9",
            "198.18.0.1",
            "198.19.255.255",
        ] {
            assert_eq!(check(Pool6::WELL_KNOWN, private, false), Err(DropReason::NonGlobal));
            assert_eq!(check(Pool6::WELL_KNOWN, private, true), Ok(()));
            assert_eq!(check(other, private, false), Ok(()));
        }
        for global in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.2.8", "198.51.100.1", "203.0.113.1"]
        {
            assert_eq!(check(Pool6::WELL_KNOWN, global, false), Ok(()), "{global}");
        }
        for nobody in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1"] {
            assert_eq!(check(other, nobody, true), Err(DropReason::BadAddress), "{nobody}");
        }
        assert!(!is_unicast4(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn addresses_that_no_router_forwards() {
        for bad in ["::", "::1", "ff02::1", "fe80::1", "febf::1", "::ffff:192.0.2.1", "::192.0.2.1"]
        {
            assert!(!is_unicast6(bad.parse().unwrap()), "{bad}");
        }
        for good in ["2001:db8::1", "64:ff9b::1", "fd00::1", "fec0::1", "::1:0:0:0:1"] {
            assert!(is_unicast6(good.parse().unwrap()), "{good}");
        }
    }

    proptest! {
        #[test]
        fn embed_then_extract(prefix: u128, len in prop::sample::select(&[32u8, 40, 48, 56, 64, 96]), v4: u32) {
            let bits = prefix >> (128 - u32::from(len)) << (128 - u32::from(len)) & !(0xff << 56);
            let pool6: Pool6 = alloc::format!("{}/{len}", Ipv6Addr::from_bits(bits)).parse().unwrap();
            let v6 = pool6.embed(v4.into());
            prop_assert_eq!(v6.octets()[8], 0);
            prop_assert_eq!(pool6.extract(&v6), Some(v4.into()));
        }
    }
}
