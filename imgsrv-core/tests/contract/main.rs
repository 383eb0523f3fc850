//! One behaviour suite, run unchanged on every pair of database and store.
//!
//! A trial is named `<pair>::<file>::<behaviour>`; the arguments are those of libtest.

#![allow(clippy::pedantic, clippy::style, clippy::complexity, clippy::perf, reason = "a test is read, not called")]

mod backend;
mod blobs;
mod cancellation;
mod catalog;
mod circuit;
mod collect;
mod errors;
mod faults;
mod fixture;
mod gate;
mod model;
mod projections;
mod publish;
mod races;
mod s3;
mod schema;
mod scrub;
mod sweep;
mod uploads;
mod verify;

use std::pin::Pin;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use backend::{Pair, Servers};
use fixture::Fixture;

type Behaviour = fn(Fixture) -> Pin<Box<dyn Future<Output = Fixture>>>;

/// Lists the behaviours of a file under its name.
#[macro_export]
macro_rules! behaviours {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const BEHAVIOURS: &[(&str, $crate::Behaviour)] = &[
            $((stringify!($name), |fixture| Box::pin(async move { $name(&fixture).await; fixture }))),+
        ];
    };
}

const FILES: &[(&str, &[(&str, Behaviour)])] = &[
    ("blobs", blobs::BEHAVIOURS),
    ("cancellation", cancellation::BEHAVIOURS),
    ("catalog", catalog::BEHAVIOURS),
    ("circuit", circuit::BEHAVIOURS),
    ("collect", collect::BEHAVIOURS),
    ("errors", errors::BEHAVIOURS),
    ("projections", projections::BEHAVIOURS),
    ("publish", publish::BEHAVIOURS),
    ("schema", schema::BEHAVIOURS),
    ("scrub", scrub::BEHAVIOURS),
    ("sweep", sweep::BEHAVIOURS),
    ("uploads", uploads::BEHAVIOURS),
    ("verify", verify::BEHAVIOURS),
];

fn main() {
    let arguments = Arguments::from_args();
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let servers = Servers::default();
    let mut trials = Vec::new();
    let mut add = |name: String, told: Box<dyn FnOnce(&Runtime, &Servers) + Send>| {
        let (runtime, servers) = (Arc::clone(&runtime), servers.clone());
        trials.push(Trial::test(name, move || {
            told(&runtime, &servers);
            Ok(())
        }));
    };
    let behaves = |pair: Pair, behaviour: Behaviour| {
        Box::new(move |runtime: &Runtime, servers: &Servers| {
            runtime.block_on(async { behaviour(Fixture::new(pair, servers).await).await.finish().await });
        })
    };
    for pair in Pair::ALL {
        for (file, behaviours) in FILES {
            for (name, behaviour) in *behaviours {
                add(format!("{pair}::{file}::{name}"), behaves(*pair, *behaviour));
            }
        }
    }
    for (name, race) in races::BEHAVIOURS {
        add(format!("postgres::races::{name}"), behaves(Pair::PostgresFs, *race));
    }
    for (name, kind, pairs, cases) in model::TRIALS {
        for pair in *pairs {
            let told = move |runtime: &Runtime, servers: &Servers| model::run(runtime, servers, *pair, *kind, *cases);
            add(format!("{pair}::model::{name}"), Box::new(told));
        }
    }
    for (pair, name, story) in faults::trials() {
        let told = move |runtime: &Runtime, servers: &Servers| {
            on_a_large_stack(|| runtime.block_on(faults::go_wrong(pair, servers, name, story)));
        };
        add(format!("{pair}::faults::{name}"), Box::new(told));
    }
    let held = |runtime: &Runtime, servers: &Servers| {
        on_a_large_stack(|| runtime.block_on(faults::go_wrong_while_it_is_held(servers)));
    };
    add("sqlite+memory::faults::held_open".to_owned(), Box::new(held));
    let reached = |runtime: &Runtime, servers: &Servers| {
        on_a_large_stack(|| runtime.block_on(faults::no_site_is_left_out(servers)));
    };
    add("sqlite+fs::faults::no_site_is_left_out".to_owned(), Box::new(reached));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(servers);
    conclusion.exit();
}

/// What is told in many ways nests deeper than a thread's stack takes where nothing is optimised.
fn on_a_large_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(32 << 20).spawn_scoped(scope, work).expect("a thread");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
