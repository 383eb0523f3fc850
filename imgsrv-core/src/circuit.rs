//! No job is claimed while the store is away: each would only fail, and be claimed to fail again, on every node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{Error, Result};

/// The first pause before a store that did not answer is asked again, and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A store that takes longer to answer a small question is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// What stands between a node and its jobs.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    doubted: AtomicBool,
}

impl Circuit {
    /// A job has failed for a reason that may pass. Whether that was the store is asked before the next one is claimed.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Returns when the store answers: at once, unless it is doubted.
    pub(crate) async fn closed<F: Future<Output = Result<()>>>(&self, ask: impl Fn() -> F) {
        if !self.doubted.swap(false, Ordering::Relaxed) {
            return;
        }
        let Err(err) = answer(ask()).await else { return };
        tracing::warn!(error = err.chain(), "the store does not answer: no job is claimed until it does");
        let mut pause = SHORTEST;
        loop {
            // Shortened at random, so that the nodes do not all ask at once.
            sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
            if answer(ask()).await.is_ok() {
                break;
            }
            pause = (pause * 2).min(LONGEST);
        }
        // What was under way has failed meanwhile.
        self.doubted.store(false, Ordering::Relaxed);
        tracing::info!("the store answers again: jobs are claimed");
    }
}

async fn answer(asked: impl Future<Output = Result<()>>) -> Result<()> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(err) => Err(Error::Unavailable { what: "store", source: err.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    fn away() -> Error {
        Error::Unavailable { what: "store", source: "it is away".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_nobody_doubts_is_not_asked() {
        let (circuit, asked) = (Circuit::default(), Cell::new(0));
        let ask = || async {
            asked.set(asked.get() + 1);
            Ok(())
        };
        circuit.closed(ask).await;
        assert_eq!(asked.get(), 0);
        circuit.doubt();
        circuit.closed(ask).await;
        circuit.closed(ask).await;
        assert_eq!(asked.get(), 1, "once for each doubt");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_asked_ever_more_seldom_and_at_least_twice_a_minute() {
        let (circuit, asked) = (Circuit::default(), RefCell::new(Vec::new()));
        circuit.doubt();
        let back_at = Instant::now() + Duration::from_hours(1);
        let ask = || async {
            asked.borrow_mut().push(Instant::now());
            if Instant::now() < back_at { Err(away()) } else { Ok(()) }
        };
        circuit.closed(ask).await;
        assert!(back_at.elapsed() <= LONGEST, "noticed after {:?}", back_at.elapsed());
        let asked = asked.into_inner();
        let pauses: Vec<_> = asked.windows(2).map(|two| two[1].duration_since(two[0])).collect();
        for (pause, most) in pauses.iter().zip([1, 2, 4, 8, 16].into_iter().chain(std::iter::repeat(30))) {
            let most = Duration::from_secs(most);
            // Timers have whole milliseconds.
            assert!(*pause >= most / 2 && *pause <= most + Duration::from_millis(1), "{pause:?} of {most:?}");
        }
        assert!(pauses.iter().any(|pause| *pause != pauses[pauses.len() - 1]), "not all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_silent_is_away() {
        let (circuit, asked) = (Circuit::default(), Cell::new(0));
        circuit.doubt();
        let ask = || async {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        circuit.closed(ask).await;
        assert_eq!(asked.get(), 3);
    }
}
