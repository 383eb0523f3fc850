//! Why a command ends early, and with which code.

use std::fmt;
use std::io;
use std::path::Path;

use imgsrv_client::{Error, types::Problem};
use serde_json::{Value, json};

/// What the server answers to a credential that is of no use, after many such.
const TOO_MANY_ATTEMPTS: &str = "urn:imgsrv:problem:too-many-attempts";

/// Why a command ended early: a line for people, and a kind for programs.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    line: String,
    problem: Option<Box<Problem>>,
}

/// What programs tell failures apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The server refused it, or something here went wrong.
    Other = 1,
    /// The command line cannot be obeyed.
    Usage = 2,
    /// No token, or one that may not do this.
    Denied = 3,
    /// There is no such thing.
    NotFound = 4,
    /// There is something else under that name already, or it is in a state that does not allow this.
    Conflict = 5,
    /// The server is not there, or cannot do it now, and that did not change for as long as it was tried.
    Unavailable = 6,
    /// The bytes are not those that were promised.
    Damaged = 7,
}

impl Failure {
    pub(crate) fn new(kind: Kind, line: impl AsRef<str>) -> Self {
        // What a server says goes to a terminal, which must not obey it.
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = line.as_ref().chars().map(printable).collect();
        Self { kind, line: line.split_whitespace().collect::<Vec<_>>().join(" "), problem: None }
    }

    pub(crate) fn other(line: impl AsRef<str>) -> Self {
        Self::new(Kind::Other, line)
    }

    pub(crate) fn usage(line: impl AsRef<str>) -> Self {
        Self::new(Kind::Usage, line)
    }

    pub(crate) fn file(path: &Path, err: &io::Error) -> Self {
        Self::other(format!("{}: {err}", path.display()))
    }

    /// The line.
    pub(crate) fn reason(&self) -> &str {
        &self.line
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status, where it was an answer of the server.
    pub(crate) fn status(&self) -> Option<i32> {
        self.problem.as_ref().map(|problem| problem.status)
    }

    /// With what the line is about in front.
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.line = format!("{what}: {}", self.line);
        self
    }

    /// What the process should exit with.
    pub fn code(&self) -> u8 {
        self.kind as u8
    }

    /// As an event.
    pub(crate) fn event(&self) -> Value {
        json!({"event": "failed", "code": self.code(), "message": self.line, "problem": self.problem})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.line)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let kind = match problem.status {
            401 | 403 => Kind::Denied,
            // A valid token is never answered so: to wait does not make this one valid.
            429 if problem.type_ == TOO_MANY_ATTEMPTS => Kind::Denied,
            404 => Kind::NotFound,
            409 | 412 => Kind::Conflict,
            429 | 500..=599 => Kind::Unavailable,
            _ => Kind::Other,
        };
        let errors = problem.errors.iter().map(|error| format!("; {}: {}", error.field, error.reason));
        let request =
            problem.instance.iter().filter(|_| kind == Kind::Unavailable).map(|id| format!(" (request {id})"));
        let line = problem.detail.clone().unwrap_or_else(|| problem.title.clone());
        let line: String = std::iter::once(line).chain(errors).chain(request).collect();
        Self { problem: Some(Box::new(problem)), ..Self::new(kind, line) }
    }
}

impl From<Error<Problem>> for Failure {
    fn from(err: Error<Problem>) -> Self {
        match err {
            Error::ErrorResponse(problem) => problem.into_inner().into(),
            Error::UnexpectedResponse(answer) => {
                let status = answer.status();
                // What stands before the server may have limits of its own.
                let later = status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS;
                let kind = if later { Kind::Unavailable } else { Kind::Other };
                Self::new(kind, format!("{} answered {status}, which imgsrv does not", answer.url()))
            }
            Error::CommunicationError(err) | Error::ResponseBodyError(err) => err.into(),
            // A proxy's own page, most likely.
            Error::InvalidResponsePayload(..) => Self::new(Kind::Unavailable, "an answer that is not imgsrv's"),
            Error::InvalidRequest(rule) => Self::usage(rule),
            err => Self::other(err.to_string()),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(err: reqwest::Error) -> Self {
        let sources = std::iter::successors(Some(&err as &dyn std::error::Error), |err| err.source());
        let line = sources.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let kind = match &line {
            _ if err.is_builder() => Kind::Usage,
            // To ask again makes nobody trust it.
            line if line.contains("invalid peer certificate") => Kind::Other,
            _ => Kind::Unavailable,
        };
        Self::new(kind, line.trim_start_matches("error "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: i32, type_: &str, detail: &str) -> Problem {
        let (type_, detail) = (type_.to_owned(), Some(detail.to_owned()));
        Problem { detail, errors: Vec::new(), instance: None, status, title: String::new(), type_ }
    }

    #[test]
    fn nothing_that_a_server_says_moves_the_cursor() {
        let failure = Failure::from(problem(404, "", "no\u{1b}[2J such\nimage"));
        assert_eq!((failure.to_string().as_str(), failure.code()), ("error: no [2J such image", 4));
    }

    #[test]
    fn what_waiting_does_not_mend_is_not_waited_for() {
        let code = |type_| Failure::from(problem(429, type_, "too many")).code();
        assert_eq!((code(TOO_MANY_ATTEMPTS), code("about:blank")), (3, 6));
    }
}
