//! The figures, and what they should be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

/// How much worse than the stored one a ratio may be.
const WORSE: f64 = 1.15;

/// The unit of a ratio. What else is measured tells of the hour as well.
pub(crate) const RATIO: &str = "×";

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is only told, for what others are compared with.
    None,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

/// The figures of a run. Each is printed as soon as it is there.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Row {
    fn reached(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.value >= least,
            Goal::AtMost(most) => self.value <= most,
            Goal::None => true,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(least) => format!("≥ {}", number(least)),
            Goal::AtMost(most) => format!("≤ {}", number(most)),
            Goal::None => String::new(),
        }
    }

    /// Whether the stored one was better by too much.
    fn is_worse_than(&self, stored: f64) -> bool {
        match self.goal {
            Goal::AtLeast(_) => self.value * WORSE < stored,
            Goal::AtMost(_) => self.value > stored * WORSE,
            Goal::None => false,
        }
    }
}

impl Table {
    pub(crate) fn add(&mut self, name: &'static str, value: f64, unit: &'static str, goal: Goal) {
        let row = Row { name, value, unit, goal };
        let verdict = match (goal, row.reached()) {
            (Goal::None, _) => "",
            (_, true) => "  ok",
            (_, false) => "  NOT REACHED",
        };
        println!("{name}: {} {unit}  {}{verdict}", number(value), row.goal());
        self.0.push(row);
    }

    /// Replaces the table in a document.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let document = fs::read_to_string(path)?;
        let (Some(begin), Some(end)) = (document.find(BEGIN), document.find(END)) else {
            return Err(io::Error::other(format!("{} has no place for the table", path.display())));
        };
        let mut table = String::from("\n| what | measured | reach |\n|---|---|---|\n");
        for row in &self.0 {
            let missed = if row.reached() { "" } else { " **not reached**" };
            let _ = writeln!(table, "| {} | {} {} | {}{missed} |", row.name, number(row.value), row.unit, row.goal());
        }
        fs::write(path, format!("{}{table}{}", &document[..begin + BEGIN.len()], &document[end..]))
    }

    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let figures: BTreeMap<_, _> =
            self.0.iter().filter(|row| row.goal != Goal::None).map(|row| (row.name, row.value)).collect();
        fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")
    }

    /// Whether no ratio is worse than the stored one, and every other figure reaches its goal.
    pub(crate) fn check(&self, path: &Path) -> io::Result<bool> {
        let stored: BTreeMap<String, f64> = serde_json::from_str(&fs::read_to_string(path)?)?;
        let mut well = true;
        for row in &self.0 {
            let (worse, than) = match stored.get(row.name) {
                Some(stored) if row.unit == RATIO => (row.is_worse_than(*stored), format!("was {}", number(*stored))),
                _ => (!row.reached(), row.goal()),
            };
            if worse {
                println!("WORSE: {}: {} {}, {than}", row.name, number(row.value), row.unit);
                well = false;
            }
        }
        Ok(well)
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_may_be_worse_by_fifteen_percent() {
        let row = |value, goal| Row { name: "", value, unit: RATIO, goal };
        assert!(!row(0.88, Goal::AtLeast(0.5)).is_worse_than(1.0));
        assert!(row(0.86, Goal::AtLeast(0.5)).is_worse_than(1.0));
        assert!(!row(1.14, Goal::AtMost(2.0)).is_worse_than(1.0));
        assert!(row(1.16, Goal::AtMost(2.0)).is_worse_than(1.0));
    }

    #[test]
    fn a_check_is_of_ratios_and_of_goals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        fs::write(&path, r#"{"ratio": 1.0, "time": 1.0}"#).unwrap();
        let check =
            |name, value, unit| Table(vec![Row { name, value, unit, goal: Goal::AtMost(2.0) }]).check(&path).unwrap();
        assert!(check("ratio", 1.1, RATIO));
        assert!(!check("ratio", 1.2, RATIO));
        assert!(check("time", 1.9, "ms"));
        assert!(!check("time", 2.1, "ms"));
        assert!(check("new", 1.9, RATIO));
        assert!(!check("new", 2.1, RATIO));
    }

    #[test]
    fn the_table_stands_between_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document.md");
        fs::write(&path, format!("before\n{BEGIN}\nold\n{END}\nbehind\n")).unwrap();
        let mut table = Table::default();
        table.add("this", 1.5, "ms", Goal::AtMost(1.0));
        table.write(&path).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("before\n") && written.ends_with(&format!("{END}\nbehind\n")));
        assert!(written.contains("| this | 1.50 ms | ≤ 1.00 **not reached** |") && !written.contains("old"));
    }
}
