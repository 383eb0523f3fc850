//! An answer, and what holds for every one.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::promised;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) path: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let unbroken = |bytes: &[u8]| panic!("broken off after {} bytes", bytes.len());
    try_send(request, unbroken).await.expect("an answer")
}

/// Sends a request whose connection may break. `broken` is shown what came of a body that is not whole.
pub(crate) async fn try_send(request: RequestBuilder, broken: impl FnOnce(&[u8])) -> reqwest::Result<Answer> {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let method = request.method().clone();
    let mut response = client.execute(request).await?;
    let (path, status, headers) = (response.url().path().to_owned(), response.status(), response.headers().clone());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => break,
            Err(err) => {
                broken(&body);
                return Err(err);
            }
        }
    }
    let answer = Answer { path, status, headers, body };
    answer.check(&method);
    Ok(answer)
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }

    /// JSON with this status, and what holds for all JSON.
    #[track_caller]
    fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/json");
        let shown = self.json();
        if self.path.starts_with("/v1/") {
            check_members(&shown, !self.path.starts_with("/v1/auth/"));
        }
        shown
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        self.expect(StatusCode::OK)
    }

    #[track_caller]
    pub(crate) fn created(&self) -> Value {
        self.expect(StatusCode::CREATED)
    }

    #[track_caller]
    pub(crate) fn accepted(&self) -> Value {
        self.expect(StatusCode::ACCEPTED)
    }

    #[track_caller]
    pub(crate) fn no_content(&self) {
        assert_eq!((self.status, self.text()), (StatusCode::NO_CONTENT, String::new()));
    }

    /// A problem with this status and slug.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        let problem = self.json();
        assert_eq!(
            (self.status.as_u16(), &problem["type"]),
            (status, &json!(format!("urn:imgsrv:problem:{slug}"))),
            "{problem}"
        );
        problem
    }

    /// What holds for every answer.
    fn check(&self, method: &Method) {
        promised::check(self, method);
        let id = self.header("x-request-id");
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
        if self.status.is_client_error() || self.status.is_server_error() {
            self.check_problem(*method == Method::HEAD);
        }
        let policy = self.header("cache-control");
        if self.status.is_success() && !method.is_safe() {
            assert_eq!(policy, "private, no-store", "{method} {}", self.path);
        }
        assert!(!policy.is_empty(), "{}: no answer leaves it to a cache what to do", self.path);
        if policy.contains("private") && self.path.starts_with("/v1/") {
            assert_eq!(policy, "private, no-store", "{}", self.path);
            assert_eq!(self.header("vary").to_lowercase(), "authorization", "{}", self.path);
        }
    }

    /// What holds for every problem.
    fn check_problem(&self, is_head: bool) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        assert_eq!(self.header("cache-control"), "no-store");
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), "Bearer"),
            405 => assert!(!self.header("allow").is_empty()),
            429 | 503 => assert!(!self.header("retry-after").is_empty()),
            _ => {}
        }
        if is_head {
            return;
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["instance"], self.header("x-request-id"));
        let kind = problem["type"].as_str().expect("a type");
        assert!(kind.strip_prefix("urn:imgsrv:problem:").is_some_and(|slug| !slug.is_empty()), "{problem}");
        assert!(problem["title"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        let known = ["type", "title", "status", "detail", "instance", "errors"];
        assert!(members(&problem).iter().all(|member| known.contains(member)), "{problem}");
        if let Some(errors) = problem.get("errors") {
            let errors = errors.as_array().expect("a list");
            assert!(!errors.is_empty(), "{problem}");
            for error in errors {
                assert_eq!(members(error), ["field", "reason"], "{problem}");
                let texts =
                    ["field", "reason"].map(|member| error[member].as_str().is_some_and(|text| !text.is_empty()));
                assert_eq!(texts, [true, true], "{problem}");
            }
        }
        match self.status.as_u16() {
            500 => assert!(problem.get("detail").is_none(), "{problem}"),
            _ => assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}"),
        }
    }
}

/// What has no value is left out, times are UTC in microseconds at most, and ids are UUIDs, or opaque where identity
/// is managed.
fn check_members(shown: &Value, ids_are_uuids: bool) {
    match shown {
        Value::Null => panic!("null"),
        Value::Array(items) => items.iter().for_each(|item| check_members(item, ids_are_uuids)),
        Value::Object(members) => {
            for (name, member) in members {
                // What is in these is the client's own.
                if !["attributes", "requirements"].contains(&name.as_str()) {
                    check_members(member, ids_are_uuids);
                }
                if name.ends_with("_at") {
                    check_time(member);
                } else if name == "id" || name.ends_with("_id") {
                    let id = member.as_str().expect("a text");
                    let is_uuid = uuid::Uuid::try_parse(id).is_ok_and(|uuid| uuid.to_string() == id);
                    assert!(is_uuid || !(ids_are_uuids || id.is_empty()), "{name}: {member}");
                }
            }
        }
        _ => {}
    }
}

fn check_time(time: &Value) {
    let text = time.as_str().expect("a text");
    assert!(text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
    let fraction = text.trim_end_matches('Z').split_once('.').map_or("", |(_, fraction)| fraction);
    assert!(fraction.len() <= 6, "{text}");
}

/// The id of what an answer shows.
#[track_caller]
pub(crate) fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap_or_else(|| panic!("no id: {shown}")).to_owned()
}

/// The members of an object, sorted.
#[track_caller]
pub(crate) fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

/// One member of each item of a list.
#[track_caller]
pub(crate) fn names<'a>(list: &'a Value, items: &str, name: &str) -> Vec<&'a str> {
    let items = list[items].as_array().unwrap_or_else(|| panic!("no {items}: {list}"));
    items.iter().map(|item| item[name].as_str().expect("a text")).collect()
}
