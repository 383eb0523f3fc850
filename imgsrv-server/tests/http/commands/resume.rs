//! What was interrupted goes on where it was, wherever it is taken up.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::relay::Relay;
use super::{Place, event, events, names, same, spawn, succeeded};
use crate::server::{bytes, digest, program};

on_both!(
    Place: a_push_goes_on, a_pull_goes_on, an_upload_that_another_program_began_goes_on,
    an_upload_cut_in_no_even_way_is_begun_again, an_upload_that_ended_is_begun_again,
    an_upload_completed_by_somebody_else_is_waited_for, pushes_of_one_file_help_each_other,
    a_file_that_changes_is_not_sent_to_its_end,
);

/// How large a file is pushed; `.ci/run` says 4096.
fn size() -> u64 {
    std::env::var("IMGSRV_TEST_PUSH_MIB").map_or(300, |text| text.parse::<u64>().expect("a number")) << 20
}

const PARTS: u64 = 128;
const PARALLEL: u64 = 4;

/// What goes up beside the bytes of parts.
const WORDS: u64 = 1 << 20;

/// A large file, of which no two parts are the same.
fn make(place: &Place, file: &str) {
    let mut disk = File::create(place.path(file)).expect("a file");
    disk.set_len(size()).expect("a size");
    for (number, offset) in (0..size()).step_by(1 << 20).enumerate() {
        disk.seek(SeekFrom::Start(offset)).expect("a place");
        disk.write_all(&bytes(number as u64, 4096)).expect("written");
    }
    disk.seek(SeekFrom::Start(0)).expect("a place");
    disk.write_all(b"QFI\xfb").expect("written");
}

/// The server is killed at 60 % of it, and soon after that the client. Then another machine, which has the file under
/// another name, and nothing else, goes on.
async fn a_push_goes_on(mut place: Place) {
    make(&place, "debian-amd64.qcow2");
    let part = (size() / PARTS).next_multiple_of(1 << 20).max(5 << 20);
    let under_way = PARALLEL * part;
    let flags = format!("--image demo --version 1 --json --parallel {PARALLEL} --part-size {}", part >> 20);
    let mut first = spawn(place.command(&format!("push debian-amd64.qcow2 {flags}")));

    place.relay.up.let_pass(size() * 6 / 10).await;
    place.crash();
    // It goes on with the server that comes after, by a part at least.
    place.relay.up.let_pass(under_way).await;
    first.kill().expect("killed");
    first.wait().expect("its end");
    let sent = place.relay.up.passed();
    place.relay.up.open();
    // What is still on its way is not counted as the other machine's.
    place.relay = Relay::before(place.server().address()).await;

    fs::rename(place.path("debian-amd64.qcow2"), place.path("disk")).expect("renamed");
    let second = spawn(place.command(&format!("push disk --os linux --arch amd64 {flags}")));
    let output = tokio::task::spawn_blocking(|| second.wait_with_output()).await.expect("no panic").expect("its end");
    let told = events(&succeeded(&output));
    let again = place.relay.up.passed();
    let kept = event(&told, "resuming")["stored_bytes"].as_u64().expect("a number");
    println!("{} bytes; {sent} sent until both were killed, {kept} kept, {again} sent by the other machine", size());
    // Each of the two that were killed had parts under way.
    assert!(kept + 2 * under_way + WORDS >= sent, "{kept} bytes of {sent} were kept");
    assert!(again <= size() - kept + WORDS, "{again} bytes sent of {} missing", size() - kept);
    assert_eq!(event(&told, "uploaded")["sent_bytes"], size() - kept);
    assert_eq!(names(&told).last(), Some(&"published"));

    place.run("pull demo:1 --output copy");
    same(&place.path("disk"), &place.path("copy"));
}

/// The server is killed at a third, and the client at 60 %.
async fn a_pull_goes_on(mut place: Place) {
    make(&place, "debian-amd64.qcow2");
    place.run("push debian-amd64.qcow2 --image demo --version 1 --alias latest");
    let before = place.relay.down.passed();
    let mut first = spawn(place.command("pull demo --output copy"));
    place.relay.down.let_pass(size() / 3).await;
    place.crash();
    place.relay.down.let_pass(size() * 6 / 10 - (place.relay.down.passed() - before)).await;
    first.kill().expect("killed");
    first.wait().expect("its end");
    place.relay.down.open();
    assert!(!place.path("copy").exists(), "it has no name before it is whole");

    let told = place.events("pull demo --output copy");
    let have = event(&told, "resuming")["stored_bytes"].as_u64().expect("a number");
    assert!(have > size() / 3, "{have} bytes were kept");
    let passed = place.relay.down.passed() - before;
    println!("{} bytes; {have} kept of 60 %, {passed} sent in all", size());
    // What a connection holds when it breaks is lost: what is in the buffers of both ends and of the relay.
    assert!(passed <= size() + (48 << 20), "{passed} bytes came");
    same(&place.path("debian-amd64.qcow2"), &place.path("copy"));
    let left = fs::read_dir(place.work.path()).expect("a folder").filter_map(Result::ok);
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

const PUSH: &str = "push disk.qcow2 --image demo --version 1 --os linux --arch amd64";

/// Begins an upload of a disk as curl would, and sends these parts of it.
async fn begun(place: &Place, disk: &[u8], parts: &[(u32, std::ops::Range<usize>)]) -> String {
    let writer = place.writer();
    let upload = writer.begin(disk).await["id"].as_str().expect("an id").to_owned();
    for (number, range) in parts {
        writer.put_part(&upload, *number, disk[range.clone()].to_vec()).await.ok();
    }
    upload
}

async fn an_upload_that_another_program_began_goes_on(place: Place) {
    const PART: usize = 6 << 20;
    let disk = place.disk("disk.qcow2", 1, 5 * PART + 1000);
    let upload = begun(&place, &disk, &[(6, 5 * PART..disk.len()), (1, 0..PART), (3, 2 * PART..3 * PART)]).await;
    // A newer one with nothing in it does not get in the way.
    begun(&place, &disk, &[]).await;
    let told = place.events(PUSH);
    assert_eq!(event(&told, "resuming")["upload_id"], *upload);
    assert_eq!(event(&told, "uploaded")["sent_bytes"], 3 * PART as u64);
    place.run("pull demo:1 --output copy");
    assert!(fs::read(place.path("copy")).expect("a file") == disk);
}

async fn an_upload_cut_in_no_even_way_is_begun_again(place: Place) {
    let disk = place.disk("disk.qcow2", 2, 20 << 20);
    let upload = begun(&place, &disk, &[(1, 0..6 << 20), (2, 6 << 20..13 << 20)]).await;
    // Nobody knows where these begin.
    begun(&place, &disk, &[(2, 19 << 20..20 << 20)]).await;
    begun(&place, &disk, &[(3, 0..8 << 20)]).await;
    let told = place.events(PUSH);
    assert_ne!(event(&told, "uploaded")["upload_id"], *upload);
    assert_eq!(event(&told, "uploaded")["sent_bytes"], disk.len() as u64);
}

/// A session whose bytes are wrong, by no fault of who takes it up.
async fn an_upload_that_ended_is_begun_again(place: Place) {
    const PART: usize = 5 << 20;
    let disk = place.disk("disk.qcow2", 3, 2 * PART);
    let writer = place.writer();
    let upload = writer.begin(&disk).await["id"].as_str().expect("an id").to_owned();
    writer.put_part(&upload, 1, bytes(4, PART)).await.ok();
    let told = place.events(PUSH);
    assert_eq!(event(&told, "resuming")["upload_id"], *upload);
    assert_ne!(event(&told, "uploaded")["upload_id"], *upload);
    assert_eq!(writer.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], "failed");
}

/// Two of one pipeline push the same file; one of them completes it before the other has sent its part.
async fn an_upload_completed_by_somebody_else_is_waited_for(place: Place) {
    const PART: usize = 5 << 20;
    let disk = place.disk("disk.qcow2", 5, 3 * PART);
    let upload = begun(&place, &disk, &[(1, 0..PART), (2, PART..2 * PART)]).await;
    // It finds the session, and is held up in the middle of the part.
    let pushing = spawn(place.command(&format!("{PUSH} --json")));
    place.relay.up.let_pass(PART as u64 / 2).await;
    let writer = place.writer();
    writer.put_part(&upload, 3, disk[2 * PART..].to_vec()).await.ok();
    let parts = writer.get(&format!("/v1/uploads/{upload}/parts")).await.ok();
    let parts: Vec<Value> = parts["parts"].as_array().expect("parts").iter().map(listed).collect();
    let complete =
        writer.request(Method::POST, &format!("/v1/uploads/{upload}/complete")).json(&json!({ "parts": parts }));
    crate::server::send(complete).await.ok();
    writer.wait_for_upload(&upload).await;
    place.relay.up.open();
    let output = tokio::task::spawn_blocking(|| pushing.wait_with_output()).await.expect("no panic").expect("its end");
    let told = events(&succeeded(&output));
    assert_eq!(event(&told, "uploaded")["upload_id"], *upload);
    let manifest = place.server().anonymous().get("/v1/images/demo/versions/1").await.ok();
    assert_eq!(manifest["artifacts"][0]["artifact"]["primary_blob_digest"], digest(&disk));
}

/// All at once, cut in different ways: each is published, or finds that it is.
async fn pushes_of_one_file_help_each_other(place: Place) {
    place.disk("disk.qcow2", 6, 30 << 20);
    fs::write(place.path("notes"), "notes").expect("written");
    for round in 0..3 {
        let push = format!(
            "{} --attach notes=notes --alias latest",
            PUSH.replace("--version 1", &format!("--version {round}"))
        );
        let pushes = [5, 7, 7, 32].map(|part| spawn(place.command(&format!("{push} --part-size {part}"))));
        for push in pushes {
            let output =
                tokio::task::spawn_blocking(|| push.wait_with_output()).await.expect("no panic").expect("its end");
            succeeded(&output);
        }
        place.disk("disk.qcow2", 7 + round, 30 << 20);
    }
}

async fn a_file_that_changes_is_not_sent_to_its_end(place: Place) {
    let disk = place.disk("disk.qcow2", 8, 60 << 20);
    let pushing = spawn(place.command(&format!("{PUSH} --part-size 5 --parallel 1")));
    place.relay.up.let_pass(12 << 20).await;
    fs::write(place.path("disk.qcow2"), &disk[..disk.len() - 1]).expect("written");
    place.relay.up.open();
    let output = tokio::task::spawn_blocking(|| pushing.wait_with_output()).await.expect("no panic").expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("changed since it was read"), "{said}");
    assert!(place.relay.up.passed() < 30 << 20);
}

/// It has expired, and no sweep has come by.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_has_expired_is_begun_again() {
    const PART: usize = 5 << 20;
    let place = Place::start(Box::new(|| {
        let mut command = Command::new(program());
        command.args(["--cas-promotion-enabled", "false"]);
        command
    }));
    let place = place.await;
    let disk = place.disk("disk.qcow2", 9, 2 * PART);
    let upload = begun(&place, &disk, &[(1, 0..PART)]).await;
    let long_ago = "update uploads set expires_at = '2020-01-01T00:00:00.000000+00:00'";
    place.server().folder.change(long_ago).await;
    // Nobody works in the background, so it is sent in order, and left a draft.
    let told = place.events(&format!("{PUSH} --parallel 1 --part-size 5 --draft"));
    assert_ne!(event(&told, "uploaded")["upload_id"], *upload);
}

fn listed(part: &Value) -> Value {
    json!({ "number": part["number"], "etag": part["etag"], "size_bytes": part["size_bytes"] })
}
