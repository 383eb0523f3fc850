//! The plain model: what parses, which states lead where, what can be put down and taken up again.

#![allow(
    clippy::pedantic,
    clippy::style,
    clippy::complexity,
    clippy::unwrap_used,
    reason = "a test is read, not called"
)]

use std::fmt::Write;

use imgsrv_core::model::{
    Actor, AliasName, Architecture, Artifact, ArtifactEntry, ArtifactId, Attachment, AttachmentName, BlobRef,
    BlobState, Cursor, Digest, Etag, FileName, Format, HashChain, ImageName, InvalidText, JobKind, JobOutcome,
    JobState, MediaType, NameInDirectory, OperatingSystem, Page, PartNumber, Prose, Reference, StepState, Subject,
    Text, UploadEvent, UploadState, Variant, VersionEvent, VersionName, VersionState, has_nul, incus,
};
use proptest::prelude::*;
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Whatever follows the rule parses, and prints as what was parsed; so does every other text that parses.
fn round_trip<T: Text + PartialEq + Serialize + DeserializeOwned>() {
    let check = |text: &str, valid: bool| {
        let Ok(value) = text.parse::<T>() else {
            assert!(!valid, "{} refuses {text:?}", T::NAME);
            return;
        };
        assert_eq!(value.to_string(), text);
        assert_eq!(value.as_ref(), text);
        assert_eq!(value.to_string().parse::<T>().expect("what was printed"), value);
        let json = serde_json::to_string(&value).expect("JSON");
        assert_eq!(json, serde_json::to_string(text).expect("JSON"));
        assert_eq!(serde_json::from_str::<T>(&json).expect("what was written"), value);
    };
    check(T::EXAMPLE, true);
    for word in T::WORDS {
        check(word, true);
    }
    let rule = T::PATTERN.strip_prefix('^').and_then(|rule| rule.strip_suffix('$')).expect("a whole text");
    // Shorter texts follow the rules too, and are made faster.
    let rule = string_regex(&rule.replace("4000", "30").replace("1024", "60")).expect("a rule");
    let mut runner = TestRunner::new(ProptestConfig { cases: 50, failure_persistence: None, ..Default::default() });
    // The rule of a list of words is for people: its dots are not escaped.
    let valid = T::WORDS.is_empty();
    runner.run(&rule, |text| Ok(check(&text, valid))).expect("whatever follows the rule");
    runner.run(&any::<String>(), |text| Ok(check(&text, false))).expect("any text");
    let wrong = serde_json::from_str::<T>(r#""\u0000""#).err().expect("JSON is checked too");
    assert!(wrong.to_string().contains(T::WHAT), "{wrong}");
}

#[test]
fn what_is_parsed_prints_as_it_was() {
    round_trip::<ImageName>();
    round_trip::<VersionName>();
    round_trip::<Reference>();
    round_trip::<NameInDirectory>();
    round_trip::<AliasName>();
    round_trip::<Variant>();
    round_trip::<OperatingSystem>();
    round_trip::<Architecture>();
    round_trip::<AttachmentName>();
    round_trip::<MediaType>();
    round_trip::<FileName>();
    round_trip::<Prose>();
    round_trip::<Digest>();
    round_trip::<Etag>();
    round_trip::<Actor>();
    round_trip::<Cursor>();
}

#[test]
fn every_word_prints_as_it_was() {
    round_trip::<Format>();
    round_trip::<UploadState>();
    round_trip::<VersionState>();
    round_trip::<BlobState>();
    round_trip::<JobKind>();
    round_trip::<JobOutcome>();
    round_trip::<JobState>();
    round_trip::<StepState>();
    round_trip::<Subject>();
    assert!("rawxgz".parse::<Format>().is_err(), "a word is no regular expression");
}

fn refuses<T: Text>(texts: &[&str]) {
    for text in texts {
        let refused = text.parse::<T>().expect_err(text);
        assert_eq!(refused, InvalidText::of::<T>());
        assert!(refused.to_string().starts_with(T::WHAT));
    }
}

fn takes<T: Text>(texts: &[&str]) {
    for text in texts {
        assert!(text.parse::<T>().is_ok(), "{} takes {text:?}", T::NAME);
    }
}

#[test]
fn names_are_no_paths() {
    fn name<T: Text>(longest: usize) {
        refuses::<T>(&["", " ", ".", "..", "../a", "a/b", "/", "a/", "a\\b", "%", "a%2fb", "a b", " a", "a ", "a\n"]);
        refuses::<T>(&["\n", "\0", "a\0", "ä", "aä", "-a", "_a", "+a", ".a", "a~", "a?b", "a#b", "a;b", "a\"b", "а"]);
        refuses::<T>(&[&"a".repeat(longest + 1)]);
        takes::<T>(&["0", "a", "a..b", "a.", "a-b_c.d", &"a".repeat(longest)]);
    }
    name::<ImageName>(128);
    refuses::<ImageName>(&["A", "aB", "a+b", "a:b"]);
    name::<VersionName>(128);
    name::<Reference>(128);
    takes::<VersionName>(&["A", "1+b:C", "2026-11-24T00:00:00"]);
    name::<AliasName>(64);
    refuses::<AliasName>(&["a+b", "a:b"]);
    name::<Variant>(64);
    name::<OperatingSystem>(64);
    name::<Architecture>(64);
    name::<AttachmentName>(64);
    takes::<AttachmentName>(&["incus.tar.xz", "A+b"]);
}

#[test]
fn other_texts() {
    refuses::<MediaType>(&["", " ", "a", "a/", "/b", "a/b/c", " a/b", "a/b ", "a/b\n", "a/b;", "a/b;c", "a/b\r\nX: y"]);
    takes::<MediaType>(&["a/b", "text/plain; charset=utf-8", "application/vnd.x+json;v=1", "a/b; c=\"d; e\"; f=g%h"]);
    refuses::<MediaType>(&["a/b; c=\"", "a/b; c=\"\\\"", "a/b; c=\"\u{7f}\"", "a/b; c=\"d\"e"]);
    refuses::<FileName>(&["", " ", "a/b", "/", "a\\b", "a ", "a\n", "a\tb", "\u{7f}", ".", "..", ". ", "./", "a/.."]);
    refuses::<FileName>(&["a\u{85}", "a\u{feff}", "a\u{a0}"]);
    refuses::<FileName>(&[&"a".repeat(256)]);
    takes::<FileName>(&["a", "my disk (1).qcow2", "50%", "ä.img", " a", ".a", "a.", "ä.", " .", "...", "..a", "a.."]);
    takes::<FileName>(&[&"a".repeat(255), &".".repeat(255)]);
    refuses::<Prose>(&["", " ", "\n\t ", "\u{85}", "\u{feff}", "a\0", "\u{1b}[31m", "a\u{7f}"]);
    takes::<Prose>(&["a", "a\nb\tc", " ä 你好", &"ä".repeat(8000)]);
    refuses::<Prose>(&[&"ä".repeat(8001), &" ".repeat(8000)]);
    let hex = "0".repeat(64);
    refuses::<Digest>(&[&hex, &format!("sha256:{}", &hex[1..]), &format!("SHA256:{hex}"), &format!("sha512:{hex}")]);
    refuses::<Digest>(&[&format!("sha256:{hex}0"), &format!("sha256:{}A", &hex[1..]), &format!("sha256:{hex}\n")]);
    refuses::<Actor>(&["", " ", "a b", "a\nb"]);
    refuses::<Cursor>(&["", "=", "a b", "a/b", &"a".repeat(1025)]);
    for (number, valid) in [(i64::MIN, false), (-1, false), (0, false), (1, true), (10_000, true), (10_001, false)] {
        assert_eq!(PartNumber::try_from(number).is_ok(), valid, "{number}");
    }
    assert!(PartNumber::try_from(65_537).is_err());
}

#[test]
fn every_event_of_an_upload() {
    let mut table = String::new();
    for state in UploadState::ALL {
        for event in UploadEvent::ALL {
            let after = state.after(*event).map_or_else(|refused| format!("({refused})"), |after| after.to_string());
            writeln!(table, "{:<10} {:<14} {after}", state.word(), format!("{event:?}")).expect("a text");
        }
        assert_eq!(state.is_terminal(), UploadEvent::ALL.iter().all(|event| state.after(*event).is_err()));
    }
    insta::assert_snapshot!(table, @r"
    created    PartStored     uploading
    created    Listed         (upload is created)
    created    IngestStarted  (upload is created)
    created    Verified       (upload is created)
    created    Mismatched     (upload is created)
    created    GivenUp        aborted
    uploading  PartStored     uploading
    uploading  Listed         completed
    uploading  IngestStarted  (upload is uploading)
    uploading  Verified       ready
    uploading  Mismatched     failed
    uploading  GivenUp        aborted
    completed  PartStored     (upload is completed)
    completed  Listed         (upload is completed)
    completed  IngestStarted  ingesting
    completed  Verified       ready
    completed  Mismatched     failed
    completed  GivenUp        (upload is completed)
    ingesting  PartStored     (upload is ingesting)
    ingesting  Listed         (upload is ingesting)
    ingesting  IngestStarted  ingesting
    ingesting  Verified       ready
    ingesting  Mismatched     failed
    ingesting  GivenUp        (upload is ingesting)
    ready      PartStored     (upload is ready)
    ready      Listed         (upload is ready)
    ready      IngestStarted  (upload is ready)
    ready      Verified       (upload is ready)
    ready      Mismatched     (upload is ready)
    ready      GivenUp        (upload is ready)
    failed     PartStored     (upload is failed)
    failed     Listed         (upload is failed)
    failed     IngestStarted  (upload is failed)
    failed     Verified       (upload is failed)
    failed     Mismatched     (upload is failed)
    failed     GivenUp        (upload is failed)
    aborted    PartStored     (upload is aborted)
    aborted    Listed         (upload is aborted)
    aborted    IngestStarted  (upload is aborted)
    aborted    Verified       (upload is aborted)
    aborted    Mismatched     (upload is aborted)
    aborted    GivenUp        (upload is aborted)
    ");
}

#[test]
fn every_event_of_a_version() {
    let mut table = String::new();
    for state in VersionState::ALL {
        for event in VersionEvent::ALL {
            let after = state.after(*event).map_or_else(|refused| format!("({refused})"), |after| after.to_string());
            writeln!(table, "{:<10} {:<16} {after}", state.word(), format!("{event:?}")).expect("a text");
        }
    }
    insta::assert_snapshot!(table, @r"
    draft      Edited           draft
    draft      PublishRequested publishing
    draft      Published        (version is draft)
    draft      Abandoned        (version is draft)
    publishing Edited           (version is publishing)
    publishing PublishRequested (version is publishing)
    publishing Published        published
    publishing Abandoned        draft
    published  Edited           (version is published)
    published  PublishRequested (version is published)
    published  Published        (version is published)
    published  Abandoned        (version is published)
    ");
}

#[test]
fn what_citing_takes_for_there() {
    assert_eq!(BlobState::CITABLE, [BlobState::Live, BlobState::Condemned]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hash_goes_on_where_it_was_put_down(bytes in prop::collection::vec(any::<u8>(), 0..500), cut in 0_usize..500) {
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let mut chain = HashChain::default();
        chain.update(head);
        let saved = chain.save();
        let mut chain = HashChain::load(&saved).expect("what was saved");
        prop_assert_eq!(chain.offset(), head.len() as u64);
        prop_assert_eq!(&chain.save(), &saved);
        prop_assert_eq!(chain.digest(), Digest::of(head));
        chain.update(tail);
        prop_assert_eq!(chain.digest(), Digest::of(&bytes));
        prop_assert_eq!(chain.offset(), bytes.len() as u64);
    }

    #[test]
    fn a_damaged_state_is_not_taken_up(length in 0_usize..500, damage in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut chain = HashChain::default();
        chain.update(&vec![7; length]);
        let saved = chain.save();
        prop_assert_eq!(saved.len(), 114);
        for end in 0..saved.len() {
            prop_assert!(HashChain::load(&saved[..end]).is_none());
        }
        prop_assert!(HashChain::load(&[&saved[..], &[0]].concat()).is_none());
        for (at, value) in [(0, saved[0] + 1), (1, saved[1] + 1), (50, 64), (50, 255)] {
            let mut damaged = saved.clone();
            damaged[at] = value;
            prop_assert!(HashChain::load(&damaged).is_none(), "byte {} is {}", at, value);
        }
        // Layout 2 bytes, offset 8, state 32, blocks 8; then how full the buffer is. The offset is what they count.
        for (at, value) in (2..10).chain(42..51).flat_map(|at| [(at, saved[at] ^ 1), (at, saved[at] ^ 128)]) {
            let mut damaged = saved.clone();
            damaged[at] = value;
            prop_assert!(HashChain::load(&damaged).is_none(), "byte {} is {}", at, value);
        }
        // Whatever is read never panics.
        drop(HashChain::load(&damage));
    }

    #[test]
    fn a_state_that_counts_more_than_can_be_hashed_is_not_taken_up(bits in 0_u32..64, full in 0_u8..64) {
        let blocks = u64::MAX >> bits;
        let offset = blocks.wrapping_mul(64).wrapping_add(full.into());
        let mut saved = HashChain::default().save();
        saved[2..10].copy_from_slice(&offset.to_be_bytes());
        saved[42..50].copy_from_slice(&blocks.to_le_bytes());
        saved[50] = full;
        let taken_up = HashChain::load(&saved);
        prop_assert_eq!(taken_up.is_some(), blocks < 1 << 55);
        drop(taken_up.map(|chain| chain.digest()));
    }

    #[test]
    fn a_cursor_keeps_its_keys(first in "\\PC{0,60}", second in "\\PC{0,60}") {
        let cursor = Cursor::behind(&[&first, &second]);
        let again: Cursor = cursor.to_string().parse().expect("what was printed");
        prop_assert_eq!(again.keys::<2>(), Some([first, second]));
        prop_assert_eq!(again.keys::<1>(), None);
        prop_assert_eq!(again.keys::<3>(), None);
    }

    #[test]
    fn any_other_cursor_has_no_keys(text in "[A-Za-z0-9_-]{1,40}") {
        let cursor: Cursor = text.parse().expect("a cursor");
        let keys = cursor.keys::<1>();
        prop_assert!(keys.is_none_or(|keys| Cursor::behind(&[&keys[0]]).keys::<1>() == Some(keys)));
    }

    #[test]
    fn digests_are_their_bytes(bytes in any::<[u8; 32]>()) {
        let digest = Digest::from_sha256(bytes);
        prop_assert_eq!(digest.bytes(), bytes);
        prop_assert_eq!(digest.to_string(), format!("sha256:{}", digest.hex()));
    }
}

#[test]
fn a_nul_is_found_wherever_it_hides() {
    assert!(!has_nul(&json!({"b": [1, null, true, "c"]})));
    for value in [json!("\0"), json!(["\0"]), json!({"\0": 1}), json!({"a": [{"b": "x\0"}]})] {
        assert!(has_nul(&value), "{value}");
    }
}

#[test]
fn the_longest_names_fit_into_a_cursor() {
    let longest = "a".repeat(128);
    assert_eq!(Cursor::behind(&[&longest]).keys(), Some([longest]));
}

#[test]
fn pages_have_limits() {
    let limit = |limit, after: bool| {
        let cursor = after.then(|| Cursor::behind(&["a"]));
        Page::new(limit, cursor).map(|page| page.limit())
    };
    assert_eq!((limit(None, false), limit(None, true)), (Some(10_000), Some(100)));
    for (asked, valid) in [(i64::MIN, false), (-1, false), (0, false), (1, true), (1000, true), (1001, false)] {
        let expected = valid.then_some(asked as u64);
        assert_eq!((limit(Some(asked), false), limit(Some(asked), true)), (expected, expected), "{asked}");
    }
    assert_eq!(Page::default(), Page::new(None, None).expect("the whole list"));
}

/// An artifact as `<variant> <operating system> <architecture> <format> [<metadata>]`.
fn entry(number: u128, text: &str) -> ArtifactEntry {
    let mut words = text.split(' ');
    let mut word = || words.next().expect("a word");
    let blob = |bytes: &str| BlobRef {
        digest: Digest::of(bytes.as_bytes()),
        size: 1,
        media_type: "application/octet-stream".parse().expect("a media type"),
    };
    let at = chrono::DateTime::UNIX_EPOCH;
    let id = ArtifactId(uuid::Uuid::from_u128(number));
    let artifact = Artifact {
        id,
        version_id: uuid::Uuid::nil().into(),
        variant: word().parse().expect("a variant"),
        operating_system: word().parse().expect("an operating system"),
        architecture: word().parse().expect("an architecture"),
        format: word().parse().expect("a format"),
        blob: blob(&number.to_string()),
        requirements: [].into(),
        created_at: at,
    };
    let attachment = |name: &str, bytes: &str| Attachment {
        id: uuid::Uuid::nil().into(),
        artifact_id: id,
        name: name.parse().expect("a name"),
        blob: blob(bytes),
        created_at: at,
    };
    let metadata = words.next().map(|bytes| attachment(incus::METADATA, bytes));
    ArtifactEntry { artifact, attachments: [attachment("SBOM", "s")].into_iter().chain(metadata).collect() }
}

#[test]
fn product_keys_collide() {
    let cases: &[(&[&str], &[(u128, u128)])] = &[
        (&[], &[]),
        // One variant and architecture: one root of a kind.
        (&["default linux amd64 qcow2 m", "default linux x86_64 qcow2 m"], &[(0, 1)]),
        (&["default linux amd64 qcow2 m", "default freebsd amd64 qcow2 m"], &[(0, 1)]),
        (&["default linux amd64 qcow2 m", "default linux arm64 qcow2 m"], &[]),
        (&["default linux amd64 qcow2 m", "cloud linux amd64 qcow2 m"], &[]),
        (&["default linux aarch64 qcow2 m", "default linux arm64 qcow2 m"], &[(0, 1)]),
        (&["default linux i686 qcow2 m", "default linux x86_64 qcow2 m"], &[]),
        (&["default linux riscv64 qcow2 m", "default linux x86_64 qcow2 m"], &[]),
        // Several kinds share their metadata.
        (&["default linux amd64 qcow2 m", "default linux amd64 squashfs m", "default linux amd64 root.tar.xz m"], &[]),
        (&["default linux amd64 qcow2 m", "default linux amd64 squashfs n"], &[(0, 1)]),
        (&["default linux amd64 qcow2 m", "default linux amd64 incus_combined.tar.gz"], &[(0, 1)]),
        (&["default linux amd64 incus_combined.tar.gz", "default linux x86_64 incus_combined.tar.gz"], &[(0, 1)]),
        // What Incus cannot use collides with nothing.
        (&["default linux amd64 qcow2", "default linux x86_64 qcow2"], &[]),
        (&["default linux amd64 raw m", "default linux x86_64 raw m"], &[]),
        (&["default linux amd64 qcow2 m", "default linux x86_64 qcow2"], &[]),
        // Each one that came too late is named.
        (
            &["default linux amd64 qcow2 m", "default linux x86_64 qcow2 m", "default bsd amd64 qcow2 m"],
            &[(0, 1), (0, 2)],
        ),
        (
            &["default linux amd64 qcow2 m", "default linux amd64 squashfs n", "default linux x86_64 squashfs m"],
            &[(0, 1), (1, 2)],
        ),
    ];
    for (texts, expected) in cases {
        let entries: Vec<_> = texts.iter().enumerate().map(|(at, text)| entry(at as u128, text)).collect();
        let found: Vec<_> =
            incus::collisions(&entries).iter().map(|(one, two)| (one.0.as_u128(), two.0.as_u128())).collect();
        assert_eq!(found, *expected, "{texts:?}");
    }
}

#[test]
fn what_incus_can_use() {
    let formats = Format::ALL.iter().map(|format| {
        let bare = entry(0, &format!("default linux amd64 {format}"));
        let full = entry(0, &format!("default linux amd64 {format} m"));
        let seen = |entry| {
            let eligible = incus::Eligible::from_entry(entry);
            eligible
                .map_or_else(str::to_owned, |eligible| format!("{:?} {}", eligible.root, eligible.metadata.is_some()))
        };
        format!("{format}: {} | {}\n", seen(&bare), seen(&full))
    });
    insta::assert_snapshot!(formats.collect::<String>(), @r"
    raw: Incus has no use for this format | Incus has no use for this format
    raw.gz: Incus has no use for this format | Incus has no use for this format
    raw.xz: Incus has no use for this format | Incus has no use for this format
    raw.zst: Incus has no use for this format | Incus has no use for this format
    qcow2: there is no attachment incus.tar.xz | Disk true
    iso: Incus has no use for this format | Incus has no use for this format
    vmdk: Incus has no use for this format | Incus has no use for this format
    vhdx: Incus has no use for this format | Incus has no use for this format
    ova: Incus has no use for this format | Incus has no use for this format
    squashfs: there is no attachment incus.tar.xz | Squashfs true
    root.tar.xz: there is no attachment incus.tar.xz | Tar true
    incus_combined.tar.gz: Combined false | Combined false
    ");
}
