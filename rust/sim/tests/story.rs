//! The two stories, and that they can be told again.

use jsync_sim::{Report, simulate_failover};

#[test]
fn with_synchronisation_every_connection_survives_every_step() {
    let report = simulate_failover(1, true);
    println!("{report:#?}");
    let Report { tcp_total, tcp_survived, udp_total, udp_survived, ref steps, .. } = report;
    assert_eq!((tcp_total, tcp_survived, udp_total, udp_survived), (64, 64, 16, 16));
    let masters: Vec<_> = steps.iter().map(|step| step.master.as_str()).collect();
    assert_eq!(masters, ["K", "J", "K", "J", "K", "L"]);
    assert!(report.complaints.is_empty(), "{:?}", report.complaints);
    for step in steps {
        assert_eq!((step.tcp_survived, step.udp_survived), (64, 16), "{}", step.name);
        // 81 sessions: 64 TCP, 16 UDP, one of pings. Every node that runs has all.
        assert!(step.sessions.values().all(|&sessions| sessions == 81), "{step:?}");
    }
    // A daemon that dies takes the TUN's carrier with it; a machine that dies is missed.
    assert!(steps[0].takeover_ms < 100, "{:?}", steps[0]);
    assert!((200..330).contains(&steps[2].takeover_ms), "{:?}", steps[2]);
    assert!(steps.iter().all(|step| step.gap_ms < 2000), "{steps:?}");
}

#[test]
fn without_synchronisation_what_n6_opened_breaks() {
    let report = simulate_failover(1, false);
    println!("{report:#?}");
    assert_eq!((report.tcp_total, report.static_total), (64, 4));
    assert_eq!(report.tcp_survived, report.static_survived, "one of the 60 survived");
    assert_eq!(report.steps.len(), 1);
    assert_eq!(report.steps[0].master, "K");
}

#[test]
fn equal_seeds_tell_equal_stories() {
    let tell = |seed| simulate_failover(seed, true).to_json();
    assert_eq!(tell(7), tell(7));
}

#[test]
fn the_report_has_the_fields_of_the_demo() {
    let report: serde_json::Value =
        serde_json::from_slice(&simulate_failover(3, false).to_json()).unwrap();
    for field in ["tcp_total", "tcp_survived", "udp_total", "udp_survived"] {
        assert!(report[field].is_u64(), "{field}");
    }
    for field in ["name", "gap_ms", "tcp_survived", "sessions"] {
        assert!(!report["steps"][0][field].is_null(), "{field}");
    }
}
