use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imgsrv_core::{Engine, Error};
use poem::web::Data;
use poem_openapi::OpenApi;
use tokio::time::timeout;

use super::Tag;
use super::respond::NoContent;
use crate::problem::Problem;

/// Who asks whether the server is ready wants to know soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this server still wants requests. Clones share one answer.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// From now on `/readyz` fails, so that a load balancer sends nothing more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

pub(crate) struct HealthApi;

#[expect(clippy::unused_async, reason = "the framework takes async handlers only")]
#[OpenApi(tag = "Tag::Server")]
impl HealthApi {
    /// Tell whether the server runs
    ///
    /// Asks nothing else, so a database that is away is no reason to restart the server.
    #[oai(path = "/healthz", method = "get", operation_id = "check_health")]
    async fn check_health(&self) -> Result<NoContent, Problem> {
        Ok(NoContent::Done)
    }

    /// Tell whether the server can do its work
    ///
    /// 503 names what does not answer, and what else is not as it must be.
    #[oai(path = "/readyz", method = "get", operation_id = "check_readiness")]
    async fn check_readiness(&self, engine: Data<&Engine>, readiness: Data<&Readiness>) -> Result<NoContent, Problem> {
        if readiness.is_stopping() {
            return Err(Problem::unavailable("the server is shutting down"));
        }
        let (database, schema, store) = tokio::join!(
            timeout(PATIENCE, engine.check_database()),
            timeout(PATIENCE, engine.check_schema()),
            timeout(PATIENCE, engine.check_store()),
        );
        let mut failing = Vec::new();
        let silent: Vec<_> = [("database", database), ("store", store)]
            .into_iter()
            .filter_map(|(dependency, outcome)| {
                let error = match outcome {
                    Ok(Ok(())) => return None,
                    Ok(Err(error)) => error.chain(),
                    Err(elapsed) => elapsed.to_string(),
                };
                tracing::warn!(dependency, error, "not ready");
                Some(dependency)
            })
            .collect();
        if !silent.is_empty() {
            failing.push(format!("no answer from: {}", silent.join(", ")));
        }
        // That it cannot be asked is the database's fault, which is named already or will be.
        if let Ok(Err(error @ Error::Invalid { .. })) = schema {
            tracing::warn!(error = error.chain(), "not ready");
            failing.push("the migrations of the database are not those of this version".to_owned());
        }
        if let Err(error) = engine.check_worker() {
            tracing::warn!(error = error.chain(), "not ready");
            failing.push("the background worker stands still".to_owned());
        }
        if failing.is_empty() { Ok(NoContent::Done) } else { Err(Problem::unavailable(failing.join("; "))) }
    }
}
