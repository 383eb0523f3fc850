//! What every request is checked for, in which order: 401, 403, the path, the body, and then what there is.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Api, Operation, Server, Who, World, body, forbidden, operations, send, unknown, with};

const BAD: &str = "{\"no such member\": ";

fn client<'a>(operation: &Operation, manager: &'a Api, writer: &'a Api) -> &'a Api {
    if operation.who == Who::Managers { manager } else { writer }
}

async fn call(api: &Api, operation: &Operation, path: &str, body: String) -> Answer {
    let request = api.request(operation.method.clone(), path);
    send(request.header("content-type", "application/json").body(body)).await
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a detail")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_id_is_told_before_a_bad_body_and_a_bad_body_before_what_there_is() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    let mut reading = 0;
    for operation in operations() {
        let Some(good) = body(&operation) else { continue };
        let (api, good) = (client(&operation, &manager, &writer), good.to_string());
        let path = operation.at(|name| world.value(name));
        // Of a version that is published, or of a name that is taken: it is the body that is wrong.
        let bad_body = call(api, &operation, &path, BAD.to_owned()).await.problem(400, "invalid");
        let nowhere = call(api, &operation, &operation.at(unknown), BAD.to_owned()).await.problem(400, "invalid");
        assert_eq!(detail(&nowhere), detail(&bad_body), "{}", operation.id);
        for parameter in operation.parameters() {
            let path = operation.at(|name| if name == parameter { "%00".to_owned() } else { world.value(name) });
            let bad_path = call(api, &operation, &path, good.clone()).await.problem(400, "invalid");
            let both = call(api, &operation, &path, BAD.to_owned()).await.problem(400, "invalid");
            assert_eq!(detail(&both), detail(&bad_path), "{} {parameter}", operation.id);
            assert_ne!(detail(&both), detail(&bad_body), "{} {parameter}", operation.id);
        }
        reading += 1;
    }
    assert!(reading > 8, "{reading}");
    // The body of a part is bytes; what can be wrong with it before they come is their digest.
    let part = |upload: String| {
        let part = writer.request(Method::PUT, &format!("/v1/uploads/{upload}/parts/1"));
        send(part.header("content-digest", "sha-256=:AAAA:").body("bytes"))
    };
    for upload in [unknown("upload_id"), world.value("upload_id")] {
        part(upload).await.problem(400, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_breaks_its_rule_is_refused_wherever_it_stands() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    for operation in operations() {
        let api = client(&operation, &manager, &writer);
        for parameter in operation.parameters() {
            for value in forbidden(&parameter) {
                let path = operation.at(|name| if name == parameter { value.clone() } else { world.value(name) });
                let answer = match body(&operation) {
                    Some(body) => call(api, &operation, &path, body.to_string()).await,
                    None => api.call(operation.method.clone(), &path).await,
                };
                assert_eq!(answer.status, 400, "{} {path}: {}", operation.method, answer.text());
                answer.problem(400, "invalid");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_no_request_knows_is_refused_by_name() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    for operation in operations() {
        let Some(good) = body(&operation) else { continue };
        let api = client(&operation, &manager, &writer);
        let path = operation.at(|name| world.draft(name));
        let more = with(good, json!({"no_such_member": null})).to_string();
        let refused = call(api, &operation, &path, more).await.problem(400, "invalid");
        assert!(detail(&refused).contains("no_such_member"), "{}: {refused}", operation.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_left_out_is_not_null() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    let document = imgsrv_server::specification();
    let mut asked = 0;
    for operation in operations() {
        let Some(good) = body(&operation) else { continue };
        let shape = &document["paths"][&operation.path][operation.method.as_str().to_lowercase()]["requestBody"];
        let name = shape["content"]["application/json"]["schema"]["$ref"].as_str().expect("a schema");
        let schema = &document["components"]["schemas"][name.rsplit('/').next().expect("a name")];
        for member in schema["properties"].as_object().expect("members").keys() {
            let null = with(good.clone(), json!({ member: null })).to_string();
            let path = operation.at(|name| world.draft(name));
            let api = client(&operation, &manager, &writer);
            call(api, &operation, &path, null).await.problem(400, "invalid");
            asked += 1;
        }
    }
    assert!(asked > 15, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_wherever_a_path_names_it() {
    let server = Server::start();
    let (manager, writer) = (server.manager(), server.writer().await);
    let world = World::make(&server).await;
    let before = writer.get("/v1/images/debian/versions/2.0").await.ok();
    let mut asked = 0;
    for operation in operations() {
        let api = client(&operation, &manager, &writer);
        // Only a draft can be edited, and of another version it would be the state that is wrong.
        let edits = operation.method != Method::GET && operation.path.contains("{version}");
        for parameter in operation.parameters() {
            let makes_it = operation.id == "put_alias" && parameter == "alias";
            if makes_it || parameter == "number" || parameter == "role" {
                continue;
            }
            let path = operation.at(|name| match name {
                name if name == parameter => unknown(name),
                name if edits => world.draft(name),
                name => world.value(name),
            });
            let answer = match body(&operation) {
                Some(body) => call(api, &operation, &path, body.to_string()).await,
                None => api.call(operation.method.clone(), &path).await,
            };
            answer.problem(404, "not-found");
            asked += 1;
        }
    }
    assert!(asked > 40, "{asked}");
    assert_eq!(writer.get("/v1/images/debian/versions/2.0").await.ok(), before);
}
