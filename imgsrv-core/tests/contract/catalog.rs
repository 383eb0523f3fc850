//! The catalogue: who sees what, what may change, and what is written down about it.

use std::fmt::Debug;

use chrono::TimeDelta;
use imgsrv_core::model::{
    AliasName, ArtifactId, AttachmentId, Cursor, Digest, ImageName, NewImage, Page, Paged, Reference, Scope, Subject,
    UploadFilter, VersionName, VersionState,
};
use imgsrv_core::{Condition, Engine, Error, Resource, Result};

use crate::fixture::{
    Fixture, PART, artifact, attachment, blob_ref, bytes, condition, image, listed, promise, version,
};

crate::behaviours!(
    an_image_is_made_once,
    a_version_is_made_once,
    drafts_are_private,
    an_image_without_a_published_version_does_not_exist,
    what_is_remembered_is_never_old,
    versions_are_newest_first,
    every_list_pages,
    names_are_in_the_order_of_their_bytes,
    cursors_that_no_list_gave,
    an_artifact_is_unique,
    an_attachment_is_unique,
    the_state_comes_before_uniqueness,
    what_is_added_is_what_is_read,
    requirements_are_short_texts,
    members_belong_to_their_version,
    removing_takes_the_attachments_along,
    what_is_published_is_not_edited,
    triggers_guard_what_is_published,
    triggers_guard_what_is_being_published,
    a_draft_is_deleted_with_everything,
    an_image_with_versions_is_not_deleted,
    an_alias_keeps_its_id_when_it_moves,
    an_alias_points_at_what_is_published,
    an_alias_is_deleted,
    a_version_wins_over_an_alias,
    what_the_public_sees_is_counted,
    every_change_is_written_down,
    the_states_of_an_upload_are_written_down,
    an_edit_that_is_refused_leaves_no_event,
);

fn alias(name: &str) -> AliasName {
    name.parse().expect("an alias")
}

fn reference(name: &str) -> Reference {
    name.parse().expect("a reference")
}

fn new_image(name: &str) -> NewImage {
    NewImage { name: image(name), display_name: None, description: None }
}

fn not_found<T: Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
}

fn exists<T: Debug>(result: Result<T>) -> Resource {
    match result {
        Err(Error::AlreadyExists(resource)) => resource,
        other => panic!("expected was that it exists, not {other:?}"),
    }
}

async fn generation(f: &Fixture) -> i64 {
    f.count("select n from catalog_generation").await
}

async fn an_image_is_made_once(f: &Fixture) {
    let new = NewImage {
        name: image("debian"),
        display_name: Some("Debian".parse().expect("a text")),
        description: Some("The universal\noperating system".parse().expect("a text")),
    };
    let made = f.engine.create_image(new.clone()).await.expect("an image");
    assert_eq!((&made.display_name, &made.description), (&new.display_name, &new.description));
    assert_eq!(made.created_at, f.clock.now());
    assert_eq!(f.other.get_image(&new.name, Scope::All).await.expect("the image"), made);
    assert_eq!(exists(f.other.create_image(new).await), Resource::Image(image("debian")));
    not_found(f.engine.get_image(&image("ubuntu"), Scope::All).await);
}

async fn a_version_is_made_once(f: &Fixture) {
    not_found(f.engine.create_version(&image("debian"), &version("1.0")).await);
    f.engine.create_image(new_image("debian")).await.expect("an image");
    let made = f.engine.create_version(&image("debian"), &version("1.0")).await.expect("a draft");
    assert_eq!((made.state, made.published_at), (VersionState::Draft, None));
    let again = f.other.create_version(&image("debian"), &version("1.0")).await;
    assert_eq!(exists(again), Resource::Version(image("debian"), version("1.0")));
    f.engine.create_version(&image("debian"), &version("1.0+a:B_c")).await.expect("another");
    f.engine.create_image(new_image("ubuntu")).await.expect("another image");
    f.engine.create_version(&image("ubuntu"), &version("1.0")).await.expect("a version of another image");
    not_found(f.engine.get_manifest(&image("debian"), &version("3"), Scope::All).await);
}

async fn drafts_are_private(f: &Fixture) {
    f.published(&bytes(1, 10)).await;
    let (image, version) = f.draft_as("debian", "2.0").await;
    let id = f.artifact(&(image.clone(), version.clone()), "raw", &bytes(2, 10)).await;
    let extra = attachment("SBOM", b"");
    let extra = f.engine.add_attachment(&image, &version, id, extra).await.expect("an attachment").id;
    for scope in [Scope::All, Scope::Published] {
        let seen = [
            f.engine.get_manifest(&image, &version, scope).await.map(drop),
            f.engine.list_artifacts(&image, &version, scope, Page::default()).await.map(drop),
            f.engine.get_artifact(&image, &version, id, scope).await.map(drop),
            f.engine.get_attachment(&image, &version, id, extra, scope).await.map(drop),
        ];
        for seen in seen {
            match scope {
                Scope::All => seen.expect("writers see drafts"),
                Scope::Published => not_found(seen),
            }
        }
    }
    not_found(f.engine.resolve(&image, &reference("2.0")).await);
    let list = async |state, scope| {
        let listed = f.engine.list_versions(&image, state, scope, Page::default()).await.expect("versions").items;
        listed.into_iter().map(|version| version.version.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(VersionState::Published, Scope::Published).await, ["1.0"]);
    assert_eq!(list(VersionState::Draft, Scope::All).await, ["2.0"]);
    assert_eq!(list(VersionState::Draft, Scope::Published).await, [""; 0], "drafts are not for everybody");
}

async fn an_image_without_a_published_version_does_not_exist(f: &Fixture) {
    let draft = f.draft().await;
    let name = &draft.0;
    let absent = async || {
        not_found(f.engine.get_image(name, Scope::Published).await);
        not_found(f.engine.list_versions(name, VersionState::Published, Scope::Published, Page::default()).await);
        not_found(f.engine.list_aliases(name, Scope::Published, Page::default()).await);
        not_found(f.engine.get_alias(name, &alias("latest"), Scope::Published).await);
        not_found(f.engine.resolve(name, &reference("latest")).await);
        not_found(f.engine.resolve(name, &reference("1.0")).await);
        assert!(f.engine.list_images(Scope::Published, Page::default()).await.expect("images").items.is_empty());
        assert_eq!(f.engine.list_images(Scope::All, Page::default()).await.expect("images").items.len(), 1);
    };
    absent().await;
    f.artifact(&draft, "raw", &bytes(3, 10)).await;
    f.engine.publish_version(&draft.0, &draft.1).await.expect("a job");
    absent().await;
    f.engine.run_until_idle().await.expect("jobs");
    f.engine.get_image(name, Scope::Published).await.expect("an image");
    assert_eq!(f.engine.list_images(Scope::Published, Page::default()).await.expect("images").items.len(), 1);
    for scope in [Scope::Published, Scope::All] {
        assert!(f.engine.list_aliases(name, scope, Page::default()).await.expect("aliases").items.is_empty());
    }
}

async fn what_is_remembered_is_never_old(f: &Fixture) {
    let (debian, one) = f.published_as("debian", "1.0", &bytes(7, 10)).await;
    let seen = async |engine: &Engine| engine.get_manifest(&debian, &one, Scope::Published).await.expect("a manifest");
    let first = seen(&f.engine).await;
    assert_eq!(seen(&f.engine).await, first);
    assert_eq!(seen(&f.other).await, first);
    f.clock.advance(TimeDelta::seconds(1));
    let two = f.published_as("debian", "2.0", &bytes(8, 10)).await.1;
    let second = seen(&f.other).await;
    assert!(second.image.updated_at > first.image.updated_at);
    assert_eq!((second.version, second.artifacts), (first.version, first.artifacts));
    for (engine, to) in [(&f.engine, &one), (&f.other, &two), (&f.engine, &one)] {
        engine.put_alias(&debian, &alias("latest"), to).await.expect("an alias");
        for engine in [&f.engine, &f.other] {
            let found = engine.resolve(&debian, &reference("latest")).await.expect("a version");
            assert_eq!(found.version, *to);
        }
    }
    let artifact = seen(&f.engine).await.artifacts[0].artifact.id;
    let found = f.engine.get_artifact(&debian, &one, artifact, Scope::Published).await.expect("an artifact");
    assert_eq!(f.other.get_artifact(&debian, &one, artifact, Scope::All).await.expect("an artifact"), found);
    not_found(f.engine.get_artifact(&debian, &two, artifact, Scope::Published).await);
}

async fn versions_are_newest_first(f: &Fixture) {
    let content = bytes(4, 10);
    let mut drafts = Vec::new();
    for number in ["1", "2", "3"] {
        f.clock.advance(TimeDelta::microseconds(10));
        let draft = f.draft_as("debian", number).await;
        f.artifact(&draft, "raw", &content).await;
        drafts.push(draft);
    }
    let list = async |state| {
        let page =
            f.engine.list_versions(&image("debian"), state, Scope::All, Page::default()).await.expect("versions");
        page.items.iter().map(|version| version.version.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(VersionState::Draft).await, ["3", "2", "1"]);
    for at in [1, 2, 0] {
        f.clock.advance(TimeDelta::microseconds(1));
        f.publish(&drafts[at]).await;
    }
    assert_eq!(list(VersionState::Published).await, ["1", "3", "2"], "by publication");
    assert!(list(VersionState::Draft).await.is_empty());
}

/// The list, which the pages of every size are together.
async fn paged<T: PartialEq + Debug>(list: impl AsyncFn(Page) -> Result<Paged<T>>) -> Vec<T> {
    let whole = list(Page::default()).await.expect("the whole list");
    assert!(whole.next.is_none());
    for limit in 1..=whole.items.len() + 1 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = Page::new(Some(limit as i64), after).expect("a page");
            let page = list(page).await.expect("a page");
            assert!(page.items.len() <= limit && !page.items.is_empty());
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, whole.items, "pages of {limit}");
    }
    whole.items
}

async fn pages<T: PartialEq + Debug>(list: impl AsyncFn(Page) -> Result<Paged<T>>) -> usize {
    paged(list).await.len()
}

async fn every_list_pages(f: &Fixture) {
    let content = bytes(5, 10);
    for name in ["debian", "alpine", "a-b", "a.b", "ab", "a_b", "0"] {
        f.engine.create_image(new_image(name)).await.expect("an image");
    }
    assert_eq!(pages(async |page| f.engine.list_images(Scope::All, page).await).await, 7);
    let debian = image("debian");
    // Many at one moment, and moments that are whole seconds or less.
    for number in 0..7 {
        if number % 3 == 0 {
            f.clock.advance(TimeDelta::microseconds([500_000, 1, 499_999][number % 3]));
        }
        f.published_as("debian", &format!("1.{number}"), &content).await;
        f.draft_as("debian", &format!("2.{number}")).await;
        let name = alias(["B", "a", "Z", "b", "A-", "A.", "A_"][number]);
        f.engine.put_alias(&debian, &name, &version("1.0")).await.expect("an alias");
    }
    for state in [VersionState::Published, VersionState::Draft] {
        let list = async |page| f.engine.list_versions(&debian, state, Scope::All, page).await;
        assert_eq!(pages(list).await, 7);
    }
    assert_eq!(pages(async |page| f.engine.list_aliases(&debian, Scope::Published, page).await).await, 7);
    let draft = version("2.0");
    for (index, format) in ["raw", "qcow2", "iso", "vmdk", "ova"].into_iter().enumerate() {
        f.clock.advance(TimeDelta::microseconds([0, 500_000, 1][index % 3]));
        f.engine.add_artifact(&debian, &draft, artifact(format, &content)).await.expect("an artifact");
    }
    let artifacts = f.engine.list_artifacts(&debian, &draft, Scope::All, Page::default()).await.expect("artifacts");
    let formats: Vec<_> = artifacts.items.iter().map(|artifact| artifact.format.word()).collect();
    assert_eq!(formats, ["raw", "qcow2", "iso", "vmdk", "ova"], "in the order in which they were added");
    assert_eq!(pages(async |page| f.engine.list_artifacts(&debian, &draft, Scope::All, page).await).await, 5);
    let list = async |page| f.engine.list_uploads(UploadFilter { page, ..UploadFilter::default() }).await;
    assert_eq!(pages(list).await, 7);
}

async fn names_are_in_the_order_of_their_bytes(f: &Fixture) {
    // A language would have upper and lower case side by side, and punctuation before everything or nowhere.
    let lower = ["0", "10", "2", "a", "a-b", "a-c", "a.b", "a0", "a_b", "ab", "ab-", "abc", "b"];
    let any = ["10", "2", "B", "a", "a-b", "a.b", "aB", "a_b", "ab", "b"];
    assert!(lower.is_sorted() && any.is_sorted());
    for name in lower.iter().rev() {
        f.engine.create_image(new_image(name)).await.expect("an image");
    }
    let images = paged(async |page| f.engine.list_images(Scope::All, page).await).await;
    assert_eq!(images.iter().map(|image| image.name.as_ref()).collect::<Vec<_>>(), lower);

    let (image, version) = f.published_as("debian", "1.0", &bytes(1, 10)).await;
    for name in any.iter().rev() {
        f.engine.put_alias(&image, &alias(name), &version).await.expect("an alias");
    }
    let aliases = paged(async |page| f.engine.list_aliases(&image, Scope::Published, page).await).await;
    assert_eq!(aliases.iter().map(|alias| alias.alias.as_ref()).collect::<Vec<_>>(), any);

    let draft = f.draft_as("debian", "2.0").await;
    let artifact = f.artifact(&draft, "raw", &bytes(1, 10)).await;
    for name in any.iter().rev() {
        let new = attachment(name, b"");
        f.engine.add_attachment(&draft.0, &draft.1, artifact, new).await.expect("an attachment");
    }
    let manifest = f.engine.get_manifest(&draft.0, &draft.1, Scope::All).await.expect("a manifest");
    let attachments = &manifest.artifacts[0].attachments;
    assert_eq!(attachments.iter().map(|attachment| attachment.name.as_ref()).collect::<Vec<_>>(), any);
}

async fn cursors_that_no_list_gave(f: &Fixture) {
    let (debian, one) = f.published(&bytes(6, 10)).await;
    let id = "018f3c1e-7a5b-7e01-8c1d-2f5f3a9c0e11";
    let by_name = [&["\0"][..], &["a", "b"], &[], &["Debian/../x"], &[""]];
    let by_time = [
        &["a"][..],
        &["a", id],
        &["1", "b"],
        &["1"],
        &["", ""],
        &[&i64::MAX.to_string(), id],
        &[&i64::MIN.to_string(), id],
        &["-8000000000000000000", id],
        &["-300000000000000000", id],
        &["8000000000000000000", id],
        &["\0", "\0"],
    ];
    let page = |cursor: Cursor| Page::new(None, Some(cursor)).expect("a page");
    let odd: Vec<Cursor> = ["abcd", "e30", "bnVsbA", "-_-_", "WzFd"].map(|text| text.parse().expect("a cursor")).into();
    let cursors = |keys: &[&[&str]]| -> Vec<Cursor> {
        keys.iter().map(|keys| Cursor::behind(keys)).chain(odd.iter().cloned()).collect()
    };
    let refused = |what: &str, cursor: &Cursor, error: Option<Error>| {
        let refused = matches!(error, Some(Error::Invalid { what: "cursor", .. }));
        assert!(refused, "{what} with the cursor {cursor} ({:?}): {error:?}", cursor.keys::<2>());
    };
    for cursor in cursors(&by_name) {
        refused("images", &cursor, f.engine.list_images(Scope::All, page(cursor.clone())).await.err());
        refused("aliases", &cursor, f.engine.list_aliases(&debian, Scope::Published, page(cursor.clone())).await.err());
    }
    for cursor in cursors(&by_time) {
        let state = VersionState::Published;
        let versions = f.engine.list_versions(&debian, state, Scope::All, page(cursor.clone())).await;
        refused("versions", &cursor, versions.err());
        let artifacts = f.engine.list_artifacts(&debian, &one, Scope::All, page(cursor.clone())).await;
        refused("artifacts", &cursor, artifacts.err());
        let filter = UploadFilter { page: page(cursor.clone()), ..UploadFilter::default() };
        refused("uploads", &cursor, f.engine.list_uploads(filter).await.err());
    }
}

async fn an_artifact_is_unique(f: &Fixture) {
    let (image, version) = f.draft().await;
    let add = async |new| f.engine.add_artifact(&image, &version, new).await;
    add(artifact("raw", b"1")).await.expect("an artifact");
    assert!(matches!(exists(add(artifact("raw", b"2")).await), Resource::ArtifactLike(_)));
    let mut other = artifact("raw", b"1");
    other.variant = "cloud".parse().expect("a variant");
    add(other).await.expect("another variant");
    let mut other = artifact("raw", b"1");
    other.operating_system = "freebsd".parse().expect("an operating system");
    add(other).await.expect("another operating system");
    let mut other = artifact("raw", b"1");
    other.architecture = "arm64".parse().expect("an architecture");
    add(other).await.expect("another architecture");
    add(artifact("raw.gz", b"1")).await.expect("another format");
    let mut huge = artifact("iso", b"1");
    huge.blob.size = u64::MAX;
    assert!(matches!(add(huge).await, Err(Error::Invalid { .. })));
    let draft = f.draft_as("debian", "2.0").await;
    f.engine.add_artifact(&draft.0, &draft.1, artifact("raw", b"1")).await.expect("another version");
    not_found(f.engine.add_artifact(&image, &crate::fixture::version("3"), artifact("raw", b"1")).await);
    assert_eq!(f.engine.get_manifest(&image, &version, Scope::All).await.expect("a manifest").artifacts.len(), 5);
}

async fn an_attachment_is_unique(f: &Fixture) {
    let (image, version) = f.draft().await;
    let id = f.engine.add_artifact(&image, &version, artifact("raw", b"1")).await.expect("an artifact").id;
    let other = f.engine.add_artifact(&image, &version, artifact("iso", b"1")).await.expect("an artifact").id;
    let add = async |id, name: &str| f.engine.add_attachment(&image, &version, id, attachment(name, b"2")).await;
    for name in ["b", "B", "a"] {
        add(id, name).await.expect("an attachment");
    }
    assert_eq!(exists(add(id, "a").await), Resource::AttachmentNamed(id, "a".parse().expect("a name")));
    add(other, "a").await.expect("of another artifact");
    not_found(add(f.clock.new_id().into(), "a").await);
    let entries = f.engine.get_manifest(&image, &version, Scope::All).await.expect("a manifest").artifacts;
    let names: Vec<_> = entries[0].attachments.iter().map(|attachment| attachment.name.to_string()).collect();
    assert_eq!(names, ["B", "a", "b"]);
    assert_eq!(entries[1].attachments.len(), 1);
}

async fn the_state_comes_before_uniqueness(f: &Fixture) {
    let whole = bytes(7, 10);
    let draft = f.draft().await;
    let id = f.artifact(&draft, "raw", &whole).await;
    f.engine.add_attachment(&draft.0, &draft.1, id, attachment("a", &whole)).await.expect("an attachment");
    f.engine.publish_version(&draft.0, &draft.1).await.expect("a job");
    for _ in ["publishing", "published"] {
        let again = f.engine.add_artifact(&draft.0, &draft.1, artifact("raw", &whole)).await;
        assert_eq!(condition(again), Condition::WrongState);
        let again = f.engine.add_attachment(&draft.0, &draft.1, id, attachment("a", &whole)).await;
        assert_eq!(condition(again), Condition::WrongState);
        let unknown = f.engine.add_attachment(&draft.0, &draft.1, f.clock.new_id().into(), attachment("a", b"")).await;
        assert_eq!(condition(unknown), Condition::WrongState);
        f.engine.run_until_idle().await.expect("jobs");
    }
}

async fn what_is_added_is_what_is_read(f: &Fixture) {
    let (image, version) = f.draft().await;
    let mut new = artifact("qcow2", b"1");
    new.blob = blob_ref(&bytes(8, 77));
    new.blob.media_type = "application/x-qemu-disk; version=3".parse().expect("a media type");
    new.requirements =
        [("secureboot", "false"), ("\u{1F600}\"\\", "%2e/../")].map(|(k, v)| (k.into(), v.into())).into();
    let added = f.engine.add_artifact(&image, &version, new.clone()).await.expect("an artifact");
    assert_eq!((&added.blob, &added.requirements), (&new.blob, &new.requirements));
    let attached = f.engine.add_attachment(&image, &version, added.id, attachment("a", b"2")).await.expect("one");
    assert_eq!(f.other.get_artifact(&image, &version, added.id, Scope::All).await.expect("the artifact"), added);
    let read = f.other.get_attachment(&image, &version, added.id, attached.id, Scope::All).await;
    assert_eq!(read.expect("the attachment"), attached);
    let manifest = f.other.get_manifest(&image, &version, Scope::All).await.expect("a manifest");
    assert_eq!((&manifest.image.name, &manifest.version.version), (&image, &version));
    assert_eq!((&manifest.artifacts[0].artifact, &manifest.artifacts[0].attachments[..]), (&added, &[attached][..]));
}

async fn requirements_are_short_texts(f: &Fixture) {
    let (image, version) = f.draft().await;
    let long = "x".repeat(256);
    for (key, value) in [("", "a"), ("a", ""), ("a", " "), ("a\n", "a"), ("a", "a\0"), (&long, "a"), ("a", &long)] {
        let mut new = artifact("raw", b"1");
        new.requirements = [(key.to_owned(), value.to_owned())].into();
        let refused = f.engine.add_artifact(&image, &version, new).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "requirements", .. })), "{key:?} {value:?}: {refused:?}");
    }
}

async fn members_belong_to_their_version(f: &Fixture) {
    let (one, two) = (f.draft().await, f.draft_as("debian", "2.0").await);
    let mine = f.engine.add_artifact(&one.0, &one.1, artifact("raw", b"1")).await.expect("an artifact").id;
    let theirs = f.engine.add_artifact(&two.0, &two.1, artifact("raw", b"1")).await.expect("an artifact").id;
    let attached = f.engine.add_attachment(&one.0, &one.1, mine, attachment("a", b"")).await.expect("one").id;
    not_found(f.engine.get_artifact(&two.0, &two.1, mine, Scope::All).await);
    not_found(f.engine.remove_artifact(&two.0, &two.1, mine).await);
    not_found(f.engine.add_attachment(&two.0, &two.1, mine, attachment("b", b"")).await);
    not_found(f.engine.get_attachment(&two.0, &two.1, theirs, attached, Scope::All).await);
    not_found(f.engine.get_attachment(&two.0, &two.1, mine, attached, Scope::All).await);
    not_found(f.engine.remove_attachment(&two.0, &two.1, theirs, attached).await);
    not_found(f.engine.remove_attachment(&two.0, &two.1, mine, attached).await);
    f.engine.get_attachment(&one.0, &one.1, mine, attached, Scope::All).await.expect("it is still there");
}

async fn removing_takes_the_attachments_along(f: &Fixture) {
    let (image, version) = f.draft().await;
    let id = f.engine.add_artifact(&image, &version, artifact("raw", b"1")).await.expect("an artifact").id;
    let add = async |name| f.engine.add_attachment(&image, &version, id, attachment(name, b"")).await;
    let (a, b) = (add("a").await.expect("one").id, add("b").await.expect("one").id);
    f.engine.remove_attachment(&image, &version, id, a).await.expect("one less");
    not_found(f.engine.remove_attachment(&image, &version, id, a).await);
    not_found(f.engine.get_attachment(&image, &version, id, a, Scope::All).await);
    f.engine.get_attachment(&image, &version, id, b, Scope::All).await.expect("the other one");
    f.engine.remove_artifact(&image, &version, id).await.expect("one less");
    not_found(f.engine.remove_artifact(&image, &version, id).await);
    assert_eq!(f.count("select count(*) from attachments").await, 0);
    f.engine.add_artifact(&image, &version, artifact("raw", b"2")).await.expect("its key is free again");
}

/// A published version with an attachment, and a draft with one.
async fn published_and_draft(
    f: &Fixture,
) -> ((ImageName, VersionName), ArtifactId, AttachmentId, (ImageName, VersionName)) {
    let whole = bytes(9, 10);
    let one = f.draft().await;
    let id = f.artifact(&one, "raw", &whole).await;
    let attached = f.engine.add_attachment(&one.0, &one.1, id, attachment("a", &whole)).await.expect("one").id;
    assert_eq!(f.publish(&one).await.job.state().word(), "succeeded");
    let two = f.draft_as("debian", "2.0").await;
    let draft = f.artifact(&two, "raw", &whole).await;
    f.engine.add_attachment(&two.0, &two.1, draft, attachment("a", &whole)).await.expect("one");
    (one, id, attached, two)
}

async fn what_is_published_is_not_edited(f: &Fixture) {
    let (one, id, attached, _) = published_and_draft(f).await;
    let before = f.engine.get_manifest(&one.0, &one.1, Scope::Published).await.expect("a manifest");
    f.clock.advance(TimeDelta::seconds(1));
    let refused = [
        f.engine.add_artifact(&one.0, &one.1, artifact("iso", b"1")).await.map(drop),
        f.engine.remove_artifact(&one.0, &one.1, id).await,
        f.engine.add_attachment(&one.0, &one.1, id, attachment("b", b"1")).await.map(drop),
        f.engine.remove_attachment(&one.0, &one.1, id, attached).await,
        f.engine.delete_draft(&one.0, &one.1).await,
    ];
    for refused in refused {
        assert_eq!(condition(refused), Condition::WrongState);
    }
    let mut after = f.engine.get_manifest(&one.0, &one.1, Scope::Published).await.expect("a manifest");
    after.image = before.image.clone();
    assert_eq!(after, before);
}

/// What another program must not do to versions in this state.
async fn triggers_refuse(f: &Fixture, state: &str) {
    let new_id = if f.pair.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    let versions = format!("(select id from versions where state = '{state}')");
    let artifacts = format!("(select id from artifacts where version_id in {versions})");
    let drafts = "(select id from versions where state = 'draft')";
    let draft_artifacts = format!("(select id from artifacts where version_id in {drafts})");
    let copy_artifact = format!(
        "insert into artifacts select {new_id}, (select id from versions where state = '{state}'), 'x', \
         operating_system, architecture, format, blob_digest, blob_size, media_type, requirements, created_at \
         from artifacts limit 1"
    );
    let copy_attachment = format!(
        "insert into attachments select {new_id}, {artifacts}, 'x', blob_digest, blob_size, media_type, created_at \
         from attachments limit 1"
    );
    let sql = [
        copy_artifact,
        copy_attachment,
        format!("update artifacts set format = 'iso' where id in {artifacts}"),
        format!("update artifacts set blob_size = 11 where id in {artifacts}"),
        format!("update artifacts set version_id = {drafts}, variant = 'x' where id in {artifacts}"),
        format!("update artifacts set version_id = {versions}, variant = 'x' where id in {draft_artifacts}"),
        format!("delete from artifacts where id in {artifacts}"),
        format!("update attachments set name = 'b' where artifact_id in {artifacts}"),
        format!("update attachments set artifact_id = {artifacts}, name = 'c' where artifact_id in {draft_artifacts}"),
        format!("update attachments set artifact_id = {draft_artifacts}, name = 'c' where artifact_id in {artifacts}"),
        format!("delete from attachments where artifact_id in {artifacts}"),
        format!(
            "insert into aliases (id, image_id, alias, version_id, created_at, updated_at) \
             select {new_id}, image_id, 'x', id, created_at, updated_at from versions where id in {drafts}"
        ),
    ];
    for sql in sql {
        let refused = f.sql(&sql).await.expect_err(&sql).to_string();
        assert!(refused.contains("imgsrv: "), "{sql}: {refused}");
    }
}

async fn triggers_guard_what_is_published(f: &Fixture) {
    let (one, ..) = published_and_draft(f).await;
    f.engine.put_alias(&one.0, &alias("latest"), &one.1).await.expect("an alias");
    let before = f.engine.get_manifest(&one.0, &one.1, Scope::Published).await.expect("a manifest");
    triggers_refuse(f, "published").await;
    for sql in [
        "update versions set state = 'draft', published_at = null where state = 'published'",
        "update versions set version = 'x' where state = 'published'",
        "update versions set updated_at = updated_at where state = 'published'",
        "delete from versions where state = 'published'",
        "update aliases set version_id = (select id from versions where state = 'draft')",
        "delete from blobs",
        "update blobs set state = 'deleting'",
        "update blobs set size = size + 1",
    ] {
        let refused = f.sql(sql).await.expect_err(sql).to_string();
        assert!(refused.contains("imgsrv: "), "{sql}: {refused}");
    }
    assert_eq!(f.engine.get_manifest(&one.0, &one.1, Scope::Published).await.expect("a manifest"), before);
    // What is not guarded works: the statements above are refused for what they change, not for how they are written.
    for sql in [
        "update artifacts set format = 'iso' where version_id in (select id from versions where state = 'draft')",
        "update versions set version = 'x' where state = 'draft'",
        "update blobs set state = 'condemned', condemned_at = created_at",
        "update blobs set state = 'live', condemned_at = null",
    ] {
        assert_eq!(f.sql(sql).await.expect(sql), 1);
    }
}

async fn triggers_guard_what_is_being_published(f: &Fixture) {
    let whole = bytes(10, 10);
    for number in ["1.0", "2.0"] {
        let draft = f.draft_as("debian", number).await;
        let id = f.artifact(&draft, "raw", &whole).await;
        f.engine.add_attachment(&draft.0, &draft.1, id, attachment("a", &whole)).await.expect("one");
    }
    f.engine.publish_version(&image("debian"), &version("1.0")).await.expect("a job");
    triggers_refuse(f, "publishing").await;
    f.engine.run_until_idle().await.expect("jobs");
}

async fn a_draft_is_deleted_with_everything(f: &Fixture) {
    let whole = bytes(11, 10);
    let draft = f.draft().await;
    let id = f.artifact(&draft, "raw", &whole).await;
    f.engine.add_attachment(&draft.0, &draft.1, id, attachment("a", &whole)).await.expect("one");
    let job = f.engine.publish_version(&draft.0, &draft.1).await.expect("a job").job.id;
    assert_eq!(condition(f.engine.delete_draft(&draft.0, &draft.1).await), Condition::WrongState);
    let version = f.engine.abandon_job(job).await.expect("abandon").version_id;
    f.engine.delete_draft(&draft.0, &draft.1).await.expect("one less");
    let seen = f.events(Subject::Version, version).await;
    assert_eq!(seen.last().map(String::as_str), Some("system:engine: deleted debian/1.0 [draft → -]"));
    not_found(f.engine.delete_draft(&draft.0, &draft.1).await);
    not_found(f.engine.get_manifest(&draft.0, &draft.1, Scope::All).await);
    not_found(f.engine.get_job(job).await);
    for table in ["versions", "artifacts", "attachments", "publish_steps"] {
        assert_eq!(f.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    let again = f.draft().await;
    f.engine.get_manifest(&again.0, &again.1, Scope::All).await.expect("the name is free again");
}

async fn an_image_with_versions_is_not_deleted(f: &Fixture) {
    let draft = f.draft().await;
    assert_eq!(condition(f.engine.delete_image(&draft.0).await), Condition::NotEmpty);
    f.engine.delete_draft(&draft.0, &draft.1).await.expect("one less");
    let id = f.engine.get_image(&draft.0, Scope::All).await.expect("an image").id;
    f.engine.delete_image(&draft.0).await.expect("one less");
    let seen = f.events(Subject::Image, id).await;
    assert_eq!(seen.last().map(String::as_str), Some("system:engine: deleted debian [- → -]"));
    not_found(f.engine.delete_image(&draft.0).await);
    not_found(f.engine.get_image(&draft.0, Scope::All).await);
    f.published(&bytes(12, 10)).await;
    assert_eq!(condition(f.engine.delete_image(&draft.0).await), Condition::NotEmpty);
}

async fn an_alias_keeps_its_id_when_it_moves(f: &Fixture) {
    let whole = bytes(13, 10);
    let (debian, one) = f.published(&whole).await;
    let (_, two) = f.published_as("debian", "2.0", &whole).await;
    let made = f.engine.put_alias(&debian, &alias("latest"), &one).await.expect("an alias");
    assert_eq!(f.engine.get_alias(&debian, &alias("latest"), Scope::Published).await.expect("the alias"), made);
    f.clock.advance(TimeDelta::seconds(5));
    let moved = f.other.put_alias(&debian, &alias("latest"), &two).await.expect("the alias");
    assert_eq!((moved.id, moved.created_at), (made.id, made.created_at));
    assert_eq!((&moved.version, moved.updated_at), (&two, f.clock.now()));
    assert_eq!(f.engine.get_alias(&debian, &alias("latest"), Scope::Published).await.expect("the alias"), moved);
    assert_eq!(f.engine.resolve(&debian, &reference("latest")).await.expect("a version").version, two);
    f.clock.advance(TimeDelta::seconds(5));
    assert_eq!(f.engine.put_alias(&debian, &alias("latest"), &two).await.expect("the alias"), moved);
    assert_eq!(f.events(Subject::Alias, made.id).await.len(), 2);
    let other = f.engine.put_alias(&debian, &alias("old"), &one).await.expect("another alias");
    assert_ne!(other.id, made.id);
}

async fn an_alias_points_at_what_is_published(f: &Fixture) {
    let (debian, one) = f.published(&bytes(14, 10)).await;
    let draft = f.draft_as("debian", "2.0").await;
    f.draft_as("ubuntu", "3.0").await;
    let put = async |image: &str, to: &str| {
        f.engine.put_alias(&crate::fixture::image(image), &alias("latest"), &version(to)).await
    };
    assert_eq!(condition(put("debian", "2.0").await), Condition::WrongState);
    not_found(put("debian", "3.0").await);
    not_found(put("arch", "1.0").await);
    not_found(put("ubuntu", "1.0").await);
    f.artifact(&draft, "raw", &bytes(14, 10)).await;
    f.engine.publish_version(&draft.0, &draft.1).await.expect("a job");
    assert_eq!(condition(put("debian", "2.0").await), Condition::WrongState, "not yet");
    f.engine.put_alias(&debian, &alias("latest"), &one).await.expect("an alias");
    assert_eq!(condition(put("debian", "2.0").await), Condition::WrongState);
    assert_eq!(f.engine.resolve(&debian, &reference("latest")).await.expect("a version").version, one);
    f.engine.run_until_idle().await.expect("jobs");
    put("debian", "2.0").await.expect("now it is published");
}

async fn an_alias_is_deleted(f: &Fixture) {
    let (debian, one) = f.published(&bytes(15, 10)).await;
    not_found(f.engine.delete_alias(&debian, &alias("latest")).await);
    not_found(f.engine.delete_alias(&image("ubuntu"), &alias("latest")).await);
    let made = f.engine.put_alias(&debian, &alias("latest"), &one).await.expect("an alias");
    f.engine.delete_alias(&debian, &alias("latest")).await.expect("one less");
    not_found(f.engine.get_alias(&debian, &alias("latest"), Scope::Published).await);
    not_found(f.engine.resolve(&debian, &reference("latest")).await);
    let again = f.engine.put_alias(&debian, &alias("latest"), &one).await.expect("an alias");
    assert_ne!(again.id, made.id);
}

async fn a_version_wins_over_an_alias(f: &Fixture) {
    let whole = bytes(16, 10);
    let (debian, one) = f.published(&whole).await;
    f.engine.put_alias(&debian, &alias("2.0"), &one).await.expect("an alias");
    let resolve = async |name| f.engine.resolve(&debian, &reference(name)).await.expect("a version").version;
    assert_eq!(resolve("2.0").await, one);
    let draft = f.draft_as("debian", "2.0").await;
    assert_eq!(resolve("2.0").await, one, "a draft is not yet there");
    f.artifact(&draft, "raw", &whole).await;
    f.publish(&draft).await;
    assert_eq!(resolve("2.0").await, draft.1);
    not_found(f.engine.resolve(&debian, &reference("3.0")).await);
    not_found(f.engine.resolve(&debian, &reference("a+b:c")).await);
}

async fn what_the_public_sees_is_counted(f: &Fixture) {
    let whole = bytes(17, 10);
    let start = generation(f).await;
    let draft = f.draft().await;
    f.artifact(&draft, "raw", &whole).await;
    assert_eq!(generation(f).await, start, "drafts are private");
    f.publish(&draft).await;
    assert_eq!(generation(f).await, start + 1);
    for _ in 0..2 {
        f.engine.put_alias(&draft.0, &alias("latest"), &draft.1).await.expect("an alias");
        assert_eq!(generation(f).await, start + 2, "an alias that points there already does not move");
    }
    let (_, other) = f.published_as("debian", "2.0", &whole).await;
    f.engine.put_alias(&draft.0, &alias("latest"), &other).await.expect("an alias");
    assert_eq!(generation(f).await, start + 4);
    for _ in 0..2 {
        f.engine.delete_alias(&draft.0, &alias("latest")).await.ok();
        assert_eq!(generation(f).await, start + 5);
    }
}

async fn every_change_is_written_down(f: &Fixture) {
    let whole = bytes(18, 10);
    let digest = f.upload(&whole).await;
    let ann = f.engine.acting_as("principal:ann".parse().expect("an actor"));
    let bob = f.other.acting_as("principal:bob".parse().expect("an actor"));
    assert_eq!(ann.actor().as_ref(), "principal:ann");
    let made = ann.create_image(new_image("debian")).await.expect("an image");
    let (debian, one, two) = (image("debian"), version("1.0"), version("2.0"));
    let version = ann.create_version(&debian, &one).await.expect("a draft").id;
    let kept = bob.add_artifact(&debian, &one, artifact("raw", &whole)).await.expect("an artifact").id;
    let gone = bob.add_artifact(&debian, &one, artifact("iso", &whole)).await.expect("an artifact").id;
    let attached = ann.add_attachment(&debian, &one, kept, attachment("a", &whole)).await.expect("one").id;
    let detached = ann.add_attachment(&debian, &one, kept, attachment("b", &whole)).await.expect("one").id;
    ann.remove_attachment(&debian, &one, kept, detached).await.expect("one less");
    ann.remove_artifact(&debian, &one, gone).await.expect("one less");
    let first = bob.publish_version(&debian, &one).await.expect("a job").job.id;
    ann.abandon_job(first).await.expect("abandon");
    bob.publish_version(&debian, &one).await.expect("a job");
    f.engine.run_until_idle().await.expect("jobs");
    f.published_as("debian", "2.0", &whole).await;
    let id = ann.put_alias(&debian, &alias("latest"), &one).await.expect("an alias").id;
    bob.put_alias(&debian, &alias("latest"), &two).await.expect("the alias");
    ann.delete_alias(&debian, &alias("latest")).await.expect("one less");

    assert_eq!(f.events(Subject::Image, made.id).await, ["principal:ann: created debian [- → -]"]);
    assert_eq!(
        f.events(Subject::Version, version).await,
        [
            "principal:ann: created debian/1.0 [- → draft]",
            "principal:bob: publish requested debian/1.0 [draft → publishing]",
            "principal:ann: abandoned debian/1.0 [publishing → draft]",
            "principal:bob: publish requested debian/1.0 [draft → publishing]",
            "system:engine: published debian/1.0 [publishing → published]",
        ]
    );
    let removed = format!("principal:ann: removed debian/1.0 [{digest} → -]");
    let added = format!("principal:bob: added debian/1.0 [- → {digest}]");
    assert_eq!(f.events(Subject::Artifact, kept).await, [&*added]);
    assert_eq!(f.events(Subject::Artifact, gone).await, [&*added, &removed]);
    let added = format!("principal:ann: added debian/1.0 [- → {digest}]");
    assert_eq!(f.events(Subject::Attachment, attached).await, [&*added]);
    assert_eq!(f.events(Subject::Attachment, detached).await, [&*added, &removed]);
    assert_eq!(
        f.events(Subject::Alias, id).await,
        [
            "principal:ann: created debian/latest [- → 1.0]",
            "principal:bob: moved debian/latest [1.0 → 2.0]",
            "principal:ann: deleted debian/latest [2.0 → -]",
        ]
    );
    assert_eq!(f.events(Subject::Job, first).await, ["principal:ann: abandoned [queued → abandoned]"]);
    assert_eq!(f.events(Subject::Blob, &digest).await.len(), 1);
    let newest = f.engine.events(Subject::Version, &version.to_string(), 2).await.expect("events");
    assert_eq!(newest.iter().map(|event| &*event.what).collect::<Vec<_>>(), ["published", "publish requested"]);
}

async fn the_states_of_an_upload_are_written_down(f: &Fixture) {
    let states = async |id| {
        let events = f.events(Subject::Upload, id).await;
        events.iter().map(|event| event.trim_start_matches("system:engine: ").to_owned()).collect::<Vec<_>>()
    };
    let (begun, receiving) = ("begun [- → created]", "receiving [created → uploading]");
    let (completed, ingest) = ("completed [uploading → completed]", "ingest started [completed → ingesting]");
    for (parts, seed) in [([1, 2], 20), ([2, 1], 21), ([2, 1], 22)] {
        let whole = bytes(seed, PART + 10);
        let mut promise = promise(&whole);
        if seed == 22 {
            promise.expected_digest = Digest::of(b"something else");
        }
        let upload = f.engine.begin_upload(promise).await.expect("a session");
        let mut list = Vec::new();
        for at in parts {
            let bytes = if at == 1 { &whole[..PART] } else { &whole[PART..] };
            list.push(listed(&f.part(upload.id, at, bytes).await.expect("a part")));
        }
        assert_eq!(states(upload.id).await, [begun, receiving], "parts have rows of their own");
        f.engine.complete_upload(upload.id, list).await.expect("complete");
        f.engine.run_until_idle().await.expect("jobs");
        let rest: &[_] = match seed {
            20 => &["verified [completed → ready]"],
            21 => &[ingest, "verified [ingesting → ready]"],
            _ => &[ingest, "failed [ingesting → failed]"],
        };
        assert_eq!(states(upload.id).await, [&[begun, receiving, completed], rest].concat());
    }
    let ready = f.begin(&bytes(20, PART + 10)).await;
    assert_eq!(states(ready.id).await, ["begun [- → ready]"]);
    let early = f.begin(&bytes(23, 10)).await;
    f.engine.abort_upload(early.id).await.expect("abort");
    assert_eq!(states(early.id).await, [begun, "aborted [created → aborted]"]);
    let late = f.begin(&bytes(23, 10)).await;
    f.part(late.id, 1, &bytes(23, 10)[..5]).await.expect("a part");
    for _ in 0..2 {
        f.engine.abort_upload(late.id).await.expect("abort");
    }
    assert_eq!(states(late.id).await, [begun, receiving, "aborted [uploading → aborted]"]);
}

async fn an_edit_that_is_refused_leaves_no_event(f: &Fixture) {
    let (debian, one) = f.published(&bytes(19, 10)).await;
    f.draft_as("debian", "2.0").await;
    let events = async || f.count("select count(*) from events").await;
    let before = events().await;
    f.engine.create_image(new_image("debian")).await.expect_err("a duplicate");
    f.engine.create_version(&debian, &one).await.expect_err("a duplicate");
    f.engine.add_artifact(&debian, &one, artifact("iso", b"1")).await.expect_err("no draft");
    f.engine.put_alias(&debian, &alias("x"), &version("2.0")).await.expect_err("a draft");
    f.engine.publish_version(&debian, &version("2.0")).await.expect_err("nothing in it");
    f.engine.publish_version(&debian, &one).await.expect("the job that did it");
    assert_eq!(events().await, before);
}
