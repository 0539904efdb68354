//! IP headers: one file a header.
