//! What an operator decides about session synchronisation.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::sync::digest::Field;
use crate::sync::frame::{HEADER_LEN, TAG_LEN};
use crate::sync::message::UPDATE_HEAD_LEN;
use crate::sync::record::UPSERT_LEN;

/// The smallest `max-frame`: room for a header, a tag and a HELLO that greets one peer.
pub const MIN_MAX_FRAME: u16 = 256;

/// When a packet that makes a session leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// At once.
    #[default]
    Async,
    /// When the session was handed to the network.
    Sent,
    /// When a peer has it, in active/active every peer.
    Acked,
}

/// Session synchronisation of one node. All durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SyncConfig {
    /// This node's number, unique in the cluster, 1 to 65535.
    pub node: u16,
    /// The cluster's name; frames of other clusters are ignored.
    pub cluster: String,
    /// This incarnation of the node. Must never have been used by this node before, since frames
    /// of one (node, epoch) share a key; need not grow.
    pub epoch: u64,
    /// Time between two HELLOs.
    #[serde(default = "hello_interval")]
    pub hello_interval: u32,
    /// Silence after which a peer counts as dead.
    #[serde(default = "dead_interval")]
    pub dead_interval: u32,
    /// How long a node that starts waits for a peer that has sessions.
    #[serde(default = "join_timeout")]
    pub join_timeout: u32,
    /// How long a change may wait for others to share its frame. 0 sends it at once; more saves
    /// frames, and what waits is lost if this node dies.
    #[serde(default = "flush_deadline")]
    pub flush_deadline: u32,
    /// The largest frame in bytes, all told: what the transport carries without fragments.
    #[serde(default = "max_frame")]
    pub max_frame: u16,
    /// The most changes in an update; by default as many as fit the frame. Fewer leave sooner, and
    /// cost more frames.
    #[serde(default)]
    pub max_sessions_per_frame: Option<u16>,
    /// Parts of the configuration in which peers may differ and are synchronised with all the same.
    #[serde(default)]
    pub allow_mismatch: Vec<Field>,
    /// Frames are neither encrypted nor authenticated.
    #[serde(default)]
    pub plaintext: bool,
    /// When a packet that makes a session leaves.
    #[serde(default)]
    pub durability: Durability,
    /// How long it waits for that at most.
    #[serde(default = "acked_timeout")]
    pub acked_timeout: u32,
    /// Whether peers are asked for the session of a packet that has none here. By default they are
    /// where pool4 has slices.
    #[serde(default)]
    pub pull: Option<bool>,
    /// How long the packet waits for the answer at most.
    #[serde(default = "pull_timeout")]
    pub pull_timeout: u32,
}

fn acked_timeout() -> u32 {
    50
}

fn pull_timeout() -> u32 {
    100
}

fn hello_interval() -> u32 {
    500
}

fn dead_interval() -> u32 {
    1500
}

fn join_timeout() -> u32 {
    2000
}

fn flush_deadline() -> u32 {
    5
}

fn max_frame() -> u16 {
    1400
}

impl SyncConfig {
    /// The defaults, for node `node` of `cluster` in its incarnation `epoch`.
    pub fn new(node: u16, cluster: &str, epoch: u64) -> Self {
        Self {
            node,
            cluster: cluster.to_string(),
            epoch,
            hello_interval: hello_interval(),
            dead_interval: dead_interval(),
            join_timeout: join_timeout(),
            flush_deadline: flush_deadline(),
            max_frame: max_frame(),
            max_sessions_per_frame: None,
            plaintext: false,
            durability: Durability::Async,
            acked_timeout: acked_timeout(),
            pull: None,
            pull_timeout: pull_timeout(),
            allow_mismatch: Vec::new(),
        }
    }

    /// Refuses values that can't work, naming the key.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.node == 0 {
            return Err(ConfigError("node: must be 1 to 65535".to_string()));
        }
        if self.cluster.is_empty() {
            return Err(ConfigError("cluster: must not be empty".to_string()));
        }
        let ranges = [
            ("hello-interval", self.hello_interval, 10, 60_000),
            ("dead-interval", self.dead_interval, 20, 600_000),
            ("join-timeout", self.join_timeout, 0, 600_000),
            ("flush-deadline", self.flush_deadline, 0, 60_000),
            ("acked-timeout", self.acked_timeout, 1, 1_000),
            ("pull-timeout", self.pull_timeout, 1, 1_000),
            ("max-frame", u32::from(self.max_frame), MIN_MAX_FRAME.into(), u16::MAX.into()),
        ];
        let most = changes_in(u16::MAX) as u32;
        let per_frame = self.max_sessions_per_frame;
        let per_frame = per_frame.map(|n| ("max-sessions-per-frame", n.into(), 1, most));
        for (key, value, min, max) in ranges.into_iter().chain(per_frame) {
            if !(min..=max).contains(&value) {
                return Err(ConfigError(format!("{key}: {value} is outside {min} to {max}")));
            }
        }
        if self.dead_interval < 2 * self.hello_interval {
            return Err(ConfigError(
                "dead-interval: must be at least twice hello-interval, or one lost HELLO kills \
                 a peer"
                    .to_string(),
            ));
        }
        Ok(())
    }

    /// Bytes of a frame that carry a body.
    pub(crate) fn max_body(&self) -> usize {
        usize::from(self.max_frame) - HEADER_LEN - TAG_LEN
    }

    /// How many changes fill an update.
    pub(crate) fn changes_per_update(&self) -> usize {
        let fit = changes_in(self.max_frame);
        self.max_sessions_per_frame.map_or(fit, |most| fit.min(most.into()))
    }
}

/// Changes that fit an update in a sealed frame of so many bytes.
fn changes_in(frame: u16) -> usize {
    (usize::from(frame) - HEADER_LEN - TAG_LEN - UPDATE_HEAD_LEN) / UPSERT_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_written_in_kebab_case() {
        let json = r#"{"node": 1, "cluster": "campus", "epoch": 7, "hello-interval": 100,
            "durability": "acked"}"#;
        let config: SyncConfig = serde_json::from_str(json).unwrap();
        config.validate().unwrap();
        assert_eq!(config.hello_interval, 100);
        let durability = Durability::Acked;
        let expected = SyncConfig { durability, ..SyncConfig::new(1, "campus", 7) };
        assert_eq!(config, SyncConfig { hello_interval: 100, ..expected });
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        let good = SyncConfig::new(1, "campus", 7);
        for (config, key) in [
            (SyncConfig { node: 0, ..good.clone() }, "node"),
            (SyncConfig { cluster: String::new(), ..good.clone() }, "cluster"),
            (SyncConfig { hello_interval: 1, ..good.clone() }, "hello-interval"),
            (SyncConfig { dead_interval: 600, ..good.clone() }, "dead-interval"),
            (SyncConfig { max_frame: 100, ..good.clone() }, "max-frame"),
            (
                SyncConfig { max_sessions_per_frame: Some(0), ..good.clone() },
                "max-sessions-per-frame: 0 is outside 1 to 1678",
            ),
            (
                SyncConfig { max_sessions_per_frame: Some(1679), ..good.clone() },
                "max-sessions-per-frame: 1679 is outside",
            ),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
