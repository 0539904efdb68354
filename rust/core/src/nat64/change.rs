//! Changes of the configuration while packets flow. Each is made whole or refused whole.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::Nat64;
use crate::config::{Config, ConfigError, Globals, Pool4Entry, StaticBib};
use crate::table::subscriber::Limits;
use crate::table::{BibRecord, Timeouts};
use crate::tuple::{Endpoint4, Endpoint6, Proto};

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The configuration that it would lead to can't work.
    Invalid(ConfigError),
    /// There is no such entry.
    NotFound,
    /// There is such an entry already.
    Exists,
    /// A mapping has one of the addresses, with another.
    Taken(BibRecord),
    /// There are as many entries as there may be.
    Full,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::NotFound => f.write_str("there is no such entry"),
            Self::Exists => f.write_str("there is such an entry already"),
            Self::Taken(bib) => {
                let kind = if bib.is_static { "static" } else { "dynamic" };
                write!(f, "in use by the {kind} {} entry {} - {}", bib.proto, bib.src6, bib.src4)
            }
            Self::Full => f.write_str("there are as many BIB entries as there may be"),
        }
    }
}

impl core::error::Error for ChangeError {}

impl From<ConfigError> for ChangeError {
    fn from(error: ConfigError) -> Self {
        Self::Invalid(error)
    }
}

impl Nat64 {
    /// Takes other global options. Sessions keep the lifetime that they have until their next
    /// packet gives them a new one.
    ///
    /// # Errors
    /// What [`Globals::validate`] refuses.
    pub fn set_globals(&mut self, globals: Globals) -> Result<(), ChangeError> {
        globals.validate()?;
        self.table.set_timeouts(Timeouts::from(&globals));
        self.fragments.set_timeout(globals.fragment_arrival_timeout);
        self.table.track_peers(globals.address_dependent_filtering);
        self.table.set_limits(Limits::from(&globals));
        self.table.log(globals.logging_bib, globals.logging_session);
        self.config.global = globals;
        Ok(())
    }

    /// Adds an entry to pool4.
    ///
    /// # Errors
    /// The entry is there, or can't be.
    pub fn pool4_add(&mut self, entry: Pool4Entry) -> Result<(), ChangeError> {
        if self.config.pool4.contains(&entry) {
            return Err(ChangeError::Exists);
        }
        let mut config = self.config.clone();
        config.pool4.push(entry);
        self.replace_pool4(config)
    }

    /// Removes an entry from pool4, and the mappings that no other entry covers, with their
    /// sessions.
    ///
    /// # Errors
    /// There is no such entry, or a static BIB entry needs it.
    pub fn pool4_remove(&mut self, entry: &Pool4Entry) -> Result<(), ChangeError> {
        let mut config = self.config.clone();
        let at = config.pool4.iter().position(|e| e == entry).ok_or(ChangeError::NotFound)?;
        config.pool4.remove(at);
        self.replace_pool4(config)
    }

    /// Removes transport addresses from all entries of that mark, and of that node if it names
    /// one: what is left of an entry is one or more entries in its place. Mappings that no entry
    /// covers any more end, with their sessions.
    ///
    /// # Errors
    /// No entry has any of them, or a static BIB entry needs one.
    pub fn pool4_exclude(&mut self, gone: &Pool4Entry) -> Result<(), ChangeError> {
        let is_meant = |entry: &Pool4Entry| {
            entry.mark == gone.mark && (gone.node.is_none() || entry.node == gone.node)
        };
        let left = |entry: &Pool4Entry| match is_meant(entry) {
            true => entry.without(gone),
            false => vec![*entry],
        };
        let pool4: Vec<Pool4Entry> = self.config.pool4.iter().flat_map(left).collect();
        if pool4 == self.config.pool4 {
            return Err(ChangeError::NotFound);
        }
        self.replace_pool4(Config { pool4, ..self.config.clone() })
    }

    /// Takes these entries for pool4 instead of the present ones. Mappings that none of them covers
    /// end, with their sessions.
    ///
    /// # Errors
    /// An entry can't be, or a static BIB entry needs another.
    pub fn pool4_replace(&mut self, pool4: Vec<Pool4Entry>) -> Result<(), ChangeError> {
        self.replace_pool4(Config { pool4, ..self.config.clone() })
    }

    fn replace_pool4(&mut self, config: Config) -> Result<(), ChangeError> {
        config.check_parts()?;
        self.table.replace_pool4(&config.pool4);
        self.config = config;
        self.count_bibs();
        Ok(())
    }

    /// Adds a static BIB entry. A dynamic one of the same addresses becomes static.
    ///
    /// # Errors
    /// The entry is there, or can't be; or a mapping has one of its addresses.
    pub fn bib_add(&mut self, bib: StaticBib) -> Result<(), ChangeError> {
        if self.config.bib.contains(&bib) {
            return Err(ChangeError::Exists);
        }
        let mut config = self.config.clone();
        config.bib.push(bib);
        let by6 = self.table.find6(bib.protocol, bib.ipv6.addr.to_bits(), bib.ipv6.port);
        let by4 = self.table.find4(bib.protocol, bib.ipv4.addr.to_bits(), bib.ipv4.port);
        match (by6, by4) {
            (Some(slot), Some(same)) if slot == same => {
                config.check_parts()?;
                self.table.set_static(slot);
            }
            (Some(slot), _) | (None, Some(slot)) => {
                return Err(ChangeError::Taken(self.table.bib_record(slot)));
            }
            (None, None) => {
                config.check_parts()?;
                self.table
                    .create_bib(bib.protocol, bib.ipv6, bib.ipv4, true)
                    .map_err(|_| ChangeError::Full)?;
            }
        }
        self.config = config;
        self.count_bibs();
        Ok(())
    }

    /// Removes a BIB entry, static or not, and its sessions. Either address is enough.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn bib_remove(
        &mut self,
        proto: Proto,
        ipv6: Option<Endpoint6>,
        ipv4: Option<Endpoint4>,
    ) -> Result<(), ChangeError> {
        let slot = match (ipv6, ipv4) {
            (Some(src6), _) => self.table.find6(proto, src6.addr.to_bits(), src6.port),
            (None, Some(src4)) => self.table.find4(proto, src4.addr.to_bits(), src4.port),
            (None, None) => None,
        };
        let slot = slot.ok_or(ChangeError::NotFound)?;
        let found = self.table.bib_record(slot);
        if ipv4.is_some_and(|src4| src4 != found.src4) {
            return Err(ChangeError::NotFound);
        }
        self.table.remove_bib(slot);
        self.config.bib.retain(|bib| (bib.protocol, bib.ipv6) != (proto, found.src6));
        self.count_bibs();
        Ok(())
    }
}
