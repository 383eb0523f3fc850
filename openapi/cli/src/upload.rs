//! Getting a file to the server, whatever is there of it already.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use imgsrv_client::Error;
use imgsrv_client::types::{BeginUpload, CompleteUpload, ListedPart, Part, Upload, UploadState};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::failure::{Failure, Kind};
use crate::layout::{Layout, Piece};
use crate::local::LocalFile;
use crate::part::{PartBody, content_digest};
use crate::poll::Poll;
use crate::remote::{Failed, Remote};
use crate::report::{Event, Report, Task};

/// How long a part may stand still.
const STALLED: Duration = Duration::from_mins(2);

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
    let mut ended = None;
    for attempt in 0..SESSIONS {
        // What another one sent may be what made the last session fail.
        let found = if attempt == 0 { find(remote, report, file, sending).await? } else { None };
        let session = match found {
            Some(found) => found,
            None => Session::begun(begin(remote, report, file).await?, file, sending),
        };
        match session.finish(remote, report, file, sending).await? {
            Ended::Ready => return Ok(()),
            Ended::Without(reason) => ended = Some(reason),
        }
    }
    Err(Failure::other(format!("{}: {}", file.path.display(), ended.unwrap_or_default())))
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
    Without(String),
}

/// The session that has most of the file.
async fn find(
    remote: &Remote,
    report: &Report,
    file: &LocalFile,
    sending: Sending,
) -> Result<Option<Session>, Failure> {
    let uploads = remote
        .ask(report, async |client| client.list_uploads().expected_digest(file.digest.as_str()).send().await)
        .await?;
    let mut open: Vec<_> =
        uploads.uploads.into_iter().filter(|upload| is_open(upload) && has_size(upload, file)).collect();
    // Newest first is the order that they come in, and stays that of equals.
    open.sort_by_key(|upload| (!is_complete(upload), -upload.received_bytes));
    if open.is_empty() || knows(remote, file).await {
        return Ok(None);
    }
    for upload in open {
        let id = upload.id;
        let stored = remote.ask(report, async |client| client.list_parts().upload_id(id).send().await).await?.parts;
        if let Some(layout) = Layout::of(file.size, sending.part, &stored) {
            let stored_bytes = u64::try_from(upload.received_bytes).unwrap_or_default();
            report.say(&Event::Resuming { file: &file.name, upload_id: Some(id), stored_bytes });
            return Ok(Some(Session { upload, layout, stored }));
        }
    }
    Ok(None)
}

fn is_complete(upload: &Upload) -> bool {
    matches!(upload.state, UploadState::Completed | UploadState::Ingesting)
}

fn is_open(upload: &Upload) -> bool {
    is_complete(upload) || matches!(upload.state, UploadState::Created | UploadState::Uploading)
}

fn has_size(upload: &Upload, file: &LocalFile) -> bool {
    i64::try_from(file.size) == Ok(upload.expected_size_bytes)
}

/// Whether the server has the file by some other way, so that the open session is of no use any more. It is asked once:
/// of a damaged blob it says 503 until somebody has sent it again.
async fn knows(remote: &Remote, file: &LocalFile) -> bool {
    match remote.client.read_blob().digest(file.digest.as_str()).range("bytes=0-0").send().await {
        Ok(_) => true,
        // No byte of an empty file can be had.
        Err(Error::ErrorResponse(problem)) => problem.status == 416,
        Err(_) => false,
    }
}

async fn begin(remote: &Remote, report: &Report, file: &LocalFile) -> Result<Upload, Failure> {
    let size = i64::try_from(file.size).map_err(|_| Failure::usage(format!("{}: too large", file.path.display())))?;
    let begin = BeginUpload {
        expected_digest: file.digest.clone(),
        expected_size_bytes: size,
        // Only a hint: a name that the server would not take is not worth a failure.
        filename_hint: file.name.parse().ok(),
        media_type_hint: None,
    };
    remote.ask(report, async |client| client.begin_upload().body(begin.clone()).send().await).await
}

impl Session {
    fn begun(upload: Upload, file: &LocalFile, sending: Sending) -> Self {
        Self { upload, layout: Layout::new(file.size, sending.part), stored: Vec::new() }
    }

    async fn finish(
        self,
        remote: &Remote,
        report: &Report,
        file: &LocalFile,
        sending: Sending,
    ) -> Result<Ended, Failure> {
        let id = self.upload.id;
        if self.upload.state == UploadState::Ready {
            report.say(&Event::Known { file: &file.name, digest: &file.digest });
            return Ok(Ended::Ready);
        }
        let mut sent = 0;
        if !is_complete(&self.upload) {
            let task = report.task("uploading", &file.name, file.size);
            let parts = self.send_missing(remote, report, file, sending, &task).await;
            sent = task.moved();
            drop(task);
            let parts = match parts {
                Ok(parts) => parts,
                Err(failure) if matches!(failure.kind(), Kind::Conflict | Kind::NotFound) => {
                    // Somebody else may have completed it meanwhile; or it expired.
                    return self.wait(remote, report, file, sent).await?.ok_or(failure);
                }
                Err(failure) => return Err(failure.about(file.path.display())),
            };
            let complete = CompleteUpload { parts };
            let completed = remote
                .ask(report, async |client| client.complete_upload().upload_id(id).body(complete.clone()).send().await)
                .await;
            match completed {
                Ok(upload) if is_complete(&upload) => report.say(&Event::Verifying { file: &file.name, upload_id: id }),
                Ok(_) => {}
                Err(failure) if failure.kind() == Kind::Conflict => {
                    return self.wait(remote, report, file, sent).await?.ok_or(failure);
                }
                Err(failure) => return Err(failure.about(file.path.display())),
            }
        }
        let ended = self.wait(remote, report, file, sent).await?;
        ended.ok_or_else(|| Failure::other(format!("upload {id} was completed and is open again")))
    }

    /// Sends the parts that are missing, and lists them all.
    async fn send_missing(
        &self,
        remote: &Remote,
        report: &Report,
        file: &LocalFile,
        sending: Sending,
        task: &Task,
    ) -> Result<Vec<ListedPart>, Failure> {
        let have: BTreeSet<u64> = self.stored.iter().map(|part| part.number.get()).collect();
        let missing: Vec<Piece> = self.layout.pieces().filter(|piece| !have.contains(&piece.number)).collect();
        task.skip(file.size - missing.iter().map(|piece| piece.len).sum::<u64>());
        let sender = Sender { remote, report, path: &file.path, upload: self.upload.id, task };
        let sent = stream::iter(missing).map(|piece| sender.send(piece)).buffer_unordered(sending.parallel);
        let mut parts: Vec<ListedPart> = sent.try_collect().await?;
        parts.extend(self.stored.iter().map(|part| ListedPart {
            number: part.number,
            etag: part.etag.to_string(),
            size_bytes: part.size_bytes,
        }));
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Waits until the server is through with it. None where that is not what it is waiting for.
    async fn wait(
        &self,
        remote: &Remote,
        report: &Report,
        file: &LocalFile,
        sent: u64,
    ) -> Result<Option<Ended>, Failure> {
        let id = self.upload.id;
        let mut poll = Poll::default();
        loop {
            let upload = remote.ask(report, async |client| client.get_upload().upload_id(id).send().await).await?;
            match upload.state {
                UploadState::Ready => {
                    report.say(&Event::Uploaded {
                        file: &file.name,
                        digest: &file.digest,
                        upload_id: id,
                        sent_bytes: sent,
                    });
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
}

struct Sender<'a> {
    remote: &'a Remote,
    report: &'a Report,
    path: &'a Path,
    upload: Uuid,
    task: &'a Task,
}

impl Sender<'_> {
    /// Sends a part until the server has it.
    async fn send(&self, piece: Piece) -> Result<ListedPart, Failure> {
        let mut patience = self.remote.patience();
        loop {
            let sent = Arc::new(AtomicU64::new(0));
            let failed = match self.attempt(piece, &sent).await {
                Ok(part) => return Ok(part),
                Err(failed) => failed,
            };
            self.task.retreat(sent.load(Ordering::Relaxed));
            patience.pause(self.report, failed).await?;
        }
    }

    async fn attempt(&self, piece: Piece, sent: &Arc<AtomicU64>) -> Result<ListedPart, Failed> {
        let fail = |err| Failed::new(Failure::file(self.path, &err));
        let digest = content_digest(self.path, piece).await.map_err(fail)?;
        let file = File::open(self.path).map_err(fail)?;
        let body = PartBody::new(file, piece, self.task.clone(), sent.clone()).map_err(fail)?;
        let part = self.remote.client.put_part().upload_id(self.upload).number(piece.number).content_digest(digest);
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
