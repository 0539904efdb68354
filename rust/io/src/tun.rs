//! A TUN device that hands over and takes packets of up to 64 KiB, their checksums and their
//! segmentation left open (Documentation/networking/tuntap.rst, virtio's struct virtio_net_hdr).

use std::ffi::{c_char, c_void};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

use crate::vnet;

/// An open TUN device. Dropping it closes it: the device disappears, or loses its carrier if it is
/// persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Opens the device `name`, made now unless it exists. A `persistent` one outlives the process.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(name: &str, persistent: bool) -> Result<Self, DeviceError> {
        let mut request = request(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => DeviceError::NoDriver,
                Some(libc::EACCES | libc::EPERM) => DeviceError::NoAccess,
                _ => DeviceError::Os("open /dev/net/tun", error),
            })?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
        unsafe { ioctl(&file, libc::TUNSETIFF, (&raw mut request).cast()) }.map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => DeviceError::NoPrivilege(name.into()),
                Some(libc::EBUSY) => DeviceError::Busy(name.into()),
                Some(libc::EINVAL) => DeviceError::OtherKind(name.into()),
                _ => DeviceError::Os("TUNSETIFF", error),
            }
        })?;
        let tun = Self { file, name: name.into() };
        let mut size = vnet::LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        unsafe { ioctl(&tun.file, libc::TUNSETVNETHDRSZ, (&raw mut size).cast()) }
            .map_err(|error| DeviceError::Os("TUNSETVNETHDRSZ", error))?;
        tun.offload().map_err(|error| DeviceError::Os("TUNSETOFFLOAD", error))?;
        tun.persist(persistent).map_err(|error| DeviceError::Os("TUNSETPERSIST", error))?;
        Ok(tun)
    }

    /// Asks for as much offloading as this kernel has: UDP segmentation came with Linux 6.2.
    fn offload(&self) -> io::Result<()> {
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let set = |flags: libc::c_uint| {
            // SAFETY: TUNSETOFFLOAD takes its flags by value.
            unsafe {
                ioctl(&self.file, libc::TUNSETOFFLOAD, ptr::without_provenance_mut(flags as usize))
            }
        };
        set(tcp | udp).or_else(|_| set(tcp)).or_else(|_| set(libc::TUN_F_CSUM))
    }

    fn persist(&self, on: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its flag by value.
        unsafe { ioctl(&self.file, libc::TUNSETPERSIST, ptr::without_provenance_mut(on.into())) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Closes the device and removes it, persistent or not.
    pub fn remove(self) {
        // Fails only if the device is gone already.
        let _ = self.persist(false);
    }

    /// Reads a virtio_net_hdr and the packet behind it into `buf`; how many bytes that is.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; EINVAL if there was one that no header can describe; EBADFD
    /// if the device was removed.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buf)
    }

    /// Writes a virtio_net_hdr and the packet behind it.
    ///
    /// # Errors
    /// EIO if the device is down, EINVAL if the kernel can't take such a packet, EBADFD if the
    /// device was removed.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write(bytes).map(drop)
    }

    /// Anything that carries datagrams, in place of a device.
    #[cfg(test)]
    pub(crate) fn fake(fd: std::os::fd::OwnedFd) -> Self {
        Self { file: File::from(fd), name: "fake0".into() }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An ifreq for the device `name`.
fn request(name: &str) -> Result<libc::ifreq, DeviceError> {
    // dev_valid_name() of the kernel, and no %: that would make the kernel choose a number.
    let valid = (1..libc::IFNAMSIZ).contains(&name.len())
        && ![".", ".."].contains(&name)
        && name.bytes().all(|c| c.is_ascii_graphic() && !b"/:%".contains(&c));
    if !valid {
        return Err(DeviceError::Name(name.into()));
    }
    // SAFETY: an ifreq is bytes, numbers and pointers that are not followed: zeros will do.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    Ok(request)
}

/// An ioctl(2).
///
/// # Safety
/// `argument` must be what `number` asks for.
unsafe fn ioctl(file: &File, number: libc::Ioctl, argument: *mut c_void) -> io::Result<()> {
    // SAFETY: the file is open; the caller answers for the argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), number, argument) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Why a device can't be had, and what to do about it.
#[derive(Debug)]
pub enum DeviceError {
    /// No device can be called that.
    Name(String),
    /// The kernel has no TUN driver, or /dev/net/tun wasn't made.
    NoDriver,
    /// /dev/net/tun may not be opened.
    NoAccess,
    /// CAP_NET_ADMIN is missing.
    NoPrivilege(String),
    /// Another process holds it.
    Busy(String),
    /// There is a device of that name, and it is another kind.
    OtherKind(String),
    /// This node has a device already.
    Attached,
    /// This node has no device that others could stand beside.
    NotAttached,
    /// The worker panicked: its node can't be trusted any more.
    Dead(String),
    /// A system call that failed for another reason.
    Os(&'static str, io::Error),
}

impl DeviceError {
    /// The errno that fits best.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Name(_) | Self::OtherKind(_) => libc::EINVAL,
            Self::NoDriver => libc::ENOENT,
            Self::NoAccess => libc::EACCES,
            Self::NoPrivilege(_) => libc::EPERM,
            Self::Busy(_) | Self::Attached => libc::EBUSY,
            Self::NotAttached => libc::ENODEV,
            Self::Dead(_) => libc::EIO,
            Self::Os(_, error) => error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} can't be the name of a device: write 1 to 15 letters, digits and dashes"
            ),
            Self::NoDriver => f.write_str(
                "/dev/net/tun is missing: load the driver (modprobe tun), or in a container \
                 hand the device in",
            ),
            Self::NoAccess => {
                f.write_str("/dev/net/tun: permission denied; run as root or with CAP_NET_ADMIN")
            }
            Self::NoPrivilege(name) => write!(
                f,
                "device {name}: not permitted; run as root or with CAP_NET_ADMIN (in the user \
                 namespace that owns this network namespace)"
            ),
            Self::Busy(name) => write!(
                f,
                "device {name} is in use: another daemon holds it; stop that one or name another \
                 device"
            ),
            Self::OtherKind(name) => write!(
                f,
                "device {name} exists and is no TUN device of this kind: remove it (ip link del \
                 {name}) or name another"
            ),
            Self::Attached => f.write_str("this node has a device already: detach that one first"),
            Self::NotAttached => {
                f.write_str("this node has no device: the one of unmarked packets comes first")
            }
            Self::Dead(why) => write!(f, "{why}; restart the daemon"),
            Self::Os(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_the_kernel_would_refuse_or_change() {
        for name in ["", ".", "..", "a/b", "tun%d", "a b", "a:1", "0123456789abcdef", "jsync\0"] {
            assert!(matches!(Tun::open(name, false), Err(DeviceError::Name(_))), "{name:?}");
        }
        assert!(request("0123456789abcde").is_ok());
    }
}
