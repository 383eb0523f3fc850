//! What transfers hold.

use std::io;

use super::table::{Goal, Table};
use crate::scenario::{MIB, Noise, Target, download_many, upload, upload_at_once};
use crate::server::{Deployment, Imgsrv};

const UPLOADS: usize = 100;
const EACH: u64 = 256 * MIB;

/// How many transfers are under way when it is seen what each of those adds that are more. What is there from the first
/// ones on, and what an allocator keeps for each thread, is that of none of them.
struct Load {
    few: u32,
    many: u32,
}

pub(crate) fn measure(table: &mut Table) -> io::Result<()> {
    let one = [
        (
            Deployment::Embedded,
            Load { few: 8, many: 40 },
            4.0,
            ["memory of an upload, folder", "memory of a download, folder"],
        ),
        (
            Deployment::Garage,
            Load { few: 1, many: 4 },
            40.0,
            ["memory of an upload, Garage", "memory of a download, Garage"],
        ),
    ];
    for (deployment, load, most, [up, down]) in one {
        let imgsrv = Imgsrv::start(deployment)?;
        let target = imgsrv.target()?;
        let (_, path) = target.published(&upload(&target, &Noise::new(), 1, EACH)?.digest, EACH)?;
        let downloads = |times| download_many(target.address, &path, times).map(drop);
        table.add(down, each_more(&target, &load, downloads)?, "MiB", Goal::AtMost(most));
        let uploads = |blobs| upload_at_once(&target, blobs, EACH);
        table.add(up, each_more(&target, &load, uploads)?, "MiB", Goal::AtMost(most));
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

fn each_more(target: &Target, load: &Load, transfers: impl Fn(usize) -> io::Result<()>) -> io::Result<f64> {
    let peak = |at_once: u32| {
        let (done, seen) = target.watch.during(|| transfers(at_once as usize));
        done.map(|()| mib(seen.peak_kib))
    };
    let (few, many) = (peak(load.few)?, peak(load.many)?);
    Ok((many - few) / f64::from(load.many - load.few))
}

#[expect(clippy::cast_precision_loss, reason = "it is printed")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
