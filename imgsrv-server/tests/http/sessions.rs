//! How a session ends: ready, failed, aborted or past its time; and that it stays so.

use serde_json::json;

use crate::server::{Folder, Server, bytes, digest, id, members, until};
use crate::uploads::{MIB, abort, complete, listed};

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_or_was_aborted_stays_so() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(9, 1000);
    let (failed, aborted, empty) =
        (id(&api.begin(&whole).await), id(&api.begin(&whole).await), id(&api.begin(&whole).await));
    let part = api.put_part(&failed, 1, bytes(10, 1000)).await.ok();
    let told = api.complete(&failed, &[part]).await.ok();
    assert_eq!(told["state"], "failed");
    assert_eq!(
        members(&told),
        [
            "created_at",
            "expected_digest",
            "expected_size_bytes",
            "expires_at",
            "failure_reason",
            "id",
            "received_bytes",
            "state"
        ]
    );
    let reason = told["failure_reason"].as_str().expect("a reason");
    assert!(reason.contains(&digest(&whole)) && reason.contains(&digest(&bytes(10, 1000))), "{reason}");
    abort(&api, &failed).await.problem(412, "wrong-state");

    api.put_part(&aborted, 1, whole.clone()).await.ok();
    for upload in [&aborted, &empty] {
        for _ in 0..2 {
            assert_eq!(abort(&api, upload).await.ok()["state"], "aborted");
        }
    }
    for upload in [&failed, &aborted, &empty] {
        api.put_part(upload, 1, whole.clone()).await.problem(412, "wrong-state");
        complete(&api, upload, json!([listed(1, "x", 1000)])).await.problem(412, "wrong-state");
        // 400 comes before 412.
        complete(&api, upload, json!([])).await.problem(400, "invalid");
    }

    // Sessions for one digest run side by side, and each ends ready.
    let (one, two) = (id(&api.begin(&whole).await), id(&api.begin(&whole).await));
    for upload in [&one, &two] {
        let part = api.put_part(upload, 1, whole.clone()).await.ok();
        assert_eq!(api.complete(upload, &[part]).await.ok()["state"], "ready");
    }
    let path = format!("/v1/uploads?expected_digest={}", digest(&whole));
    let all = api.get(&path).await.ok();
    let found: Vec<_> = all["uploads"].as_array().expect("uploads").iter().map(id).collect();
    assert_eq!(found, [two, one, empty, aborted, failed.clone()], "newest first");
    for (state, count) in [
        ("created", 0),
        ("uploading", 0),
        ("completed", 0),
        ("ingesting", 0),
        ("ready", 2),
        ("failed", 1),
        ("aborted", 2),
    ] {
        let some = api.get(&format!("{path}&state={state}")).await.ok();
        assert_eq!(some["uploads"].as_array().map(Vec::len), Some(count), "{state}");
    }
    assert_eq!(api.get(&format!("/v1/uploads?expected_digest={}", digest(b"none"))).await.ok()["uploads"], json!([]));
    for query in ["expected_digest=x", "expected_digest=", "state=nothing", "state="] {
        api.get(&format!("/v1/uploads?{query}")).await.problem(400, "invalid");
    }
    assert_eq!(server.anonymous().get(&format!("/v1/uploads/{failed}")).await.ok()["state"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_the_list_and_the_verdict_a_session_is_completed() {
    // Nobody works in the background, so what nobody knows yet stays open.
    let server = Server::start_in(Folder::new(), &["--cas-promotion-enabled=false"]);
    let api = server.writer().await;
    let whole = bytes(12, 5 * MIB + 10);
    // The last part first: no digest was computed on the way.
    let send_backwards = async |sent: &[u8]| {
        let upload = id(&api.begin(&whole).await);
        let last = api.put_part(&upload, 2, sent[5 * MIB..].to_vec()).await.ok();
        let parts = [last, api.put_part(&upload, 1, sent[..5 * MIB].to_vec()).await.ok()];
        let completed = api.complete(&upload, &parts).await.ok();
        assert_eq!(completed["state"], "completed");
        completed
    };
    let other = bytes(13, whole.len());
    let (good, bad) = (send_backwards(&whole).await, send_backwards(&other).await);
    for completed in [&good, &bad] {
        let upload = id(completed);
        assert_eq!(server.anonymous().get(&format!("/v1/uploads/{upload}")).await.ok(), *completed);
        for list in [json!([]), json!([listed(9, "other", 1)]), json!([listed(1, " ", 1), listed(1, " ", 1)])] {
            assert_eq!(complete(&api, &upload, list).await.ok(), *completed, "whatever the list says");
        }
        api.put_part(&upload, 1, whole[..10].to_vec()).await.problem(412, "wrong-state");
        abort(&api, &upload).await.problem(412, "wrong-state");
    }
    api.get(&format!("/v1/blobs/{}", digest(&whole))).await.problem(404, "not-found");
    assert_eq!(api.begin(&whole).await["state"], "created", "not known before it is verified");

    let server = Server::start_in(server.stop(), &[]);
    let api = server.client(api.token);
    let failed = api.wait_for_upload(&id(&bad)).await;
    let reason = failed["failure_reason"].as_str().expect("a reason");
    assert!(failed["state"] == "failed" && reason.contains(&digest(&whole)) && reason.contains(&digest(&other)));
    assert_eq!(api.wait_for_upload(&id(&good)).await["state"], "ready");
    assert!(api.get(&format!("/v1/blobs/{}", digest(&whole))).await.body == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_time_that_was_configured() {
    let server = Server::start_in(Folder::new(), &["--upload-ttl", "1ms"]);
    let api = server.writer().await;
    let whole = bytes(11, 1000);
    let upload = id(&api.begin(&whole).await);
    // Each part that is taken moves the time on; in the end one is late.
    let late = loop {
        let answer = api.put_part(&upload, 1, whole.clone()).await;
        if answer.status != 200 {
            break answer;
        }
    };
    // A sweep may have aborted it meanwhile.
    assert_eq!(late.status, 412, "{}", late.text());
    assert!(["expired", "wrong-state"].iter().any(|slug| late.text().contains(slug)), "{}", late.text());
    assert_eq!(complete(&api, &upload, json!([listed(1, "x", 1000)])).await.status, 412);
    complete(&api, &upload, json!([])).await.problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_past_its_time_takes_nothing_and_is_swept() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(14, 1000);
    let sessions = [api.begin(&whole).await, api.begin(&whole).await, api.begin(&whole).await];
    let [created, uploading, given_up] = sessions.each_ref().map(id);
    let part = api.put_part(&uploading, 1, whole.clone()).await.ok();
    let folder = server.stop();
    folder.change("update uploads set expires_at = '2001-01-01T00:00:00+00:00'").await;

    // Nobody works in the background, so nobody sweeps.
    let server = Server::start_in(folder, &["--cas-promotion-enabled=false"]);
    let api = server.client(api.token);
    for (upload, state) in [(&created, "created"), (&uploading, "uploading")] {
        api.put_part(upload, 1, whole.clone()).await.problem(412, "expired");
        assert_eq!(api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], state);
    }
    api.complete(&uploading, &[part]).await.problem(412, "expired");
    complete(&api, &uploading, json!([])).await.problem(400, "invalid");
    assert_eq!(abort(&api, &given_up).await.ok()["state"], "aborted", "it can still be given up");

    let server = Server::start_in(server.stop(), &[]);
    let api = server.client(api.token);
    for upload in [&created, &uploading] {
        assert_eq!(api.wait_for_upload(upload).await["state"], "aborted");
        api.put_part(upload, 1, whole.clone()).await.problem(412, "wrong-state");
    }
    let objects = || std::fs::read_dir(server.folder.objects_of(&whole)).map_or(0, Iterator::count);
    until("their bytes are freed", async || objects() == 0).await;
}
