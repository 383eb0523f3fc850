//! Credentials that were of no use, by where they came from.
//!
//! This keeps nobody from guessing, which is hopeless at 256 random bits: what is presented is always looked up, because
//! behind a proxy everybody has one address, and a token that is valid must never be refused. It tells clients that go on
//! with a token of no use to slow down, and tells the log of them once instead of leaving it to whoever counts the 401s.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many may come at once: whoever mistypes, and an office behind one address, gets nowhere near it.
const AT_ONCE: u32 = 100;

/// After how long another one may come.
const EACH: Duration = Duration::from_secs(1);

/// How many origins are remembered. To forget one lets it begin anew.
const REMEMBERED: usize = 10_000;

/// How often credentials have failed. Clones share one count.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailedAttempts(Arc<Mutex<HashMap<IpAddr, Bucket>>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When as many may come at once as at first.
    full_at: Instant,
    /// Whether the log has been told that it is empty.
    told: bool,
}

impl FailedAttempts {
    /// Counts one more from this address. The error is for how long there should be none.
    pub(crate) fn count(&self, from: IpAddr) -> Result<(), Duration> {
        let (origin, now) = (origin(from), Instant::now());
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(&origin) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets.entry(origin).or_insert(Bucket { full_at: now, told: false });
        if bucket.full_at <= now {
            *bucket = Bucket { full_at: now, told: false };
        }
        let full_at = bucket.full_at + EACH;
        let too_early = (full_at - now).saturating_sub(AT_ONCE * EACH);
        if too_early.is_zero() {
            bucket.full_at = full_at;
            return Ok(());
        }
        if !std::mem::replace(&mut bucket.told, true) {
            tracing::warn!(address = %origin, "many credentials that are of no use come from one address");
        }
        Err(too_early)
    }
}

/// Makes room for one more: forgets those who may begin anew anyway, and if need be those who soon might.
fn make_room(buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    if buckets.len() < REMEMBERED {
        return;
    }
    buckets.retain(|_, bucket| bucket.full_at > now);
    if buckets.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Instant> = buckets.values().map(|bucket| bucket.full_at).collect();
    let half = times.len() / 2;
    let middle = *times.select_nth_unstable(half).1;
    let mut forgotten = 0;
    // Of those that are the same age some stay: half of them all, no less and no more.
    buckets.retain(|_, bucket| {
        let stays = bucket.full_at > middle || forgotten == half;
        forgotten += usize::from(!stays);
        stays
    });
}

/// One client may have all addresses of a network of IPv6, and one of IPv4 that is written as IPv6.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many come through before one is too many.
    fn come_through(attempts: &FailedAttempts, from: IpAddr) -> usize {
        (0..1000).take_while(|_| attempts.count(from).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_up_comes_back_with_time() {
        let (attempts, from) = (FailedAttempts::default(), ip("192.0.2.1"));
        assert_eq!(come_through(&attempts, from), 100);
        assert_eq!(attempts.count(from), Err(EACH));
        advance(EACH / 2).await;
        assert_eq!(attempts.count(from), Err(EACH / 2), "to be refused costs nothing");
        advance(EACH / 2).await;
        assert_eq!(come_through(&attempts, from), 1);
        advance(EACH * 10).await;
        assert_eq!(come_through(&attempts, from), 10);
        advance(EACH * 10_000).await;
        assert_eq!(come_through(&attempts, from), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn each_network_of_a_client_has_its_own() {
        let attempts = FailedAttempts::default();
        for (first, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::1"),
        ] {
            assert_eq!(come_through(&attempts, ip(first)), 100);
            assert_eq!(come_through(&attempts, ip(same)), 0, "{same}");
            assert_eq!(come_through(&attempts, ip(other)), 100, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_many_addresses_takes_no_more_memory_and_the_worst_is_remembered() {
        let attempts = FailedAttempts::default();
        let worst = ip("192.0.2.1");
        come_through(&attempts, worst);
        for number in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            attempts.count(IpAddr::from((0x0a00_0000 + number).to_be_bytes())).unwrap();
            assert!(attempts.0.lock().unwrap().len() <= REMEMBERED);
        }
        assert!(attempts.count(worst).is_err());
    }
}
