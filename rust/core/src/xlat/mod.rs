//! Translation of packets between the families (RFC 7915).
