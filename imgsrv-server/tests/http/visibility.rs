//! What is shown to whom: an image without a published version is there for writers only.

use crate::server::{Server, names};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_published_version_an_image_is_not_there() {
    let server = Server::start();
    let writer = server.writer().await;
    let hidden = writer.draft("hidden", "1.0", b"hidden").await;
    writer.release("open", "1.0", b"open").await;
    let draft = writer.draft("open", "2.0", b"draft").await;
    let garbage = server.client(Some("garbage".to_owned()));
    for path in [
        "/v1/images/hidden".to_owned(),
        "/v1/images/hidden/versions".to_owned(),
        "/v1/images/hidden/versions/1.0".to_owned(),
        "/v1/images/hidden/versions/1.0/artifacts".to_owned(),
        format!("/v1/images/hidden/versions/1.0/artifacts/{hidden}"),
        "/v1/images/hidden/aliases".to_owned(),
        "/v1/images/hidden/aliases/latest".to_owned(),
        "/v1/images/hidden/refs/1.0".to_owned(),
        "/v1/images/open/versions/2.0".to_owned(),
        "/v1/images/open/versions/2.0/artifacts".to_owned(),
        format!("/v1/images/open/versions/2.0/artifacts/{draft}"),
        format!("/v1/images/open/versions/1.0/artifacts/{draft}"),
        "/v1/images/open/refs/2.0".to_owned(),
        "/v1/images/open/aliases/latest".to_owned(),
    ] {
        for reader in [&server.anonymous(), &garbage] {
            let answer = reader.get(&path).await;
            answer.problem(404, "not-found");
            // A writer may be told something else, so no cache may mix them up.
            assert_eq!(answer.header("vary"), "Authorization", "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_sees_more_than_others() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    writer.release("open", "1.0", b"open").await;
    writer.draft("open", "2.0", b"draft").await;
    writer.draft("hidden", "1.0", b"hidden").await;
    let garbage = server.client(Some("garbage".to_owned()));
    for reader in [&server.anonymous(), &garbage, &manager] {
        assert_eq!(names(&reader.get("/v1/images").await.ok(), "images", "name"), ["open"]);
    }
    let seen = writer.get("/v1/images").await;
    assert_eq!(names(&seen.ok(), "images", "name"), ["hidden", "open"]);
    assert_eq!((seen.header("cache-control"), seen.header("vary")), ("private, no-store", "authorization"));
    assert_eq!(writer.get("/v1/images/hidden/versions/1.0").await.ok()["version"]["state"], "draft");

    let versions = "/v1/images/open/versions";
    let found = [("draft", vec!["2.0"]), ("publishing", vec![]), ("published", vec!["1.0"])];
    for (state, expected) in found {
        let path = format!("{versions}?state={state}");
        let seen = writer.get(&path).await;
        assert_eq!(names(&seen.ok(), "versions", "version"), expected, "{state}");
        assert_eq!((seen.header("cache-control"), seen.header("vary")), ("private, no-store", "authorization"));
        if state == "published" {
            continue;
        }
        for stranger in [&server.anonymous(), &garbage] {
            for path in [path.clone(), format!("{path}&limit=0"), path.replace("/open/", "/No/")] {
                stranger.get(&path).await.problem(401, "unauthorized");
            }
        }
        manager.get(&path).await.problem(403, "forbidden");
    }
    for api in [&server.anonymous(), &manager, &writer] {
        assert_eq!(
            names(&api.get(versions).await.ok(), "versions", "version"),
            ["1.0"],
            "published, when nothing is said"
        );
        for state in ["deleted", ""] {
            api.get(&format!("{versions}?state={state}")).await.problem(400, "invalid");
        }
    }
}
