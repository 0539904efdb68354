//! The private network: a wire from every node to every other, each as bad as one likes.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::rc::Rc;

use crate::clock::Micros;
use crate::rng::Rng;

/// Frames that an eavesdropper remembers.
const RECORDED: usize = 256;

/// What the way from one node to another does to frames. The way back is another link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long a frame takes. Frames whose delays differ overtake each other.
    pub delay: RangeInclusive<Micros>,
    /// How many of 1000 frames get lost.
    pub loss: u32,
    /// How many of 1000 frames arrive twice, the second time after a delay of its own.
    pub duplicate: u32,
    /// How many of 1000 frames arrive with a bit turned.
    pub corrupt: u32,
    /// Nothing gets through.
    pub cut: bool,
}

impl Link {
    /// A healthy wire: 100 µs, everything arrives, in order.
    pub fn good() -> Self {
        Self { delay: 100..=100, loss: 0, duplicate: 0, corrupt: 0, cut: false }
    }
}

/// What the network did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that nodes sent.
    pub sent: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Copies that will arrive.
    pub arriving: u64,
    /// Copies lost, by chance or since the link was cut.
    pub lost: u64,
    /// Copies of copies.
    pub duplicated: u64,
    /// Copies with a bit turned.
    pub corrupted: u64,
}

/// A copy of a frame on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The place of the receiver.
    pub to: usize,
    /// How long it takes.
    pub delay: Micros,
    /// The frame.
    pub bytes: Rc<[u8]>,
}

/// Links between `n` places. Every frame goes to all other places, as multicast does: for whom it
/// is, the receiver has to find out.
#[derive(Debug)]
pub struct Network {
    places: usize,
    links: Vec<Link>,
    rng: Rng,
    /// What it did so far.
    pub traffic: Traffic,
    /// The last frames that were sent, as an eavesdropper recorded them.
    pub recorded: VecDeque<Rc<[u8]>>,
}

impl Network {
    /// Good links between `places` places.
    pub fn new(places: usize, rng: Rng) -> Self {
        let links = vec![Link::good(); places * places];
        Self { places, links, rng, traffic: Traffic::default(), recorded: VecDeque::new() }
    }

    /// The link from one place to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.places + to]
    }

    /// All links, both ways.
    pub fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    /// Cuts or mends both ways between two places.
    pub fn cut(&mut self, a: usize, b: usize, cut: bool) {
        self.link(a, b).cut = cut;
        self.link(b, a).cut = cut;
    }

    /// Sends a frame from a place to all others.
    pub fn send(&mut self, from: usize, frame: Vec<u8>) -> Vec<Delivery> {
        self.traffic.sent += 1;
        self.traffic.sent_bytes += frame.len() as u64;
        let frame: Rc<[u8]> = frame.into();
        self.recorded.push_back(Rc::clone(&frame));
        if self.recorded.len() > RECORDED {
            self.recorded.pop_front();
        }
        let mut deliveries = Vec::new();
        for to in (0..self.places).filter(|&to| to != from) {
            let link = &self.links[from * self.places + to];
            let (rng, traffic) = (&mut self.rng, &mut self.traffic);
            if link.cut || rng.chance(link.loss) {
                traffic.lost += 1;
                continue;
            }
            let mut copies = 1;
            if rng.chance(link.duplicate) {
                traffic.duplicated += 1;
                copies = 2;
            }
            for _ in 0..copies {
                let mut bytes = Rc::clone(&frame);
                if rng.chance(link.corrupt) {
                    traffic.corrupted += 1;
                    bytes = turn_a_bit(&bytes, rng);
                }
                traffic.arriving += 1;
                deliveries.push(Delivery { to, delay: rng.within(&link.delay), bytes });
            }
        }
        deliveries
    }
}

fn turn_a_bit(bytes: &[u8], rng: &mut Rng) -> Rc<[u8]> {
    let mut changed = bytes.to_vec();
    if !changed.is_empty() {
        let at = rng.index(changed.len());
        changed[at] ^= 1 << rng.below(8);
    }
    changed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_network_delivers_to_everyone_once() {
        let mut network = Network::new(3, Rng::new(1));
        let deliveries = network.send(1, b"frame".to_vec());
        let to: Vec<_> = deliveries.iter().map(|d| d.to).collect();
        assert_eq!(to, [0, 2]);
        assert!(deliveries.iter().all(|d| &*d.bytes == b"frame"));
    }

    #[test]
    fn a_cut_is_for_one_direction() {
        let mut network = Network::new(2, Rng::new(1));
        network.link(0, 1).cut = true;
        assert!(network.send(0, vec![1]).is_empty());
        assert_eq!(network.send(1, vec![1]).len(), 1);
        network.cut(0, 1, false);
        assert_eq!(network.send(0, vec![1]).len(), 1);
    }

    #[test]
    fn a_bad_link_loses_doubles_reorders_and_corrupts_as_told() {
        let mut network = Network::new(2, Rng::new(3));
        *network.link(0, 1) =
            Link { delay: 10..=1000, loss: 300, duplicate: 200, corrupt: 100, cut: false };
        let mut delays = Vec::new();
        let mut changed = 0;
        for _ in 0..10_000 {
            for delivery in network.send(0, vec![0; 8]) {
                assert!((10..=1000).contains(&delivery.delay));
                let turned: u32 = delivery.bytes.iter().map(|b| b.count_ones()).sum();
                assert!(turned <= 1);
                changed += turned;
                delays.push(delivery.delay);
            }
        }
        let Traffic { lost, duplicated, arriving, .. } = network.traffic;
        assert!((2800..3200).contains(&lost), "{lost}");
        assert!((1250..1550).contains(&duplicated), "{duplicated}");
        assert_eq!(arriving, delays.len() as u64);
        assert!((700..1000).contains(&changed), "{changed}");
        assert!(delays.windows(2).any(|pair| pair[1] < pair[0]));
    }
}
