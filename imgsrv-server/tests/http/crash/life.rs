//! One life of a server, as its clients see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::ledger::{Alias, Name, Session, SessionTold, Shared, Version, VersionTold};
use super::now;
use crate::server::{Answer, Api, try_send};

/// Why something was not brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server was killed.
    Killed,
    /// The session was past its time.
    Expired,
}

pub(super) type Went<T> = Result<T, Cut>;

/// What the clients of a server share for as long as it lives.
#[derive(Clone)]
pub(super) struct Life {
    api: Api,
    pub(super) ledger: Shared,
    /// How long a session lives without a part, in this life.
    pub(super) upload_ttl: TimeDelta,
    /// Set a moment before the server is killed: whoever is cut off before that has found something.
    killed: Arc<AtomicBool>,
    /// How many answers came.
    answers: Arc<AtomicU32>,
    /// After which kill it began.
    pub(super) since: u32,
}

impl Life {
    pub(super) fn new(api: Api, ledger: Shared, upload_ttl: TimeDelta) -> Self {
        let since = ledger.lock().kills;
        Self { api, ledger, upload_ttl, killed: Arc::default(), answers: Arc::default(), since }
    }

    /// The server is about to be killed, or kills itself somewhere.
    pub(super) fn ends(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// Waits until so many answers came, but no longer than a while: a busy machine gives fewer in that time.
    pub(super) async fn answers(&self, most: u32) {
        let begun = Instant::now();
        while self.answers.load(Ordering::Relaxed) < most && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, path)
    }

    /// An answer with one of these statuses.
    pub(super) async fn send(&self, request: RequestBuilder, expected: &[u16]) -> Went<Answer> {
        match try_send(request, |_| {}).await {
            Ok(answer) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                let status = answer.status.as_u16();
                assert!(expected.contains(&status), "{status}, not {expected:?}: {}", answer.text());
                Ok(answer)
            }
            Err(err) => {
                assert!(!err.is_timeout(), "it hangs: {err:?}");
                assert!(self.killed.load(Ordering::SeqCst), "cut off by a living server: {err:?}");
                Err(Cut::Killed)
            }
        }
    }

    pub(super) async fn call(&self, method: Method, path: &str, expected: &[u16]) -> Went<Answer> {
        self.send(self.request(method, path), expected).await
    }

    pub(super) async fn get(&self, path: &str) -> Went<Value> {
        Ok(self.call(Method::GET, path, &[200]).await?.json())
    }

    pub(super) async fn post(&self, path: &str, body: &Value, expected: &[u16]) -> Went<Answer> {
        self.send(self.request(Method::POST, path).json(body), expected).await
    }

    /// What a path shows when it shows one of these states.
    pub(super) async fn wait_for(&self, path: &str, states: &[&str]) -> Went<Value> {
        let begun = Instant::now();
        loop {
            let shown = self.get(path).await?;
            if states.iter().any(|state| shown["state"] == *state) {
                return Ok(shown);
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it hangs: {shown}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// No earlier a session expires that is given a part now.
    pub(super) fn expiry(&self) -> DateTime<Utc> {
        now() + self.upload_ttl
    }

    /// The answer to what needs an open session. Where it is refused, the session must be past its time.
    pub(super) async fn send_in_time(&self, id: &str, request: RequestBuilder) -> Went<Value> {
        let answer = self.send(request, &[200, 412]).await?;
        if answer.status == 200 {
            return Ok(answer.json());
        }
        self.session(id, |session| {
            assert!(session.expires_at <= now(), "{}: {session:?}", answer.text());
            session.asked = None;
        });
        Err(Cut::Expired)
    }

    pub(super) fn session<T>(&self, id: &str, with: impl FnOnce(&mut Session) -> T) -> T {
        with(self.ledger.lock().sessions.get_mut(id).expect("a session"))
    }

    pub(super) fn version<T>(&self, name: &Name, with: impl FnOnce(&mut Version) -> T) -> T {
        with(self.ledger.lock().versions.get_mut(name).expect("a version"))
    }

    pub(super) fn alias<T>(&self, name: &Name, with: impl FnOnce(&mut Alias) -> T) -> T {
        with(self.ledger.lock().aliases.entry(name.clone()).or_default())
    }

    /// A session was found like this; whether that is its end.
    pub(super) fn judge_session(&self, id: &str, shown: &Value) -> bool {
        let mut ledger = self.ledger.lock();
        let kills = ledger.kills;
        let session = ledger.sessions.get_mut(id).expect("a session");
        let state = shown["state"].as_str().expect("a state");
        let checked = session.check(state, shown["failure_reason"].as_str(), kills, now());
        checked.unwrap_or_else(|wrong| panic!("session {id} {wrong}"));
        let told = match state {
            "ready" => SessionTold::Ready,
            "failed" => SessionTold::Failed,
            "aborted" => SessionTold::Aborted,
            _ => return false,
        };
        session.end(told);
        if told == SessionTold::Ready {
            let (digest, content) = (session.digest.clone(), session.content);
            ledger.ready.insert(digest, content);
        }
        true
    }

    /// A job of a version was found like this; whether that is its end. One that was given up because every worker was
    /// killed is tried again.
    pub(super) async fn judge_job(&self, name: &Name, shown: &Value) -> Went<bool> {
        match shown["state"].as_str().expect("a state") {
            "succeeded" => self.version(name, |version| version.end(VersionTold::Published)),
            "failed" => {
                let (kills, message) =
                    (self.ledger.lock().kills, shown["failure_message"].as_str().unwrap_or_default());
                self.version(name, |version| assert!(version.may_fail(message, kills), "{version:?}: {shown}"));
                let retry = format!("/v1/publish-jobs/{}/retry", shown["id"].as_str().expect("an id"));
                self.call(Method::POST, &retry, &[202]).await?;
                self.version(name, |version| version.since = kills);
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
