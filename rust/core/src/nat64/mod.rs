//! The steps of RFC 6146.
