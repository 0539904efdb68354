//! What a configuration comes down to: a digest a field, so that peers that differ can say where.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::Config;

/// A part of the configuration that must be the same on every node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Field {
    /// pool6.
    Pool6 = 1,
    /// pool4.
    Pool4 = 2,
    /// Static BIB entries.
    Bib = 3,
    /// Session timeouts.
    Timeouts = 4,
    /// Which packets may make sessions.
    Filtering = 5,
}

impl Field {
    /// Every field, in the order of their numbers.
    pub const ALL: &'static [Self] =
        &[Self::Pool6, Self::Pool4, Self::Bib, Self::Timeouts, Self::Filtering];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pool6 => "pool6",
            Self::Pool4 => "pool4",
            Self::Bib => "bib",
            Self::Timeouts => "timeouts",
            Self::Filtering => "filtering",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest of every field: the first four bytes of SHA-256 of the field as text, a line an entry,
/// entries sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests([u32; Field::ALL.len()]);

impl Digests {
    /// Of this configuration.
    pub fn new(config: &Config) -> Self {
        let global = &config.global;
        let pool4 = config.pool4.iter().map(|entry| {
            let proto = entry.protocol.map_or("all", |p| p.name());
            let owner = entry.node.map(|node| alloc::format!(" node {node}")).unwrap_or_default();
            let mark = match entry.mark {
                0 => String::new(),
                mark => alloc::format!(" mark {mark}"),
            };
            alloc::format!("{proto} {} {}{owner}{mark}", entry.prefix, entry.ports)
        });
        let bib = config.bib.iter().map(|b| alloc::format!("{} {} {}", b.protocol, b.ipv6, b.ipv4));
        let timeouts = alloc::format!(
            "{} {} {} {}",
            global.udp_timeout,
            global.icmp_timeout,
            global.tcp_est_timeout,
            global.tcp_trans_timeout
        );
        let filtering = alloc::format!(
            "{} {}",
            global.address_dependent_filtering,
            global.drop_externally_initiated_tcp
        );
        let mut digests = Self::default();
        digests.set(Field::Pool6 as u8, digest([config.pool6.to_string()].into_iter()));
        digests.set(Field::Pool4 as u8, digest(pool4));
        digests.set(Field::Bib as u8, digest(bib));
        digests.set(Field::Timeouts as u8, digest([timeouts].into_iter()));
        digests.set(Field::Filtering as u8, digest([filtering].into_iter()));
        digests
    }

    /// The digest of a field.
    pub fn of(&self, field: Field) -> u32 {
        self.0[field as usize - 1]
    }

    /// Sets the digest of the field of that number; unknown numbers are ignored.
    pub(crate) fn set(&mut self, number: u8, digest: u32) {
        if let Some(slot) = usize::from(number).checked_sub(1).and_then(|i| self.0.get_mut(i)) {
            *slot = digest;
        }
    }

    /// The first field in which `other` differs and isn't `allowed` to.
    pub fn differs(&self, other: &Self, allowed: &[Field]) -> Option<Field> {
        let mut fields = Field::ALL.iter().copied().filter(|field| !allowed.contains(field));
        fields.find(|&field| self.of(field) != other.of(field))
    }
}

fn digest(entries: impl Iterator<Item = String>) -> u32 {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(entry.as_bytes());
        hash.update(b"\n");
    }
    let hash = hash.finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pool4Entry;

    fn config(pool4: &[&str]) -> Config {
        let entry = |text: &&str| Pool4Entry {
            protocol: None,
            prefix: text.parse().unwrap(),
            ports: "61001-65535".parse().unwrap(),
            node: None,
            mark: 0,
        };
        Config { pool4: pool4.iter().map(entry).collect(), ..Config::default() }
    }

    #[test]
    fn names_the_field_that_differs() {
        let ours = Digests::new(&config(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(ours.differs(&Digests::new(&config(&["192.0.2.2", "192.0.2.1"])), &[]), None);
        assert_eq!(ours.differs(&Digests::new(&config(&["192.0.2.1"])), &[]), Some(Field::Pool4));
        let mut slices = config(&["192.0.2.1", "192.0.2.2"]);
        slices.pool4[1].node = Some(2);
        assert_eq!(ours.differs(&Digests::new(&slices), &[]), Some(Field::Pool4));
        let mut marks = config(&["192.0.2.1", "192.0.2.2"]);
        marks.pool4[1].mark = 5;
        assert_eq!(ours.differs(&Digests::new(&marks), &[]), Some(Field::Pool4));
        let mut other = config(&["192.0.2.1", "192.0.2.2"]);
        other.global.udp_timeout += 1;
        assert_eq!(ours.differs(&Digests::new(&other), &[]), Some(Field::Timeouts));
        let ours_but_timeouts = Digests::new(&other);
        assert_eq!(ours.differs(&ours_but_timeouts, &[Field::Pool4, Field::Timeouts]), None);
        assert_eq!(ours.differs(&ours_but_timeouts, &[Field::Pool4]), Some(Field::Timeouts));
        other.pool6 = "2001:db8::/96".parse().unwrap();
        assert_eq!(ours.differs(&Digests::new(&other), &[]), Some(Field::Pool6));
    }
}
