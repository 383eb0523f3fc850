//! Directories: the files of a version under names for people, where they stay and where an alias has them now.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Answer, Api, Server, artifact, attachment, bytes, digest, names, send};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A published version of two artifacts, the second in another variant and with two attachments.
async fn released(api: &Api, version: &str, content: &[u8]) {
    api.post("/v1/images", json!({"name": "debian", "display_name": "Debian <b>", "description": "An & image"})).await;
    api.post("/v1/images/debian/versions", json!({ "version": version })).await.created();
    let path = format!("/v1/images/debian/versions/{version}/artifacts");
    for bytes in [content, b"cloud", b"metadata", b"notes"] {
        api.upload(bytes).await;
    }
    api.add(&path, artifact(content, json!({}))).await;
    let cloud = api.add(&path, artifact(b"cloud", json!({"variant": "cloud", "format": "raw.gz"}))).await;
    for (name, bytes) in [("incus.tar.xz", &b"metadata"[..]), ("notes.txt", b"notes")] {
        api.add(&format!("{path}/{cloud}/attachments"), attachment(name, "text/plain", bytes)).await;
    }
    assert_eq!(api.publish("debian", version).await["state"], "succeeded");
}

/// Asks and does not go where the answer points.
async fn ask(server: &Server, method: Method, path: &str) -> Answer {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    send(client.request(method, format!("{}{path}", server.url))).await
}

fn sums(reference: &str, content: &[u8]) -> String {
    let cloud = format!("debian-{reference}-linux-amd64-cloud.raw.gz");
    [
        (digest(content), format!("debian-{reference}-linux-amd64.qcow2")),
        (digest(b"cloud"), cloud.clone()),
        (digest(b"metadata"), format!("{cloud}.incus.tar.xz")),
        (digest(b"notes"), format!("{cloud}.notes.txt")),
    ]
    .map(|(digest, name)| format!("{}  {name}\n", digest.trim_start_matches("sha256:")))
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_version_stay_where_they_are() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    let content = bytes(1, 100_000);
    released(&writer, "1:0+a", &content).await;
    let base = "/d/debian/1:0+a/";

    let list = reader.get(base).await;
    assert_eq!((list.header("cache-control"), list.header("vary")), ("no-cache", "accept"));
    assert_eq!(list.header("x-imgsrv-version"), "", "a version needs not be said again");
    let list = list.ok();
    assert_eq!((&list["image"], &list["version"], list.get("alias")), (&json!("debian"), &json!("1:0+a"), None));
    let expected = [
        "debian-1:0+a-linux-amd64.qcow2",
        "debian-1:0+a-linux-amd64-cloud.raw.gz",
        "debian-1:0+a-linux-amd64-cloud.raw.gz.incus.tar.xz",
        "debian-1:0+a-linux-amd64-cloud.raw.gz.notes.txt",
    ];
    assert_eq!(names(&list, "files", "name"), expected);
    for (file, content) in expected.iter().zip([&content[..], b"cloud", b"metadata", b"notes"]) {
        let answer = reader.get(&format!("{base}{file}")).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, content), "{file}");
        assert_eq!(answer.header("cache-control"), IMMUTABLE);
        assert_eq!(answer.header("etag"), format!("\"{}\"", digest(content)));
        let (plain, encoded) = (file.replace(':', "_"), file.replace('+', "%2B").replace(':', "%3A"));
        let disposition = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
        assert_eq!(answer.header("content-disposition"), disposition);
        let sum = reader.get(&format!("{base}{file}.sha256")).await;
        assert_eq!(sum.text(), format!("{}  {file}\n", digest(content).trim_start_matches("sha256:")));
        assert_eq!((sum.header("content-type"), sum.header("cache-control")), ("text/plain; charset=utf-8", IMMUTABLE));
    }
    let part = reader.get_with(&format!("{base}{}", expected[0]), &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &content[10..20]));

    let all = reader.get(&format!("{base}SHA256SUMS")).await;
    assert_eq!(all.text(), sums("1:0+a", &content));
    assert_eq!((all.header("content-type"), all.header("cache-control")), ("text/plain; charset=utf-8", IMMUTABLE));
    let again = reader.get_with(&format!("{base}SHA256SUMS"), &[("if-none-match", all.header("etag"))]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);

    for missing in ["nothing", "SHA256SUMS.sha256", "nothing.sha256", "SHA512SUMS", "debian-1.0-linux-amd64.qcow2"] {
        reader.get(&format!("{base}{missing}")).await.problem(404, "not-found");
    }
    let bare = ask(&server, Method::GET, "/d/debian/1:0+a").await;
    assert_eq!((bare.status, bare.header("location")), (StatusCode::MOVED_PERMANENTLY, "./1:0+a/"));
    for path in ["/d/debian/", "/d/", "/d/debian/2/", "/d/other/1:0+a/"] {
        reader.get(path).await.problem(404, "not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_leads_to_the_files_of_its_version() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    for (version, content) in [("1.0", b"one"), ("2.0", b"two")] {
        released(&writer, version, content).await;
        writer.put("/v1/images/debian/aliases/latest", json!({ "version": version })).await.ok();
        let canonical = |file: &str| format!("<../{version}/{file}>; rel=\"canonical\"");

        let list = reader.get("/d/debian/latest/").await;
        assert_eq!((list.header("x-imgsrv-version"), list.header("link")), (version, &*canonical("")));
        let list = list.ok();
        assert_eq!((&list["version"], &list["alias"]), (&json!(version), &json!("latest")));
        assert_eq!(names(&list, "files", "name")[0], "debian-latest-linux-amd64.qcow2");

        let file = "/d/debian/latest/debian-latest-linux-amd64.qcow2";
        for method in [Method::GET, Method::HEAD] {
            let found = ask(&server, method, file).await;
            let name = format!("debian-{version}-linux-amd64.qcow2");
            assert_eq!(found.status, StatusCode::FOUND);
            assert_eq!(found.header("location"), format!("../{version}/{name}"));
            assert_eq!((found.header("x-imgsrv-version"), found.header("link")), (version, &*canonical(&name)));
            assert_eq!(found.header("cache-control"), "no-cache");
        }
        assert_eq!(reader.get(file).await.body, content);
        reader.get(&format!("/d/debian/latest/debian-{version}-linux-amd64.qcow2")).await.problem(404, "not-found");

        let all = reader.get("/d/debian/latest/SHA256SUMS").await;
        assert_eq!((all.status, all.text()), (StatusCode::OK, sums("latest", content)));
        assert_eq!((all.header("cache-control"), all.header("x-imgsrv-version")), ("no-cache", version));
        let sum = reader.get(&format!("{file}.sha256")).await;
        assert_eq!(sum.text(), sums("latest", content).lines().next().expect("a line").to_owned() + "\n");
        assert_eq!(sum.header("link"), canonical(&format!("debian-{version}-linux-amd64.qcow2.sha256")));
    }
    // A version wins over an alias of the same text.
    writer.put("/v1/images/debian/aliases/1.0", json!({"version": "2.0"})).await.ok();
    assert_eq!(reader.get("/d/debian/1.0/").await.ok()["version"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_shown_a_page() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    released(&writer, "1.0", b"content").await;
    writer.put("/v1/images/debian/aliases/latest", json!({"version": "1.0"})).await.ok();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (accept, html) in [
        (browser, true),
        ("text/html", true),
        ("application/json, text/html", true),
        ("*/*", false),
        ("application/json", false),
        ("text/html;q=0.5, application/json", false),
        ("text/html;q=0", false),
    ] {
        let answer = reader.get_with("/d/debian/latest/", &[("accept", accept)]).await;
        let media_type = if html { "text/html; charset=utf-8" } else { "application/json" };
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, media_type), "{accept}");
    }
    let page = reader.get_with("/d/debian/latest/", &[("accept", browser)]).await;
    let text = page.text();
    for part in [
        "<a href=\"./debian-latest-linux-amd64.qcow2\">debian-latest-linux-amd64.qcow2</a>",
        "<a href=\"SHA256SUMS\">",
        "<a href=\"../1.0/\">1.0</a>",
        "Debian &lt;b&gt;",
        "An &amp; image",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let etag = page.header("etag").to_owned();
    let again = reader.get_with("/d/debian/latest/", &[("accept", browser), ("if-none-match", &etag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_has_no_directory() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    writer.draft("debian", "1.0", b"content").await;
    for api in [&writer, &reader] {
        for path in ["/d/debian/1.0/", "/d/debian/1.0/SHA256SUMS", "/d/debian/1.0/debian-1.0-linux-amd64.raw"] {
            api.get(path).await.problem(404, "not-found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_clash_are_told_apart() {
    let server = Server::start();
    let writer = server.writer().await;
    writer.upload(b"content").await;
    writer.post("/v1/images", json!({"name": "debian"})).await.created();
    writer.post("/v1/images/debian/versions", json!({"version": "1"})).await.created();
    let path = "/v1/images/debian/versions/1/artifacts";
    let mut ids = Vec::new();
    for (architecture, variant) in [("a-b", "default"), ("a", "b"), ("a-b-c", "default"), ("a-b", "c"), ("a", "b-c")] {
        let shape = json!({"architecture": architecture, "variant": variant, "format": "raw"});
        ids.push(writer.add(path, artifact(b"content", shape)).await);
    }
    let gz = writer.add(path, artifact(b"content", json!({"architecture": "a-b", "format": "raw.gz"}))).await;
    writer.add(&format!("{path}/{}/attachments", ids[0]), attachment("gz", "text/plain", b"content")).await;
    assert_eq!(writer.publish("debian", "1").await["state"], "succeeded");
    let list = server.anonymous().get("/d/debian/1/").await.ok();
    let short = |id: &String| id[..8].to_owned();
    let last = if short(&ids[3]) == short(&ids[4]) { ids[4].clone() } else { short(&ids[4]) };
    let expected = [
        "debian-1-linux-a-b.raw".to_owned(),
        format!("debian-1-linux-a-b.raw-{}.gz", short(&ids[0])),
        format!("debian-1-linux-a-b-{}.raw", short(&ids[1])),
        "debian-1-linux-a-b-c.raw".to_owned(),
        format!("debian-1-linux-a-b-c-{}.raw", short(&ids[3])),
        format!("debian-1-linux-a-b-c-{last}.raw"),
        "debian-1-linux-a-b.raw.gz".to_owned(),
    ];
    assert_eq!(names(&list, "files", "name"), expected);
    let files = list["files"].as_array().expect("files");
    assert_eq!(files[6]["artifact_id"], Value::from(gz));
    for name in expected {
        assert_eq!(server.anonymous().get(&format!("/d/debian/1/{name}")).await.body, b"content", "{name}");
    }
}
