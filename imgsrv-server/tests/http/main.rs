//! Stories told to the built program over TCP, on the embedded default where nothing else is said: SQLite and a folder.
//! One file a noun of the API; `server` is what they are told with.

#![allow(clippy::pedantic, clippy::style, clippy::complexity, clippy::perf, reason = "a test is read, not called")]

/// Makes two tests of each story, an `async fn` that takes where it is told: `embedded::…` and `services::…`.
macro_rules! on_both {
    ($place:ident: $($story:ident),+ $(,)?) => {
        on_both!(embedded $place: $($story),+);
        on_both!(services $place: $($story),+);
    };
    ($deployment:ident $place:ident: $($story:ident),+) => {
        mod $deployment {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(super::$place::$deployment().await).await;
            })+
        }
    };
}

mod aliases;
mod at_once;
mod attempts;
mod authorization;
mod bad_input;
mod bootstrap;
mod caching;
mod capacity;
mod catalog;
mod commands;
mod connections;
mod consumers;
mod crash;
mod directories;
mod disk;
mod downloads;
mod durability;
mod explain;
mod health;
mod hostile;
mod identity;
mod jobs;
mod lists;
mod nodes;
mod outage;
mod parts;
mod postgres;
mod problems;
mod publishing;
mod ranges;
mod repeated;
mod requests;
mod server;
mod sessions;
mod stopping;
mod streams;
mod sweeping;
mod tls;
mod uploads;
mod vanished;
mod visibility;
