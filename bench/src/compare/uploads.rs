//! Bytes that come in.

use std::io;
use std::time::{Duration, Instant};

use imgsrv_core::testing::Garage;

use super::table::{Goal, RATIO, Table};
use super::{in_turn, many_parts, settle};
use crate::api::digest;
use crate::http::Connection;
use crate::latency::ms;
use crate::rivals::{Presigned, Registry, bare};
use crate::scenario::{GIB, MIB, Noise, mb_per_s, upload, upload_parallel};
use crate::server::{Deployment, Imgsrv};

pub(crate) fn measure(table: &mut Table, rounds: u32) -> io::Result<()> {
    one_stream(table, rounds)?;
    completing(table, rounds)
}

fn one_stream(table: &mut Table, rounds: u32) -> io::Result<()> {
    let imgsrv = Imgsrv::start(Deployment::Embedded)?;
    let (target, registry, garage) = (imgsrv.target()?, Registry::start()?, Garage::start()?);
    garage.create_bucket("bench")?;
    let presigned = Presigned::of(&garage, "bench")?;
    let garage_address = garage.endpoint().parse().map_err(io::Error::other)?;
    let folder = tempfile::tempdir()?;
    let bare = bare(folder.path())?;
    let mut noise = Noise::new();
    let [ours, theirs, s3, least] = in_turn(rounds, |round| {
        noise.another();
        let whole = digest(&noise.body(GIB), 1);
        let ours = upload(&target, &noise, 1, GIB)?;
        settle();
        let theirs = time(|| registry.put(&whole, &noise.body(GIB)))?;
        let path = presigned.put(&format!("object-{round}"))?;
        settle();
        let s3 = time(|| Connection::to(garage_address)?.ask("PUT", &path, "", &noise.body(GIB)))?;
        settle();
        let least = time(|| Connection::to(bare.address)?.ask("PUT", "/", "", &noise.body(GIB)))?;
        let rate = |took| mb_per_s(GIB, took);
        Ok([rate(ours.sending + ours.completing), rate(theirs), rate(s3), rate(least)])
    })?;
    table.add("upload of 1 GiB, one stream", ours, "MB/s", Goal::None);
    table.add("the same to docker-registry", theirs, "MB/s", Goal::None);
    table.add("the same to Garage, which does not wait for the disk here", s3, "MB/s", Goal::None);
    table.add("the same to a loop that receives, hashes, writes and syncs", least, "MB/s", Goal::None);
    table.add("upload, beside docker-registry", ours / theirs, RATIO, Goal::AtLeast(3.2));
    table.add("upload, beside the bare loop", ours / least, RATIO, Goal::AtLeast(0.85));
    Ok(())
}

fn completing(table: &mut Table, rounds: u32) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let imgsrv = Imgsrv::start_in(folder.path(), Deployment::Embedded)?;
    let target = imgsrv.target()?;
    let mut noise = Noise::new();
    let [few, parts, most, parallel] = in_turn(rounds, |_| {
        noise.another();
        let few = upload(&target, &noise, 8, 8 * MIB)?;
        noise.another();
        let parallel = upload_parallel(&target, &noise, 4, 16, 64 * MIB)?;
        noise.another();
        // 200 parts make 4 GiB, about.
        let parts = upload(&target, &noise, 200, 20 * MIB)?;
        noise.another();
        let most = many_parts::complete(&mut target.publisher()?, folder.path(), &noise)?;
        Ok([
            ms(few.completing),
            ms(parts.completing),
            ms(most),
            parallel.completing.as_secs_f64() / parallel.pass.as_secs_f64(),
        ])
    })?;
    table.add("complete to ready, 8 parts in order, 64 MiB", few, "ms", Goal::AtMost(50.0));
    table.add("complete to ready, 200 parts in order, 4 GiB", parts, "ms", Goal::AtMost(50.0));
    table.add("complete to ready, 10,000 parts in order", most, "ms", Goal::AtMost(500.0));
    table.add("complete to ready, 16 parts at once, beside one pass of SHA-256", parallel, RATIO, Goal::AtMost(1.2));
    Ok(())
}

fn time<T>(what: impl FnOnce() -> io::Result<T>) -> io::Result<Duration> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed())
}
