//! A file has its name when it has all its bytes, and not before.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::{Place, event, names, spawn};
use crate::server::{bytes, digest};

on_both!(
    Place: a_damaged_beginning_is_thrown_away, other_bytes_stay_unless_they_may_go, two_downloads_do_not_mix,
    a_stream_goes_on_after_a_crash, bytes_that_are_not_what_was_published_are_no_file,
);

const PULL: &str = "pull demo:1 --output copy";

async fn released(place: &Place, seed: u64, size: usize) -> Vec<u8> {
    let disk = place.disk("debian-amd64.qcow2", seed, size);
    place.run("push debian-amd64.qcow2 --image demo --version 1");
    disk
}

fn partial(place: &Place, whole: &[u8]) -> PathBuf {
    place.path(&format!("copy.{}.part", &digest(whole)["sha256:".len()..][..16]))
}

async fn a_damaged_beginning_is_thrown_away(place: Place) {
    let disk = released(&place, 1, 3 << 20).await;
    for (beginning, resumes) in
        [(bytes(9, 1 << 20), true), (disk.clone(), false), (bytes(9, 3 << 20), false), (bytes(9, 4 << 20), false)]
    {
        fs::write(partial(&place, &disk), &beginning).expect("written");
        let told = place.events(PULL);
        assert_eq!(names(&told).contains(&"resuming"), resumes, "{told:?}");
        assert!(fs::read(place.path("copy")).expect("a file") == disk);
        assert!(!partial(&place, &disk).exists());
        fs::remove_file(place.path("copy")).expect("removed");
    }
}

async fn other_bytes_stay_unless_they_may_go(place: Place) {
    let disk = released(&place, 2, 100_000).await;
    fs::write(place.path("copy"), "mine").expect("written");
    place.refused(5, PULL);
    assert_eq!(fs::read(place.path("copy")).expect("a file"), b"mine");
    place.run(&format!("{PULL} --force"));
    assert!(fs::read(place.path("copy")).expect("a file") == disk);
    assert_eq!(names(&place.events(PULL)), ["hashed", "present"]);
    fs::create_dir(place.path("folder")).expect("a folder");
    assert_eq!(place.run("pull demo:1 --output folder"), "folder/demo-1-linux-amd64.qcow2\n");
    place.refused(2, "pull demo:1 --output /dev/null");
    place.refused(1, "pull demo:1 --output nowhere/copy");
    place.refused(2, "pull demo:1 --output nowhere/");
}

async fn two_downloads_do_not_mix(place: Place) {
    let disk = released(&place, 3, 12 << 20).await;
    // A file that came in the meantime is somebody's.
    let late = spawn(place.command("pull demo:1 --output late"));
    place.relay.down.let_pass(1 << 20).await;
    fs::write(place.path("late"), "mine").expect("written");
    place.relay.down.open();
    let output = tokio::task::spawn_blocking(|| late.wait_with_output()).await.expect("no panic").expect("its end");
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(place.path("late")).expect("a file"), b"mine");

    let first = spawn(place.command(PULL));
    place.relay.down.let_pass(1 << 20).await;
    place.refused(5, &format!("{PULL} --server {}", place.server().url));
    place.relay.down.open();
    let output = tokio::task::spawn_blocking(|| first.wait_with_output()).await.expect("no panic").expect("its end");
    super::succeeded(&output);
    assert!(fs::read(place.path("copy")).expect("a file") == disk);
}

async fn a_stream_goes_on_after_a_crash(mut place: Place) {
    let disk = released(&place, 4, 40 << 20).await;
    let streaming = spawn(place.command("pull demo:1 --output -"));
    let streaming = tokio::task::spawn_blocking(|| streaming.wait_with_output());
    place.relay.down.let_pass(10 << 20).await;
    place.crash();
    place.relay.down.open();
    let output = streaming.await.expect("no panic").expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == disk);
}

/// A server that is not ours: it says that it has one file, and gives another.
async fn bytes_that_are_not_what_was_published_are_no_file(place: Place) {
    let disk = released(&place, 5, 50_000).await;
    let server = place.server().url.clone();
    let liar = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", liar.local_addr().expect("an address"));
    let told = digest(&disk);
    std::thread::spawn(move || {
        for mut client in liar.incoming().map_while(Result::ok) {
            let mut request = std::io::BufReader::new(client.try_clone().expect("a connection"));
            let mut line = String::new();
            std::io::BufRead::read_line(&mut request, &mut line).expect("a request");
            let path = line.split(' ').nth(1).expect("a path").to_owned();
            let body = if path.contains(&told) {
                bytes(6, 50_000)
            } else {
                let answer = std::process::Command::new("curl").args(["-sS", &format!("{server}{path}")]).output();
                answer.expect("curl").stdout
            };
            write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .and_then(|()| client.write_all(&body))
            .ok();
            // The rest of the request is read, or the answer would be lost with the connection.
            while std::io::BufRead::read_line(&mut request, &mut line).is_ok_and(|count| count > 2) {}
        }
    });
    let said = place.refused(7, &format!("{PULL} --server {url}"));
    assert!(said.contains(&digest(&disk)), "{said}");
    assert!(!place.path("copy").exists() && !partial(&place, &disk).exists());
    let told = place.events(PULL);
    assert_eq!(event(&told, "downloaded")["size_bytes"], 50_000);
}
