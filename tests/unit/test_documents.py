"""The documents name what there is."""

import json
import re
from pathlib import Path

from jsync._core import Node

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_option_is_documented() -> None:
    nat64 = json.dumps({"pool4": [{"prefix": "192.0.2.1"}]}).encode()
    options = json.loads(Node(nat64, None, keys=[], secret=bytes(32)).config())["global"]
    documented = set(re.findall(r"`([a-z0-9-]+)`", (DOCS / "configuration.md").read_text()))
    assert set(options) - documented == set()


def rust_tests(source: str) -> set[str]:
    """The functions of a Rust file that `cargo test` runs: `#[test]`, not ignored, no comment."""
    code = re.sub(r"(?m)^\s*//.*\n", "", source)
    functions = re.findall(r"((?:#\[[^\n]*\]\s*)+)(?:pub )?fn (\w+)\(", code)
    return {
        name
        for attributes, name in functions
        if "#[test]" in attributes and "#[ignore" not in attributes
    }


def test_only_what_runs_counts_as_a_test() -> None:
    source = """
        #[test]
        fn plain() {}

        #[test]
        #[should_panic]
        // A comment.
        fn behind_more() {}

        #[test]
        #[ignore = "slow"]
        fn ignored() {}

        #[inline]
        fn helper(x: u8) {}
        fn bare() {}
        // #[test]
        // fn left_out() {}

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(9))]

            /// A property.
            #[test]
            fn property(n: u8) {}
            fn of_nothing(n: u8) {}
        }
    """
    assert rust_tests(source) == {"plain", "behind_more", "property"}


def test_every_test_that_conformance_names_exists() -> None:
    named = re.findall(r"`(\w+)::(\w+)`", (DOCS / "conformance.md").read_text())
    assert named
    tests = {
        (module, test)
        for path in (ROOT / "rust" / "core").rglob("*.rs")
        for test in rust_tests(path.read_text())
        for module in (path.stem, path.parent.name)
    }
    assert [f"{module}::{test}" for module, test in named if (module, test) not in tests] == []


def test_links_lead_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *DOCS.glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
