//! Sessions that deliver the bytes of one blob: what they promise, how they end, and how they are found again.

use reqwest::Body;
use serde_json::{Value, json};

use crate::server::{Answer, Api, Folder, Server, bytes, digest, id, members, with};

const MIB: usize = 1 << 20;

fn listed(number: impl Into<Value>, etag: &str, size: impl Into<Value>) -> Value {
    json!({"number": number.into(), "etag": etag, "size_bytes": size.into()})
}

async fn complete(api: &Api, upload: &str, parts: Value) -> Answer {
    api.post(&format!("/v1/uploads/{upload}/complete"), json!({ "parts": parts })).await
}

async fn abort(api: &Api, upload: &str) -> Answer {
    api.act(&format!("/v1/uploads/{upload}/abort")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_created_then_uploading_then_ready() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(1, 3 * MIB);
    let promise = json!({
        "expected_digest": digest(&whole), "expected_size_bytes": whole.len(),
        "media_type_hint": "application/x-qemu-disk", "filename_hint": "disk one.qcow2",
    });
    let begun = api.post("/v1/uploads", promise.clone()).await.created();
    assert_eq!(
        members(&begun),
        [
            "created_at",
            "expected_digest",
            "expected_size_bytes",
            "expires_at",
            "filename_hint",
            "id",
            "media_type_hint",
            "received_bytes",
            "state"
        ]
    );
    assert!(["created_at", "expires_at"].iter().all(|at| begun[at].as_str().is_some_and(|at| at.ends_with('Z'))));
    let upload = id(&begun);
    let pieces: Vec<_> = whole.chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let chunked = Body::wrap_stream(futures_util::stream::iter(pieces));
    let part = api.put_part(&upload, 1, chunked).await.ok();
    assert_eq!(members(&part), ["etag", "part_number", "size_bytes", "upload_id"]);
    let uploading = server.anonymous().get(&format!("/v1/uploads/{upload}")).await.ok();
    assert_eq!((&uploading["state"], &uploading["received_bytes"]), (&json!("uploading"), &json!(whole.len())));
    assert!(uploading["expires_at"].as_str() >= begun["expires_at"].as_str(), "a part moves it");
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");

    let known = api.post("/v1/uploads", promise).await.ok();
    assert!(known["state"] == "ready" && known["id"] != begun["id"], "{known}");
    api.put_part(&id(&known), 1, "x").await.problem(412, "wrong-state");
    let blob = api.get(&format!("/v1/blobs/{}", digest(&whole))).await;
    assert_eq!((blob.header("content-type"), blob.body == whole), ("application/x-qemu-disk", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_promised_is_refused() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(12, 1000);
    let promise = |digest: &str, size: i64| json!({"expected_digest": digest, "expected_size_bytes": size});
    for body in [promise("sha256:xyz", 1), promise(&digest(b""), -1), json!({"expected_digest": digest(b"")})] {
        api.post("/v1/uploads", body).await.problem(400, "invalid");
    }
    for hint in [json!({"media_type_hint": "qcow2"}), json!({"media_type_hint": ""}), json!({"filename_hint": " "})] {
        let hinted = with(promise(&digest(b"x"), 1), hint);
        api.post("/v1/uploads", hinted).await.problem(400, "invalid");
    }
    api.upload(&whole).await;
    api.post("/v1/uploads", promise(&digest(&whole), 999)).await.problem(412, "size-mismatch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_a_part_may_be_empty() {
    let server = Server::start();
    let api = server.writer().await;
    let upload = id(&api.begin(b"").await);
    let part = api.put_part(&upload, 1, "").await.ok();
    assert_eq!(part["size_bytes"], 0);
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");
    let blob = api.get(&format!("/v1/blobs/{}", digest(b""))).await;
    assert_eq!((blob.status.as_u16(), blob.header("content-length"), blob.body.len()), (200, "0", 0));

    let whole = bytes(2, 5 * MIB);
    let upload = id(&api.begin(&whole).await);
    let parts = [api.put_part(&upload, 3, whole).await.ok(), api.put_part(&upload, 9999, "").await.ok()];
    assert_eq!(api.complete(&upload, &parts).await.ok()["state"], "ready", "gaps, and an empty last part");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_arrive_in_order_or_four_at_once() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(3, 15 * MIB + 1);
    let upload = id(&api.begin(&whole).await);
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(whole.chunks(5 * MIB)) {
        parts.push(api.put_part(&upload, number, chunk.to_vec()).await.ok());
    }
    parts.reverse();
    assert_eq!(api.complete(&upload, &parts).await.ok()["state"], "ready", "listed in any order");

    let whole = bytes(4, 20 * MIB);
    let upload = id(&api.begin(&whole).await);
    let streams = (1..).zip(whole.chunks(5 * MIB)).map(|(number, chunk)| {
        let (api, upload, chunk) = (api.clone(), upload.clone(), chunk.to_vec());
        async move { api.put_part(&upload, number, chunk).await.ok() }
    });
    let parts = futures_util::future::join_all(streams).await;
    let answered = api.complete(&upload, &parts).await.ok();
    assert!(["completed", "ready"].contains(&answered["state"].as_str().expect("a state")), "{answered}");
    assert_eq!(api.wait_for_upload(&upload).await["state"], "ready");
    assert!(api.get(&format!("/v1/blobs/{}", digest(&whole))).await.body == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_is_told_before_one_that_is_not_so() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(5, 5 * MIB + 10);
    let upload = id(&api.begin(&whole).await);
    let path = format!("/v1/uploads/{upload}/complete");
    complete(&api, &upload, json!([listed(1, "x", 10)])).await.problem(412, "wrong-state");
    let one = api.put_part(&upload, 1, whole[..5 * MIB].to_vec()).await.ok();
    let two = api.put_part(&upload, 2, whole[5 * MIB..].to_vec()).await.ok();
    let (first, second) = (one["etag"].as_str().expect("an etag"), two["etag"].as_str().expect("an etag"));
    for parts in [
        json!([]),
        json!([listed(0, first, 1)]),
        json!([listed(10001, first, 1)]),
        json!([listed("1", first, 1)]),
        json!([listed(1, "", 1)]),
        json!([listed(1, " ", 1)]),
        json!([listed(1, first, -1)]),
        json!([listed(1, first, 5 * MIB), listed(1, first, 5 * MIB)]),
        json!([listed(1, "stale", 10), listed(2, "stale", 10)]),
        json!([{"number": 1, "etag": first}]),
        json!([{"number": 1, "etag": first, "size_bytes": 1, "sha256": "x"}]),
        json!([null]),
    ] {
        complete(&api, &upload, parts).await.problem(400, "invalid");
    }
    for body in [json!({}), json!([]), json!({"parts": {}}), json!({"parts": [], "more": 1})] {
        api.post(&path, body).await.problem(400, "invalid");
    }
    let refused =
        complete(&api, &upload, json!([listed(1, "stale", 5 * MIB), listed(2, second, 11), listed(7, "x", 1)])).await;
    // Part 2 is no longer the last one of that list, and too small.
    refused.problem(400, "invalid");
    let refused = complete(&api, &upload, json!([listed(1, "stale", 5 * MIB), listed(7, "x", 1)])).await;
    let refused = refused.problem(412, "part-mismatch");
    let fields: Vec<_> = refused["errors"].as_array().expect("errors").iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["parts/1", "parts/7"]);
    complete(&api, &upload, json!([listed(1, first, 5 * MIB)])).await.problem(412, "size-mismatch");
    assert_eq!(api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], "uploading", "nothing has changed");

    let done = api.complete(&upload, &[one, two]).await.ok();
    assert_eq!(done["state"], "ready");
    assert_eq!(complete(&api, &upload, json!([listed(9, "other", 1)])).await.ok(), done, "whatever the list says");
    abort(&api, &upload).await.problem(412, "wrong-state");
}

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
    let unknown = "00000000-0000-4000-8000-000000000000";
    complete(&api, unknown, json!([listed(1, "x", 1000)])).await.problem(404, "not-found");
    abort(&api, unknown).await.problem(404, "not-found");
    for path in [format!("/v1/uploads/{unknown}"), format!("/v1/uploads/{unknown}/parts")] {
        api.get(&path).await.problem(404, "not-found");
    }
    api.put_part(unknown, 1, whole.clone()).await.problem(404, "not-found");
    api.put_part("7", 1, whole.clone()).await.problem(400, "invalid");

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
    for (state, count) in [("failed", 1), ("aborted", 2), ("ready", 2), ("created", 0)] {
        let some = api.get(&format!("{path}&state={state}")).await.ok();
        assert_eq!(some["uploads"].as_array().map(Vec::len), Some(count), "{state}");
    }
    assert_eq!(api.get(&format!("/v1/uploads?expected_digest={}", digest(b"none"))).await.ok()["uploads"], json!([]));
    api.get("/v1/uploads?expected_digest=x").await.problem(400, "invalid");
    assert_eq!(server.anonymous().get(&format!("/v1/uploads/{failed}")).await.ok()["state"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_past_its_time_takes_nothing_more() {
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
