//! Bytes that go out.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;

use super::in_turn;
use super::table::{Goal, RATIO, Table};
use crate::api::digest;
use crate::rivals::{Nginx, Presigned, Registry};
use crate::scenario::{GIB, Noise, cpu_per_gib, download, mb_per_s, upload};
use crate::server::{Deployment, Imgsrv};
use crate::watch::Watch;

pub(crate) fn measure(table: &mut Table, rounds: u32) -> io::Result<()> {
    from_files(table, rounds)?;
    let names = ["download of 1 GiB through Garage", "the same from Garage itself", "download, beside Garage itself"];
    through_s3(table, rounds, Deployment::Garage, names)?;
    let names = [
        "download of 1 GiB through a Garage that keeps its memory",
        "the same from that Garage itself",
        "download, beside that Garage itself",
    ];
    through_s3(table, rounds, Deployment::TunedGarage, names)
}

fn from_files(table: &mut Table, rounds: u32) -> io::Result<()> {
    let imgsrv = Imgsrv::start(Deployment::Embedded)?;
    let (target, noise) = (imgsrv.target()?, Noise::new());
    let (_, path) = target.published(&upload(&target, &noise, 1, GIB)?.digest, GIB)?;
    let registry = Registry::start()?;
    let blob = registry.put(&digest(&noise.body(GIB), 1), &noise.body(GIB))?;
    let (on, off) = (Nginx::start(true)?, Nginx::start(false)?);
    let mut file = File::create(on.root().join("disk"))?;
    noise.body(GIB).pieces(|bytes| file.write_all(bytes))?;
    // The same pages for both.
    std::os::unix::fs::symlink(on.root().join("disk"), off.root().join("disk"))?;

    let (on_watch, off_watch, registry_watch) = (on.program.watch(), off.program.watch(), registry.program.watch());
    let [ours, our_cpu, sendfile, sendfile_cpu, plain, plain_cpu, theirs] = in_turn(rounds, |_| {
        let [ours, our_cpu] = once(target.address, &path, &target.watch)?;
        let [sendfile, sendfile_cpu] = once(on.program.address, "/disk", &on_watch)?;
        let [plain, plain_cpu] = once(off.program.address, "/disk", &off_watch)?;
        let [theirs, _] = once(registry.program.address, &blob, &registry_watch)?;
        Ok([ours, our_cpu, sendfile, sendfile_cpu, plain, plain_cpu, theirs])
    })?;
    table.add("download of 1 GiB, one stream", ours, "MB/s", Goal::None);
    table.add("the same from nginx, sendfile on", sendfile, "MB/s", Goal::None);
    table.add("the same from nginx, sendfile off", plain, "MB/s", Goal::None);
    table.add("the same from docker-registry", theirs, "MB/s", Goal::None);
    let (best, best_cpu) = if sendfile > plain { (sendfile, sendfile_cpu) } else { (plain, plain_cpu) };
    table.add("download, beside the better nginx", ours / best, RATIO, Goal::AtLeast(0.9));
    table.add("download, beside docker-registry", ours / theirs, RATIO, Goal::AtLeast(1.5));
    table.add("processor for a download", our_cpu, "s/GiB", Goal::None);
    table.add("processor for a download, beside the better nginx", our_cpu / best_cpu, RATIO, Goal::AtMost(1.5));
    Ok(())
}

fn through_s3(table: &mut Table, rounds: u32, deployment: Deployment, names: [&'static str; 3]) -> io::Result<()> {
    let imgsrv = Imgsrv::start(deployment)?;
    let (target, noise) = (imgsrv.target()?, Noise::new());
    let (_, path) = target.published(&upload(&target, &noise, 1, GIB)?.digest, GIB)?;
    let Some(garage) = &imgsrv.garage else { return Err(io::Error::other("Garage was not started")) };
    let presigned = Presigned::of(garage, "imgsrv")?;
    let address = garage.endpoint().parse().map_err(io::Error::other)?;
    let object = presigned.get(&presigned.only_object()?)?;
    let [ours, theirs] = in_turn(rounds, |_| {
        let [ours, _] = once(target.address, &path, &target.watch)?;
        let [theirs, _] = once(address, &object, &target.watch)?;
        Ok([ours, theirs])
    })?;
    let [name, of_garage, beside_it] = names;
    table.add(name, ours, "MB/s", Goal::None);
    table.add(of_garage, theirs, "MB/s", Goal::None);
    table.add(beside_it, ours / theirs, RATIO, Goal::AtLeast(0.9));
    Ok(())
}

/// How fast it was, and what processor it took.
fn once(address: SocketAddr, path: &str, watch: &Watch) -> io::Result<[f64; 2]> {
    let (bytes, seen) = watch.during(|| download(address, path));
    let bytes = bytes?;
    Ok([mb_per_s(bytes, seen.took), cpu_per_gib(bytes, seen)])
}
