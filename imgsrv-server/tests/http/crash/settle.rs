//! After a kill: what was under way goes on or is given up, and what is over is as it was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::ledger::{Name, Seen, SeenBytes, VersionTold};
use super::life::{Cut, Went};
use super::now;
use super::walk::{Walker, path};
use crate::server::digest;

/// How many sessions and how many drafts are left as they are at most, so that there is always one that is open.
const LEFT: usize = 10;

/// How many of the things that are over are looked at in each life.
const LOOKED_AT: usize = 2;

impl Walker {
    /// Brings what earlier lives left behind to its end, but for a few sessions and drafts that are left as they are.
    pub(super) async fn settle(&mut self) -> Went<()> {
        let begun = Instant::now();
        let (mut left_sessions, mut left_drafts) = (Vec::new(), Vec::new());
        loop {
            let (sessions, versions) = self.unsettled(&left_sessions, &left_drafts);
            if sessions.is_empty() && versions.is_empty() {
                return Ok(());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "they hang: {sessions:?} {versions:?}");
            for id in sessions {
                let may_stay = left_sessions.len() < LEFT;
                match self.settle_session(&id, may_stay).await {
                    Ok(true) => left_sessions.push(id),
                    Ok(false) | Err(Cut::Expired) => {}
                    Err(cut) => return Err(cut),
                }
            }
            for name in versions {
                let may_stay = left_drafts.len() < LEFT;
                if self.settle_version(&name, may_stay).await? {
                    left_drafts.push(name);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn unsettled(&self, left_sessions: &[String], left_drafts: &[Name]) -> (Vec<String>, Vec<Name>) {
        let ledger = self.life.ledger.lock();
        let earlier = |settled: bool, since: u32| !settled && since < self.life.since;
        let sessions = ledger.sessions.iter().filter(|(_, session)| earlier(session.settled, session.since));
        let versions = ledger.versions.iter().filter(|(_, version)| earlier(version.settled, version.since));
        (
            sessions.map(|(id, _)| id.clone()).filter(|id| !left_sessions.contains(id)).collect(),
            versions.map(|(name, _)| name.clone()).filter(|name| !left_drafts.contains(name)).collect(),
        )
    }

    /// Whether the session is open and shall stay so.
    async fn settle_session(&mut self, id: &str, may_stay: bool) -> Went<bool> {
        let shown = self.life.get(&format!("/v1/uploads/{id}")).await?;
        if self.life.judge_session(id, &shown) || !["created", "uploading"].contains(&&*text(&shown["state"])) {
            return Ok(false);
        }
        let listed = self.life.get(&format!("/v1/uploads/{id}/parts")).await?;
        let stored: BTreeMap<u32, (String, u64)> = listed["parts"]
            .as_array()
            .expect("parts")
            .iter()
            .map(|part| (number(&part["number"]) as u32, (text(&part["etag"]), number(&part["size_bytes"]))))
            .collect();
        let (content, parts, expires_at) = self.life.session(id, |session| {
            session.check_parts(&stored).unwrap_or_else(|wrong| panic!("session {id}: {wrong}"));
            (session.content, session.parts.clone(), session.expires_at)
        });
        let chance = self.random.u32(..10);
        if chance < 2 && may_stay {
            return Ok(true);
        }
        if chance < 6 || expires_at <= now() {
            self.abort(id).await?;
            return Ok(false);
        }
        for number in content.numbers() {
            let slot = parts.get(&number).cloned().unwrap_or_default();
            let is_right = slot.tried.is_empty() && slot.told.is_some_and(|told| told.content == content);
            if !is_right {
                self.send_part(id, number, content, false).await?;
            }
        }
        self.complete(id).await?;
        Ok(false)
    }

    /// Whether the version is a draft and shall stay one.
    async fn settle_version(&mut self, name: &Name, may_stay: bool) -> Went<bool> {
        let seen = self.look_at(name).await?;
        let ready = {
            let ledger = self.life.ledger.lock();
            let is_ready = |bytes: &SeenBytes| ledger.ready.contains_key(&bytes.1);
            let all = seen.artifacts.iter().all(|(own, attached)| is_ready(own) && attached.iter().all(is_ready));
            all && !seen.artifacts.is_empty()
        };
        match seen.state.as_deref() {
            None => self.life.version(name, |version| version.end(VersionTold::Deleted)),
            Some("published") => self.life.version(name, |version| version.end(VersionTold::Published)),
            // To ask again gives the job, whether or not it was told of.
            Some("publishing") => {
                let job = self.life.call(Method::POST, &format!("{}/publish", path(name)), &[202]).await?.json();
                self.life.version(name, |version| {
                    let known = version.job.get_or_insert_with(|| text(&job["id"]));
                    assert_eq!(*known, text(&job["id"]), "one job for one publish");
                    version.told = VersionTold::Publishing;
                });
                self.life.judge_job(name, &job).await?;
            }
            Some(_) => {
                self.life.version(name, |version| (version.told, version.asked) = (VersionTold::Draft, None));
                match self.random.u32(..10) {
                    0..2 if may_stay => return Ok(true),
                    2..7 if ready => self.publish(name).await?,
                    _ => self.delete_draft(name).await?,
                }
            }
        }
        Ok(false)
    }

    /// A version as it is shown, which is as it can be.
    async fn look_at(&self, name: &Name) -> Went<Seen> {
        let answer = self.life.call(Method::GET, &path(name), &[200, 404]).await?;
        let seen = if answer.status == 200 { seen(&answer.json()) } else { Seen::default() };
        self.life.version(name, |version| {
            version.check(&seen).unwrap_or_else(|wrong| panic!("{name:?} {wrong}"));
        });
        Ok(seen)
    }

    /// A few of the things that are over still are as they were.
    pub(super) async fn look_back(&mut self) -> Went<()> {
        let (sessions, versions) = {
            let ledger = self.life.ledger.lock();
            let sessions = ledger.sessions.iter().filter(|(_, session)| session.settled);
            let versions = ledger.versions.iter().filter(|(_, version)| version.settled);
            (
                self.random.choose_multiple(sessions.map(|(id, _)| id.clone()), LOOKED_AT),
                self.random.choose_multiple(versions.map(|(name, _)| name.clone()), LOOKED_AT),
            )
        };
        for id in sessions {
            let shown = self.life.get(&format!("/v1/uploads/{id}")).await?;
            self.life.judge_session(&id, &shown);
        }
        for name in versions {
            let seen = self.look_at(&name).await?;
            if seen.state.as_deref() != Some("published") {
                continue;
            }
            let (_, expected, _) = self.random.choice(seen.artifacts).expect("an artifact").0;
            let answer = self.life.call(Method::GET, &format!("/v1/blobs/{expected}"), &[200]).await?;
            assert_eq!(digest(&answer.body), expected, "{name:?}");
        }
        Ok(())
    }
}

fn seen(manifest: &Value) -> Seen {
    let list = |value: &Value| value.as_array().expect("a list").clone().into_iter();
    let artifacts = list(&manifest["artifacts"]).map(|entry| {
        let own = &entry["artifact"];
        let own = (text(&own["format"]), text(&own["primary_blob_digest"]), number(&own["primary_blob_size_bytes"]));
        let attached = list(&entry["attachments"]).map(|attachment| {
            (text(&attachment["name"]), text(&attachment["blob_digest"]), number(&attachment["blob_size_bytes"]))
        });
        (own, attached.collect())
    });
    Seen { state: Some(text(&manifest["version"]["state"])), artifacts: artifacts.collect() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
