//! Downloads: what they say of themselves, what is not there to be had, lost objects, and readers that leave.

use std::io::Write;
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::server::{
    Api, Server, artifact, attachment, bytes, connect, digest, id, program, read_until, request, send, until,
};

fn download(image: &str, artifact: &str) -> String {
    format!("/v1/images/{image}/versions/1.0/artifacts/{artifact}/download")
}

/// A published version of `default` and `cloud` artifacts, both with an attachment; their ids.
async fn released(api: &Api, whole: &[u8]) -> [(String, String); 2] {
    api.upload(whole).await;
    api.post("/v1/images", json!({"name": "debian"})).await.created();
    api.post("/v1/images/debian/versions", json!({"version": "1:0"})).await.created();
    let mut ids = Vec::new();
    for variant in ["default", "cloud"] {
        let path = "/v1/images/debian/versions/1:0/artifacts";
        let artifact = api.add(path, artifact(whole, json!({ "variant": variant }))).await;
        let notes = attachment("notes.txt", "text/html", whole);
        let attachment = api.add(&format!("{path}/{artifact}/attachments"), notes).await;
        ids.push((artifact, attachment));
    }
    assert_eq!(api.publish("debian", "1:0").await["state"], "succeeded");
    ids.try_into().expect("two")
}

fn disposition(name: &str) -> String {
    let plain = name.replace(':', "_");
    let further =
        if plain == name { String::new() } else { format!("; filename*=UTF-8''{}", name.replace(':', "%3A")) };
    format!("attachment; filename=\"{plain}\"{further}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_the_bytes_says_what_they_are() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(1, 1000);
    let [(plain, attachment), (cloud, _)] = released(&writer, &whole).await;
    let reader = server.anonymous();
    let base = "/v1/images/debian/versions/1:0/artifacts";
    let blob = format!("/v1/blobs/{}", digest(&whole));
    let etag = format!("\"{}\"", digest(&whole));
    let hash = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&whole)));
    for (path, media_type, name) in [
        (format!("{base}/{plain}/download"), "application/x-qemu-disk", "debian-1:0-linux-amd64.qcow2"),
        (format!("{base}/{cloud}/download"), "application/x-qemu-disk", "debian-1:0-linux-amd64-cloud.qcow2"),
        (format!("{base}/{plain}/attachments/{attachment}/download"), "text/html", "notes.txt"),
        (blob.clone(), "application/octet-stream", digest(&whole).trim_start_matches("sha256:")),
    ] {
        for api in [&reader, &writer] {
            let answer = api.get(&path).await;
            assert_eq!((answer.status.as_u16(), answer.body == whole), (200, true), "{path}");
            for (header, value) in [
                ("accept-ranges", "bytes"),
                ("cache-control", "public, max-age=31536000, immutable"),
                ("content-disposition", &disposition(name)),
                ("content-length", "1000"),
                ("content-type", media_type),
                ("etag", &etag),
                ("repr-digest", &hash),
                ("vary", if path == blob { "Authorization" } else { "" }),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(answer.header(header), value, "{path} {header}");
            }
            let modified = answer.header("last-modified");
            assert!(modified.ends_with(" GMT"), "{modified}");
        }
        let (all, part) = (reader.get(&path).await, reader.get_with(&path, &[("range", "bytes=1-2")]).await);
        assert_eq!(part.status.as_u16(), 206);
        for header in [
            "etag",
            "last-modified",
            "cache-control",
            "content-type",
            "accept-ranges",
            "repr-digest",
            "content-disposition",
            "x-content-type-options",
            "vary",
        ] {
            assert_eq!(part.header(header), all.header(header), "{path} {header}");
        }
        // Without the bytes, all is said about all of them: a range is a matter of GET (RFC 9110 §14.2).
        for range in [&[][..], &[("range", "bytes=0-9")], &[("range", "bytes=1000-")]] {
            let head = range
                .iter()
                .fold(reader.request(Method::HEAD, &path), |head, (name, value)| head.header(*name, *value));
            let head = send(head).await;
            assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
            for header in [
                "etag",
                "last-modified",
                "cache-control",
                "content-type",
                "accept-ranges",
                "repr-digest",
                "content-disposition",
                "content-length",
                "x-content-type-options",
                "vary",
            ] {
                assert_eq!(head.header(header), all.header(header), "{path} {header}");
            }
        }
        let unchanged = reader.get_with(&path, &[("if-none-match", &etag)]).await;
        assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0), "{path}");
        for header in ["etag", "last-modified", "cache-control", "vary"] {
            assert_eq!(unchanged.header(header), all.header(header), "{path} {header}");
        }
        let head = send(reader.request(Method::HEAD, &path).header("if-none-match", "*")).await;
        assert_eq!(head.status.as_u16(), 304);
        let weak = format!("W/{etag}");
        assert_eq!(reader.get_with(&path, &[("if-range", &weak), ("range", "bytes=0-1")]).await.status.as_u16(), 200);
        let none = reader.get_with(&path, &[("if-range", "\"other\""), ("range", "bytes=5000-")]).await;
        assert_eq!(none.status.as_u16(), 200, "a range that does not count cannot be unsatisfiable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_is_not_there() {
    let server = Server::start();
    let writer = server.writer().await;
    let [(plain, attached), (_, other)] = released(&writer, b"released").await;
    let draft = writer.draft("hidden", "1.0", b"hidden").await;
    let reader = server.anonymous();
    let base = "/v1/images/debian/versions/1:0/artifacts";
    let attachments = format!("{base}/{plain}/attachments");
    for path in [
        download("hidden", &draft),
        // Each of them there, but not together.
        format!("{base}/{draft}/download"),
        download("hidden", &plain),
        format!("{attachments}/{other}/download"),
        format!("{base}/{attached}/download"),
        format!("/v1/blobs/{}", digest(b"never sent")),
    ] {
        reader.get(&path).await.problem(404, "not-found");
    }
    // What a draft cites, and what nothing does.
    writer.upload(b"kept back").await;
    for bytes in [&b"hidden"[..], b"kept back"] {
        let path = format!("/v1/blobs/{}", digest(bytes));
        for api in [&reader, &server.manager()] {
            api.get(&path).await.problem(404, "not-found");
        }
        let seen = writer.get(&path).await;
        assert_eq!((seen.status.as_u16(), seen.body == bytes), (200, true));
        assert_eq!((seen.header("cache-control"), seen.header("vary")), ("private, no-store", "Authorization"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_not_downloaded_by_anybody() {
    let server = Server::start();
    let writer = server.writer().await;
    let one = writer.draft("debian", "1.0", b"draft").await;
    let attachments = format!("/v1/images/debian/versions/1.0/artifacts/{one}/attachments");
    let notes = writer.add(&attachments, attachment("notes", "text/plain", b"notes")).await;
    writer.upload(b"notes").await;
    let paths = [download("debian", &one), format!("{attachments}/{notes}/download")];
    for path in &paths {
        for api in [&server.anonymous(), &server.manager(), &writer] {
            api.get(path).await.problem(404, "not-found");
            assert_eq!(api.head(path).await.status, 404);
        }
    }
    assert_eq!(writer.publish("debian", "1.0").await["state"], "succeeded");
    let reader = server.anonymous();
    for (path, bytes) in paths.iter().zip([&b"draft"[..], b"notes"]) {
        assert_eq!(reader.get(path).await.body, bytes);
        // What is attached is cited as well.
        assert_eq!(reader.get(&format!("/v1/blobs/{}", digest(bytes))).await.body, bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_object_is_told_before_anything_is_sent() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(2, 10_000);
    let artifact = writer.release("debian", "1.0", &whole).await;
    let hex = digest(&whole).trim_start_matches("sha256:").to_owned();
    server.folder.lose(&whole);
    let reader = server.anonymous();
    for path in [download("debian", &artifact), format!("/v1/blobs/{}", digest(&whole))] {
        let refused = reader.get(&path).await;
        let problem = refused.problem(503, "unavailable");
        assert!(!problem.to_string().contains(&hex[..2]) || !problem.to_string().contains("blobs/sha256"), "{problem}");
        assert_eq!(refused.header("etag"), "", "no cache may take it for the bytes");
        reader.get_with(&path, &[("range", "bytes=9999-")]).await.problem(503, "unavailable");
        assert_eq!(reader.head(&path).await.status, 503, "a HEAD promises nothing that a GET does not keep");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_ends_early_is_never_a_complete_looking_answer() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(4, (5 << 20) + 1000);
    let upload = id(&writer.begin(&whole).await);
    let mut parts = Vec::new();
    for (number, chunk) in (1..).zip(whole.chunks(5 << 20)) {
        parts.push(writer.put_part(&upload, number, chunk.to_vec()).await.ok());
    }
    writer.complete(&upload, &parts).await.ok();
    let artifact = writer.release("debian", "1.0", &whole).await;
    let path = download("debian", &artifact);

    let folder = server.folder.objects_of(&whole);
    let mut objects: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    objects.sort();
    let last = std::fs::read(&objects[1]).expect("the last object");
    std::fs::write(&objects[1], &last[..10]).expect("truncated");
    let broken = server.anonymous().request(Method::GET, &path).send().await.expect("headers");
    assert_eq!(broken.status().as_u16(), 200);
    broken.bytes().await.expect_err("the connection breaks before the length that was announced");

    // The blob is known as damaged now: told at once, and asked for again.
    let path = path.as_str();
    let reader = server.anonymous();
    until("the damage is known", async || {
        reader.request(Method::GET, path).send().await.expect("an answer").status() == 503
    })
    .await;
    server.anonymous().get(path).await.problem(503, "unavailable");
    assert_eq!(writer.begin(&whole).await["state"], "created");
    assert_eq!(writer.upload(&whole).await, digest(&whole));
    assert_eq!(server.anonymous().get(path).await.body, whole, "healed");
    let again = writer
        .post("/v1/uploads", json!({"expected_digest": digest(&whole), "expected_size_bytes": whole.len()}))
        .await;
    assert_eq!(again.ok()["state"], "ready");
}

/// A disk changes one bit of an object that keeps its size.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_changed_are_never_a_complete_looking_answer() {
    let server = Server::start();
    let writer = server.writer().await;
    let (small, large, whole) = (bytes(5, 1000), bytes(6, 3 << 20), bytes(7, 1000));
    writer.release("whole", "1.0", &whole).await;
    let verify = |server: &Server, digests: &[&str]| {
        let mut command = std::process::Command::new(program());
        command.arg("--data-dir").arg(server.folder.data()).arg("verify").args(digests);
        command.output().expect("the program")
    };
    let verified = verify(&server, &[]);
    assert!(verified.status.success());
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "1 of 1 blobs are whole\n");
    for (image, published) in [("small", &small), ("large", &large)] {
        let artifact = writer.release(image, "1.0", published).await;
        let path = download(image, &artifact);
        let folder = std::fs::read_dir(server.folder.objects_of(published)).expect("the folder");
        let object = folder.map(|entry| entry.expect("an entry").path()).next().expect("an object");
        let mut rotten = published.clone();
        *rotten.last_mut().expect("a byte") ^= 1;
        std::fs::write(&object, &rotten).expect("written");
        let broken = server.anonymous().request(Method::GET, &path).send().await.expect("headers");
        // Of what is read at once, it is known before anything is sent.
        let told_at_once = broken.status() == 503;
        assert_eq!(told_at_once, image == "small", "{}", broken.status());
        assert_ne!(
            told_at_once,
            broken.bytes().await.is_err(),
            "the connection breaks before the length that was announced"
        );
        let reader = server.anonymous();
        until("it is not served any more", async || {
            reader.request(Method::GET, &path).send().await.expect("an answer").status() == 503
        })
        .await;
        let problem = reader.get(&path).await.problem(503, "unavailable");
        assert_eq!(problem["detail"], "blob with damaged bytes is unavailable");

        let verified = verify(&server, &[]);
        assert_eq!(verified.status.code(), Some(1));
        let line = format!("{} different {}\n", digest(published), digest(&rotten));
        assert_eq!(String::from_utf8_lossy(&verified.stdout), line);
        assert!(verify(&server, &[&digest(&whole)]).status.success());
        assert_eq!(verify(&server, &[&digest(b"unknown")]).status.code(), Some(1));

        assert_eq!(writer.upload(published).await, digest(published));
        assert_eq!(reader.get(&path).await.body, *published, "healed");
        assert!(verify(&server, &[]).status.success());
    }
}

/// Asks for a download and reads its headers; the rest waits in the connection.
fn begin(server: &Server, path: &str) -> TcpStream {
    let mut connection = connect(server);
    let get = request(&server.anonymous(), "GET", path, &["connection: close"]);
    connection.write_all(get.as_bytes()).expect("sent");
    assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_leave_take_nothing_with_them() {
    let server = Server::start();
    let writer = server.writer().await;
    let whole = bytes(4, 8 << 20);
    let artifact = writer.release("debian", "1.0", &whole).await;
    for _ in 0..50 {
        drop(begin(&server, &download("debian", &artifact)));
    }
    let open = || {
        let folder = format!("/proc/{}/fd", server.pid());
        let links =
            std::fs::read_dir(folder).expect("files").filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("blobs/sha256")).count()
    };
    until("their files are closed", async || open() == 0).await;
    assert!(server.anonymous().get(&download("debian", &artifact)).await.body == whole);
}
