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


def test_every_test_that_conformance_names_exists() -> None:
    named = re.findall(r"`(\w+)::(\w+)`", (DOCS / "conformance.md").read_text())
    assert named
    sources = list((ROOT / "rust" / "core").rglob("*.rs"))
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not any(
            f"fn {test}(" in path.read_text()
            for path in sources
            if file in {path.stem, path.parent.name}
        )
    ]
    assert missing == []


def test_links_lead_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *DOCS.glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
