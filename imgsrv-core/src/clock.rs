//! The only source of time and of ids.

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

/// Tells the time and makes ids. Clones share one clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    #[cfg(feature = "testing")]
    Manual(std::sync::Arc<std::sync::Mutex<DateTime<Utc>>>),
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it.
    #[cfg(feature = "testing")]
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(std::sync::Arc::new(std::sync::Mutex::new(start))))
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// On the clock of the machine.
    #[cfg(feature = "testing")]
    pub fn advance(&self, by: chrono::TimeDelta) {
        match &self.0 {
            Source::System => panic!("the clock of the machine does not obey"),
            Source::Manual(now) => *now.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by,
        }
    }

    /// Whether this is the clock of the machine.
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.0, Source::System)
    }

    /// Now, in whole microseconds: the finest that every database keeps.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    pub fn now(&self) -> DateTime<Utc> {
        let now = match &self.0 {
            Source::System => Utc::now(),
            #[cfg(feature = "testing")]
            Source::Manual(now) => *now.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        };
        now.trunc_subsecs(6)
    }

    /// A new id that sorts by time (RFC 9562 §5.7).
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
    pub fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    /// A new id that cannot be guessed: 122 random bits (RFC 9562 §5.4).
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
    pub fn new_secret_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
