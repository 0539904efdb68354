//! Which measurements are wanted, and how they are printed.

use serde_json::json;

/// Prints what was measured, and remembers the ceiling.
pub struct Report {
    prefix: String,
    random_line_ns: Option<f64>,
}

impl Report {
    /// A report of the measurements whose names begin with `prefix`.
    pub fn new(prefix: String) -> Self {
        Self { prefix, random_line_ns: None }
    }

    /// With what the wanted names begin.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether `name` is wanted. A group may ask with its own prefix: one is the other's beginning.
    pub fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) || self.prefix.starts_with(name)
    }

    /// Nanoseconds of a random cache line; measured once a run, when first needed.
    pub fn random_line_ns(&mut self) -> f64 {
        *self.random_line_ns.get_or_insert_with(|| 1e9 / crate::memory::random_lines())
    }

    /// Prints the ceiling itself, if it is wanted.
    pub fn print_memory(&mut self) {
        if self.wants("memory/random_lines") {
            let ns = self.random_line_ns();
            self.print("memory/random_lines", 1e9 / ns, "lines/s", None);
        }
    }

    /// Prints one measurement. `ceiling` is in the same unit, or what the ratio is to.
    pub fn print(&self, name: &str, value: f64, unit: &str, ceiling: Option<f64>) {
        let ratio = ceiling.map(|c| value / c);
        let line =
            json!({"name": name, "value": value, "unit": unit, "ceiling": ceiling, "ratio": ratio});
        println!("{line}");
    }
}
