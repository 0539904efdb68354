//! Session synchronisation between nodes.
