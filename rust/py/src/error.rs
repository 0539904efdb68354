//! Every error that Python may see from here, and its exception.

use jsync_core::nat64;
use jsync_core::sync::{FrameError, joold};
use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyValueError};

create_exception!(
    _core,
    ConfigError,
    PyValueError,
    "A configuration that can't work; the message names the key."
);
create_exception!(
    _core,
    ChangeError,
    PyValueError,
    "A change that was refused for what is there already; the message says for what."
);
create_exception!(
    _core,
    DatagramError,
    PyValueError,
    "A datagram that is none, or not of the format asked for; the message says why."
);
create_exception!(
    _core,
    DeviceError,
    PyOSError,
    "The TUN device can't be opened or read; the message says why."
);

/// Why a call failed.
#[derive(Debug)]
pub enum Error {
    /// The configuration can't work.
    Config(String),
    /// A change was refused for what is there.
    Change(String),
    /// The device can't be had.
    Device(jsync_io::DeviceError),
    /// The system refused a file descriptor or a thread.
    Io(std::io::Error),
    /// A datagram is none of joold's.
    Datagram(joold::DatagramError),
    /// A frame can't be opened or read.
    Frame(FrameError),
    /// An argument is out of its range.
    Argument(&'static str),
}

impl From<jsync_core::config::ConfigError> for Error {
    fn from(error: jsync_core::config::ConfigError) -> Self {
        Self::Config(error.0)
    }
}

impl From<nat64::ChangeError> for Error {
    fn from(error: nat64::ChangeError) -> Self {
        match error {
            nat64::ChangeError::Invalid(error) => error.into(),
            error => Self::Change(error.to_string()),
        }
    }
}

impl From<joold::DatagramError> for Error {
    fn from(error: joold::DatagramError) -> Self {
        Self::Datagram(error)
    }
}

impl From<jsync_io::DeviceError> for Error {
    fn from(error: jsync_io::DeviceError) -> Self {
        Self::Device(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(message) => ConfigError::new_err(message),
            Error::Change(message) => ChangeError::new_err(message),
            Error::Device(error) => DeviceError::new_err((error.errno(), error.to_string())),
            Error::Io(error) => error.into(),
            Error::Datagram(error) => DatagramError::new_err(error.to_string()),
            Error::Frame(error) => DatagramError::new_err(error.to_string()),
            Error::Argument(message) => PyValueError::new_err(message),
        }
    }
}
