//! Credentials that are of no use, again and again.

use reqwest::StatusCode;

use crate::server::{Api, Server};

/// More than the server takes at once, even if it takes some time.
const MANY: usize = 1000;

/// A token as the server's, but nobody's.
fn guess(number: usize) -> String {
    format!("imgsrv_at_{}_{number:064x}", "0".repeat(32))
}

/// Guesses until that is too much; how many were answered as one would be.
async fn guess_until_too_many(guesser: &Api, path: &str) -> usize {
    for number in 0..MANY {
        let answer = guesser.with_token(guess(number)).get(path).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let problem = answer.problem(429, "too-many-attempts");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("this address")), "{problem}");
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
            return number;
        }
        answer.problem(401, "unauthorized");
    }
    panic!("{MANY} guesses were not too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_is_told_to_wait_and_nobody_else_is() {
    let server = Server::start();
    let writer = server.writer().await;
    writer.draft("debian", "1.0", b"draft").await;
    let guesser = server.anonymous();
    let guessed = guess_until_too_many(&guesser, "/v1/uploads").await;
    assert!(guessed >= 100, "whoever mistypes has a hundred tries, not {guessed}");

    let wrong = guesser.with_token(guess(0));
    for malformed in ["Basic dXNlcjpwYXNz", "Bearer", "garbage"] {
        let answer = guesser.get_with("/v1/auth/roles", &[("authorization", malformed)]).await;
        answer.problem(429, "too-many-attempts");
    }
    // Who has a token is never held up, and who has none is told so.
    for _ in 0..20 {
        writer.get("/v1/uploads").await.ok();
    }
    guesser.get("/v1/uploads").await.problem(401, "unauthorized");
    server.manager().get("/v1/uploads").await.problem(403, "forbidden");
    // Where none is needed, it makes no difference; drafts stay what they are.
    assert_eq!(wrong.get("/v1/images").await.ok(), guesser.get("/v1/images").await.ok());
    wrong.get("/v1/images/debian/versions?state=draft").await.problem(429, "too-many-attempts");
    wrong.at([127, 2, 2, 2]).get("/v1/uploads").await.problem(401, "unauthorized");

    let log = server.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("from one address")).collect();
    assert!(told.len() == 1 && told[0].contains("127.0.0.1"), "once: {told:?}");
    assert!(!log.contains("imgsrv_at_"), "no token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_count_where_no_token_is_needed_too() {
    let server = Server::start();
    let guesser = server.anonymous();
    for number in 0..200 {
        guesser.with_token(guess(number)).get("/v1/images").await.ok();
    }
    guesser.with_token(guess(0)).get("/v1/uploads").await.problem(429, "too-many-attempts");
}
