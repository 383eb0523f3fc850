//! What was not read in a month is read again, at leisure.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use imgsrv_core::model::{BlobState, Digest};
use imgsrv_core::{Engine, Settings, Verdict};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, bytes};

crate::behaviours!(
    what_was_not_read_in_a_month_is_read_again,
    two_nodes_scrub_different_blobs,
    a_scrub_keeps_to_its_pace,
    a_running_node_scrubs_when_it_is_told_to,
);

const MONTH: TimeDelta = TimeDelta::days(30);

async fn next(engine: &Engine) -> Option<(Digest, Verdict)> {
    engine.scrub_next().await.expect("a verdict")
}

/// Changes a blob's only object, as a disk may.
async fn rot(f: &Fixture, digest: &Digest) {
    let objects = f.engine.blob_objects(digest).await.expect("objects");
    let size = usize::try_from(objects[0].size).expect("a size");
    f.store.write(&objects[0].key, vec![0; size]).await.expect("other bytes");
}

async fn node(f: &Fixture, rate: u64) -> Engine {
    let scrub_rate = Some(NonZeroU64::new(rate).expect("a rate"));
    let settings =
        Settings { scrub_rate, min_free: 0, poll_interval: Duration::from_millis(10), ..Settings::default() };
    f.builder().settings(settings).build().await.expect("a node")
}

async fn what_was_not_read_in_a_month_is_read_again(f: &Fixture) {
    let first = f.upload(&bytes(1, 100)).await;
    f.clock.advance(TimeDelta::hours(1));
    let second = f.upload(&bytes(2, 100)).await;
    f.clock.advance(MONTH - TimeDelta::hours(1) - TimeDelta::microseconds(1));
    assert_eq!(next(&f.engine).await, None);
    f.clock.advance(TimeDelta::hours(1) + TimeDelta::microseconds(1));
    rot(f, &second).await;
    assert_eq!(next(&f.engine).await, Some((first.clone(), Verdict::Whole)));
    let found = Digest::of(&[0; 100]);
    assert_eq!(next(&f.engine).await, Some((second.clone(), Verdict::Different { found })));
    assert_eq!(f.blob_state(&second).await, BlobState::Quarantined);
    assert_eq!(next(&f.engine).await, None);
    f.clock.advance(MONTH);
    assert_eq!(next(&f.other).await, Some((first, Verdict::Whole)));
    f.tidy().await;
}

async fn two_nodes_scrub_different_blobs(f: &Fixture) {
    let both = [f.upload(&bytes(3, 100)).await, f.upload(&bytes(4, 100)).await];
    f.clock.advance(MONTH);
    let (one, other) = tokio::join!(next(&f.engine), next(&f.other));
    let (one, other) = (one.expect("a blob").0, other.expect("a blob").0);
    assert!(one != other && both.contains(&one) && both.contains(&other));
    f.tidy().await;
}

async fn a_scrub_keeps_to_its_pace(f: &Fixture) {
    let (size, rate) = (300_000, 1_000_000);
    let digest = f.upload(&bytes(5, size)).await;
    f.clock.advance(MONTH);
    let (node, begun) = (node(f, rate).await, Instant::now());
    assert_eq!(next(&node).await, Some((digest, Verdict::Whole)));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    f.tidy().await;
}

async fn a_running_node_scrubs_when_it_is_told_to(f: &Fixture) {
    let digest = f.upload(&bytes(6, 100)).await;
    f.clock.advance(MONTH);
    rot(f, &digest).await;
    let (node, stop) = (node(f, 1 << 20).await, CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { node.run(stop).await }
    });
    f.wait_until(async || f.blob_state(&digest).await == BlobState::Quarantined).await;
    stop.cancel();
    running.await.expect("no panic");
    f.tidy().await;
}
