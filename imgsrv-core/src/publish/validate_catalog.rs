//! Is everything that the version cites still there?

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{PublishStep, StepContext, StepError, StepOutput, cited};

/// Asks the store for every object of every blob that the version cites.
#[derive(Debug)]
pub(super) struct ValidateCatalog;

#[async_trait]
impl PublishStep for ValidateCatalog {
    fn name(&self) -> &'static str {
        super::VALIDATE_CATALOG
    }

    async fn run(&self, cx: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let digests: BTreeSet<_> = cited(cx.artifacts()).map(|(_, blob)| &blob.digest).collect();
        for digest in digests {
            if !cx.engine.check_blob(digest).await? {
                return Err(super::lost(digest));
            }
        }
        Ok(None)
    }
}
