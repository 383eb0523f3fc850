//! Lists that are read piece by piece.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::text::text;
use crate::Error;

text!(
    /// Where the next page begins. Opaque to clients: only what a server gave as `next_cursor` is of use.
    Cursor, "cursor", r"^[A-Za-z0-9_-]{1,1024}$", "WyJkZWJpYW4tMTMiXQ"
);

impl Cursor {
    /// A cursor behind a row with these sort keys.
    ///
    /// # Panics
    /// When the keys together are longer than about 700 bytes.
    pub fn behind(keys: &[&str]) -> Self {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(keys).expect("texts serialise"));
        Self::try_from(text).expect("base64 without padding of a few short keys")
    }

    /// The sort keys of the row that it stands behind, when there are `N`.
    pub fn keys<const N: usize>(&self) -> Option<[String; N]> {
        let json = URL_SAFE_NO_PAD.decode(self.as_ref()).ok()?;
        serde_json::from_slice::<Vec<String>>(&json).ok()?.try_into().ok()
    }
}

/// Which piece of a list to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    limit: u64,
    after: Option<Cursor>,
}

impl Page {
    /// The page size of a client that pages without saying how.
    pub const DEFAULT: u64 = 100;
    /// The largest page that a client may ask for.
    pub const MAX: u64 = 1_000;
    /// How much a client gets that does not page.
    pub const WHOLE: u64 = 10_000;

    /// The page of `limit` rows (1 to [`Page::MAX`]) behind `after`; `None` when the limit is out of range.
    ///
    /// A client that gives neither gets up to [`Page::WHOLE`] rows, as clients that know nothing of paging expect.
    pub fn new(limit: Option<i64>, after: Option<Cursor>) -> Option<Self> {
        let limit = match (limit, &after) {
            (None, None) => Self::WHOLE,
            (None, Some(_)) => Self::DEFAULT,
            (Some(limit), _) => u64::try_from(limit).ok().filter(|limit| (1..=Self::MAX).contains(limit))?,
        };
        Some(Self { limit, after })
    }

    /// A cursor that no answer of this list gave.
    pub fn bad_cursor() -> Error {
        Error::Invalid { what: "cursor", reason: "is not one that this list gave as next_cursor".to_owned() }
    }

    /// How many rows the page holds.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Where the page begins; `None` at the start of the list.
    pub fn after(&self) -> Option<&Cursor> {
        self.after.as_ref()
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: Self::WHOLE, after: None }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

impl<T> Paged<T> {
    /// A page from rows of which one more than the page holds was read, if there was one more.
    ///
    /// # Panics
    /// Never: a page holds at least one row.
    pub fn from_rows(mut rows: Vec<T>, page: &Page, cursor: impl FnOnce(&T) -> Cursor) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let next = (rows.len() > limit).then(|| {
            rows.truncate(limit);
            cursor(rows.last().expect("a limit of at least one"))
        });
        Self { items: rows, next }
    }

    /// The same page of something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}
