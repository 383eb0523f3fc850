//! What a server takes while it is measured.

use std::fs;
use std::time::{Duration, Instant};

/// The processes of a server.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pids: Vec<u32>,
}

/// What was seen from a moment to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) took: Duration,
    /// User and system.
    pub(crate) cpu: Duration,
    /// The most memory of the largest process: KiB.
    pub(crate) peak_kib: u64,
}

impl Watch {
    /// A process and its children, as they are now.
    pub(crate) fn of(pid: u32) -> Self {
        let mut pids = vec![pid];
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            pids.extend(Self::of(child).pids);
        }
        Self { pids }
    }

    /// Does something and sees what the server takes for it.
    pub(crate) fn during<T>(&self, what: impl FnOnce() -> T) -> (T, Seen) {
        for pid in &self.pids {
            // Makes the peak begin anew (proc(5)).
            fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
        }
        let (cpu, begun) = (self.cpu(), Instant::now());
        let done = what();
        let took = begun.elapsed();
        (done, Seen { took, cpu: self.cpu().saturating_sub(cpu), peak_kib: self.memory("VmHWM:") })
    }

    fn cpu(&self) -> Duration {
        let ticks: u64 = self
            .pids
            .iter()
            .filter_map(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                // The name of the program stands in brackets and may hold anything.
                let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
                Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
            })
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn memory(&self, which: &str) -> u64 {
        let of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            kib(&status, which)
        };
        self.pids.iter().filter_map(of).max().unwrap_or(0)
    }
}

/// An amount of memory, by its name in a file of /proc.
pub(crate) fn kib(lines: &str, name: &str) -> Option<u64> {
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
