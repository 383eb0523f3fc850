//! What happens too seldom to be in the story that every fault is tried with.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use imgsrv_core::sea_orm::{ConnectionTrait, Statement};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use super::content::{Content, PART};
use super::deployment::Deployment;
use super::faults::{LONG_AGO, SPARE, Teller, sql};
use super::life::Went;
use crate::server::{artifact, attachment, bytes, digest, id};

/// More than the server asks the store for while a client waits.
const MANY: u32 = 17;

/// A session is held open when a part of it takes longer than 20 s.
const SLOW: u64 = 21;

/// What is told of a site, and what is done when the server that was told of it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tale {
    TooMuchIsSent,
    APartTakesItsTime,
    APartIsLost,
    ManyPartsAreReliedOn,
    ADraftIsRead,
    APublishedBlobRots,
    AndIsVerified,
    AndIsScrubbed,
}

impl Tale {
    /// Of a site that the story does not pass.
    pub(super) fn of(site: &str) -> Option<Self> {
        Some(match site {
            "drop_attempt" | "store.abort" => Self::TooMuchIsSent,
            "hold_upload" => Self::APartTakesItsTime,
            "fail_ingest" => Self::APartIsLost,
            "queue_check" | "checked" => Self::ManyPartsAreReliedOn,
            "manifest" => Self::ADraftIsRead,
            "quarantine_blob" | "step_failed" | "give_back" => Self::APublishedBlobRots,
            "repair_blob" => Self::AndIsVerified,
            "take_to_scrub" | "scrubbed" => Self::AndIsScrubbed,
            _ => return None,
        })
    }
}

/// Bytes that are read in more than one piece.
pub(super) fn rotten() -> Vec<u8> {
    bytes(9, 300_000)
}

impl Teller {
    pub(super) async fn tell_of(&self, tale: Tale) -> Went<()> {
        match tale {
            Tale::TooMuchIsSent => self.send_too_much().await,
            Tale::APartTakesItsTime => self.send_slowly().await,
            Tale::APartIsLost => self.lose_a_part().await,
            Tale::ManyPartsAreReliedOn => self.rely_on_many_parts().await,
            Tale::ADraftIsRead => {
                let draft = self.spare().await?;
                self.life().get(&draft).await?;
                Ok(())
            }
            Tale::APublishedBlobRots => self.publish_what_rots().await,
            Tale::AndIsVerified => {
                self.publish_what_rots().await?;
                self.give_up_spare().await
            }
            Tale::AndIsScrubbed => self.deliver(&rotten()).await,
        }
    }

    /// A draft of which the ledger knows nothing.
    async fn spare(&self) -> Went<String> {
        let versions = format!("/v1/images/{SPARE}/versions");
        self.life().post("/v1/images", &json!({"name": SPARE}), &[201]).await?;
        self.life().post(&versions, &json!({"version": "1"}), &[201]).await?;
        Ok(format!("{versions}/1"))
    }

    async fn session(&self, content: Content) -> Went<String> {
        let promise = json!({"expected_digest": content.digest(), "expected_size_bytes": content.size});
        let begun = self.life().post("/v1/uploads", &promise, &[201]).await?.json();
        Ok(format!("/v1/uploads/{}", id(&begun)))
    }

    pub(super) async fn part(&self, session: &str, number: u32, body: impl Into<Body>, expected: u16) -> Went<Value> {
        let request = self.life().request(Method::PUT, &format!("{session}/parts/{number}")).body(body);
        Ok(self.life().send(request, &[expected]).await?.json())
    }

    /// More than was promised, which is not known before the first bytes were written.
    async fn send_too_much(&self) -> Went<()> {
        let content = Content::of_two_parts(9);
        let session = self.session(content).await?;
        let much = [content.part(1), content.part(2), vec![0; PART].into()];
        let body = Body::wrap_stream(stream::iter(much.map(Ok::<_, std::io::Error>)));
        self.part(&session, 1, body, 412).await?;
        self.life().call(Method::POST, &format!("{session}/abort"), &[200]).await?;
        Ok(())
    }

    async fn send_slowly(&self) -> Went<()> {
        let content = Content::small(9);
        let session = self.session(content).await?;
        let (first, last) = (content.part(1).slice(..1), content.part(1).slice(1..));
        let body = stream::iter([(first, 0), (last, SLOW)]).then(|(bytes, pause)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok::<_, std::io::Error>(bytes)
        });
        let part = self.part(&session, 1, Body::wrap_stream(body), 200).await?;
        self.complete_until(&session, &[part], "ready").await
    }

    pub(super) async fn complete(&self, session: &str, parts: &[Value], expected: &[u16]) -> Went<Value> {
        let listed = |part: &Value| json!({"number": part["part_number"], "etag": part["etag"], "size_bytes": part["size_bytes"]});
        let listed = json!({"parts": parts.iter().map(listed).collect::<Vec<_>>()});
        Ok(self.life().post(&format!("{session}/complete"), &listed, expected).await?.json())
    }

    async fn complete_until(&self, session: &str, parts: &[Value], state: &str) -> Went<()> {
        self.complete(session, parts, &[200, 202]).await?;
        self.life().wait_for(session, &[state]).await?;
        Ok(())
    }

    /// A part that a worker has to read is not there.
    async fn lose_a_part(&self) -> Went<()> {
        let content = Content::of_two_parts(9);
        let session = self.session(content).await?;
        let second = self.part(&session, 2, content.part(2), 200).await?;
        let first = self.part(&session, 1, content.part(1), 200).await?;
        delete_objects(&self.deployment, &content.digest()).await;
        self.complete_until(&session, &[first, second], "failed").await
    }

    /// Who begins an upload of bytes in many parts, which nobody has looked at for long, has them looked at.
    async fn rely_on_many_parts(&self) -> Went<()> {
        let content = Content { seed: 9, size: MANY as usize * PART, part_size: PART };
        let session = self.session(content).await?;
        let mut parts = Vec::new();
        for number in content.numbers() {
            parts.push(self.part(&session, number, content.part(number), 200).await?);
        }
        self.complete_until(&session, &parts, "ready").await?;
        let digest = content.digest();
        sql(&self.deployment, &format!("update blobs set checked_at = '{LONG_AGO}' where digest = '{digest}'")).await;
        let promise = json!({"expected_digest": digest, "expected_size_bytes": content.size});
        self.life().post("/v1/uploads", &promise, &[200]).await?;
        self.wait_until_idle().await
    }

    /// A version cites bytes that change, which shows when they are read to their end.
    async fn publish_what_rots(&self) -> Went<()> {
        self.deliver(&rotten()).await?;
        let draft = self.spare().await?;
        let disk = artifact(&rotten(), json!({"format": "qcow2"}));
        let added = id(&self.life().post(&format!("{draft}/artifacts"), &disk, &[201]).await?.json());
        let metadata = attachment("incus.tar.xz", "application/x-xz", &rotten());
        self.life().post(&format!("{draft}/artifacts/{added}/attachments"), &metadata, &[201]).await?;
        let mut other = rotten();
        *other.last_mut().expect("a byte") ^= 1;
        put_in_its_place(&self.deployment, &other).await;
        let job = id(&self.life().call(Method::POST, &format!("{draft}/publish"), &[202]).await?.json());
        self.life().wait_for(&format!("/v1/publish-jobs/{job}"), &["failed"]).await?;
        Ok(())
    }

    /// Nothing is left to be done that begins by itself.
    async fn wait_until_idle(&self) -> Went<()> {
        self.wait_until_none("select count(*) from jobs where finished_at is null and kind <> 'list-objects'").await
    }

    pub(super) async fn wait_until_none(&self, count: &str) -> Went<()> {
        let (database, begun) = (self.deployment.database().await, Instant::now());
        loop {
            let statement = Statement::from_string(database.get_database_backend(), count);
            let row = database.query_one_raw(statement).await.expect(count).expect("a row");
            // The server may be gone, and then nothing is ever done.
            self.life().get("/v1/images").await?;
            if row.try_get_by_index::<i64>(0).expect("a number") == 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it hangs");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        database.close().await.expect("closed");
        Ok(())
    }

    /// What an operator does about it.
    pub(super) async fn repair_after(&self, tale: Tale) -> Went<()> {
        self.give_up_spare().await?;
        if matches!(tale, Tale::APublishedBlobRots | Tale::AndIsVerified) {
            put_in_its_place(&self.deployment, &rotten()).await;
            verify(&self.deployment);
        }
        self.wait_until_idle().await
    }
}

/// Makes these bytes, or what has become of them, all that there is of [`rotten`].
pub(super) async fn put_in_its_place(deployment: &Deployment, bytes: &[u8]) {
    let store = deployment.store();
    for object in store.list_with(&objects_of(&digest(&rotten()))).recursive(true).await.expect("a list") {
        if object.metadata().is_file() {
            store.write(object.path(), bytes.to_vec()).await.expect("written");
        }
    }
}

pub(super) async fn delete_objects(deployment: &Deployment, digest: &str) {
    deployment.store().delete_with(&objects_of(digest)).recursive(true).await.expect("deleted");
}

fn objects_of(digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("blobs/sha256/{}/{hex}/", &hex[..2])
}

/// All that is there is whole, whatever it was taken for.
fn verify(deployment: &Deployment) {
    let verified = deployment.program().arg("verify").output().expect("the program");
    let said = [verified.stdout, verified.stderr].concat();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&said));
}
