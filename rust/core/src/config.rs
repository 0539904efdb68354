//! What an operator decides about the translator. Keys and values are Jool's where Jool has them.
//!
//! The daemon hands this over as JSON; durations are milliseconds here, and `H:MM:SS` on the way
//! to people.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::addr::{Pool6, PortRange, Prefix4};
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// The longest lifetime of a session: deadlines are compared modulo 2^32 milliseconds.
pub const MAX_TIMEOUT_MS: u32 = 20 * 24 * 3_600_000;

/// The most sessions that one table can be sized for.
pub const MAX_SESSIONS: u32 = 1 << 26;

/// The smallest and the largest `port-block-size`.
pub const PORT_BLOCK_SIZES: core::ops::RangeInclusive<u32> = 64..=16_384;

/// The longest `denylist4`: every packet from IPv6 is compared with all of it.
pub const MAX_DENYLIST: usize = 64;

/// A configuration that can't work, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ConfigError {}

/// A translator's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// This node's number in the cluster: which entries of pool4 are its own. 0 without a cluster.
    pub node: u16,
    /// The prefix under which IPv6 nodes see IPv4 ones.
    pub pool6: Pool6,
    /// The transport addresses that IPv6 nodes are masked with.
    pub pool4: Vec<Pool4Entry>,
    /// Static BIB entries.
    pub bib: Vec<StaticBib>,
    /// The most sessions that the table may hold; address space is reserved for them at start.
    pub max_sessions: u32,
    /// The rest.
    pub global: Globals,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: 0,
            pool6: Pool6::WELL_KNOWN,
            pool4: Vec::new(),
            bib: Vec::new(),
            max_sessions: 4_000_000,
            global: Globals::default(),
        }
    }
}

/// Addresses and ports of pool4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pool4Entry {
    /// The protocol that may use it; all three if absent.
    #[serde(default)]
    pub protocol: Option<Proto>,
    /// Its addresses.
    pub prefix: Prefix4,
    /// Its ports, or ICMP identifiers.
    #[serde(default = "all_ports")]
    pub ports: PortRange,
    /// The node whose slice this is: nobody else gives these transport addresses away. All nodes
    /// do if absent.
    #[serde(default)]
    pub node: Option<u16>,
    /// Only IPv6 packets of this firewall mark get transport addresses of it for new mappings.
    #[serde(default)]
    pub mark: u32,
}

impl Pool4Entry {
    /// Whether that node may give its transport addresses away.
    pub fn is_of(&self, node: u16) -> bool {
        self.node.is_none_or(|owner| owner == node)
    }

    /// The entries that are left of this one without the transport addresses of `gone`, whoever
    /// may use those.
    pub(crate) fn without(&self, gone: &Self) -> Vec<Self> {
        if !self.overlaps(gone) {
            return vec![*self];
        }
        let mut left = Vec::new();
        if let (None, Some(protocol)) = (self.protocol, gone.protocol) {
            let others = Proto::ALL.into_iter().filter(|&other| other != protocol);
            left.extend(others.map(|other| Self { protocol: Some(other), ..*self }));
        }
        let mut shared = Self { protocol: self.protocol.or(gone.protocol), ..*self };
        while let Some((low, high)) = shared.prefix.halves()
            && shared.prefix.prefix_len() < gone.prefix.prefix_len()
        {
            let is_low = low.contains(gone.prefix.first());
            let (inside, outside) = if is_low { (low, high) } else { (high, low) };
            left.push(Self { prefix: outside, ..shared });
            shared.prefix = inside;
        }
        let (ports, theirs) = (self.ports, gone.ports);
        let below = theirs.min.checked_sub(1).map(|max| PortRange { min: ports.min, max });
        let above = theirs.max.checked_add(1).map(|min| PortRange { min, max: ports.max });
        // Port 0 alone is no entry.
        let kept = |ports: &PortRange| ports.min <= ports.max && ports.max > 0;
        let around = [below, above].into_iter().flatten().filter(kept);
        left.extend(around.map(|ports| Self { ports, ..shared }));
        left
    }

    fn overlaps(&self, other: &Self) -> bool {
        let protocols =
            self.protocol.is_none() || other.protocol.is_none() || self.protocol == other.protocol;
        let (ours, theirs) = (self.prefix, other.prefix);
        protocols
            && (ours.contains(theirs.first()) || theirs.contains(ours.first()))
            && self.ports.min <= other.ports.max
            && other.ports.min <= self.ports.max
    }
}

/// Port 0 is no port, and the well-known ports belong to the host unless asked for.
fn all_ports() -> PortRange {
    PortRange { min: 1024, max: u16::MAX }
}

/// A mapping that exists without traffic (RFC 6146 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StaticBib {
    /// Its protocol.
    pub protocol: Proto,
    /// The IPv6 node, `addr#port`.
    #[serde(with = "endpoint6")]
    pub ipv6: Endpoint6,
    /// What the IPv4 Internet sees, `addr#port`.
    #[serde(with = "endpoint4")]
    pub ipv4: Endpoint4,
}

/// Jool's global options, by Jool's names and with Jool's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Globals {
    /// UDP session lifetime, ms (UDP_DEFAULT, at least 2 minutes by RFC 6146 §4).
    #[serde(deserialize_with = "milliseconds")]
    pub udp_timeout: u32,
    /// ICMP session lifetime, ms (ICMP_DEFAULT).
    #[serde(deserialize_with = "milliseconds")]
    pub icmp_timeout: u32,
    /// Established TCP session lifetime, ms (TCP_EST).
    #[serde(deserialize_with = "milliseconds")]
    pub tcp_est_timeout: u32,
    /// Transitory TCP session lifetime, ms (TCP_TRANS).
    #[serde(deserialize_with = "milliseconds")]
    pub tcp_trans_timeout: u32,
    /// How long the fragments of a datagram may take to arrive, ms (at least FRAGMENT_MIN).
    #[serde(deserialize_with = "milliseconds")]
    pub fragment_arrival_timeout: u32,
    /// The well-known prefix 64:ff9b::/96 may carry private IPv4 addresses and others that are not
    /// global; RFC 6052 §3.1 forbids it. Other prefixes carry every address of a host.
    pub allow_non_global: bool,
    /// IPv6 packets get a traffic class of 0 instead of the IPv4 packet's TOS.
    pub zeroize_traffic_class: bool,
    /// IPv4 packets get `tos` instead of the IPv6 packet's traffic class.
    pub override_tos: bool,
    /// See `override_tos`.
    pub tos: u8,
    /// Sizes tried when an ICMPv4 "fragmentation needed" carries no MTU (RFC 1191 §7.1).
    pub mtu_plateaus: Vec<u16>,
    /// The smallest MTU of the IPv6 side (RFC 7915 §4.1).
    pub lowest_ipv6_mtu: u16,
    /// Only known IPv4 addresses may send to a mapping (RFC 6146 §3.5.1).
    pub address_dependent_filtering: bool,
    /// IPv4 nodes may not open TCP connections (RFC 6146 §3.5.2.2).
    pub drop_externally_initiated_tcp: bool,
    /// ICMPv6 queries are dropped (RFC 6146 §3.5.3).
    pub drop_icmpv6_info: bool,
    /// ICMPv4 errors translated to IPv6 keep their own source address (RFC 6791's concern).
    pub source_icmpv6_errors_better: bool,
    /// A RST in a FIN state starts the transitory timer.
    pub handle_rst_during_fin_rcv: bool,
    /// IPv4 SYNs that may wait for their IPv6 counterpart (RFC 6146 §3.5.2.2).
    pub maximum_simultaneous_opens: u32,
    /// Which fields choose the port (RFC 6056 §3.3.3): bits src6, src6 port, dst6, dst6 port (8 4 2 1).
    pub f_args: u8,
    /// How many bits of an IPv6 address tell subscribers apart, for the limits that follow.
    pub subscriber_prefix_length: u8,
    /// Most BIB entries of a subscriber, 0 for no limit (RFC 6888 REQ-4).
    pub max_ports_per_subscriber: u32,
    /// Most sessions of a subscriber, 0 for no limit (RFC 6888 REQ-5).
    pub max_sessions_per_subscriber: u32,
    /// Most sessions that a subscriber may begin in a second, 0 for no limit (RFC 6888 REQ-5).
    pub max_session_rate_per_subscriber: u32,
    /// Ports that a subscriber gets at a time, a power of two; 0 gives them away one by one
    /// (RFC 6888 REQ-14).
    pub port_block_size: u32,
    /// IPv4 destinations that IPv6 nodes may not reach through the translator (RFC 6888 REQ-6).
    pub denylist4: Vec<Prefix4>,
    /// BIB entries that traffic makes, and their end, are told to the log (RFC 6888 REQ-12); with
    /// port blocks, the blocks instead.
    pub logging_bib: bool,
    /// The same for sessions: a line for every connection.
    pub logging_session: bool,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            udp_timeout: 300_000,
            icmp_timeout: 60_000,
            tcp_est_timeout: 7_200_000,
            tcp_trans_timeout: 240_000,
            fragment_arrival_timeout: 2_000,
            allow_non_global: false,
            zeroize_traffic_class: false,
            override_tos: false,
            tos: 0,
            mtu_plateaus: vec![65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68],
            lowest_ipv6_mtu: 1280,
            address_dependent_filtering: false,
            drop_externally_initiated_tcp: false,
            drop_icmpv6_info: false,
            source_icmpv6_errors_better: true,
            handle_rst_during_fin_rcv: false,
            maximum_simultaneous_opens: 10,
            f_args: 0b1011,
            subscriber_prefix_length: 64,
            max_ports_per_subscriber: 0,
            max_sessions_per_subscriber: 0,
            max_session_rate_per_subscriber: 0,
            port_block_size: 0,
            denylist4: Vec::new(),
            logging_bib: false,
            logging_session: false,
        }
    }
}

impl Config {
    /// Refuses what no translator could do, naming the key.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |text: String| Err(ConfigError(text));
        if !(1..=MAX_SESSIONS).contains(&self.max_sessions) {
            return error(format!("max-sessions: must be 1 to {MAX_SESSIONS}"));
        }
        if self.pool4.is_empty() {
            return error("pool4: is empty; name at least one address".to_string());
        }
        self.check_parts()?;
        if !self.pool4.iter().any(|entry| entry.is_of(self.node)) {
            return error(format!(
                "pool4: every entry is another node's; give node {} a slice too",
                self.node
            ));
        }
        Ok(())
    }

    /// What must be right while running too, when pool4 may be empty for a time.
    pub(crate) fn check_parts(&self) -> Result<(), ConfigError> {
        let error = |text: String| Err(ConfigError(text));
        for (index, entry) in self.pool4.iter().enumerate() {
            if entry.node == Some(0) {
                return error(format!("pool4[{index}].node: must be 1 to 65535"));
            }
            if entry.node.is_some() && self.node == 0 {
                return error(format!(
                    "pool4[{index}].node: only the nodes of a cluster have slices, and there is \
                     no [sync]"
                ));
            }
            let conflict = |other: &Pool4Entry| other.node != entry.node && other.overlaps(entry);
            if let Some(other) = self.pool4.iter().take(index).position(conflict) {
                return error(format!(
                    "pool4[{index}].node: overlaps pool4[{other}], which isn't the same node's: \
                     both would give away the same ports"
                ));
            }
            if entry.ports.max == 0 {
                return error(format!("pool4 {}: port 0 alone is no port", entry.prefix));
            }
            if entry.prefix.prefix_len() < 16 {
                return error(format!("pool4 {}: at most a /16 an entry", entry.prefix));
            }
        }
        for (index, bib) in self.bib.iter().enumerate() {
            let covered = self.pool4.iter().any(|entry| {
                entry.protocol.is_none_or(|p| p == bib.protocol)
                    && entry.prefix.contains(bib.ipv4.addr)
                    && entry.ports.contains(bib.ipv4.port)
            });
            if !covered {
                return error(format!("bib[{index}] ipv4 {}: not in pool4", bib.ipv4));
            }
            if bib.protocol != Proto::Icmp && (bib.ipv4.port == 0 || bib.ipv6.port == 0) {
                return error(format!("bib[{index}]: 0 is no port"));
            }
            if self.pool6.contains(&bib.ipv6.addr) {
                return error(format!("bib[{index}] ipv6 {}: lies in pool6", bib.ipv6));
            }
            for (other, earlier) in self.bib.iter().enumerate().take(index) {
                let same = earlier.protocol == bib.protocol
                    && (earlier.ipv4 == bib.ipv4 || earlier.ipv6 == bib.ipv6);
                if same {
                    return error(format!("bib[{index}]: shares an address with bib[{other}]"));
                }
            }
        }
        self.global.validate()
    }
}

impl Globals {
    /// Refuses values outside their range, naming the key.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let timeouts = [
            ("udp-timeout", self.udp_timeout, 120_000),
            ("icmp-timeout", self.icmp_timeout, 1),
            ("tcp-est-timeout", self.tcp_est_timeout, 7_200_000),
            ("tcp-trans-timeout", self.tcp_trans_timeout, 240_000),
            ("fragment-arrival-timeout", self.fragment_arrival_timeout, 2_000),
        ];
        for (key, value, min) in timeouts {
            if !(min..=MAX_TIMEOUT_MS).contains(&value) {
                let (min, max) = (Seconds(min), Seconds(MAX_TIMEOUT_MS));
                return Err(ConfigError(format!(
                    "{key}: must be {min} s to {max} s (RFC 6146 section 4)"
                )));
            }
        }
        if self.lowest_ipv6_mtu < 1280 {
            return Err(ConfigError("lowest-ipv6-mtu: must be at least 1280".to_string()));
        }
        if !(1..=128).contains(&self.subscriber_prefix_length) {
            let why = "subscriber-prefix-length: must be 1 to 128";
            return Err(ConfigError(why.to_string()));
        }
        if self.denylist4.len() > MAX_DENYLIST {
            return Err(ConfigError(format!("denylist4: at most {MAX_DENYLIST} prefixes")));
        }
        let size = self.port_block_size;
        if size != 0 && !(size.is_power_of_two() && PORT_BLOCK_SIZES.contains(&size)) {
            let (min, max) = (PORT_BLOCK_SIZES.start(), PORT_BLOCK_SIZES.end());
            return Err(ConfigError(format!(
                "port-block-size: must be 0, or a power of two from {min} to {max}"
            )));
        }
        if self.f_args > 15 {
            return Err(ConfigError("f-args: must be 0 to 15 (four bits)".to_string()));
        }
        Ok(())
    }
}

/// Milliseconds as a number of seconds.
struct Seconds(u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (seconds, 0) => seconds.fmt(f),
            (seconds, rest) => write!(f, "{seconds}.{rest:03}"),
        }
    }
}

/// A lifetime. One too long for the field is left for [`Globals::validate`] to refuse.
fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    Ok(u64::deserialize(from)?.try_into().unwrap_or(u32::MAX))
}

/// `addr#port` as text, for people and for serde.
macro_rules! endpoint_text {
    ($module:ident, $endpoint:ident, $addr:ident, $kind:literal) => {
        impl core::str::FromStr for $endpoint {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, ConfigError> {
                let split = text.split_once('#');
                split
                    .and_then(|(addr, port)| {
                        let addr: $addr = addr.parse().ok()?;
                        Some($endpoint { addr, port: port.parse().ok()? })
                    })
                    .ok_or_else(|| {
                        ConfigError(format!("{text:?}: write an {} address, #, and a port", $kind))
                    })
            }
        }

        pub(crate) mod $module {
            use super::*;
            use serde::de::Error;
            use serde::ser::Serializer;

            pub fn serialize<S: Serializer>(value: &$endpoint, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(value)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$endpoint, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }
    };
}
endpoint_text!(endpoint6, Endpoint6, Ipv6Addr, "IPv6");
endpoint_text!(endpoint4, Endpoint4, Ipv4Addr, "IPv4");

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(json).map_err(|e| e.to_string())?;
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn reads_what_it_writes() {
        let text = r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}],
            "bib": [{"protocol": "tcp", "ipv6": "2001:db8::8#80", "ipv4": "192.0.2.1#61001"}]}"#;
        let parsed = config(text).unwrap();
        assert_eq!(parsed.bib[0].ipv6.port, 80);
        let again = serde_json::to_string(&parsed).unwrap();
        assert_eq!(config(&again).unwrap(), parsed);
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        for (text, key) in [
            (r#"{}"#, "pool4"),
            (r#"{"pool4": [{"prefix": "192.0.2.1/33"}]}"#, "192.0.2.1/33"),
            (r#"{"pool4": [{"prefix": "192.0.2.1"}], "max-sessions": 0}"#, "max-sessions"),
            (
                r#"{"pool4": [{"prefix": "192.0.2.1"}], "global": {"udp-timeout": 1}}"#,
                "udp-timeout",
            ),
            (r#"{"pool4": [{"prefix": "192.0.2.1"}], "globl": {}}"#, "globl"),
            (r#"{"pool4": [{"prefix": "192.0.2.1", "node": 1}]}"#, "pool4[0].node"),
            (r#"{"node": 2, "pool4": [{"prefix": "192.0.2.1", "node": 0}]}"#, "pool4[0].node"),
            (r#"{"node": 2, "pool4": [{"prefix": "192.0.2.1", "node": 1}]}"#, "give node 2"),
            (
                r#"{"node": 2, "pool4": [
                    {"prefix": "192.0.2.0/30", "ports": "2000-2999", "node": 2},
                    {"prefix": "192.0.2.1", "ports": "2999-3000", "protocol": "udp"}]}"#,
                "pool4[1].node: overlaps pool4[0]",
            ),
            (
                r#"{"pool4": [{"prefix": "192.0.2.1"}],
                "bib": [{"protocol": "udp", "ipv6": "::1#1", "ipv4": "192.0.2.2#2000"}]}"#,
                "bib[0] ipv4",
            ),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
