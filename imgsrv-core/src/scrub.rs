//! Scrubbing: what nobody has asked for in a long time is read again, slowly, so that what a disk has spoilt is known
//! while another copy can still be had.

use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::db::{Tx, blobs};
use crate::model::Digest;
use crate::{Engine, Result, Verdict};

/// How long bytes are trusted after they were written or read.
pub(crate) const SCRUB_AGAIN: TimeDelta = TimeDelta::days(30);

/// How long one node may take for one blob before another one begins with it as well, which does no harm.
const PUT_OFF: TimeDelta = TimeDelta::hours(24);

/// How long a node waits when nothing is due, or the store does not answer.
const PAUSE: Duration = Duration::from_mins(1);

impl Engine {
    /// Verifies the blob that was longest not read, if that was more than thirty days ago; what came of it. Reads at most
    /// [`Settings::scrub_rate`](crate::Settings::scrub_rate). A running engine that has a rate does it all the time.
    ///
    /// # Errors
    /// What the database or the store says; then it is the blob's turn again a day later.
    pub async fn scrub_next(&self) -> Result<Option<(Digest, Verdict)>> {
        let now = self.clock().now();
        let take = self.detached(move |engine| async move {
            let take = async |tx: &Tx| blobs::take_to_scrub(tx, now, now + PUT_OFF).await;
            engine.db().tx("take_to_scrub", take).await
        });
        let Some(digest) = take.await? else { return Ok(None) };
        let verdict = self.verify_at(&digest, self.settings().scrub_rate).await?;
        let scrubbed = digest.clone();
        self.detached(|engine| async move {
            let again_at = engine.clock().now() + SCRUB_AGAIN;
            let note = async |tx: &Tx| blobs::scrub_again(tx, &scrubbed, again_at).await;
            engine.db().tx("scrubbed", note).await
        })
        .await?;
        Ok(Some((digest, verdict)))
    }

    pub(crate) async fn scrub(self, stop: CancellationToken) {
        if self.settings().scrub_rate.is_none() {
            return;
        }
        while let Some(scrubbed) = stop.run_until_cancelled(self.scrub_next()).await {
            match scrubbed {
                Ok(Some((digest, verdict))) => {
                    tracing::debug!(%digest, ?verdict, "scrubbed");
                    continue;
                }
                Ok(None) => {}
                Err(err) => tracing::warn!(error = err.chain(), "a blob could not be scrubbed"),
            }
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }
}
