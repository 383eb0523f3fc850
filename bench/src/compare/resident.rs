//! Memory that a virtual machine has got, and keeps.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use crate::scenario::MIB;
use crate::watch::kib;

const PAGE: u64 = 4 << 10;

/// One in so many bytes of all memory is left alone.
const LEFT_ONE_IN: u64 = 24;

/// About a page of each MiB of the memory that was to be had, all of which has been used once.
///
/// A guest may have memory that its host has not given it yet, or has taken back while it was free (free page reporting):
/// whoever uses a page of that first waits for the host. On such a machine files were written at 270 MB/s, and at 860
/// where the memory had just been used. Blocks of 2 MiB go back, and only those that are free as a whole, of which there
/// are few then: nobody who is compared has large pages.
#[derive(Debug)]
pub(crate) struct Resident {
    _pages: File,
}

impl Resident {
    pub(crate) fn new() -> io::Result<Self> {
        let pages = File::from(memfd_create("imgsrv-bench", MemfdFlags::CLOEXEC)?);
        let used = vec![0; 1 << 20];
        let mut mib = 0;
        while is_more_available()? {
            pages.write_all_at(&used, mib * MIB)?;
            mib += 1;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for mib in 0..mib {
            fallocate(&pages, hole, mib * MIB + PAGE, MIB - PAGE)?;
        }
        Ok(Self { _pages: pages })
    }
}

/// Whether there is memory to be had.
fn is_more_available() -> io::Result<bool> {
    let lines = fs::read_to_string("/proc/meminfo")?;
    let all = kib(&lines, "MemTotal:").zip(kib(&lines, "MemAvailable:"));
    let (total, available) = all.ok_or(io::ErrorKind::Unsupported)?;
    Ok(available > total / LEFT_ONE_IN)
}
