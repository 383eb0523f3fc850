//! A store that is away: jobs wait for it, and nobody hammers it.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, bytes};

crate::behaviours!(jobs_wait_for_a_store_that_is_away, a_stop_does_not_wait_for_a_store_that_is_away);

/// Blobs, of each of which somebody wants to know whether it is whole.
async fn queue_checks(f: &Fixture, count: i64) {
    let now = f.clock.now().to_rfc3339_opts(SecondsFormat::AutoSi, false);
    for seed in 0..count {
        let digest = f.upload(&bytes(seed as u64, 10)).await;
        let id = f.clock.new_id();
        let id = if f.pair.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) };
        let job = format!(
            "insert into jobs (id, kind, subject, available_at, attempts, crashes, created_at, updated_at) \
             values ({id}, 'check-blob', '{digest}', '{now}', 0, 0, '{now}', '{now}')"
        );
        assert_eq!(f.sql(&job).await.expect("a job"), 1);
    }
}

const TRIED: &str = "select count(*) from jobs where kind = 'check-blob' and attempts > 0";
const DONE: &str = "select count(*) from jobs where kind = 'check-blob' and outcome = 'succeeded'";

async fn jobs_wait_for_a_store_that_is_away(f: &Fixture) {
    const JOBS: i64 = 200;
    queue_checks(f, JOBS).await;
    f.gate.be_away(true);
    let stop = CancellationToken::new();
    let nodes = [&f.engine, &f.other].map(|node| {
        let (node, stop) = (node.clone(), stop.clone());
        tokio::spawn(async move { node.run(stop).await })
    });
    // A job asks once; whether the store is away takes two questions. So both nodes have waited for it more than once.
    let asked = f.wait_until(async || f.gate.turned_away() >= 12);
    timeout(Duration::from_secs(60), asked).await.expect("the store is asked again and again");
    let tried = f.count(TRIED).await;
    let most = 2 * f.engine.settings().workers as i64;
    assert!((1..=most).contains(&tried), "{tried} jobs were claimed for a store that is away");
    assert!(f.gate.turned_away() < 30, "{} questions", f.gate.turned_away());
    assert_eq!(f.count(DONE).await, 0);

    f.gate.be_away(false);
    // Those that were tried wait for their time.
    f.clock.advance(TimeDelta::minutes(1));
    let done = f.wait_until(async || f.count(DONE).await == JOBS);
    timeout(Duration::from_secs(60), done).await.expect("all are done when it is back");
    stop.cancel();
    for node in nodes {
        node.await.expect("no panic");
    }
}

async fn a_stop_does_not_wait_for_a_store_that_is_away(f: &Fixture) {
    queue_checks(f, 5).await;
    f.gate.be_away(true);
    let stop = CancellationToken::new();
    let node = tokio::spawn({
        let (node, stop) = (f.engine.clone(), stop.clone());
        async move { node.run(stop).await }
    });
    f.wait_until(async || f.gate.turned_away() >= 4).await;
    stop.cancel();
    timeout(Duration::from_secs(60), node).await.expect("it ends while the store is away").expect("no panic");
    assert_eq!(f.count("select count(*) from jobs where lease is not null").await, 0, "leases are given back");
    f.gate.be_away(false);
    f.clock.advance(TimeDelta::minutes(1));
    f.engine.run_until_idle().await.expect("jobs");
    assert_eq!(f.count(DONE).await, 5);
}
