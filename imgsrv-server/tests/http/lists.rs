//! Lists: whole, or piece by piece.

use serde_json::{Value, json};

use crate::server::{Api, Server, artifact, digest, id, members, names};

/// A path with one more thing in its query.
fn asking(path: &str, what: &str) -> String {
    format!("{path}{}{what}", if path.contains('?') { '&' } else { '?' })
}

/// What a list holds, read one by one.
async fn one_by_one(api: &Api, path: &str, member: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&asking(path, &format!("limit=1{cursor}"))).await.ok();
        let items = page[member].as_array().expect("items");
        assert!(items.len() <= 1, "{page}");
        all.extend(items.iter().cloned());
        match page.get("next_cursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().expect("a cursor")),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_can_be_read_piece_by_piece() {
    let server = Server::start();
    let (manager, api) = (server.manager(), server.writer().await);
    for version in ["1.0", "2.0", "latest"] {
        api.release("debian", version, version.as_bytes()).await;
    }
    api.draft("alpine", "1.0", b"3").await;
    api.add("/v1/images/alpine/versions/1.0/artifacts", artifact(b"disk", json!({}))).await;
    for version in ["3.0", "4.0"] {
        api.draft("debian", version, version.as_bytes()).await;
        api.begin(b"begun").await;
    }
    for alias in ["stable", "latest"] {
        api.put(&format!("/v1/images/debian/aliases/{alias}"), json!({"version": "2.0"})).await.ok();
    }
    let principals = manager.get("/v1/auth/principals").await.ok();
    let tokens = format!("/v1/auth/principals/{}/api-tokens", id(&principals["principals"][1]));
    manager.post(&tokens, json!({"expires_at": "2099-01-01T00:00:00Z"})).await.created();
    let versions = "/v1/images/debian/versions";
    assert_eq!(names(&api.get(versions).await.ok(), "versions", "version"), ["latest", "2.0", "1.0"], "newest first");
    for (api, path, member, sorted_by) in [
        (&api, "/v1/images", "images", Some("name")),
        (&api, versions, "versions", None),
        (&api, "/v1/images/alpine/versions/1.0/artifacts", "artifacts", None),
        (&api, "/v1/images/debian/aliases", "aliases", Some("alias")),
        (&api, "/v1/uploads", "uploads", None),
        (&manager, "/v1/auth/principals", "principals", None),
        (&manager, &tokens, "api_tokens", None),
        // What a filter lets through is a list as well.
        (&api, "/v1/images/debian/versions?state=published", "versions", None),
        (&api, "/v1/images/debian/versions?state=draft", "versions", None),
        (&api, "/v1/uploads?state=created", "uploads", None),
        (&api, &format!("/v1/uploads?expected_digest={}", digest(b"begun")), "uploads", None),
    ] {
        let whole = api.get(path).await.ok();
        assert_eq!(members(&whole), [member], "{path}");
        let whole = whole[member].as_array().expect("items").clone();
        assert!(whole.len() > 1, "{path}");
        assert_eq!(one_by_one(api, path, member).await, whole, "{path}");
        let large = api.get(&asking(path, "limit=1000")).await.ok();
        assert_eq!((members(&large), large[member].as_array()), (vec![member], Some(&whole)), "{path}");
        if let Some(name) = sorted_by {
            assert!(whole.iter().map(|one| one[name].as_str().expect("a name")).is_sorted(), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_is_refused_by_every_list() {
    let server = Server::start();
    let (manager, api) = (server.manager(), server.writer().await);
    api.release("debian", "1.0", b"1").await;
    let principals = manager.get("/v1/auth/principals").await.ok();
    let tokens = format!("/v1/auth/principals/{}/api-tokens", id(&principals["principals"][0]));
    for (api, path) in [
        (&api, "/v1/images"),
        (&api, "/v1/images/debian/versions"),
        (&api, "/v1/images/debian/versions/1.0/artifacts"),
        (&api, "/v1/images/debian/aliases"),
        (&api, "/v1/uploads"),
        (&manager, "/v1/auth/principals"),
        (&manager, &tokens),
    ] {
        for query in [
            "limit",
            "limit=",
            "limit=0",
            "limit=-1",
            "limit=1001",
            "limit=1.5",
            "limit=x",
            "limit=%ff",
            "limit=99999999999999999999",
            "cursor=",
            "cursor=%25",
            "cursor=%00",
            "cursor=a%20b",
            "cursor=AAAA",
            // Of another list: four keys, which none of these has.
            "cursor=WyJhIiwiYiIsImMiLCJkIl0",
        ] {
            let refused = api.get(&format!("{path}?{query}")).await.problem(400, "invalid");
            let about = query.split('=').next().expect("a name");
            assert!(
                refused["detail"].as_str().is_some_and(|detail| detail.contains(about)),
                "{path}?{query}: {refused}"
            );
        }
        let twice = api.get(&format!("{path}?limit=1&limit=2")).await;
        assert!([200, 400].contains(&twice.status.as_u16()), "{path}: {}", twice.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_a_limit_ends_at_ten_thousand() {
    let server = Server::start();
    let token = server.writer().await.token;
    let folder = server.stop();
    // Ten thousand images and one: more than a story has time to make.
    let time = "2026-01-01T00:00:00+00:00";
    let rows = "with recursive n(i) as (select 0 union all select i + 1 from n where i < 10000)";
    folder
        .change(&format!(
            "insert into images (id, name, created_at, updated_at) \
             {rows} select randomblob(16), printf('image-%05d', i), '{time}', '{time}' from n"
        ))
        .await;
    let server = Server::start_in(folder, &[]);
    let api = server.client(token);
    let read = async |query: &str| {
        let page = api.get(&format!("/v1/images{query}")).await.ok();
        let last = names(&page, "images", "name").last().expect("images").to_string();
        (page["images"].as_array().map_or(0, Vec::len), last, page["next_cursor"].as_str().map(str::to_owned))
    };
    let (count, last, cursor) = read("").await;
    assert_eq!((count, last.as_str()), (10_000, "image-09999"));
    let cursor = cursor.expect("a cursor: there is more");
    assert_eq!(read(&format!("?cursor={cursor}")).await, (1, "image-10000".to_owned(), None));
    let (count, _, cursor) = read("?limit=1000").await;
    let cursor = cursor.expect("a cursor: there is more");
    assert_eq!(count, 1000);
    let (count, last, cursor) = read(&format!("?cursor={cursor}")).await;
    assert_eq!(
        (count, last.as_str(), cursor.is_some()),
        (100, "image-01099", true),
        "a hundred, where nothing is said"
    );
}
