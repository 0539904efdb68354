//! Every target over its corpus, and over some thousand random inputs: what CI can afford.

use std::fs;
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("wire", jsync_fuzz::wire),
    ("frame", jsync_fuzz::frame),
    ("joold", jsync_fuzz::joold),
    ("node", jsync_fuzz::node),
];

#[test]
fn corpora() {
    for (name, target) in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let inputs: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{} is empty", dir.display());
        for input in inputs {
            target(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn random_inputs() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (_, target) in TARGETS {
        for _ in 0..2_000 {
            let input: Vec<u8> = (0..random() % 400).map(|_| random() as u8).collect();
            target(&input);
        }
    }
}
