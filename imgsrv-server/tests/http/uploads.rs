//! Sessions that deliver the bytes of one blob: what they promise, how they end, and how they are found again.

use chrono::{DateTime, FixedOffset, TimeDelta};
use reqwest::Body;
use serde_json::{Value, json};

use crate::server::{Answer, Api, Server, bytes, digest, id, members, names, with};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn listed(number: impl Into<Value>, etag: &str, size: impl Into<Value>) -> Value {
    json!({"number": number.into(), "etag": etag, "size_bytes": size.into()})
}

pub(crate) async fn complete(api: &Api, upload: &str, parts: Value) -> Answer {
    api.post(&format!("/v1/uploads/{upload}/complete"), json!({ "parts": parts })).await
}

pub(crate) async fn abort(api: &Api, upload: &str) -> Answer {
    api.act(&format!("/v1/uploads/{upload}/abort")).await
}

fn time(session: &Value, member: &str) -> DateTime<FixedOffset> {
    DateTime::parse_from_rfc3339(session[member].as_str().expect("a time")).expect("a time")
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
    assert_eq!(time(&begun, "expires_at") - time(&begun, "created_at"), TimeDelta::hours(24));
    assert_eq!((&begun["state"], &begun["received_bytes"]), (&json!("created"), &json!(0)));
    let upload = id(&begun);
    let pieces: Vec<_> = whole.chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let chunked = Body::wrap_stream(futures_util::stream::iter(pieces));
    let part = api.put_part(&upload, 1, chunked).await.ok();
    assert_eq!(members(&part), ["etag", "part_number", "size_bytes", "upload_id"]);
    let uploading = server.anonymous().get(&format!("/v1/uploads/{upload}")).await.ok();
    assert_eq!((&uploading["state"], &uploading["received_bytes"]), (&json!("uploading"), &json!(whole.len())));
    assert!(time(&uploading, "expires_at") > time(&begun, "expires_at"), "a part moves it");
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");

    let known = api.post("/v1/uploads", with(promise, json!({"media_type_hint": "application/x-other"}))).await.ok();
    assert!(known["state"] == "ready" && known["id"] != begun["id"], "{known}");
    api.put_part(&id(&known), 1, "x").await.problem(412, "wrong-state");
    let blob = api.get(&format!("/v1/blobs/{}", digest(&whole))).await;
    // It keeps the type of the upload that made it.
    assert_eq!((blob.header("content-type"), blob.body == whole), ("application/x-qemu-disk", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_promised_is_refused() {
    let server = Server::start();
    let api = server.writer().await;
    let whole = bytes(12, 1000);
    let promise = |digest: &str, size: i64| json!({"expected_digest": digest, "expected_size_bytes": size});
    for body in [
        promise("sha256:xyz", 1),
        promise(&digest(b""), -1),
        json!({"expected_digest": digest(b"")}),
        json!({"expected_size_bytes": 1}),
        json!({}),
        with(promise(&digest(b""), 0), json!({"state": "ready"})),
    ] {
        api.post("/v1/uploads", body).await.problem(400, "invalid");
    }
    for hint in [json!({"media_type_hint": "qcow2"}), json!({"media_type_hint": ""}), json!({"filename_hint": " "})] {
        let hinted = with(promise(&digest(b"x"), 1), hint);
        api.post("/v1/uploads", hinted).await.problem(400, "invalid");
    }
    // More than anybody has, and less: it is what the bytes are compared with in the end.
    for size in [0, i64::MAX] {
        api.post("/v1/uploads", promise(&digest(b"other"), size)).await.created();
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
    assert_eq!(names(&refused, "errors", "field"), ["parts/1", "parts/7"]);
    let resized = json!([listed(1, first, 5 * MIB), listed(2, second, 11)]);
    let refused = complete(&api, &upload, resized).await.problem(412, "part-mismatch");
    assert_eq!(names(&refused, "errors", "field"), ["parts/2"]);
    complete(&api, &upload, json!([listed(1, first, 5 * MIB)])).await.problem(412, "size-mismatch");
    assert_eq!(api.get(&format!("/v1/uploads/{upload}")).await.ok()["state"], "uploading", "nothing has changed");

    let done = api.complete(&upload, &[one, two]).await.ok();
    assert_eq!(done["state"], "ready");
    for list in [
        json!([listed(9, "other", 1)]),
        json!([]),
        json!([listed(0, "other", 1), listed(10001, " ", -1)]),
        json!([listed(9, "other", 1), listed(9, "other", 1)]),
    ] {
        assert_eq!(complete(&api, &upload, list).await.ok(), done, "whatever the list says");
    }
    abort(&api, &upload).await.problem(412, "wrong-state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_may_name_ten_thousand_parts() {
    let server = Server::start();
    let api = server.writer().await;
    let upload = id(&api.begin(b"x").await);
    let part = api.put_part(&upload, 10_000, "x").await.ok();
    let longest = (1..=10_000).map(|number| listed(number, "0123456789abcdef-5242880", 5 * MIB)).collect();
    let refused = complete(&api, &upload, Value::Array(longest)).await.problem(412, "part-mismatch");
    let fields: Vec<_> = (1..=10_000).map(|number| format!("parts/{number}")).collect();
    assert_eq!(names(&refused, "errors", "field"), fields);
    assert_eq!(api.complete(&upload, &[part]).await.ok()["state"], "ready");
}
