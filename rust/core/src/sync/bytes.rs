//! Reading and writing of frame bodies: big-endian numbers behind bounds checks.

use alloc::vec::Vec;

/// Takes fields off the front of a body; `None` means that the body ended too early.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(|b| u16::from_be_bytes(*b))
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(|b| u32::from_be_bytes(*b))
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(|b| u64::from_be_bytes(*b))
    }

    /// `Some` if everything has been read.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends fields to a body.
pub(crate) trait Put {
    fn put<const N: usize>(&mut self, bytes: [u8; N]);
}

impl Put for Vec<u8> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }
}
