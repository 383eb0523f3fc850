//! What the program collects when it is told to.

use std::process::{Command, Output};

use crate::server::{Server, bytes, digest, program};

fn sweep(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("--data-dir").arg(server.folder.data()).args(["--blob-retention", "1h", "sweep"]).args(arguments);
    command.output().expect("the program")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_seen_before_it_is_carried_out() {
    let server = Server::start();
    let writer = server.writer().await;
    let (published, loose) = (bytes(1, 1000), bytes(2, 2000));
    let artifact = writer.release("debian", "1.0", &published).await;
    writer.upload(&loose).await;
    let told = said(&sweep(&server, &["--dry-run"]));
    assert!(told.starts_with("plan ") && told.contains(": condemns 0 blobs, deletes 0 with 0 of 3000 bytes"), "{told}");

    server.folder.change("update blobs set last_used_at = '2020-01-01T00:00:00.000000+00:00'").await;
    let told = said(&sweep(&server, &["--dry-run"]));
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], format!("condemn {} 2000", digest(&loose)));
    assert_eq!(lines.len(), 2, "{told}");
    let plan = lines[1].split([' ', ':']).nth(1).expect("an id").to_owned();
    assert_eq!(said(&sweep(&server, &["--plan", &plan])), "1 blobs condemned, 0 deleted, 0 left alone\n");
    assert_eq!(said(&sweep(&server, &["--plan", &plan])), "0 blobs condemned, 0 deleted, 1 left alone\n");
    assert_eq!(writer.get(&format!("/v1/blobs/{}", digest(&loose))).await.body, loose, "it has a day's notice");

    server
        .folder
        .change("update blobs set condemned_at = '2020-01-01T00:00:00.000000+00:00' where state = 'condemned'")
        .await;
    let told = said(&sweep(&server, &[]));
    assert_eq!(told, "0 sessions expired, 0 objects deleted\n0 blobs condemned, 1 deleted, 0 left alone\n");
    writer.get(&format!("/v1/blobs/{}", digest(&loose))).await.problem(404, "not-found");
    let path = format!("/v1/images/debian/versions/1.0/artifacts/{artifact}/download");
    assert_eq!(server.anonymous().get(&path).await.body, published);

    for (code, arguments) in [
        (1, &["--plan", "01a20f27-30fb-773f-875b-0962f4638870"][..]),
        (2, &["--plan", "nothing"]),
        (2, &["--dry-run", "--force"]),
    ] {
        assert_eq!(sweep(&server, arguments).status.code(), Some(code), "{arguments:?}");
    }
}
