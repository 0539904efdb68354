//! PULL: asking peers for the session of a packet that has none here, and answering.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::queue::pop_front_if;
use crate::stats::Counter;
use crate::sync::Sessions;
use crate::sync::bytes::{Put, Reader};
use crate::sync::frame::{Kind, Transmit};
use crate::sync::member::{Malformed, Sync};
use crate::sync::message::{PULL_LEN, put_query, take_query};
use crate::sync::queue::Body;
use crate::sync::record::{self, UPSERT_LEN};
use crate::table::{Change, Query};
use crate::time::Time;

/// Questions of which the answers are waited for. The table lets none wait for long.
const MAX_OPEN: usize = 4096;
/// Answers that wait for the transport, in frames. Who asked goes on without those beyond.
const MAX_ANSWERS: usize = 256;
/// Questions in a frame that are answered.
const MAX_PER_FRAME: u16 = 64;
/// Bytes of an answer with a session: id (8), count (1), session.
const ANSWER_LEN: usize = 9 + UPSERT_LEN;

/// Questions and answers.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// To be sent, and to whom.
    asks: VecDeque<(u16, Query)>,
    /// By number, those who haven't answered yet.
    open: BTreeMap<u64, Vec<u16>>,
    answers: VecDeque<(u16, Body)>,
}

impl Pulls {
    /// Whether something waits to be sent.
    pub fn pending(&self) -> bool {
        !self.asks.is_empty() || !self.answers.is_empty()
    }
}

impl Sync {
    /// Asks peers on behalf of the table.
    pub(super) fn ask(&mut self, now: Time, query: Query, sessions: &mut impl Sessions) {
        let asked = |(node, _): &(u16, _)| query.owner == 0 || *node == query.owner;
        let up = self.peers.known().filter(|(_, known)| known.is_up());
        let nodes: Vec<u16> = up.filter(asked).map(|(node, _)| node).collect();
        if nodes.is_empty() {
            return sessions.release_strangers(now, query.id, false);
        }
        let to = if query.owner == 0 && nodes.len() == 1 { nodes[0] } else { query.owner };
        self.pulls.open.insert(query.id, nodes);
        if self.pulls.open.len() > MAX_OPEN {
            self.pulls.open.pop_first();
        }
        self.pulls.asks.push_back((to, query));
    }

    /// PULL: as many questions to the same as fit a frame.
    pub(super) fn pull_frame(&mut self) -> Option<Transmit> {
        let to = self.pulls.asks.front()?.0;
        let max_body = self.config.max_body();
        let mut buf = Transmit::buffer(max_body);
        let room = (max_body / PULL_LEN).min(MAX_PER_FRAME.into());
        let mut count = 0;
        while usize::from(count) < room
            && let Some((_, query)) = pop_front_if(&mut self.pulls.asks, |(node, _)| *node == to)
        {
            put_query(&mut buf, &query);
            count += 1;
        }
        Some(self.frame(Kind::Pull, to, Body { buf, count }))
    }

    /// A peer asks.
    pub(super) fn pull(
        &mut self,
        now: Time,
        node: u16,
        body: &[u8],
        count: u16,
        sessions: &mut impl Sessions,
    ) -> Result<(), Malformed> {
        let max_body = self.config.max_body();
        let mut reader = Reader::new(body);
        let mut answers = Body { buf: Transmit::buffer(max_body), count: 0 };
        let room = max_body / ANSWER_LEN;
        for _ in 0..count.min(MAX_PER_FRAME) {
            let query = take_query(&mut reader).ok_or(Malformed)?;
            if usize::from(answers.count) == room {
                let next = Body { buf: Transmit::buffer(max_body), count: 0 };
                self.answer(node, core::mem::replace(&mut answers, next));
            }
            answers.buf.put(query.id.to_be_bytes());
            let session = sessions.answer(now, &query);
            answers.buf.put([u8::from(session.is_some())]);
            if let Some(session) = session {
                record::put(&mut answers.buf, &Change::Upsert(session));
            }
            answers.count += 1;
            sessions.stats().count(Counter::PullsServed);
        }
        self.answer(node, answers);
        Ok(())
    }

    fn answer(&mut self, node: u16, answers: Body) {
        if answers.count > 0 && self.pulls.answers.len() < MAX_ANSWERS {
            self.pulls.answers.push_back((node, answers));
        }
    }

    /// PULLED: answers.
    pub(super) fn pulled_frame(&mut self) -> Option<Transmit> {
        let (node, body) = self.pulls.answers.pop_front()?;
        Some(self.frame(Kind::Pulled, node, body))
    }

    /// A peer answers.
    pub(super) fn pulled(
        &mut self,
        now: Time,
        node: u16,
        body: &[u8],
        count: u16,
        sessions: &mut impl Sessions,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let Some(since) = self.peers.known_mut(node).map(|known| known.since) else {
            return Ok(());
        };
        for _ in 0..count {
            let id = reader.u64().ok_or(Malformed)?;
            let found = u16::from(reader.u8().ok_or(Malformed)?);
            self.apply(now, node, &mut reader, found, Some(since), sessions)?;
            let Some(open) = self.pulls.open.get_mut(&id) else { continue };
            open.retain(|&asked| asked != node);
            if found > 0 || open.is_empty() {
                self.pulls.open.remove(&id);
                sessions.release_strangers(now, id, found > 0);
            }
        }
        Ok(())
    }
}
