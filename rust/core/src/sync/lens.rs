//! Frames for who only looks on: what they tell of sessions, whatever the cluster and whoever they
//! are for.

use alloc::vec::Vec;

use crate::sync::bytes::Reader;
use crate::sync::frame::{FrameError, Header, Kind, OpenFrame, open_any};
use crate::sync::message::SnapshotHead;
use crate::sync::record;
use crate::table::Change;

/// What a frame tells of sessions; nothing if it is of a kind that tells nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The frame's header.
    pub header: Header,
    /// Sessions and removals, in their order.
    pub changes: Vec<Change>,
}

/// Opens a frame with one of `keys`, if it isn't in clear, and reads it.
///
/// # Errors
/// See [`FrameError`]; the frame isn't for anybody in particular.
pub fn look_into(bytes: &[u8], keys: &[[u8; 32]]) -> Result<Told, FrameError> {
    let OpenFrame { header, body } = open_any(bytes, keys)?;
    let changes = changes(&header, &body).ok_or(FrameError::Malformed)?;
    Ok(Told { header, changes })
}

fn changes(header: &Header, body: &[u8]) -> Option<Vec<Change>> {
    let mut reader = Reader::new(body);
    let mut changes = Vec::new();
    match header.kind {
        Kind::Update => {
            reader.u64()?;
            take(&mut reader, header.count, &mut changes)?;
        }
        Kind::Snapshot => {
            SnapshotHead::take(&mut reader)?;
            take(&mut reader, header.count, &mut changes)?;
        }
        Kind::Pulled => {
            for _ in 0..header.count {
                reader.u64()?;
                let found = reader.u8()?;
                take(&mut reader, found.into(), &mut changes)?;
            }
        }
        _ => return Some(changes),
    }
    reader.end()?;
    Some(changes)
}

fn take(reader: &mut Reader<'_>, count: u16, changes: &mut Vec<Change>) -> Option<()> {
    for _ in 0..count {
        changes.push(record::take(reader)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::SyncConfig;
    use crate::sync::frame::{Keyring, Transmit};
    use crate::sync::tests::net::Net;

    const KEY: [u8; 32] = [1; 32];

    #[test]
    fn what_travels_between_nodes_is_seen() {
        let mut net = Net::new();
        net.start(1);
        net.run(3000);
        (0..5).for_each(|number| net.at(1).table.create(number));
        net.start(2);
        net.run(3000);
        net.at(1).table.create(7);
        net.run(50);
        net.at(1).table.remove(7);
        net.run(50);
        let mut seen = (0, 0, 0);
        for bytes in &net.recorded {
            let told = look_into(bytes, &[[9; 32], KEY]).unwrap();
            match told.header.kind {
                Kind::Snapshot => seen.0 += told.changes.len(),
                Kind::Update => {
                    let is_removal = |change: &&Change| matches!(change, Change::Remove(..));
                    let removals = told.changes.iter().filter(is_removal).count();
                    (seen.1, seen.2) = (seen.1 + told.changes.len() - removals, seen.2 + removals);
                }
                _ => assert!(told.changes.is_empty()),
            }
            assert!(matches!(
                look_into(bytes, &[[9; 32]]),
                Err(FrameError::Authentication { node: 1 | 2 })
            ));
            assert!(look_into(&bytes[..bytes.len() - 1], &[KEY]).is_err());
        }
        assert_eq!(seen, (5, 1, 1));
    }

    #[test]
    fn frames_in_clear_need_no_key() {
        let config = SyncConfig { plaintext: true, ..SyncConfig::new(3, "campus", 7) };
        let header =
            Header { kind: Kind::Bye, node: 3, to: 0, epoch: 7, seq: 1, count: 0, urgent: false };
        let frame = Transmit::new(header, Transmit::buffer(0));
        let bytes = Keyring::new(&[], &config).unwrap().seal(frame);
        assert_eq!(look_into(&bytes, &[]), Ok(Told { header, changes: Vec::new() }));
        assert_eq!(look_into(b"GET / HTTP/1.1", &[]), Err(FrameError::Malformed));
    }
}
