//! An answer, and what holds for every one.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let is_head = request.method() == Method::HEAD;
    let response = client.execute(request).await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    assert!(headers.contains_key("x-request-id"), "every answer carries its id");
    let body = response.bytes().await.expect("a whole body").to_vec();
    let answer = Answer { status, headers, body };
    if status.is_client_error() || status.is_server_error() {
        answer.check_problem(is_head);
    }
    answer
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

    #[track_caller]
    fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
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

    /// What holds for every problem.
    fn check_problem(&self, is_head: bool) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        assert_eq!(self.header("cache-control"), "no-store");
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), "Bearer"),
            405 => assert!(!self.header("allow").is_empty()),
            503 => assert!(!self.header("retry-after").is_empty()),
            _ => {}
        }
        if is_head {
            return;
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["instance"], self.header("x-request-id"));
        for member in ["type", "title"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
        }
        match self.status.as_u16() {
            500 => assert!(problem.get("detail").is_none(), "{problem}"),
            _ => assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}"),
        }
    }
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
