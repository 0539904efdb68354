//! The TCP state machine (RFC 6146 §3.5.2.2). CLOSED is the absence of a session, so what leaves
//! it is in [`super::filter`]; what ends a session is its timer, in [`super::expiry`].

use crate::table::State;
use crate::wire::tcp::Flags;

/// Which side a segment came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the IPv6 node.
    V6,
    /// From the IPv4 node.
    V4,
}

/// What a segment does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// RST.
    Rst,
    /// SYN, with or without ACK.
    Syn,
    /// FIN.
    Fin,
    /// None of these.
    Other,
}

impl Event {
    /// What a segment with these control bits does. A segment that has several resets rather
    /// than opens, and opens rather than closes.
    #[inline]
    pub fn of(flags: Flags) -> Self {
        if flags.rst() {
            Self::Rst
        } else if flags.syn() {
            Self::Syn
        } else if flags.fin() {
            Self::Fin
        } else {
            Self::Other
        }
    }
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Neither state nor lifetime change.
    Stay,
    /// The session takes that state, which may be the one that it has, and its whole lifetime.
    To(State),
}

/// The next step of a connection in `state`. `rst_in_fin` is `handle-rst-during-fin-rcv`: the RFC
/// takes a RST after a FIN for any other segment.
#[inline]
pub fn next(state: State, side: Side, event: Event, rst_in_fin: bool) -> Step {
    use State::*;
    let to = match (state, side, event) {
        (Established, _, Event::Rst) => Trans,
        (Established, Side::V4, Event::Fin) => V4FinRcv,
        (Established, Side::V6, Event::Fin) => V6FinRcv,
        (Established, _, _) => Established,

        (V6Init, Side::V4, Event::Syn) => Established,
        (V6Init, Side::V6, Event::Syn) => V6Init,
        (V6Init, _, _) => return Step::Stay,

        (V4Init, Side::V6, Event::Syn) => Established,
        (V4Init, _, _) => return Step::Stay,

        (V4FinRcv | V6FinRcv, _, Event::Rst) if rst_in_fin => Trans,
        (V4FinRcv, Side::V6, Event::Fin) => V4FinV6FinRcv,
        (V4FinRcv, _, _) => V4FinRcv,
        (V6FinRcv, Side::V4, Event::Fin) => V4FinV6FinRcv,
        (V6FinRcv, _, _) => V6FinRcv,

        (V4FinV6FinRcv, _, _) => return Step::Stay,

        (Trans, _, Event::Rst) => return Step::Stay,
        (Trans, _, _) => Established,
    };
    Step::To(to)
}

#[cfg(test)]
mod tests {
    use super::Event::*;
    use super::Side::*;
    use super::State::*;
    use super::*;

    /// Every transition of RFC 6146 §3.5.2.2, state by state; what isn't listed stays.
    #[test]
    fn every_transition() {
        let to = |state| Step::To(state);
        type Steps<'a> = &'a [(Side, Event, Step)];
        let table: &[(State, Steps<'_>)] = &[
            (V4Init, &[(V6, Syn, to(Established))]),
            (V6Init, &[(V4, Syn, to(Established)), (V6, Syn, to(V6Init))]),
            (
                Established,
                &[
                    (V4, Fin, to(V4FinRcv)),
                    (V6, Fin, to(V6FinRcv)),
                    (V4, Rst, to(Trans)),
                    (V6, Rst, to(Trans)),
                    (V4, Syn, to(Established)),
                    (V6, Syn, to(Established)),
                    (V4, Other, to(Established)),
                    (V6, Other, to(Established)),
                ],
            ),
            (
                V4FinRcv,
                &[
                    (V6, Fin, to(V4FinV6FinRcv)),
                    (V4, Fin, to(V4FinRcv)),
                    (V4, Rst, to(V4FinRcv)),
                    (V6, Rst, to(V4FinRcv)),
                    (V4, Syn, to(V4FinRcv)),
                    (V6, Syn, to(V4FinRcv)),
                    (V4, Other, to(V4FinRcv)),
                    (V6, Other, to(V4FinRcv)),
                ],
            ),
            (
                V6FinRcv,
                &[
                    (V4, Fin, to(V4FinV6FinRcv)),
                    (V6, Fin, to(V6FinRcv)),
                    (V4, Rst, to(V6FinRcv)),
                    (V6, Rst, to(V6FinRcv)),
                    (V4, Syn, to(V6FinRcv)),
                    (V6, Syn, to(V6FinRcv)),
                    (V4, Other, to(V6FinRcv)),
                    (V6, Other, to(V6FinRcv)),
                ],
            ),
            (V4FinV6FinRcv, &[]),
            (
                Trans,
                &[
                    (V4, Syn, to(Established)),
                    (V6, Syn, to(Established)),
                    (V4, Fin, to(Established)),
                    (V6, Fin, to(Established)),
                    (V4, Other, to(Established)),
                    (V6, Other, to(Established)),
                ],
            ),
        ];
        for &(state, steps) in table {
            for side in [V4, V6] {
                for event in [Rst, Syn, Fin, Other] {
                    let listed = steps.iter().find(|(s, e, _)| (*s, *e) == (side, event));
                    let expected = listed.map_or(Step::Stay, |&(_, _, step)| step);
                    assert_eq!(
                        next(state, side, event, false),
                        expected,
                        "{state:?} {side:?} {event:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_rst_after_a_fin_counts_if_asked_for() {
        for state in [V4FinRcv, V6FinRcv] {
            for side in [V4, V6] {
                assert_eq!(next(state, side, Rst, true), Step::To(Trans));
            }
        }
        assert_eq!(next(V4FinV6FinRcv, V4, Rst, true), Step::Stay);
    }

    #[test]
    fn the_strongest_control_bit_counts() {
        for (flags, event) in [
            (Flags::RST | Flags::SYN | Flags::FIN, Rst),
            (Flags::SYN | Flags::FIN | Flags::ACK, Syn),
            (Flags::FIN | Flags::ACK, Fin),
            (Flags::ACK, Other),
            (0, Other),
        ] {
            assert_eq!(Event::of(Flags(flags)), event);
        }
    }
}
