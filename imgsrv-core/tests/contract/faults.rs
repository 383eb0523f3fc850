//! Something goes wrong between any two effects: afterwards everything is as if nothing had.
//!
//! Each story is told once undisturbed, and then again for every site that it passes, for each time that it passes it,
//! and for each way in which that can go wrong; and for each of its requests, made twice. Its client repeats what was
//! not answered, as clients do. In the end the catalogue and the objects must be those of the undisturbed run.

mod client;
mod outcome;
mod stories;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use imgsrv_core::testing::{Fault, FaultPlan, SITES};

use crate::backend::{Pair, Servers};
use client::Client;
use outcome::Outcome;
use stories::{STORIES, Story, held_open};

/// What goes wrong, without killing the process that tells of it.
const FAULTS: &[Fault] = &[Fault::Before, Fault::After, Fault::Delay, Fault::Away];

/// How many of all the ways are tried where all would take too long; `IMGSRV_TEST_FAULTS` is another number, or `all`.
const SAMPLE: usize = 4;

/// A site that is passed more often than this is one in a loop: the store is listed in 256 pieces.
const LOOP: u32 = 16;

/// One way in which a story goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Undisturbed,
    Disturbed(&'static str, u32, Fault),
    /// Its nth request is made twice.
    Repeated(u32),
}

struct Told {
    outcome: Outcome,
    passed: BTreeMap<&'static str, u32>,
    requests: u32,
}

async fn tell(pair: Pair, servers: &Servers, story: Story, way: Way) -> Told {
    let (plan, twice) = match way {
        Way::Undisturbed => (FaultPlan::none(), None),
        Way::Disturbed(site, nth, fault) => (FaultPlan::new(site, nth, fault), None),
        Way::Repeated(nth) => (FaultPlan::none(), Some(nth)),
    };
    let client = Client::new(pair, servers, plan, twice).await;
    story(&client).await;
    let (passed, requests) = (client.plan.passed(), client.requests());
    Told { outcome: client.end().await, passed, requests }
}

/// The behaviours of this file: each story on each pair.
pub(crate) fn trials() -> impl Iterator<Item = (Pair, &'static str, Story)> {
    Pair::ALL.iter().flat_map(|pair| STORIES.iter().map(|(name, story)| (*pair, *name, *story)))
}

/// Tells a story in every way; in some of them where there is a real disk or network behind it.
pub(crate) async fn go_wrong(pair: Pair, servers: &Servers, name: &str, story: Story) {
    let undisturbed = tell(pair, servers, story, Way::Undisturbed).await;
    let mut ways = Vec::new();
    for (site, times) in &undisturbed.passed {
        for nth in worth_trying(*times) {
            ways.extend(FAULTS.iter().map(|fault| Way::Disturbed(site, nth, *fault)));
        }
    }
    ways.extend((1..=undisturbed.requests).map(Way::Repeated));
    let all = ways.len();
    let seed = setting("IMGSRV_TEST_SEED").map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
    if pair != Pair::SqliteMemory && setting("IMGSRV_TEST_FAULTS").as_deref() != Some("all") {
        let sample = setting("IMGSRV_TEST_FAULTS").map_or(SAMPLE, |count| count.parse().expect("a number, or all"));
        fastrand::Rng::with_seed(seed).shuffle(&mut ways);
        ways.truncate(sample);
    }
    println!("{pair}: {name}: {} of {all} ways, IMGSRV_TEST_SEED={seed}", ways.len());
    for way in ways {
        let told = tell(pair, servers, story, way).await;
        assert_eq!(told.outcome, undisturbed.outcome, "{name}: {way:?}");
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Each time that a site is passed; of a loop the first ones, the last ones and some between.
fn worth_trying(times: u32) -> BTreeSet<u32> {
    if times <= LOOP {
        return (1..=times).collect();
    }
    let between = std::iter::repeat_with(|| fastrand::u32(1..=times)).take(4);
    (1..=4).chain(times - 3..=times).chain(between).collect()
}

/// A session is held open for half a minute: too long to be told in every way.
pub(crate) async fn go_wrong_while_it_is_held(servers: &Servers) {
    const SITE: &str = "hold_upload";
    let undisturbed = tell(Pair::SqliteMemory, servers, held_open, Way::Undisturbed);
    let ways = FAULTS.iter().map(|fault| tell(Pair::SqliteMemory, servers, held_open, Way::Disturbed(SITE, 1, *fault)));
    let (undisturbed, told) = futures_util::join!(undisturbed, join_all(ways));
    assert_eq!(undisturbed.passed.get(SITE), Some(&1));
    for (told, fault) in told.iter().zip(FAULTS) {
        assert_eq!(told.outcome, undisturbed.outcome, "{fault:?}");
    }
}

/// Every transaction and every call of the store is a site, and every site is passed by some story.
pub(crate) async fn no_site_is_left_out(servers: &Servers) {
    let mut passed = BTreeMap::from([("hold_upload", 1)]);
    for (_, story) in STORIES {
        passed.extend(tell(Pair::SqliteFs, servers, *story, Way::Undisturbed).await.passed);
    }
    assert_eq!(passed.into_keys().collect::<Vec<_>>(), SITES);
}
