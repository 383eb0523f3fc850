//! Reads what is stored, and says what is not as it was published.

use imgsrv_core::model::Digest;
use imgsrv_core::{Engine, Error, Verdict};

use crate::cli::{Failure, print};
use crate::config::Config;
use crate::connect::{self, Schema};

/// How many digests are asked for at once.
const PAGE: u64 = 500;

/// Verifies these blobs, or all of them, beside whatever serves them.
pub(crate) async fn verify(config: &Config, digests: Vec<Digest>) -> Result<(), Failure> {
    let engine = connect::engine(config, Schema::Require).await?;
    let mut seen = Seen::default();
    if digests.is_empty() {
        let mut page = engine.blob_digests(None, PAGE).await?;
        while let Some(last) = page.last().cloned() {
            for digest in page {
                match seen.verify(&engine, &digest).await {
                    // It was deleted since it was listed.
                    Err(Error::NotFound(_)) => {}
                    verified => verified?,
                }
            }
            page = engine.blob_digests(Some(&last), PAGE).await?;
        }
    } else {
        for digest in digests {
            seen.verify(&engine, &digest).await?;
        }
    }
    let Seen { blobs, broken } = seen;
    match broken {
        0 => print(&format!("{blobs} of {blobs} blobs are whole")),
        _ => Err(Failure::run(format!("{broken} of {blobs} blobs are not whole; upload their files again"))),
    }
}

#[derive(Default)]
struct Seen {
    blobs: u64,
    broken: u64,
}

impl Seen {
    async fn verify(&mut self, engine: &Engine, digest: &Digest) -> Result<(), Error> {
        let line = match engine.verify_blob(digest).await? {
            Verdict::Whole => None,
            Verdict::Missing => Some(format!("{digest} missing")),
            Verdict::Different { found } => Some(format!("{digest} different {found}")),
        };
        self.blobs += 1;
        self.broken += u64::from(line.is_some());
        // Whoever reads the list may have seen enough; the blobs are to be verified all the same.
        line.and_then(|line| print(&line).err()).into_iter().for_each(|failure| tracing::warn!(%failure));
        Ok(())
    }
}
