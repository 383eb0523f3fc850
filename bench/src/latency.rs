//! How long answers took.

use std::time::Duration;

/// Times of one kind, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl From<Vec<Duration>> for Latencies {
    fn from(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        Self(taken)
    }
}

impl Latencies {
    pub(crate) fn all(parts: Vec<Self>) -> Self {
        parts.into_iter().flat_map(|part| part.0).collect::<Vec<_>>().into()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The least that so many of a thousand did not exceed.
    pub(crate) fn permille(&self, of_thousand: usize) -> Duration {
        self.0.get((self.0.len() * of_thousand / 1000).min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.permille(500)
    }
}

/// The middle one of some measurements.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
