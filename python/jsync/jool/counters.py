"""The names of the module's counters, which it tells by their numbers.

A later version puts new ones before the last, so the numbers of a version are those of its list.
"""

RECEIVED6, RECEIVED4, _, BIB_ENTRIES, SESSIONS = range(1, 6)
"""Numbers of counters that mean something to the daemon."""

_BEFORE_JOOLD = """
    RECEIVED6 RECEIVED4 SUCCESS BIB_ENTRIES SESSIONS ENOMEM XLATOR_DISABLED POOL6_UNSET
    SKB_SHARED L3HDR_OFFSET SKB_TRUNCATED HDR6 HDR4 UNKNOWN_L4_PROTO UNKNOWN_ICMP6_TYPE
    UNKNOWN_ICMP4_TYPE DOUBLE_ICMP6_ERROR DOUBLE_ICMP4_ERROR UNKNOWN_PROTO_INNER HAIRPIN_LOOP
    POOL6_MISMATCH POOL4_MISMATCH ICMP6_FILTER UNTRANSLATABLE_DST6 UNTRANSLATABLE_DST4 6056_F
    MASK_DOMAIN_NOT_FOUND BIB6_NOT_FOUND BIB4_NOT_FOUND SESSION_NOT_FOUND ADF V4_SYN
    SYN6_EXPECTED SYN4_EXPECTED TYPE1PKT TYPE2PKT SO_EXISTS SO_FULL 64_SRC 64_DST 64_PSKB_COPY
    64_6791_ENOENT 64_ICMP_CSUM 64_UNTRANSLATABLE_PARAM_PROB_PTR 64_TTL 64_FRAGMENTED_ICMP
    64_2XFRAG 64_FRAG_THEN_EXT 64_SEGMENTS_LEFT 46_SRC 46_DST 46_PSKB_COPY 46_6791_ENOENT
    46_ICMP_CSUM 46_UNTRANSLATABLE_PARAM_PROBLEM_PTR 46_TTL 46_FRAGMENTED_ICMP 46_SRC_ROUTE
    46_FRAGMENTED_ZERO_CSUM 46_BAD_MTU FAILED_ROUTES PKT_TOO_BIG DST_OUTPUT ICMP6ERR_SUCCESS
    ICMP6ERR_FAILURE ICMP4ERR_SUCCESS ICMP4ERR_FAILURE ICMPEXT_BIG
""".split()  # noqa: SIM905 - sixty lines of one word each are no list to read
_JOOLD = {
    "JOOLD_EMPTY": "Times that the module had no session to send",
    "JOOLD_TIMEOUT": "Batches sent since ss-flush-deadline was over, acknowledged or not",
    "JOOLD_MISSING_ACK": "Times that a batch had to wait for the daemon's acknowledgement",
    "JOOLD_AD_ONGOING": "Batches sent since the module advertises its table",
    "JOOLD_FLUSH_ASAP": "Batches sent at once because of ss-flush-asap",
    "JOOLD_PKT_FULL": "Batches sent since they were full",
    "JOOLD_QUEUING": "Times that a session had to wait for others to fill its batch",
    "JOOLD_SSS_QUEUED": "Sessions that the module wanted to send",
    "JOOLD_SSS_SENT": "Sessions that it sent",
    "JOOLD_SSS_RCVD": "Sessions that it was given",
    "JOOLD_SSS_ENOSPC": "Sessions that it dropped since ss-capacity others waited",
    "JOOLD_PKT_SENT": "Batches that it sent",
    "JOOLD_PKT_RCVD": "Batches that it was given",
    "JOOLD_ADS": "Advertisements of its table",
    "JOOLD_ACKS": "Acknowledgements that it received",
}


def names(version: int) -> list[str]:
    """The counters of a version of Jool 4.1 (as in its header), from number 1 on."""
    revision = version >> 8 & 0xFF
    joold: list[str] = []
    if revision >= 12:
        joold = [name for name in _JOOLD if name != "JOOLD_FLUSH_ASAP" or revision == 12]
    return [*_BEFORE_JOOLD, *joold, "UNKNOWN"]


def rows(version: int, values: dict[int, int]) -> list[tuple[str, str, int]]:
    """Name, help and value of every counter that has a name."""
    return [
        (f"jstat_{name.lower()}", help_of(name), values[number])
        for number, name in enumerate(names(version), 1)
        if number in values
    ]


def help_of(name: str) -> str:
    """What a counter counts."""
    prefix = "JSTAT" if name[:3] in {"64_", "46_"} else "JSTAT_"
    if name in _JOOLD:
        return f"{_JOOLD[name]} (the module's {prefix}{name})"
    return f"The module's {prefix}{name}; `jool stats display --explain` says more"
