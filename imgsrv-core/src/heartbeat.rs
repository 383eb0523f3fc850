//! A sign of life of the loop that claims jobs. A process whose requests are answered may have lost it.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{Error, Result};

/// How often a wait gives a sign of life.
const OFTEN: Duration = Duration::from_secs(10);

/// How long there may be none. What the loop waits for without one is the claim of a job, for which the database is given
/// less.
const LONGEST: Duration = Duration::from_mins(1);

/// When the loop last went round; nothing where nobody has begun it, or it was told to end.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat(Mutex<Option<Instant>>);

impl Heartbeat {
    pub(crate) fn beat(&self) {
        *self.last() = Some(Instant::now());
    }

    /// Nobody expects any further one.
    pub(crate) fn end(&self) {
        *self.last() = None;
    }

    /// Waits for what may take as long as it likes: a loop that waits for it is well.
    pub(crate) async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        loop {
            self.beat();
            if let Ok(done) = timeout(OFTEN, &mut wait).await {
                self.beat();
                return done;
            }
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let last = *self.last();
        match last.map(|last| last.elapsed()).filter(|silent| *silent > LONGEST) {
            None => Ok(()),
            Some(silent) => {
                let source = format!("nobody has looked for a job for {} s", silent.as_secs()).into();
                Err(Error::Unavailable { what: "worker", source })
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_has_begun_has_to_go_round() {
        let heart = Heartbeat::default();
        advance(LONGEST * 2).await;
        heart.check().expect("nobody has begun");
        heart.beat();
        advance(LONGEST).await;
        heart.check().expect("not that long yet");
        advance(Duration::from_secs(1)).await;
        assert_eq!(heart.check().expect_err("too long").to_string(), "worker is unavailable");
        heart.beat();
        heart.check().expect("it goes round again");
        heart.end();
        advance(LONGEST * 2).await;
        heart.check().expect("it was told to end");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_well_for_as_long_as_it_takes() {
        let heart = Heartbeat::default();
        let look = async {
            for _ in 0..100 {
                sleep(Duration::from_secs(7)).await;
                heart.check().expect("it waits");
            }
        };
        tokio::join!(heart.during(sleep(Duration::from_secs(701))), look);
        advance(LONGEST + Duration::from_secs(1)).await;
        heart.check().expect_err("it waits no more");
    }
}
