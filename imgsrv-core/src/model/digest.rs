//! The name of verified bytes, and the hash that is carried from part to part.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};

use super::text::text;

text!(
    /// The SHA-256 (FIPS 180-4) of a blob, in lower-case hexadecimal behind the algorithm's name.
    Digest, "digest", r"^sha256:[0-9a-f]{64}$",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
);

impl Digest {
    /// The 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> &str {
        self.as_ref().trim_start_matches("sha256:")
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        hex::decode_to_slice(self.hex(), &mut bytes).expect("a digest holds 64 hexadecimal digits");
        bytes
    }

    /// The digest of bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// The digest that a hash of 32 bytes stands for.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        format!("sha256:{}", hex::encode(hash)).parse().expect("64 lower-case hexadecimal digits")
    }
}

/// A SHA-256 that can be put down after any byte and taken up again, in another process or on another node.
#[derive(Clone, Debug, Default)]
pub struct HashChain {
    hasher: Sha256,
    offset: u64,
}

impl HashChain {
    /// Major version of the crate whose layout the saved state has; a state of another one is not read, the bytes are.
    const LAYOUT: u8 = 0;
    const LAYOUT_MINOR: u8 = 11;
    const STATE_LEN: usize = 104;
    /// SHA-256 is defined for less than 2^64 bits (FIPS 180-4 §1).
    const OFFSET_MAX: u64 = (1 << 61) - 1;

    /// Hashes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }

    /// How many bytes it has seen.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        Digest::from_sha256(self.hasher.clone().finalize().into())
    }

    /// The state as bytes: layout major and minor, offset (8 bytes, big-endian), the hasher's own 104 bytes.
    pub fn save(&self) -> Vec<u8> {
        let mut saved = vec![Self::LAYOUT, Self::LAYOUT_MINOR];
        saved.extend(self.offset.to_be_bytes());
        saved.extend(self.hasher.serialize());
        saved
    }

    /// Takes up a saved state; `None` where its layout is not this crate's or it is damaged: then hash the bytes again.
    pub fn load(saved: &[u8]) -> Option<Self> {
        let (head, state) = saved.split_at_checked(10)?;
        if head[..2] != [Self::LAYOUT, Self::LAYOUT_MINOR] || state.len() != Self::STATE_LEN {
            return None;
        }
        let offset = u64::from_be_bytes(head[2..].try_into().ok()?);
        // The hasher counts for itself: blocks of 64 bytes (little-endian), and how many bytes wait for a whole one.
        let blocks = u64::from_le_bytes(state[32..40].try_into().ok()?);
        let counted = blocks.checked_mul(64)?.checked_add(state[40].into())?;
        if offset != counted || offset > Self::OFFSET_MAX {
            return None;
        }
        let state = SerializedState::<Sha256>::try_from(state).ok()?;
        Some(Self { hasher: Sha256::deserialize(&state).ok()?, offset })
    }
}
