//! Aliases: movable names of published versions, and what a reference stands for.

use serde_json::json;

use crate::server::{Server, members};

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_moves_and_stays_itself() {
    let server = Server::start();
    let (writer, reader) = (server.writer().await, server.anonymous());
    for (version, content) in [("1.0", b"one"), ("2.0", b"two"), ("latest", b"six")] {
        writer.release("debian", version, content).await;
    }
    let (aliases, refs) = ("/v1/images/debian/aliases", "/v1/images/debian/refs");
    let stable = format!("{aliases}/stable");
    let first = writer.put(&stable, json!({"version": "1.0"})).await.ok();
    assert_eq!(members(&first), ["alias", "created_at", "id", "image_id", "updated_at", "version", "version_id"]);
    let moved = writer.put(&stable, json!({"version": "2.0"})).await.ok();
    assert_eq!(
        (&moved["id"], &moved["created_at"], &moved["version"]),
        (&first["id"], &first["created_at"], &json!("2.0"))
    );
    let target = reader.get("/v1/images/debian/versions/2.0").await.ok()["version"].clone();
    assert_eq!((&moved["version_id"], &moved["image_id"]), (&target["id"], &target["image_id"]));
    assert_ne!(moved["version_id"], first["version_id"]);
    assert_ne!(moved["updated_at"], first["updated_at"]);
    assert_eq!(reader.get(&format!("{refs}/stable")).await.ok(), target, "a reference is shown as its version");
    assert_eq!(reader.get(&stable).await.ok(), moved);

    writer.put(&format!("{aliases}/latest"), json!({"version": "1.0"})).await.ok();
    let resolved = reader.get(&format!("{refs}/stable")).await.ok();
    assert_eq!(resolved["version"], "2.0");
    assert_eq!(members(&resolved), ["created_at", "id", "image_id", "published_at", "state", "updated_at", "version"]);
    assert_eq!(reader.get(&format!("{refs}/latest")).await.ok()["version"], "latest", "a version wins over an alias");
    // One that is not published does not, not even for those who see it.
    writer.draft("debian", "next", b"next").await;
    writer.put(&format!("{aliases}/next"), json!({"version": "1.0"})).await.ok();
    for api in [&reader, &writer] {
        assert_eq!(api.get(&format!("{refs}/next")).await.ok()["version"], "1.0");
    }
    writer.delete(&format!("{aliases}/next")).await.no_content();
    reader.get(&format!("{refs}/nothing")).await.problem(404, "not-found");

    writer.delete(&stable).await.no_content();
    writer.delete(&stable).await.problem(404, "not-found");
    assert_eq!(reader.get(aliases).await.ok()["aliases"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_points_at_what_is_published() {
    let server = Server::start();
    let writer = server.writer().await;
    writer.release("debian", "1.0", b"one").await;
    writer.draft("debian", "2.0", b"two").await;
    writer.post("/v1/images", json!({"name": "empty"})).await.created();
    assert_eq!(writer.get("/v1/images/empty/aliases").await.ok(), json!({"aliases": []}));
    server.anonymous().get("/v1/images/empty/aliases").await.problem(404, "not-found");
    let alias = |name: &str| format!("/v1/images/debian/aliases/{name}");
    writer.put(&alias("stable"), json!({"version": "2.0"})).await.problem(412, "wrong-state");
    writer.put(&alias("stable"), json!({"version": "9.0"})).await.problem(404, "not-found");
    writer.put("/v1/images/nothing/aliases/stable", json!({"version": "1.0"})).await.problem(404, "not-found");
    writer.release("other", "3.0", b"three").await;
    writer.put(&alias("stable"), json!({"version": "3.0"})).await.problem(404, "not-found");
    for name in ["0", "A.b_c-d", &"a".repeat(64)] {
        writer.put(&alias(name), json!({"version": "1.0"})).await.ok();
    }
    // Nothing of that has made one; not even the deletion of what was never there.
    for image in ["debian", "empty"] {
        writer.delete(&format!("/v1/images/{image}/aliases/stable")).await.problem(404, "not-found");
    }
    writer.get(&alias("stable")).await.problem(404, "not-found");
}
