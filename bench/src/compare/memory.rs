//! What transfers hold.

use std::io;

use super::table::{Goal, Table};
use crate::scenario::{MIB, Noise, download, upload, upload_at_once};
use crate::server::{Deployment, Imgsrv};
use crate::watch::Seen;

const UPLOADS: usize = 100;
const EACH: u64 = 256 * MIB;

pub(crate) fn measure(table: &mut Table) -> io::Result<()> {
    let one = [
        (Deployment::Embedded, 4.0, ["memory of an upload, folder", "memory of a download, folder"]),
        (Deployment::Garage, 40.0, ["memory of an upload, Garage", "memory of a download, Garage"]),
    ];
    for (deployment, most, [up, down]) in one {
        let imgsrv = Imgsrv::start(deployment)?;
        let (target, mut noise) = (imgsrv.target()?, Noise::new());
        // What is there from the first transfer on is none of one transfer.
        let first = upload(&target, &noise, 1, 64 * MIB)?;
        let (_, path) = target.published(&first.digest, 64 * MIB)?;
        download(target.address, &path)?;
        noise.another();
        let (uploaded, seen) = target.watch.during(|| upload(&target, &noise, 1, 512 * MIB));
        let uploaded = uploaded?;
        table.add(up, more(seen), "MiB", Goal::AtMost(most));
        let (_, path) = target.published(&uploaded.digest, 512 * MIB)?;
        let (downloaded, seen) = target.watch.during(|| download(target.address, &path));
        downloaded?;
        table.add(down, more(seen), "MiB", Goal::AtMost(most));
    }

    let imgsrv = Imgsrv::start(Deployment::Embedded)?;
    let target = imgsrv.target()?;
    let stat = rustix::fs::statvfs(std::env::temp_dir().as_path())?;
    let (free, needed) = (stat.f_bavail * stat.f_frsize, UPLOADS as u64 * EACH * 5 / 4);
    if free < needed {
        return Err(io::Error::other(format!("a hundred uploads need {needed} bytes of disk, {free} are free")));
    }
    let (uploaded, seen) = target.watch.during(|| upload_at_once(&target, UPLOADS, EACH));
    uploaded?;
    table.add("memory of 100 uploads of 256 MiB at once", mib(seen.peak_kib), "MiB", Goal::AtMost(600.0));
    Ok(())
}

fn more(seen: Seen) -> f64 {
    mib(seen.peak_kib.saturating_sub(seen.before_kib))
}

#[expect(clippy::cast_precision_loss, reason = "it is printed")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
