//! Getting a file to the server, whatever is there of it already.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use imgsrv_client::types::{BeginUpload, CompleteUpload, ListedPart, Part, Upload, UploadState};
use imgsrv_client::{Client, Error};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::failure::{Failure, Kind};
use crate::layout::{Layout, Piece};
use crate::local::LocalFile;
use crate::part::{PartBody, content_digest};
use crate::poll::Poll;
use crate::remote::{ANSWER, Failed, Remote, STALLED};
use crate::report::{Event, Report, Task};

/// A session that ends without the blob is followed by another one this many times.
const SESSIONS: usize = 3;

/// How to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    /// How many bytes a part has.
    pub(crate) part: u64,
    /// How many parts are on their way at once.
    pub(crate) parallel: usize,
}

/// Returns when the server has the file and has checked it.
pub(crate) async fn upload(
    remote: &Remote,
    report: &Report,
    file: &LocalFile,
    sending: Sending,
) -> Result<(), Failure> {
    let task = report.task("uploading", &file.name, file.size);
    let upload = Uploading { remote, report, file, sending, task: &task };
    let mut ended = String::new();
    for attempt in 0..SESSIONS {
        file.check_unchanged()?;
        // What another one sent may be what made the last session fail.
        let found = if attempt == 0 { upload.find().await? } else { None };
        let session = match found {
            Some(found) => found,
            None => upload.begin().await?,
        };
        match upload.finish(session).await? {
            Ended::Ready => return Ok(()),
            Ended::Without(reason) => ended = reason,
        }
    }
    Err(Failure::other(ended).about(file.path.display()))
}

struct Uploading<'a> {
    remote: &'a Remote,
    report: &'a Report,
    file: &'a LocalFile,
    sending: Sending,
    task: &'a Task,
}

/// A session, and what it has.
struct Session {
    upload: Upload,
    layout: Layout,
    stored: Vec<Part>,
}

/// How a session came to its end.
enum Ended {
    Ready,
    /// Another session may do better.
    Without(String),
}

fn is_complete(upload: &Upload) -> bool {
    matches!(upload.state, UploadState::Completed | UploadState::Ingesting)
}

/// Whether there is something in it to go on from. What somebody else has just begun is theirs, to cut as they like.
fn is_begun(upload: &Upload) -> bool {
    upload.state == UploadState::Uploading && upload.received_bytes > 0
}

impl Uploading<'_> {
    /// The session that has most of the file.
    async fn find(&self) -> Result<Option<Session>, Failure> {
        let Self { remote, report, file, sending, .. } = self;
        let uploads =
            remote.ask(report, async |client| client.list_uploads().expected_digest(file.digest.as_str()).send().await);
        let of_file = |upload: &Upload| upload.expected_size_bytes == file.size_bytes();
        let mut open: Vec<_> = uploads.await?.uploads.into_iter().filter(of_file).collect();
        open.retain(|upload| is_complete(upload) || is_begun(upload));
        // Newest first is the order that they come in, and stays that of equals.
        open.sort_by_key(|upload| (!is_complete(upload), -upload.received_bytes));
        if open.is_empty() || self.is_known().await {
            return Ok(None);
        }
        for upload in open {
            let id = upload.id;
            if is_complete(&upload) {
                return Ok(Some(Session { upload, layout: Layout::new(file.size, sending.part), stored: Vec::new() }));
            }
            let stored = match remote.ask(report, async |client| client.list_parts().upload_id(id).send().await).await {
                Ok(list) => list.parts,
                Err(failure) if failure.kind() == Kind::NotFound => continue,
                Err(failure) => return Err(failure),
            };
            if let Some(layout) = Layout::of(file.size, sending.part, &stored) {
                let stored_bytes = u64::try_from(upload.received_bytes).unwrap_or_default();
                report.say(&Event::Resuming { file: &file.name, upload_id: Some(id), stored_bytes });
                return Ok(Some(Session { upload, layout, stored }));
            }
        }
        Ok(None)
    }

    /// Whether the server has the file by some other way, so that the open session is of no use any more. It is asked
    /// once: of a damaged blob it says 503 until somebody has sent it again.
    async fn is_known(&self) -> bool {
        let first = self.remote.client.read_blob().digest(self.file.digest.as_str()).range("bytes=0-0").send();
        match timeout(ANSWER, first).await {
            Ok(Ok(_)) => true,
            // No byte of an empty file can be had.
            Ok(Err(Error::ErrorResponse(problem))) => problem.status == 416,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn begin(&self) -> Result<Session, Failure> {
        let file = self.file;
        let begin = BeginUpload {
            expected_digest: file.digest.clone(),
            expected_size_bytes: file.size_bytes(),
            // Only a hint: a name that the server would not take is not worth a failure.
            filename_hint: file.name.parse().ok(),
            media_type_hint: None,
        };
        let asked = self.remote.ask(self.report, async |client| client.begin_upload().body(begin.clone()).send().await);
        Ok(Session { upload: asked.await?, layout: Layout::new(file.size, self.sending.part), stored: Vec::new() })
    }

    async fn finish(&self, session: Session) -> Result<Ended, Failure> {
        let Self { remote, report, file, .. } = self;
        let id = session.upload.id;
        if session.upload.state == UploadState::Ready {
            report.say(&Event::Known { file: &file.name, digest: &file.digest });
            return Ok(Ended::Ready);
        }
        if !is_complete(&session.upload) {
            let completed = match self.send_missing(&session).await {
                Ok(parts) => {
                    let complete = CompleteUpload { parts };
                    let ask = async |client: &Client| {
                        client.complete_upload().upload_id(id).body(complete.clone()).send().await
                    };
                    remote.ask(report, ask).await
                }
                Err(failure) => Err(failure),
            };
            match completed {
                Ok(upload) if is_complete(&upload) => report.say(&Event::Verifying { file: &file.name, upload_id: id }),
                Ok(_) => {}
                // Somebody else may have completed it meanwhile, or filled it otherwise; or it expired.
                Err(failure) if matches!(failure.kind(), Kind::Conflict | Kind::NotFound) => {
                    let ended = self.wait(id).await?;
                    return Ok(ended.unwrap_or_else(|| Ended::Without(failure.reason().to_owned())));
                }
                Err(failure) => return Err(failure.about(file.path.display())),
            }
        }
        let ended = self.wait(id).await?;
        Ok(ended.unwrap_or_else(|| Ended::Without(format!("upload {id} was completed and is open again"))))
    }

    /// Sends the parts that are missing, and lists them all.
    async fn send_missing(&self, session: &Session) -> Result<Vec<ListedPart>, Failure> {
        let Session { upload, layout, stored } = session;
        let have: BTreeSet<u64> = stored.iter().map(|part| part.number.get()).collect();
        let missing: Vec<Piece> = layout.pieces().filter(|piece| !have.contains(&piece.number)).collect();
        self.task.begin_at(self.file.size - missing.iter().map(|piece| piece.len).sum::<u64>());
        let sent = stream::iter(missing).map(|piece| self.send(upload.id, piece));
        let mut parts: Vec<ListedPart> = sent.buffer_unordered(self.sending.parallel).try_collect().await?;
        parts.extend(stored.iter().map(|part| ListedPart {
            number: part.number,
            etag: part.etag.to_string(),
            size_bytes: part.size_bytes,
        }));
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Waits until the server is through with it. None where that is not what it is waiting for.
    async fn wait(&self, id: Uuid) -> Result<Option<Ended>, Failure> {
        let Self { remote, report, file, task, .. } = self;
        let mut poll = Poll::default();
        loop {
            let upload = match remote.ask(report, async |client| client.get_upload().upload_id(id).send().await).await {
                Err(failure) if failure.kind() == Kind::NotFound => {
                    return Ok(Some(Ended::Without("the upload is gone".to_owned())));
                }
                upload => upload?,
            };
            match upload.state {
                UploadState::Ready => {
                    let sent_bytes = task.moved();
                    report.say(&Event::Uploaded { file: &file.name, digest: &file.digest, upload_id: id, sent_bytes });
                    return Ok(Some(Ended::Ready));
                }
                UploadState::Failed => return Ok(Some(Ended::Without(upload.failure_reason.unwrap_or_default()))),
                UploadState::Aborted => {
                    return Ok(Some(Ended::Without("the upload was aborted or expired".to_owned())));
                }
                UploadState::Created | UploadState::Uploading => return Ok(None),
                UploadState::Completed | UploadState::Ingesting => poll.pause().await,
            }
        }
    }

    /// Sends a part until the server has it.
    async fn send(&self, upload: Uuid, piece: Piece) -> Result<ListedPart, Failure> {
        let mut patience = self.remote.patience();
        loop {
            let sent = Arc::new(AtomicU64::new(0));
            let failed = match self.attempt(upload, piece, &sent).await {
                Ok(part) => return Ok(part),
                Err(failed) => failed,
            };
            let sent = sent.load(Ordering::Relaxed);
            self.task.retreat(sent);
            if sent > 0 {
                patience.moved();
            }
            patience.pause(self.report, failed).await?;
        }
    }

    async fn attempt(&self, upload: Uuid, piece: Piece, sent: &Arc<AtomicU64>) -> Result<ListedPart, Failed> {
        let path = &self.file.path;
        let fail = |err| Failed::new(Failure::file(path, &err));
        self.file.check_unchanged().map_err(Failed::new)?;
        let digest = content_digest(path, piece).await.map_err(fail)?;
        let file = File::open(path).map_err(fail)?;
        let body = PartBody::new(file, piece, self.task.clone(), sent.clone()).map_err(fail)?;
        let part = self.remote.client.put_part().upload_id(upload).number(piece.number).content_digest(digest);
        let answer = std::pin::pin!(part.body(reqwest::Body::wrap(body)).send());
        tokio::select! {
            answer = answer => {
                let part = answer?.into_inner();
                Ok(ListedPart { number: part.part_number, etag: part.etag.to_string(), size_bytes: part.size_bytes })
            }
            () = stalled(sent) => Err(Failed::new(Failure::new(Kind::Unavailable, "nothing moved for two minutes"))),
        }
    }
}

/// Returns when nothing has left for a long time.
async fn stalled(sent: &AtomicU64) {
    let (mut seen, mut since) = (sent.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < STALLED {
        sleep_until(since + STALLED).await;
        let now = sent.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}
