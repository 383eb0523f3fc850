//! Reads that many ask for at once, made once for all of them.
//!
//! Nothing is remembered: whoever asks gets what a read found that began after that, so it is never out of date.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot::{self, Sender};
use tracing::Instrument;

use crate::Result;

/// Reads by key. A key is here while a read for it is under way, with those who wait for the next one.
#[derive(Debug)]
pub(crate) struct Together<K, V>(Arc<Mutex<HashMap<K, Vec<Sender<V>>>>>);

/// How something is read: with what is given, for a key.
type Read<C, K, V> = fn(C, K) -> BoxFuture<'static, Result<V>>;

impl<K, V> Default for Together<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Clone for Together<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + 'static> Together<K, V> {
    /// What `read` finds for the key with what it is given, in a read that begins later than this.
    pub(crate) async fn read<C: Clone + Send + 'static>(&self, given: &C, key: K, read: Read<C, K, V>) -> Result<V> {
        let (found, finding) = oneshot::channel();
        let is_first = match self.waiting().entry(key.clone()) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(found);
                false
            }
            Entry::Vacant(nobody) => {
                nobody.insert(vec![found]);
                true
            }
        };
        if is_first {
            let reading = Reading { all: self.clone(), key: key.clone() };
            tokio::spawn(reading.run(given.clone(), read).in_current_span());
        }
        match finding.await {
            Ok(found) => Ok(found),
            // It failed; errors are nobody else's.
            Err(_) => read(given.clone(), key).await,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<K, Vec<Sender<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that reads for a key for as long as somebody waits for it.
struct Reading<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + 'static> {
    all: Together<K, V>,
    key: K,
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + 'static> Reading<K, V> {
    async fn run<C: Clone>(self, given: C, read: Read<C, K, V>) {
        while let Some(waiting) = self.take() {
            // An answer that nobody gets makes all of them ask for themselves.
            if let Ok(found) = read(given.clone(), self.key.clone()).await {
                for one in waiting {
                    one.send(found.clone()).ok();
                }
            }
        }
    }

    /// Who waits now. When nobody does, this is over.
    fn take(&self) -> Option<Vec<Sender<V>>> {
        let mut all = self.all.waiting();
        let waiting = all.get_mut(&self.key).map(std::mem::take).unwrap_or_default();
        if waiting.is_empty() {
            all.remove(&self.key);
            return None;
        }
        Some(waiting)
    }
}

/// Whoever comes after a read that panicked begins another one.
impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + 'static> Drop for Reading<K, V> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.all.waiting().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::Error;

    type Counted = (Arc<AtomicUsize>, Arc<Semaphore>);

    /// Counts its reads, each of which needs a permit.
    fn count((reads, permits): Counted, _: u8) -> BoxFuture<'static, Result<usize>> {
        async move {
            let number = reads.fetch_add(1, Ordering::SeqCst);
            permits.acquire().await.expect("open").forget();
            Ok(number)
        }
        .boxed()
    }

    #[tokio::test]
    async fn those_who_come_during_a_read_share_the_next_one() {
        let (together, counted) = (Together::default(), (Arc::default(), Arc::new(Semaphore::new(0))));
        let (reads, permits): &Counted = &counted;
        let ask = || {
            let (together, counted) = (together.clone(), counted.clone());
            tokio::spawn(async move { together.read(&counted, 1, count).await.expect("a number") })
        };
        let first = ask();
        while reads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| ask()).collect();
        while together.waiting().get(&1).is_none_or(|waiting| waiting.len() < 10) {
            tokio::task::yield_now().await;
        }
        permits.add_permits(2);
        assert_eq!(first.await.expect("an answer"), 0);
        for other in join_all(others).await {
            assert_eq!(other.expect("an answer"), 1, "a read that began later");
        }
        permits.add_permits(1);
        assert_eq!(together.read(&counted, 1, count).await.expect("a number"), 2, "nothing is remembered");
        assert!(together.waiting().is_empty());
    }

    #[tokio::test]
    async fn whoever_meets_an_error_or_a_panic_reads_alone() {
        let together = Together::<u8, ()>::default();
        let failed = together.read(&(), 1, |(), _| async { Err(Error::StorageFull) }.boxed()).await;
        assert!(matches!(failed, Err(Error::StorageFull)));
        let panics_once = |tries: Arc<AtomicUsize>, _| {
            async move {
                assert!(tries.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
                Ok(())
            }
            .boxed()
        };
        let tries = Arc::new(AtomicUsize::new(0));
        together.read(&tries, 1, panics_once).await.expect("the second try");
        together.read(&tries, 1, panics_once).await.expect("another one");
        assert!(together.waiting().is_empty());
    }
}
