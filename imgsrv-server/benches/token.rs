//! What it takes to know who is asking: `cargo bench -p imgsrv-server --bench token`.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, reason = "a program of one page")]

use std::sync::LazyLock;

use divan::Bencher;
use imgsrv_core::Engine;
use imgsrv_server::auth::{Authenticator, DatabaseAuthenticator, issue_bootstrap_token};
use poem::http::HeaderMap;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn main() {
    divan::main();
}

/// A valid token, and one of nobody, whose check must not take longer.
#[divan::bench(args = [true, false])]
fn a_token_that_is_valid(bencher: Bencher, valid: bool) {
    let engine = RUNTIME.block_on(Engine::in_memory()).unwrap();
    let token = RUNTIME.block_on(issue_bootstrap_token(&engine)).unwrap();
    let mut text = token.reveal();
    if !valid {
        text.replace_range(text.len() - 4.., "0000");
    }
    let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), format!("Bearer {text}").parse().unwrap())]);
    let authenticator = DatabaseAuthenticator::new(engine);
    bencher.bench(|| RUNTIME.block_on(authenticator.authenticate(&headers)).is_ok());
}
