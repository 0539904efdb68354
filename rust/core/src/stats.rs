//! Counters: one for every reason to drop a packet and one for every path through the node.
//!
//! The two tables at the end are the only place where a counter is named: the enums, the names
//! under which people see them and their help text come from them.

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $help:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $help])+ $variant,)+ }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in metrics and `stats display`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What it counts, in a sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help,)+).trim_ascii(),)+ }
            }
        }
    };
}

/// Every counter of a node. Plain numbers: a node has one writer.
#[derive(Clone, Debug)]
pub struct Stats {
    drops: [u64; DropReason::ALL.len()],
    counts: [u64; Counter::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self { drops: [0; DropReason::ALL.len()], counts: [0; Counter::ALL.len()] }
    }
}

impl Stats {
    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts `n` dropped packets.
    pub fn drop_many(&mut self, reason: DropReason, n: u64) {
        self.drops[reason as usize] += n;
    }

    /// Counts one.
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.counts[counter as usize] += n;
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// The value of a counter.
    pub fn value(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// Name, help text and value of everything: drops first, then the rest.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let drops = DropReason::ALL.iter().map(|&r| (r.name(), r.help(), self.dropped(r)));
        drops.chain(Counter::ALL.iter().map(|&c| (c.name(), c.help(), self.value(c))))
    }
}

counters! {
    /// Why a packet went no further.
    DropReason {
        /// Packets shorter than their headers say, or with headers that contradict themselves.
        Malformed = "drop_malformed",
        /// Packets of a version that is neither 4 nor 6.
        UnknownVersion = "drop_unknown_version",
        /// Packets whose IPv4 header checksum is wrong.
        HeaderChecksum = "drop_header_checksum",
        /// Packets of a transport protocol that is neither TCP, UDP nor ICMP.
        UnsupportedProtocol = "drop_unsupported_protocol",
        /// ICMP messages of a type that has no counterpart in the other family.
        UnsupportedIcmp = "drop_unsupported_icmp",
        /// ICMP messages whose checksum is wrong.
        IcmpChecksum = "drop_icmp_checksum",
        /// Packets whose time to live ran out here; the sender was told.
        TtlExpired = "drop_ttl_expired",
        /// Packets too large for the other side; the sender was told.
        TooBig = "drop_too_big",
        /// IPv4 packets with an unexpired source route; the sender was told.
        SourceRoute = "drop_source_route",
        /// IPv6 packets with a routing header that has segments left; the sender was told.
        RoutingHeader = "drop_routing_header",
        /// IPv6 packets to an address outside pool6.
        NotPool6 = "drop_not_pool6",
        /// IPv6 packets from an address inside pool6 (hairpinning loop, RFC 6146 section 3.5).
        SourceInPool6 = "drop_source_in_pool6",
        /// IPv4 packets to an address or port outside pool4.
        NotPool4 = "drop_not_pool4",
        /// Packets from or to an address that has no place in a translated packet.
        BadAddress = "drop_bad_address",
        /// Packets that would put a non-global IPv4 address into the well-known prefix
        /// (RFC 6052 section 3.1).
        NonGlobal = "drop_non_global",
        /// IPv4 packets to a pool4 transport address without a BIB entry.
        NoBib = "drop_no_bib",
        /// TCP segments that open no connection and belong to none.
        NotSyn = "drop_tcp_not_syn",
        /// ICMP errors about packets of no known session.
        NoSession = "drop_no_session",
        /// Packets that filtering refused (RFC 6146 section 3.5, address-dependent filtering).
        Filtered = "drop_filtered",
        /// New flows for which pool4 had no free transport address.
        Pool4Exhausted = "drop_pool4_exhausted",
        /// New flows of a mark that no entry of pool4 of this node's has.
        NoPool4Mark = "drop_no_pool4_mark",
        /// New flows refused since their subscriber's port blocks are full and no other is left.
        NoPortBlock = "drop_no_port_block",
        /// New flows refused since their subscriber has max-ports-per-subscriber mappings.
        SubscriberPorts = "drop_subscriber_ports",
        /// New flows refused since their subscriber has max-sessions-per-subscriber sessions.
        SubscriberSessions = "drop_subscriber_sessions",
        /// New flows refused since their subscriber begins too many sessions a second.
        SubscriberRate = "drop_subscriber_rate",
        /// IPv6 packets to an IPv4 address of denylist4; the sender was told.
        Denylisted = "drop_denylist4",
        /// New flows refused since the table holds max-sessions already.
        TableFull = "drop_table_full",
        /// Fragments refused since the fragment store was full.
        FragmentsFull = "drop_fragments_full",
        /// Fragments of datagrams whose first fragment was refused.
        FragmentRefused = "drop_fragment_refused",
        /// Fragments whose first fragment did not come in time.
        FragmentTimeout = "drop_fragment_timeout",
        /// Fragmented packets that can't be translated (a zero UDP checksum, a header in pieces).
        FragmentUntranslatable = "drop_fragment_untranslatable",
        /// Packets of our own, since too many wait to be sent already.
        QueueFull = "drop_queue_full",
        /// Packets for which the buffer left too little room.
        NoHeadroom = "drop_no_headroom",
    }
}

counters! {
    /// Things that happen in a node and are no drop.
    Counter {
        /// IPv6 packets received.
        Received6 = "received_ipv6_packets",
        /// IPv4 packets received.
        Received4 = "received_ipv4_packets",
        /// Packets translated from IPv6 to IPv4.
        Translated6to4 = "translated_6to4_packets",
        /// Packets translated from IPv4 to IPv6.
        Translated4to6 = "translated_4to6_packets",
        /// Packets from one IPv6 node to the mask of another.
        Hairpinned = "hairpinned_packets",
        /// ICMP errors made by this node.
        IcmpErrorsSent = "icmp_errors_sent",
        /// ICMP errors not made, since too many were.
        IcmpErrorsSuppressed = "icmp_errors_suppressed",
        /// Probes sent at the end of an established session's lifetime.
        ProbesSent = "tcp_probes_sent",
        /// IPv4 SYNs kept until the IPv6 node opens the same connection.
        SynsStored = "syns_stored",
        /// Packets that made a session and were held until it was told (durability).
        HeldOpeners = "held_openers",
        /// Those of them that left since acked-timeout was over.
        HeldTimeouts = "held_timeouts",
        /// Packets not held since as many wait as may.
        HeldFull = "held_full",
        /// Questions to peers for the session of a packet that has none here.
        PullsSent = "pulls_sent",
        /// Questions that brought a session.
        PullsFound = "pulls_found",
        /// Questions to which all peers said that they have none.
        PullsMissed = "pulls_missed",
        /// Questions that nobody answered in time.
        PullTimeouts = "pull_timeouts",
        /// Packets for which no peer was asked, since too many were asked in vain or at once.
        PullsSuppressed = "pulls_suppressed",
        /// Questions of peers that were answered.
        PullsServed = "pulls_served",
        /// BIB entries created.
        BibCreated = "bib_created",
        /// BIB entries removed.
        BibRemoved = "bib_removed",
        /// Sessions created by traffic.
        SessionsCreated = "sessions_created",
        /// Sessions that reached the end of their lifetime.
        SessionsExpired = "sessions_expired",
        /// Sessions taken over from a peer's frames.
        SessionsLearned = "sessions_learned",
        /// Sessions removed because a peer said so.
        SessionsUnlearned = "sessions_unlearned",
        /// Peers' sessions that collide with one of ours and were not applied.
        SyncCollisions = "sync_collisions",
        /// Peers' sessions that can't be here: outside pool4 or pool6, or malformed.
        SyncRejected = "sync_rejected_sessions",
        /// Peers' sessions refused since the table holds max-sessions already.
        SyncTableFull = "sync_table_full",
        /// Frames received and accepted.
        FramesReceived = "sync_frames_received",
        /// Frames handed to the transport.
        FramesSent = "sync_frames_sent",
        /// Sessions sent in updates.
        UpdatesSent = "sync_updates_sent",
        /// Sessions and removals sent in snapshots.
        SnapshotSent = "sync_snapshot_sessions_sent",
        /// Sessions received in updates and snapshots.
        RecordsReceived = "sync_records_received",
        /// Frames too short, too long or otherwise not a frame of ours.
        FrameMalformed = "sync_frame_malformed",
        /// Frames of another protocol version.
        FrameVersion = "sync_frame_version",
        /// Frames of another cluster.
        FrameCluster = "sync_frame_cluster",
        /// Frames with flags that this version has no meaning for.
        FrameFlags = "sync_frame_flags",
        /// Frames that no key of ours opens.
        FrameAuthentication = "sync_frame_authentication",
        /// Frames received before, or from an earlier incarnation of their node.
        FrameReplayed = "sync_frame_replayed",
        /// Frames that carry this node's own number but are not its own.
        FrameOwnIdentity = "sync_frame_own_identity",
        /// Frames missing from a peer's sequence.
        FrameGap = "sync_frame_gap",
        /// Datagrams of joolds, or batches of a kernel module, received.
        JooldReceived = "joold_datagrams_received",
        /// Datagrams or batches handed over for joolds or a kernel module.
        JooldSent = "joold_datagrams_sent",
        /// Sessions in datagrams of joolds that were received.
        JooldSessionsReceived = "joold_sessions_received",
        /// Sessions in datagrams for joolds.
        JooldSessionsSent = "joold_sessions_sent",
        /// Sessions of joolds that contradict themselves: a protocol, state or timer that doesn't
        /// exist, dst6 outside pool6, ports that don't match.
        JooldRejected = "joold_sessions_rejected",
        /// Sessions of joolds refused for a lifetime of nothing or of more than 20 days.
        JooldLifetime = "joold_lifetimes_impossible",
        /// Sessions of joolds whose lifetime was cut to what our timeouts allow.
        JooldLifetimeCut = "joold_lifetimes_cut",
        /// Datagrams refused that are none of joold's.
        JooldMalformed = "joold_datagrams_malformed",
        /// Datagrams refused for more bytes than joold reads.
        JooldOversized = "joold_datagrams_oversized",
        /// Datagrams refused since their last session goes on behind their end.
        JooldTruncated = "joold_datagrams_truncated",
        /// Datagrams refused for what stands behind their last session.
        JooldPadded = "joold_datagrams_padded",
        /// Datagrams refused since they mix formats of joold's.
        JooldMixed = "joold_datagrams_mixed",
        /// Datagrams refused since a machine of the other byte order made them.
        JooldForeignEndian = "joold_datagrams_foreign_endian",
        /// Datagrams refused for attributes that belong to different formats.
        JooldAmbiguous = "joold_datagrams_ambiguous",
        /// Datagrams refused for another format than the configured one.
        JooldOtherFormat = "joold_datagrams_other_format",
        /// Packets lost because the TUN device was down or not there, or the kernel out of memory.
        DeviceDown = "device_down_packets",
        /// Packets that the kernel refused to take from the TUN device.
        DeviceRefused = "device_refused_packets",
        /// Packets whose checksum or segmentation was left open in a way that can't be kept.
        DeviceBadOffload = "device_bad_offload_packets",
    }
}
