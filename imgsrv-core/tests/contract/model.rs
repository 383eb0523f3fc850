//! Random operations on two nodes of one database, compared with a model of a few maps.
//!
//! The model (`state.rs`) knows what each operation must say and what must be so afterwards; the nodes are asked the same
//! (`world.rs`), and everything that they and their database tell is compared (`observe.rs`). Two operations at once must
//! come to what they come to in one order or the other; nodes are killed while they are at it; and a blob that somebody
//! relies on is never missing, unless it was the test that broke it.
//!
//! `IMGSRV_TEST_SEED` and `IMGSRV_TEST_MODEL_CASES` choose other cases, and more. `IMGSRV_TEST_MODEL_SECONDS` goes on with
//! ever new ones for so long, where nodes are killed.

mod observe;
mod operation;
mod state;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::backend::{Pair, Servers};
use crate::fixture::Fixture;
use operation::{Kind, Move, moves};
use world::{Told, World};

/// What is tried, where, and how often.
pub(crate) const TRIALS: &[(&str, Kind, &[Pair], u64)] = &[
    ("one_operation_after_another", Kind::OneAfterAnother, &[Pair::SqliteMemory, Pair::SqliteFs, Pair::PostgresFs], 6),
    ("two_operations_at_once", Kind::TwoAtOnce, &[Pair::SqliteFs, Pair::PostgresFs], 4),
    ("nodes_that_are_killed", Kind::WithCrashes, &[Pair::SqliteFs, Pair::PostgresFs, Pair::PostgresS3], 2),
];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Plays random moves on a pair; the message tells how to play the same ones again, and the fewest that still differ.
pub(crate) fn run(runtime: &Runtime, servers: &Servers, pair: Pair, kind: Kind, cases: u64) {
    let first = setting("IMGSRV_TEST_SEED").unwrap_or(1);
    let seconds = setting("IMGSRV_TEST_MODEL_SECONDS").filter(|_| kind == Kind::WithCrashes);
    // A server's database takes its time to be made, and to be asked.
    let cases =
        setting("IMGSRV_TEST_MODEL_CASES").unwrap_or(if pair.is_postgres() { cases.div_ceil(2) } else { cases });
    let (begun, mut sum) = (Instant::now(), Sum::default());
    for seed in first.. {
        let is_over = match seconds {
            Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
            None => seed >= first + cases,
        };
        if is_over {
            break;
        }
        if let Err(why) = case(runtime, servers, pair, kind, seed, &mut sum) {
            panic!("with IMGSRV_TEST_SEED={seed} IMGSRV_TEST_MODEL_CASES=1, {kind:?} on {pair}: {why}");
        }
    }
    if seconds.is_some() {
        println!("{pair} {kind:?} from seed {first}: {sum:?}");
    }
}

fn case(runtime: &Runtime, servers: &Servers, pair: Pair, kind: Kind, seed: u64, sum: &mut Sum) -> Result<(), String> {
    // What depends on the moment of a crash does not come back when it is tried with less.
    let max_shrink_iters = if kind == Kind::OneAfterAnother { 300 } else { 0 };
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (sum, reached) = (Mutex::new(sum), AtomicUsize::new(0));
    let played = runner.run(&moves(kind), |moves| {
        let told = runtime.block_on(play(servers, pair, kind, &moves, &reached));
        sum.lock().map_err(|_| TestCaseError::fail("a panic"))?.add(told);
        Ok(())
    });
    played.map_err(|err| match err {
        TestError::Fail(why, moves) => {
            let made = moves.iter().take(reached.into_inner());
            let listed: Vec<_> = made.map(|a_move| format!("\n  {a_move:?}")).collect();
            format!("{why}\nafter these moves:{}", listed.concat())
        }
        TestError::Abort(why) => why.to_string(),
    })
}

/// Tells how many moves were made when one of them failed; those behind it do not matter.
struct Made<'a>(usize, &'a AtomicUsize);

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(self.0, Ordering::Relaxed);
        }
    }
}

async fn play(servers: &Servers, pair: Pair, kind: Kind, moves: &[Move], reached: &AtomicUsize) -> (Told, [i64; 4]) {
    let f = Fixture::new(pair, servers).await;
    let mut made = Made(0, reached);
    let told = {
        let mut world = World::new(&f, kind == Kind::WithCrashes).await;
        for a_move in moves {
            made.0 += 1;
            world.make(a_move).await;
        }
        world.end().await;
        world.told
    };
    let mut events = [0; 4];
    for (count, what) in events.iter_mut().zip(["condemned", "revived", "deleted", "published"]) {
        let subject = if what == "published" { "version" } else { "blob" };
        *count = f.count(&format!("select count(*) from events where subject = '{subject}' and what = '{what}'")).await;
    }
    if kind == Kind::WithCrashes {
        // Who was killed in the middle of an object may have left it unfinished for ever.
        f.nothing_left().await;
    } else {
        f.finish().await;
    }
    (told, events)
}

/// What came of all cases.
#[derive(Debug, Default)]
struct Sum {
    cases: u64,
    operations: usize,
    crashes: usize,
    cut_off: usize,
    in_order: usize,
    mingled: usize,
    blobs_condemned: i64,
    blobs_revived: i64,
    blobs_deleted: i64,
    published: i64,
}

impl Sum {
    fn add(&mut self, (told, [condemned, revived, deleted, published]): (Told, [i64; 4])) {
        self.cases += 1;
        self.operations += told.operations;
        self.crashes += told.crashes;
        self.cut_off += told.cut_off;
        self.in_order += told.in_order;
        self.mingled += told.mingled;
        self.blobs_condemned += condemned;
        self.blobs_revived += revived;
        self.blobs_deleted += deleted;
        self.published += published;
    }
}
