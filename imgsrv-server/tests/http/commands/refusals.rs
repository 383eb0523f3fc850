//! What cannot be done is told in one line and by a code, before anything is sent.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::{Place, events, names, output};
use crate::server::until;

on_both!(Place: each_refusal_has_its_code, a_token_of_no_use_is_not_tried_again);

async fn each_refusal_has_its_code(place: Place) {
    place.disk("debian-amd64.qcow2", 1, 100_000);
    fs::write(place.path("notes.txt"), "text").expect("written");
    fs::write(place.path("fake.qcow2"), "text").expect("written");
    fs::create_dir(place.path("folder")).expect("a folder");
    let pipe = std::process::Command::new("mkfifo").arg(place.path("pipe.raw")).status();
    assert!(pipe.expect("mkfifo").success());
    let to = "--image demo --version 1";
    let good = format!("push debian-amd64.qcow2 {to}");
    let before = place.relay.up.passed();
    for (code, line, says) in [
        (1, format!("push nothing.qcow2 {to}"), "nothing.qcow2"),
        (2, format!("push {to} --os linux --arch amd64 --format raw folder"), "folder"),
        (2, format!("push notes.txt {to}"), "--format"),
        (2, format!("push fake.qcow2 {to}"), "--format"),
        (2, format!("push notes.txt {to} --format raw"), "--os"),
        (2, format!("push notes.txt {to} --format raw --os linux"), "--arch"),
        (2, format!("push debian-amd64.qcow2 debian-amd64.qcow2 {to}"), "two files"),
        (2, format!("{good} --attach a=notes.txt --attach a=notes.txt"), "twice"),
        (2, "push debian-amd64.qcow2 --image Demo --version 1".to_owned(), "--image"),
        (2, format!("{good} --part-size 4"), "--part-size"),
        (2, format!("{good} --draft --alias latest"), "--draft"),
        (2, "show demo --server example.org".to_owned(), "URL"),
        (2, "show demo --server http://".to_owned(), "URL"),
        (2, "show demo --server http://127.0.0.1:1/?x".to_owned(), "URL"),
        (2, format!("push pipe.raw {to} --os linux --arch amd64"), "not a file"),
        (2, format!("{good} --attach a=pipe.raw"), "not a file"),
        (1, format!("{good} --attach a=nothing"), "nothing"),
        (2, "pull demo:".to_owned(), "version or alias"),
        (3, format!("{good} --token nothing"), "token"),
        (3, format!("{good} --token {}", place.server().token.as_deref().expect("a token")), "--new-publisher"),
        (4, "show nothing".to_owned(), "nothing"),
        (4, "versions nothing".to_owned(), "nothing"),
        (4, "pull nothing".to_owned(), "nothing"),
        (4, "alias set nothing latest 1".to_owned(), "nothing"),
        (4, "jobs show 0b6ff5c5-3b0d-4f0e-9d0e-2f4f3a9c0e11".to_owned(), "0b6ff5c5"),
        (6, "images --server http://127.0.0.1:1 --retry-for 0".to_owned(), "127.0.0.1:1"),
    ] {
        let said = place.refused(code, &line);
        assert!(said.contains(says), "{line}: {said}");
        assert!(!said.contains(&place.token), "{line}: {said}");
    }
    assert!(place.relay.up.passed() - before < 50_000, "nothing is sent for nothing");
    assert_eq!(place.writer().get("/v1/images").await.ok()["images"], Value::Array(Vec::new()));

    let output = output(&mut place.command("show nothing --json"));
    let told = events(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(names(&told), ["failed"]);
    assert_eq!((&told[0]["code"], &told[0]["problem"]["type"]), (&4.into(), &"urn:imgsrv:problem:not-found".into()));

    // Nobody is left to hear it: what was asked for is done all the same.
    for line in [format!("{good} --draft"), "images".to_owned(), "show demo:1".to_owned()] {
        let mut command = place.command(&line);
        let mut command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        drop((command.stdout.take(), command.stderr.take()));
        assert!(command.wait().expect("its end").success(), "{line}");
    }

    // The alias that is asked for may not be the version's.
    place.run(&format!("{good} --alias latest"));
    place.run("alias set demo stable 1");
    assert_eq!(place.run("alias remove demo stable"), "");
    place.refused(4, "alias remove demo stable");
    place.refused(4, "alias set demo latest 2");
}

async fn a_token_of_no_use_is_not_tried_again(place: Place) {
    place.disk("debian-amd64.qcow2", 1, 1000);
    let guess = place.server().anonymous().with_token("nothing".to_owned());
    until("it is too much", async || guess.get("/v1/uploads").await.status == 429).await;
    // It stays too much.
    let guessing = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            guess.get("/v1/uploads").await;
        }
    }));
    let push = "push debian-amd64.qcow2 --image demo --version 1";
    let said = place.refused(3, &format!("{push} --token nothing --retry-for 0"));
    // Once a second it is told what it would be told at first.
    assert!(said.contains("of no use") || said.contains("is not valid"), "{said}");
    // Whoever has one, at the same address, notices nothing of it.
    place.run(push);
    drop(guessing);
}
