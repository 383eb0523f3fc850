//! A disk with no room.

use std::process::Command;

use serde_json::json;

use crate::server::{Folder, Server, bytes, id, program};

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_parts_are_refused_and_the_session_stays() {
    let server = Server::start_in(Folder::new(), &["--min-free", "1000TiB"]);
    let (token, api) = (server.token.clone(), server.writer().await);
    let whole = bytes(1, 1000);
    let upload = id(&api.begin(&whole).await);
    let refused = api.put_part(&upload, 1, whole.clone()).await;
    refused.problem(503, "storage-full");
    assert_eq!(api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], "created");

    let server = Server::start_in(server.stop(), &["--min-free", "0"]);
    assert!(token.is_some() && server.token.is_none(), "the first token still manages the server");
    let api = server.client(api.token);
    let part = api.put_part(&upload, 1, whole).await.ok();
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");
}

/// In a mount namespace of its own, on a file system that holds 48 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let folder = Folder::new();
    let mount = "mount -t tmpfs -o size=48m tmpfs \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount]).arg(folder.path());
    command.arg(program()).arg("--data-dir").arg(folder.data());
    let server = Server::spawn(command, folder);
    let api = server.writer().await;

    let kept = api.release("kept", "1.0", &bytes(1, 1 << 20)).await;
    let large = bytes(2, 80 << 20);
    let upload = id(&api.begin(&large).await);
    // Without a length nothing can be refused before the disk is full. The answer comes before the body has been sent,
    // so a client may not live to see it.
    let frames: Vec<_> = large.chunks(1 << 20).map(|frame| Ok::<_, std::io::Error>(frame.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(frames));
    let put = api.request(reqwest::Method::PUT, &format!("/v1/uploads/{upload}/parts/1")).body(body);
    if let Ok(answer) = put.send().await {
        assert_eq!(answer.status().as_u16(), 503);
        assert!(answer.text().await.unwrap_or_default().contains("storage-full"));
    }

    let session = api.get(&format!("/v1/uploads/{upload}")).await.ok();
    assert_eq!((&session["state"], &session["received_bytes"]), (&json!("created"), &json!(0)));
    let part = api.put_part(&upload, 1, large[..8 << 20].to_vec()).await.ok();
    assert_eq!(part["size_bytes"], 8 << 20, "the session stays usable, and what did not fit is gone");
    assert_eq!(api.act(&format!("/v1/uploads/{upload}/abort")).await.ok()["state"], "aborted");

    let path = format!("/v1/images/kept/versions/1.0/artifacts/{kept}/download");
    assert_eq!(server.anonymous().get(&path).await.body, bytes(1, 1 << 20));
    api.release("later", "1.0", &bytes(3, 8 << 20)).await;
}
