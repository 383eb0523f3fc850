//! The numbered pieces of an upload.

use chrono::{DateTime, Utc};

use super::text::text;
use super::{Digest, InvalidText};

text!(
    /// CRC-64/NVME of a part's bytes and their count: equal bytes have equal etags, on every node and every store.
    Etag, "etag", r"^[0-9a-f]{16}-[0-9]{1,19}$", "ae8b14860a799888-5242880"
);

impl Etag {
    /// The etag of bytes with this CRC-64/NVME and this length.
    pub fn of(crc: u64, size: u64) -> Self {
        format!("{crc:016x}-{size}").parse().expect("sixteen digits, a dash and a number")
    }
}

/// The number of a part, 1 to 10,000 (the limit of S3, whose clients know it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The lowest number.
    pub const MIN: u16 = 1;
    /// The highest number.
    pub const MAX: u16 = 10_000;

    /// The number as stored and shown.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for PartNumber {
    type Error = InvalidText;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u16::try_from(number)
            .ok()
            .filter(|number| (Self::MIN..=Self::MAX).contains(number))
            .map(Self)
            .ok_or(InvalidText::other("part number", "must be from 1 to 10000"))
    }
}

impl std::fmt::Display for PartNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A part that was received whole and stored durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: PartNumber,
    /// Names its bytes; see [`Etag`].
    pub etag: Etag,
    /// Bytes.
    pub size: u64,
    /// The SHA-256 of its bytes, where it is known: the first part, and parts that were sent with a `Content-Digest`.
    pub sha256: Option<Digest>,
    /// When it was stored.
    pub stored_at: DateTime<Utc>,
}

/// A part as the client lists it to complete an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRef {
    /// Its number.
    pub number: PartNumber,
    /// The etag that the part's answer gave, as the client repeats it.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}
