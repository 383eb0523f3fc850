//! The server itself: whether it is well, and how it describes itself.

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_well_and_describes_itself() {
    let server = Server::start();
    let api = server.anonymous();
    for path in ["/healthz", "/readyz"] {
        api.get(path).await.no_content();
        assert_eq!(api.head(path).await.status, 204);
    }
    assert_eq!(api.get("/openapi.json").await.ok(), imgsrv_server::specification());
    let page = api.get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(text.contains("openapi.json"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!text.contains(outside), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_what_does_not_work() {
    let server = Server::start();
    let (objects, away) = (server.folder.data().join("objects"), server.folder.path().join("away"));
    let api = server.anonymous();
    let not_ready = async || {
        let problem = api.get("/readyz").await.problem(503, "unavailable");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("store") && !detail.contains("database") && !detail.contains('/'), "{detail}");
        assert_eq!(api.get("/healthz").await.status, 204);
    };
    std::fs::rename(&objects, &away).expect("the store");
    not_ready().await;
    std::fs::create_dir(&objects).expect("where nothing is mounted");
    not_ready().await;
    std::fs::remove_dir(&objects).expect("the folder");
    std::fs::write(&objects, "in the way").expect("a file");
    not_ready().await;
    std::fs::remove_file(&objects).expect("the file");
    std::fs::rename(&away, &objects).expect("the store");
    assert_eq!(api.get("/readyz").await.status, 204, "and again when it does");
}
