//! Translates packets from standard input, for tests in other languages.
//!
//! The first line is the translator's configuration as JSON. Each further line is a time in
//! milliseconds and a packet in hexadecimal. For each, one line comes back: what became of it
//! (`forward HEX`, `drop REASON` or `consumed`), then ` made HEX` for every packet that the
//! translator made.

#![allow(clippy::unwrap_used, reason = "a tool for tests: wrong input may end it")]

use std::fmt::Write as _;
use std::io::{self, BufRead, Write as _};

use jsync_core::nat64::Nat64;
use jsync_core::packet::{HEADROOM, Offload, Outcome, Packet};
use jsync_core::time::Time;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn main() {
    let mut lines = io::stdin().lock().lines().map(Result::unwrap);
    let config = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let mut nat64 = Nat64::new(config, &[1; 32]).unwrap();
    let mut out = io::stdout().lock();
    for line in lines {
        let (millis, packet) = line.split_once(' ').unwrap();
        let now = Time::from_millis(millis.parse().unwrap());
        nat64.handle_timeout(now);
        let packet = unhex(packet);
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(&packet);
        let mut burst = [Packet::new(&mut buffer, HEADROOM, packet.len(), Offload::default())];
        nat64.handle_packets(now, &mut burst);
        let mut answer = match burst[0].outcome {
            Outcome::Forward => format!("forward {}", hex(burst[0].bytes())),
            Outcome::Drop(reason) => format!("drop {}", reason.name()),
            Outcome::Consumed => "consumed".to_owned(),
            Outcome::Pending => "pending".to_owned(),
        };
        while let Some(made) = nat64.poll_packet() {
            write!(answer, " made {}", hex(&made.bytes)).unwrap();
        }
        writeln!(out, "{answer}").unwrap();
        out.flush().unwrap();
    }
}
