//! The saved state of a hash: what can be taken up again is what was put down, and goes on.

#![no_main]

use imgsrv_core::model::{Digest, HashChain};
use libfuzzer_sys::fuzz_target;

/// Where the layout says how many bytes wait for a whole block.
const FULL: usize = 50;
/// How many bytes SHA-256 is defined for (FIPS 180-4 §1).
const MOST: u64 = (1 << 61) - 1;

fuzz_target!(|data: &[u8]| {
    if let Some(mut chain) = HashChain::load(data) {
        assert_eq!(chain.save()[..=FULL], data[..=FULL]);
        let (offset, digest) = (chain.offset(), chain.digest());
        let again = HashChain::load(&chain.save()).expect("what was saved");
        assert_eq!((again.offset(), &again.digest()), (offset, &digest));
        assert!(offset <= MOST);
        if offset + 100 <= MOST {
            chain.update(&[7; 100]);
            assert_eq!(chain.offset(), offset + 100);
            assert_ne!(chain.digest(), digest);
        }
    }
    let mut chain = HashChain::default();
    chain.update(data);
    let middle = HashChain::load(&chain.save()).expect("what was saved");
    assert_eq!(middle.digest(), Digest::of(data));
});
