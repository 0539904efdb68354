//! Changes of the configuration while sessions live.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use jsync_core::config::{Globals, Pool4Entry, StaticBib};
use jsync_core::nat64::{ChangeError, Nat64};
use jsync_core::packet::Outcome;
use jsync_core::stats::DropReason;
use jsync_core::table::Change;
use jsync_core::time::Time;
use jsync_core::tuple::{Endpoint4, Endpoint6, Proto};

fn nat() -> Nat64 {
    nat64(r#"{"pool4": [{"prefix": "192.0.2.1", "ports": "61001-62000"}], "max-sessions": 1000}"#)
}

fn out(nat64: &mut Nat64, now: Time, port: u16) -> Wire {
    let packet = Wire::V6(a6("2001:db8::8"), embed(a4("203.0.113.16")), udp(port, 53));
    forward(nat64, now, &packet)
}

fn port_of(packet: &Wire) -> u16 {
    let Wire::V4(_, _, L4::Udp { src, .. }) = packet else { panic!("{packet:?}") };
    *src
}

/// Masks of all BIB entries.
fn masks(nat64: &Nat64) -> Vec<Endpoint4> {
    let mut masks = Vec::new();
    nat64.bib_scan(0, 10_000, &mut |bib| masks.push(bib.src4));
    masks
}

fn entry(prefix: &str, ports: &str) -> Pool4Entry {
    let (prefix, ports) = (prefix.parse().unwrap(), ports.parse().unwrap());
    Pool4Entry { protocol: None, prefix, ports, node: None, mark: 0 }
}

fn bib(v6_port: u16, v4_port: u16) -> StaticBib {
    StaticBib {
        protocol: Proto::Udp,
        ipv6: Endpoint6 { addr: a6("2001:db8::8"), port: v6_port },
        ipv4: Endpoint4 { addr: a4("192.0.2.1"), port: v4_port },
    }
}

#[test]
fn other_timeouts_count_from_the_next_packet() {
    let mut nat64 = nat();
    out(&mut nat64, T0, 5000);
    out(&mut nat64, T0, 5002);
    let globals = Globals { udp_timeout: 120_000, ..Globals::default() };
    nat64.set_globals(globals.clone()).unwrap();
    out(&mut nat64, T0, 5000);
    run_timers(&mut nat64, T0 + 130_000);
    assert_eq!(nat64.session_count(), 1, "the session without a packet since keeps its time");
    let error = nat64.set_globals(Globals { udp_timeout: 1, ..globals.clone() }).unwrap_err();
    assert!(error.to_string().contains("udp-timeout"), "{error}");
    assert_eq!(nat64.config().global, globals, "a refused change changes nothing");
}

#[test]
fn filtering_can_be_switched_on_while_sessions_live() {
    let mut nat64 = nat();
    let port = port_of(&out(&mut nat64, T0, 5000));
    let friend = a4("198.51.100.7");
    let from = |addr, src| Wire::V4(addr, a4("192.0.2.1"), udp(src, port));
    forward(&mut nat64, T0, &from(friend, 1));
    let globals = Globals { address_dependent_filtering: true, ..Globals::default() };
    nat64.set_globals(globals).unwrap();
    forward(&mut nat64, T0, &from(friend, 2));
    let stranger = from(a4("198.51.100.8"), 1).bytes();
    assert!(matches!(send(&mut nat64, T0, &stranger).0, Outcome::Drop(_)));
}

#[test]
fn pool4_changes_keep_what_they_can() {
    let mut nat64 = nat();
    let port = port_of(&out(&mut nat64, T0, 5000));
    nat64.pool4_add(entry("192.0.2.1", "61001-65535")).unwrap();
    nat64.pool4_remove(&entry("192.0.2.1", "61001-62000")).unwrap();
    assert_eq!(port_of(&out(&mut nat64, T0, 5000)), port);
    nat64.pool4_add(entry("192.0.2.9", "1024-65535")).unwrap();
    nat64.pool4_remove(&entry("192.0.2.1", "61001-65535")).unwrap();
    assert_eq!(masks(&nat64), []);
    run_timers(&mut nat64, T0);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 0));
    assert!(matches!(out(&mut nat64, T0, 5000), Wire::V4(src, ..) if src == a4("192.0.2.9")));

    assert_eq!(nat64.pool4_remove(&entry("192.0.2.1", "1-2")), Err(ChangeError::NotFound));
    assert_eq!(nat64.pool4_add(entry("192.0.2.9", "1024-65535")), Err(ChangeError::Exists));
    let huge = nat64.pool4_add(entry("10.0.0.0/8", "1024-65535")).unwrap_err();
    assert!(huge.to_string().contains("/16"), "{huge}");
    nat64.pool4_replace(Vec::new()).unwrap();
    assert_eq!(masks(&nat64), []);
    run_timers(&mut nat64, T0);
    assert_eq!(nat64.bib_count(), 0);
    let packet = Wire::V6(a6("2001:db8::8"), embed(a4("203.0.113.16")), udp(1, 2));
    assert!(matches!(send(&mut nat64, T0, &packet.bytes()).0, Outcome::Drop(_)));
}

/// What is left to do after a removal takes its time, but nobody sees any of what is gone: not even
/// if the transport addresses come back meanwhile.
#[test]
fn removed_mappings_are_gone_before_they_are_swept() {
    const MAPPINGS: u16 = 600;
    let mut nat64 = nat();
    nat64.pool4_add(entry("192.0.2.2", "1024-65535")).unwrap();
    nat64.pool4_remove(&entry("192.0.2.1", "61001-62000")).unwrap();
    nat64.track_changes(true);
    let before: Vec<u16> = (0..MAPPINGS).map(|n| port_of(&out(&mut nat64, T0, 5000 + n))).collect();
    let to_old = |port| Wire::V4(a4("203.0.113.16"), a4("192.0.2.2"), udp(53, port)).bytes();
    assert_eq!(send(&mut nat64, T0, &to_old(before[0])).0, Outcome::Forward);
    while nat64.pop_change(T0).is_some() {}
    out(&mut nat64, T0, 5000);

    nat64.pool4_replace(vec![entry("192.0.2.1", "61001-62000")]).unwrap();
    assert!(nat64.session_count() > 0 && nat64.poll_timeout() == Some(Time::ZERO));
    assert_eq!(masks(&nat64), []);
    nat64.scan(T0, 0, 10_000, &mut |record| panic!("{record:?}"));
    let gone = |nat64: &mut Nat64| send(nat64, T0, &to_old(before[1])).0;
    assert_eq!(gone(&mut nat64), Outcome::Drop(DropReason::NotPool4));
    let src6 = Endpoint6 { addr: a6("2001:db8::8"), port: 5001 };
    assert_eq!(nat64.bib_remove(Proto::Udp, Some(src6), None), Err(ChangeError::NotFound));
    for n in [0, 1, 1] {
        let Wire::V4(src, ..) = out(&mut nat64, T0, 5000 + n) else { panic!() };
        assert_eq!(src, a4("192.0.2.1"));
    }
    assert_eq!(masks(&nat64).len(), 2);

    // The same address again, and before anything was swept.
    nat64.pool4_replace(vec![entry("192.0.2.2", "1024-65535")]).unwrap();
    assert_eq!(masks(&nat64), []);
    assert_eq!(gone(&mut nat64), Outcome::Drop(DropReason::NoBib));
    let after: Vec<u16> = (0..300).map(|n| port_of(&out(&mut nat64, T0, 5000 + n))).collect();
    let mut told = Vec::new();
    while nat64.poll_timeout() == Some(Time::ZERO) {
        nat64.handle_timeout(T0);
        while let Some(change) = nat64.pop_change(T0) {
            if let Change::Remove(key, _) = change {
                told.push(key);
            }
        }
    }
    let count = (nat64.session_count(), nat64.bib_count(), masks(&nat64).len());
    assert_eq!(count, (300, 300, 300));
    for (n, port) in (0..).zip(&after) {
        assert_eq!(port_of(&out(&mut nat64, T0, 5000 + n)), *port);
    }
    let of_old = told.iter().filter(|key| before.contains(&key.src4.port));
    assert_eq!(of_old.count(), before.len(), "peers are told of the end of each");
    assert_eq!(told.len(), before.len() + 2);
}

/// What pool4 is after transport addresses were removed from it: protocol, prefix, ports.
fn pool4_without(entries: &str, gone: &str) -> Result<Vec<String>, ChangeError> {
    let mut nat64 = nat64(&format!(r#"{{"node": 1, "pool4": {entries}, "max-sessions": 1000}}"#));
    let before = nat64.config().clone();
    if let Err(error) = nat64.pool4_exclude(&serde_json::from_str(gone).unwrap()) {
        assert_eq!(*nat64.config(), before, "a refused change changes nothing");
        return Err(error);
    }
    let text = |e: &Pool4Entry| {
        let protocol = e.protocol.map_or("all", Proto::name);
        format!("{protocol} {} {} {:?} {}", e.prefix, e.ports, e.node, e.mark)
    };
    Ok(nat64.config().pool4.iter().map(text).collect())
}

#[test]
fn transport_addresses_are_taken_out_of_entries() {
    let one = r#"[{"prefix": "192.0.2.1", "ports": "5000-5999"}]"#;
    let gone = |ports| format!(r#"{{"prefix": "192.0.2.1", "ports": "{ports}"}}"#);
    let cases = [
        ("0-65535", vec![]),
        ("5000-5999", vec![]),
        ("5500-6000", vec!["all 192.0.2.1/32 5000-5499 None 0"]),
        ("4000-5000", vec!["all 192.0.2.1/32 5001-5999 None 0"]),
        ("5500", vec!["all 192.0.2.1/32 5000-5499 None 0", "all 192.0.2.1/32 5501-5999 None 0"]),
    ];
    for (ports, expected) in cases {
        assert_eq!(pool4_without(one, &gone(ports)).unwrap(), expected, "{ports}");
    }
    assert_eq!(pool4_without(one, &gone("6000-6001")), Err(ChangeError::NotFound));
    let udp = r#"{"prefix": "192.0.2.0/24", "ports": "0-65535", "protocol": "udp"}"#;
    assert_eq!(
        pool4_without(one, udp).unwrap(),
        ["tcp 192.0.2.1/32 5000-5999 None 0", "icmp 192.0.2.1/32 5000-5999 None 0"]
    );
    let net = r#"[{"prefix": "192.0.2.0/30", "ports": "5000-5999", "protocol": "tcp"},
                  {"prefix": "192.0.2.2", "ports": "0-9", "protocol": "icmp"}]"#;
    assert_eq!(
        pool4_without(net, r#"{"prefix": "192.0.2.2", "ports": "1-5499"}"#).unwrap(),
        [
            "tcp 192.0.2.0/31 5000-5999 None 0",
            "tcp 192.0.2.3/32 5000-5999 None 0",
            "tcp 192.0.2.2/32 5500-5999 None 0",
        ],
        "identifier 0 alone is no entry"
    );
}

#[test]
fn other_marks_and_slices_keep_their_transport_addresses() {
    let entries = r#"[{"prefix": "192.0.2.1", "ports": "5000-5999", "node": 1},
                      {"prefix": "192.0.2.1", "ports": "6000-6999", "node": 2},
                      {"prefix": "192.0.2.1", "ports": "5000-5999", "node": 1, "mark": 7}]"#;
    let gone = r#"{"prefix": "192.0.2.1", "ports": "0-65535""#;
    let [one, two, seven] = ["5000-5999 Some(1) 0", "6000-6999 Some(2) 0", "5000-5999 Some(1) 7"]
        .map(|rest| format!("all 192.0.2.1/32 {rest}"));
    for (more, expected) in [
        ("}", vec![&seven]),
        (r#", "node": 2}"#, vec![&one, &seven]),
        (r#", "mark": 7}"#, vec![&one, &two]),
    ] {
        let left = pool4_without(entries, &format!("{gone}{more}")).unwrap();
        assert_eq!(left.iter().collect::<Vec<_>>(), expected, "{more}");
    }
    for more in [r#", "node": 3}"#, r#", "mark": 8}"#] {
        assert_eq!(pool4_without(entries, &format!("{gone}{more}")), Err(ChangeError::NotFound));
    }
}

#[test]
fn mappings_outside_of_what_was_taken_out_go_on() {
    let mut nat64 = nat();
    let ports: Vec<u16> = (0..20).map(|n| port_of(&out(&mut nat64, T0, 5000 + n))).collect();
    let (low, high) = (ports[3].min(ports[4]), ports[3].max(ports[4]));
    let inside = ports.iter().filter(|&&port| (low..=high).contains(&port)).count();
    nat64.pool4_exclude(&entry("192.0.2.1", &format!("{low}-{high}"))).unwrap();
    assert_eq!(masks(&nat64).len(), ports.len() - inside);
    run_timers(&mut nat64, T0);
    assert_eq!(nat64.bib_count() as usize, ports.len() - inside);
    for (n, port) in (0..).zip(ports) {
        let now = port_of(&out(&mut nat64, T0, 5000 + n));
        assert!(!(low..=high).contains(&now));
        assert_eq!(now == port, !(low..=high).contains(&port));
    }
    let port = port_of(&out(&mut nat64, T0, 5000));
    nat64.bib_add(bib(5000, port)).unwrap();
    let before = nat64.config().clone();
    let error = nat64.pool4_exclude(&entry("192.0.2.1", &port.to_string())).unwrap_err();
    assert!(error.to_string().contains("not in pool4"), "{error}");
    assert_eq!(*nat64.config(), before);
}

#[test]
fn a_mapping_with_many_sessions_leaves_nothing_behind() {
    let mut nat64 = nat();
    for n in 0..200 {
        let packet = Wire::V6(a6("2001:db8::8"), embed(a4("203.0.113.16")), udp(5000, 1 + n));
        forward(&mut nat64, T0, &packet);
    }
    let src6 = Endpoint6 { addr: a6("2001:db8::8"), port: 5000 };
    nat64.bib_remove(Proto::Udp, Some(src6), None).unwrap();
    assert_eq!(nat64.bib_count(), 0);
    let mut seen = 0;
    nat64.scan(T0, 0, 10_000, &mut |_| seen += 1);
    assert_eq!(seen, 0);
    // A new mapping in the same place has nothing to do with the old one's sessions.
    out(&mut nat64, T0, 5000);
    run_timers(&mut nat64, T0);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (1, 1));
    assert_eq!(nat64.bib_remove(Proto::Tcp, Some(src6), None), Err(ChangeError::NotFound));
}

#[test]
fn static_entries_come_and_go() {
    let mut nat64 = nat();
    let port = port_of(&out(&mut nat64, T0, 5000));
    nat64.bib_add(bib(5000, port)).unwrap();
    run_timers(&mut nat64, T0 + 400_000);
    assert_eq!((nat64.session_count(), nat64.bib_count()), (0, 1), "the dynamic one became static");
    assert_eq!(nat64.bib_add(bib(5000, port)), Err(ChangeError::Exists));
    for (taken, what) in [(bib(5000, port ^ 1), "ipv6"), (bib(5001, port), "ipv4")] {
        let error = nat64.bib_add(taken).unwrap_err();
        assert!(matches!(error, ChangeError::Taken(_)), "{what}: {error}");
    }
    let error = nat64.bib_add(bib(5001, 80)).unwrap_err();
    assert!(error.to_string().contains("not in pool4"), "{error}");
    let error = nat64.pool4_replace(Vec::new()).unwrap_err();
    assert!(error.to_string().contains("bib[0]"), "{error}");
    nat64.bib_remove(Proto::Udp, None, Some(bib(0, port).ipv4)).unwrap();
    assert_eq!((nat64.bib_count(), nat64.config().bib.len()), (0, 0));
    nat64.pool4_replace(Vec::new()).unwrap();
}

/// `logging-bib` and `logging-session`: a line when traffic makes something, and one at its end.
#[test]
fn mappings_and_sessions_are_logged() {
    let mut nat64 = nat();
    let globals = Globals { logging_bib: true, logging_session: true, ..Globals::default() };
    out(&mut nat64, T0, 4000);
    assert_eq!(nat64.poll_log(), None, "nothing unless asked for");
    nat64.set_globals(globals).unwrap();
    let port = port_of(&out(&mut nat64, T0 + 1_000, 5000));
    run_timers(&mut nat64, T0 + 302_000);
    let lines: Vec<_> = std::iter::from_fn(|| nat64.poll_log()).map(|e| e.to_string()).collect();
    let ours: Vec<_> = lines.iter().filter(|line| line.contains("#5000")).cloned().collect();
    let bib = format!("proto=udp src6=2001:db8::8#5000 src4=192.0.2.1#{port}");
    let session = format!("{bib} dst4=203.0.113.16#53");
    assert_eq!(
        ours,
        [
            format!("event=bib-added {bib}"),
            format!("event=session-added {session}"),
            format!("event=session-removed {session}"),
            format!("event=bib-removed {bib}"),
        ]
    );
    assert_eq!(lines.len(), 6, "the end of what began unlogged");
}
