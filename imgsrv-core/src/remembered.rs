//! What was read last, in memory, as much of it as has room.

use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};

/// How much of each kind is remembered: bytes; enough for the checksums of images of 100 GiB together.
const ROOM: u64 = 16 << 20;

/// How many small things that may be.
const COUNT: usize = 8192;

/// Something that takes memory.
pub(crate) trait Weigh {
    /// How much, about: bytes.
    fn weight(&self) -> u64;
}

/// The things of a kind that were asked for last.
#[derive(Debug)]
pub(crate) struct Remembered<K, V>(Cache<K, V, ByWeight>);

#[derive(Clone, Debug)]
struct ByWeight;

impl<K, V: Weigh> Weighter<K, V> for ByWeight {
    fn weight(&self, _: &K, value: &V) -> u64 {
        value.weight()
    }
}

impl<K: Eq + Hash, V: Clone + Weigh> Default for Remembered<K, V> {
    fn default() -> Self {
        let options = OptionsBuilder::new()
            // Of a cache in pieces none would have the room for a large thing.
            .shards(1)
            .estimated_items_capacity(COUNT)
            .weight_capacity(ROOM)
            .build()
            .expect("all is said that must be");
        Self(Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }
}

impl<K: Eq + Hash, V: Clone + Weigh> Remembered<K, V> {
    pub(crate) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.0.get(key)
    }

    pub(crate) fn put(&self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(crate) fn forget<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) {
        self.0.remove(key);
    }
}
