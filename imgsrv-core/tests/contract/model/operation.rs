//! What may be asked of an engine, on a handful of names and contents, so that calls meet often.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::TimeDelta;
use imgsrv_core::model::Digest;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fixture::{PART, bytes};

pub(super) const IMAGES: &[&str] = &["debian", "ubuntu"];
pub(super) const VERSIONS: &[&str] = &["1", "2", "3"];
pub(super) const FORMATS: &[&str] = &["iso", "raw"];
pub(super) const NOTES: &[&str] = &["notes", "sums"];
pub(super) const ALIASES: &[&str] = &["latest", "stable"];

/// What is uploaded, in the order of the digests.
pub(super) static CONTENTS: LazyLock<Vec<(Digest, Vec<u8>)>> = LazyLock::new(|| {
    let sizes = [0, 10, 11, 300, 1_000, 5_000, 70_000, PART + 1_000];
    let contents = sizes.into_iter().enumerate().map(|(seed, size)| bytes(seed as u64, size));
    let mut contents: Vec<_> = contents.map(|bytes| (Digest::of(&bytes), bytes)).collect();
    contents.sort();
    contents
});

/// A version of an image.
pub(super) type Place = (&'static str, &'static str);

/// Which of the things that there are of a kind: 0 is the newest. [`State::aim`](super::state::State::aim) makes it the
/// move that made the thing.
pub(super) type Pick = usize;

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Begin {
        content: usize,
        wrong_size: bool,
    },
    Put {
        upload: Pick,
        number: u16,
        cut: Cut,
        other: bool,
        breaks: bool,
    },
    /// `parts` are those of the list, once it is known which upload it is.
    Complete {
        upload: Pick,
        list: List,
        parts: Vec<(u16, Piece)>,
    },
    Abort {
        upload: Pick,
    },
    CreateImage(&'static str),
    DeleteImage(&'static str),
    CreateVersion(Place),
    DeleteDraft(Place),
    AddArtifact(Place, &'static str, usize),
    RemoveArtifact(Place, &'static str),
    AddAttachment(Place, &'static str, &'static str, usize),
    RemoveAttachment(Place, &'static str, &'static str),
    Publish(Place),
    Retry(Place, Pick),
    Abandon(Place, Pick),
    PutAlias(&'static str, Place),
    DeleteAlias(&'static str, &'static str),
    Plan,
    CarryOut {
        plan: Pick,
    },
    Sweep,
    Run,
    Verify(usize),
    Read(usize),
    /// Something happens to the first object of a blob, behind the engine's back.
    Harm(usize, Harm),
    Wait(TimeDelta),
}

/// Which bytes of the content a part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cut {
    Whole,
    Head,
    Tail,
}

/// Bytes that may be a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    pub content: usize,
    pub cut: Cut,
    /// Its last byte is another one.
    pub other: bool,
}

impl Piece {
    pub(super) fn bytes(self) -> Vec<u8> {
        let whole = &CONTENTS[self.content].1;
        let middle = if whole.len() > PART { PART } else { whole.len() / 2 };
        let mut bytes = match self.cut {
            Cut::Whole => whole.clone(),
            Cut::Head => whole[..middle].to_vec(),
            Cut::Tail => whole[middle..].to_vec(),
        };
        if let Some(last) = bytes.last_mut().filter(|_| self.other) {
            *last ^= 1;
        }
        bytes
    }

    pub(super) fn etag(self) -> &'static str {
        &ETAGS[&self].0
    }

    pub(super) fn size(self) -> usize {
        ETAGS[&self].1
    }

    /// The first of the pieces that have these bytes: a content without bytes has but one.
    pub(super) fn known(self) -> Self {
        Self::with_etag(self.content, self.etag()).expect("itself")
    }

    pub(super) fn with_etag(content: usize, etag: &str) -> Option<Self> {
        Self::all().find(|piece| piece.content == content && piece.etag() == etag)
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..CONTENTS.len()).flat_map(|content| {
            [Cut::Whole, Cut::Head, Cut::Tail]
                .into_iter()
                .flat_map(move |cut| [false, true].map(|other| Self { content, cut, other }))
        })
    }
}

/// The etag and the size of every piece.
static ETAGS: LazyLock<BTreeMap<Piece, (String, usize)>> = LazyLock::new(|| {
    let known = Piece::all().map(|piece| {
        let bytes = piece.bytes();
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes);
        (piece, (format!("{crc:016x}-{}", bytes.len()), bytes.len()))
    });
    known.collect()
});

/// What a client lists to complete an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    All,
    First,
    /// All, but one has another etag than the stored one.
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// The object is gone.
    Lost,
    /// A byte of it has changed.
    Rotten,
    /// It is as it was.
    Undone,
}

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// One node does something.
    One(usize, Operation),
    /// Both do something, at once.
    Two(Operation, Operation),
    /// Both do something, and the first is killed after so many microseconds.
    Crash(Operation, Operation, u64),
}

/// Which moves are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    OneAfterAnother,
    TwoAtOnce,
    WithCrashes,
}

/// What operations are about: all there is, or one thing, so that they meet.
#[derive(Clone)]
struct About {
    place: BoxedStrategy<Place>,
    content: BoxedStrategy<usize>,
}

impl About {
    fn all() -> Self {
        Self { place: (select(IMAGES), select(VERSIONS)).boxed(), content: (0..CONTENTS.len()).boxed() }
    }

    fn one(place: Place, content: usize) -> Self {
        Self { place: Just(place).boxed(), content: Just(content).boxed() }
    }

    fn operation(&self) -> BoxedStrategy<Operation> {
        prop_oneof![4 => self.upload(), 5 => self.catalogue(), 3 => self.tidying()].boxed()
    }

    fn upload(&self) -> BoxedStrategy<Operation> {
        use Operation::{Abort, Begin, Complete, Put};
        let cut = prop_oneof![3 => Just(Cut::Whole), 1 => Just(Cut::Head), 1 => Just(Cut::Tail)];
        let list = prop_oneof![8 => Just(List::All), 1 => Just(List::First), 1 => Just(List::Stale)];
        let rarely = || prop::bool::weighted(0.08);
        prop_oneof![
            4 => (self.content.clone(), rarely()).prop_map(|(content, wrong_size)| Begin { content, wrong_size }),
            5 => (pick(), 1..=3_u16, cut, rarely(), rarely())
                .prop_map(|(upload, number, cut, other, breaks)| Put { upload, number, cut, other, breaks }),
            4 => (pick(), list).prop_map(|(upload, list)| Complete { upload, list, parts: Vec::new() }),
            1 => pick().prop_map(|upload| Abort { upload }),
        ]
        .boxed()
    }

    fn catalogue(&self) -> BoxedStrategy<Operation> {
        use Operation::*;
        let (place, content) = (|| self.place.clone(), || self.content.clone());
        let (format, name, alias) = (|| select(FORMATS), || select(NOTES), || select(ALIASES));
        prop_oneof![
            1 => place().prop_map(|place| CreateImage(place.0)),
            1 => place().prop_map(|place| DeleteImage(place.0)),
            2 => place().prop_map(CreateVersion),
            2 => place().prop_map(DeleteDraft),
            4 => (place(), format(), content()).prop_map(|(place, format, content)| AddArtifact(place, format, content)),
            2 => (place(), format()).prop_map(|(place, format)| RemoveArtifact(place, format)),
            3 => (place(), format(), name(), content())
                .prop_map(|(place, format, name, content)| AddAttachment(place, format, name, content)),
            2 => (place(), format(), name()).prop_map(|(place, format, name)| RemoveAttachment(place, format, name)),
            2 => place().prop_map(Publish),
            1 => (place(), pick()).prop_map(|(place, job)| Retry(place, job)),
            1 => (place(), pick()).prop_map(|(place, job)| Abandon(place, job)),
            1 => (alias(), place()).prop_map(|(alias, place)| PutAlias(alias, place)),
            1 => (place(), alias()).prop_map(|(place, alias)| DeleteAlias(place.0, alias)),
        ]
        .boxed()
    }

    fn tidying(&self) -> BoxedStrategy<Operation> {
        use Operation::{CarryOut, Plan, Run, Sweep, Verify};
        prop_oneof![
            2 => Just(Plan),
            3 => pick().prop_map(|plan| CarryOut { plan }),
            1 => Just(Sweep),
            3 => Just(Run),
            1 => self.content.clone().prop_map(Verify),
        ]
        .boxed()
    }
}

/// Mostly the newest.
fn pick() -> impl Strategy<Value = Pick> + Clone {
    prop_oneof![3 => Just(0_usize), 2 => 0..6_usize]
}

fn wait() -> impl Strategy<Value = Operation> {
    let times = [
        TimeDelta::seconds(7),
        TimeDelta::seconds(61),
        TimeDelta::hours(3),
        TimeDelta::hours(25),
        TimeDelta::hours(24 * 7) + TimeDelta::seconds(1),
        TimeDelta::days(16),
    ];
    select(times.to_vec()).prop_map(Operation::Wait)
}

/// What only happens while nothing else does.
fn harm() -> impl Strategy<Value = Operation> {
    let harm = prop_oneof![2 => Just(Harm::Lost), 2 => Just(Harm::Rotten), 3 => Just(Harm::Undone)];
    prop_oneof![
        (About::all().content, harm).prop_map(|(content, harm)| Operation::Harm(content, harm)),
        About::all().content.prop_map(Operation::Read),
    ]
}

fn deliver(content: usize, in_two: bool) -> Vec<Operation> {
    let put = |number, cut| Operation::Put { upload: 0, number, cut, other: false, breaks: false };
    let mut story = vec![Operation::Begin { content, wrong_size: false }];
    if in_two {
        story.extend([put(2, Cut::Tail), put(1, Cut::Head)]);
    } else {
        story.push(put(1, Cut::Whole));
    }
    story.push(Operation::Complete { upload: 0, list: List::All, parts: Vec::new() });
    story
}

/// What belongs together, so that something comes of it.
fn story() -> impl Strategy<Value = Vec<Operation>> {
    use Operation::*;
    let About { place, content } = About::all();
    let draft = |place: Place, format, content| {
        vec![CreateImage(place.0), CreateVersion(place), AddArtifact(place, format, content)]
    };
    prop_oneof![
        4 => (content.clone(), prop::bool::weighted(0.1)).prop_map(|(content, in_two)| deliver(content, in_two)),
        2 => (place.clone(), select(FORMATS), content.clone())
            .prop_map(move |(place, format, content)| draft(place, format, content)),
        1 => (place.clone(), select(FORMATS), content).prop_map(move |(place, format, content)| {
            [deliver(content, false), draft(place, format, content), vec![Publish(place), Run]].concat()
        }),
        1 => place.prop_map(|place| vec![Publish(place), Run]),
    ]
}

/// A blob whose time has come, up to the moment that decides.
fn last_moment(content: usize, is_condemned: bool) -> Vec<Operation> {
    use Operation::{CarryOut, Plan, Wait};
    let mut story = [deliver(content, false), vec![Wait(TimeDelta::days(8)), Plan]].concat();
    if is_condemned {
        story.extend([CarryOut { plan: 0 }, Wait(TimeDelta::hours(25)), Plan]);
    }
    story
}

/// Two operations that meet, where they may.
fn meeting(kind: Kind) -> BoxedStrategy<fn(Operation, Operation, u64) -> Vec<Move>> {
    type Meet = fn(Operation, Operation, u64) -> Vec<Move>;
    let apart: Meet = |one, other, _| vec![Move::One(0, one), Move::One(1, other)];
    let at_once: Meet = |one, other, _| vec![Move::Two(one, other)];
    let crash: Meet = |one, other, after| vec![Move::Crash(one, other, after)];
    match kind {
        Kind::OneAfterAnother => Just(apart).boxed(),
        Kind::TwoAtOnce => Just(at_once).boxed(),
        Kind::WithCrashes => prop_oneof![1 => Just(at_once), 2 => Just(crash)].boxed(),
    }
}

/// Moves: single ones and short stories, so that shrinking takes away what does not matter.
pub(super) fn moves(kind: Kind) -> BoxedStrategy<Vec<Move>> {
    let alone = |operations: Vec<Operation>, nodes: u8| -> Vec<Move> {
        let at = |(place, operation)| Move::One(usize::from(nodes >> (place & 7) & 1), operation);
        operations.into_iter().enumerate().map(at).collect()
    };
    let single = prop_oneof![8 => About::all().operation(), 1 => wait().boxed(), 1 => harm().boxed()];
    let about = || (About::all().place, About::all().content);
    // Most operations take a millisecond or a few.
    let after = || prop_oneof![2 => 0..1_500_u64, 1 => 0..12_000_u64];
    let met = about().prop_flat_map(|(place, content)| {
        let about = About::one(place, content);
        (about.operation(), about.operation())
    });
    let met = (met, meeting(kind), after()).prop_map(|((one, other), meet, after)| meet(one, other, after));
    let met_last = about().prop_flat_map(|(place, content)| {
        let about = About::one(place, content);
        let rival = prop_oneof![
            2 => Just(Operation::Begin { content, wrong_size: false }).boxed(),
            2 => select(FORMATS).prop_map(move |format| Operation::AddArtifact(place, format, content)).boxed(),
            1 => Just(Operation::Publish(place)).boxed(),
            1 => Just(Operation::CarryOut { plan: 0 }).boxed(),
            1 => about.operation(),
        ];
        (Just(content), any::<bool>(), rival, any::<bool>())
    });
    let met_last = (met_last, meeting(kind), after(), any::<u8>()).prop_map(
        move |((content, is_condemned, rival, is_first), meet, after, nodes)| {
            let collector = Operation::CarryOut { plan: 0 };
            let (one, other) = if is_first { (rival, collector) } else { (collector, rival) };
            [alone(last_moment(content, is_condemned), nodes), meet(one, other, after)].concat()
        },
    );
    let chunk = prop_oneof![
        20 => (single, any::<u8>()).prop_map(move |(operation, nodes)| alone(vec![operation], nodes)),
        7 => (story(), any::<u8>()).prop_map(move |(story, nodes)| alone(story, nodes)),
        8 => met,
        2 => met_last,
    ];
    vec(chunk, 20..=120).prop_map(|chunks| chunks.concat()).boxed()
}
