//! The Python module `jsync._core`. Its contract is `python/jsync/_core.pyi`.
//!
//! Python hands over and gets batches; whatever may take long runs without the GIL, and nothing is
//! converted while the node is locked.

mod engine;
mod error;
mod joold;
mod node;
mod rows;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[global_allocator]
static ALLOCATOR: jsync_io::alloc::HugePages = jsync_io::alloc::HugePages;

/// The engine, its worker thread and the codec of session synchronisation.
#[pymodule]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::error::{ChangeError, ConfigError, DatagramError, DeviceError};
    #[pymodule_export]
    use super::joold::{decode_frame, decode_joold, encode_joold};
    #[pymodule_export]
    use super::node::Node;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Raise ConfigError unless `config` (JSON) is a translator's configuration that can work.
    #[pyfunction]
    fn check_nat64(config: &[u8]) -> Result<(), error::Error> {
        node::nat64_config(config)?.validate()?;
        Ok(())
    }

    /// Play the demo's story in the simulator: its report as JSON.
    #[pyfunction]
    fn simulate_failover(py: Python<'_>, seed: u64, synchronised: bool) -> Bound<'_, PyBytes> {
        let report = py.detach(|| jsync_sim::simulate_failover(seed, synchronised).to_json());
        PyBytes::new(py, &report)
    }
}
